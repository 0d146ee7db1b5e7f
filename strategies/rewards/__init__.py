"""What is merged is paid for: contributions, shares of a pot, settlements. What is public is one room up."""
