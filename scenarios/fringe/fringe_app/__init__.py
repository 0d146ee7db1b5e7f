"""A model that a federation trained, served on three machines while its traffic shrinks, through `flwr run`."""
