"""Training data shared within a cell: collected from the willing, handed to the others. Public is one room up."""
