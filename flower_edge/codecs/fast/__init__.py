"""Kernels compiled by Numba, one module for each in `reference/`. Numba is imported in this room only."""
