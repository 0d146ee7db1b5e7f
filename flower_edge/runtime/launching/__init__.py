"""Starting `flwr run` and ending it: the launcher, the app it starts, environments, processes."""
