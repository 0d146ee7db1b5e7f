"""fe_split_echo: the round trip of a tensor each way, in Flower messages and over the channel. No model computes."""
