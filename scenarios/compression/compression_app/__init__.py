"""Terminals and a server that send codes instead of models, through `flwr run`."""
