"""Four unequal devices and a cloud that share the training of one model, through `flwr run`."""
