"""A model in pieces on the terminals of an edge, or over several edges, as a strategy."""
