"""Tiers over gossiping cells, with coverage, selection, gate, filter, rewards and codecs on in one run."""
