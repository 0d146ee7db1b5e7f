"""fe_tiers_centre: a centre of edges with SuperLinks of their own."""
