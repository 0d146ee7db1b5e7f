"""Kernels in NumPy: what they do, to read; a module of the same name in `fast/` does the same, bit for bit."""
