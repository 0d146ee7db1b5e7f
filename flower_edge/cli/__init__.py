"""The `flower-edge` command. Nothing in the library imports this room."""
