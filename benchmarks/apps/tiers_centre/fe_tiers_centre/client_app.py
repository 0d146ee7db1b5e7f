"""fe_tiers_centre: what runs on an edge host's SuperNode."""

from flower_edge.clients import bridge_app

app = bridge_app()
