"""Pages in a browser, with NiceGUI (`flower-edge[ui]`): the control page of a compression.

Nothing here computes: a page shows what a session tells, and hands on what its user wants.
"""

from .serving import DEFAULT_PORT, ControlPage, serve

__all__ = ["DEFAULT_PORT", "ControlPage", "serve"]
