"""A compression that runs: what is asked for, its machines, its thread, its history, and what is told of it."""
