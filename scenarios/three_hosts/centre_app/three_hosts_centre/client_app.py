"""What runs on an edge host's SuperNode: it hands the centre's messages to the edge's own federation."""

from flower_edge.clients import bridge_app

app = bridge_app()
