"""LGC: an autoencoder for the kept values of gradients, its teacher at the server, and the gate before it."""
