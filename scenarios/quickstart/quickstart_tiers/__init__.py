"""The quickstart: 12 terminals, 3 edges and a centre, through `flwr run`."""
