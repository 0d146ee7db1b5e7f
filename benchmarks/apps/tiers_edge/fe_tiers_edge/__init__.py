"""fe_tiers_edge: an edge with terminals that learn next to nothing, in next to no time, and repeat exactly."""
