"""A model, a strategy and limits for each group of terminals."""
