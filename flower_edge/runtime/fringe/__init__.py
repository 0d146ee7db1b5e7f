"""Serving a pipeline: stage servers that hold one part each, and what deploys, asks and swaps them."""
