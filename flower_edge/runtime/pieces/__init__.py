"""What a strategy and terminals that hold pieces of a model say to each other."""
