"""fe_noop_federation: clients that do nothing, and a server that takes the time. NumPy and Flower only."""
