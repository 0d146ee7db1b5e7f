"""The control page of a compression: what a session tells, drawn; what its user wants, handed on to the session."""

from .serving import DEFAULT_PORT, ControlPage, serve

__all__ = ["DEFAULT_PORT", "ControlPage", "serve"]
