"""flower-edge: the Flower add-on for terminals that move.

Importing this package imports neither Flower nor torch; take what you need from its rooms:
`flower_edge.strategies`, `flower_edge.clients`, `flower_edge.runtime`, `flower_edge.data`, `flower_edge.models`.
"""

__version__ = "0.1.0"
