"""Terminals, edges and a centre: cells, tiers, edge rounds inside cloud rounds, merging."""
