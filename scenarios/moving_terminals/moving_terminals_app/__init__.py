"""50 terminals that move between 5 edges and drop out, through `flwr run`."""
