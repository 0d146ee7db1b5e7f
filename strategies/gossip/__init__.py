"""Gossip: nodes mix with their neighbours; a controller decides over which links. What is public is one room up."""
