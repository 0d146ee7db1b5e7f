"""`Event`: something worth telling about a terminal, an edge or a version, for the run folder and the timeline.

A frozen value. Nothing here decides, and nothing is told by an event that is not also in the numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Event"]


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        what: one word, lower case, by which events are counted: `entered`, `handed-over`, `replaced`, …
        text: a sentence for people.
        node: the terminal's key, as text; empty where it is about none.
        cell: the edge; empty where there is only one federation.
        edge_round: inside the cloud round, from 1; 0 where it is about the whole of it.
        time_s: virtual time; `None` where there is no virtual clock.
        values: numbers and words that belong to it.

    >>> Event("handed-over", "terminal 7 went from edge-0 to edge-1", node="7", cell="edge-1", time_s=12.5).row()
    {'what': 'handed-over', 'text': 'terminal 7 went from edge-0 to edge-1'}
    """

    what: str
    text: str
    node: str = ""
    cell: str = ""
    edge_round: int = 0
    time_s: float | None = None
    values: Mapping[str, int | float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Counted with NumPy, told in plain numbers: anything else could not be written down.
        plain = {name: value.item() if hasattr(value, "item") else value for name, value in self.values.items()}
        object.__setattr__(self, "values", plain)

    def row(self) -> dict[str, int | float | str]:
        """The values of its row in a metrics file."""
        return {**self.values, "what": self.what, "text": self.text}

    def to_json(self) -> str:
        """As text, for a message from an edge to the centre or for a checkpoint.

        >>> Event.from_json(Event("left", "terminal 3 left", values={"steps": 4}).to_json()).values["steps"]
        4
        """
        told = {**vars(self), "values": dict(self.values)}
        told = {name: value for name, value in told.items() if value != "" and value is not None}
        return json.dumps(told)

    @classmethod
    def from_json(cls, text: str) -> Event:
        """Inverse of `to_json`.

        Raises:
            ValueError, TypeError: not the text of an event.
        """
        return cls(**json.loads(text))
