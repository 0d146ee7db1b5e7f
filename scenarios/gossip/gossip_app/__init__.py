"""15 nodes that gossip over links which follow the stragglers, through `flwr run`."""
