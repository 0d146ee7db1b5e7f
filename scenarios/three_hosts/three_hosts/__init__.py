"""Starts a centre, two edges and six terminals as hosts of their own, and ends them."""
