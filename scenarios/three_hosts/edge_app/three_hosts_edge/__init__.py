"""An edge of the three hosts, and its terminals: they gossip, it orders their rounds."""
