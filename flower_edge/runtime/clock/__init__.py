"""Virtual time: devices and links, trips, lanes, and the Grid that keeps it."""
