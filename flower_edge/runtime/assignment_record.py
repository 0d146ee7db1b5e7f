"""The record of a message in which a server stamps an assignment, and of the reply in which a client gives it back."""

from __future__ import annotations

from typing import Final

__all__ = ["ASSIGNMENT_RECORD"]

#: What it holds is `flower_edge.admission.assignment.stamp`.
ASSIGNMENT_RECORD: Final = "flower-edge.assignment"
