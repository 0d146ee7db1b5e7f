"""What a checkpoint keeps of `Pieces`, as plain values and arrays. Nothing here trains or asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flower_edge.errors import ResumeError
from flower_edge.splitting.order import ArchitectureSpec
from flower_edge.splitting.profile import ModelProfile

from ..splitting.prepared import Models, Prepared
from .memory import Memory
from .records import PieceRecords
from .terminals import Roll

__all__ = ["Known"]


@dataclass
class Known:
    """What the server of a run knows between rounds, beside the model; terminals keep nothing.

    Attributes:
        architecture, models: as the strategy was told.
        roll: numbers of terminals.
        records: what rounds were like.
        memory: of chains.
        session: name of the run; empty before its first round.
    """

    architecture: ArchitectureSpec
    models: Models | None
    roll: Roll
    records: PieceRecords = field(default_factory=PieceRecords)
    memory: Memory = field(default_factory=Memory)
    session: str = ""
    _prepared: Prepared | None = None

    def ready(self) -> Prepared:
        """The model, prepared once, and again in a resumed run.

        Raises:
            SplitError: it cannot be built or cut.
        """
        if self._prepared is None:
            self._prepared = Prepared.of(self.architecture, self.models)
        return self._prepared

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint, between two rounds."""
        return {
            "architecture": self.architecture.model_dump_json(),
            "profile": "" if self._prepared is None else self._prepared.profile.to_json(),
            "session": self.session,
            "numbers": [[node, number] for node, number in self.roll.numbers.items()],
            "edges": sorted(self.roll.known),
            "memory": self.memory.state_dict(),
            "records": self.records.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            ResumeError: it is that of another model.
        """
        saved = ArchitectureSpec.model_validate_json(state["architecture"])
        if saved != self.architecture:
            raise ResumeError(
                f"the checkpoint is of the model {saved.name!r} with options {saved.options}, this run's is "
                f"{self.architecture.name!r} with {self.architecture.options}; resume with the model it began with"
            )
        if state["profile"]:
            self._prepared = Prepared.of(self.architecture, self.models, ModelProfile.from_json(state["profile"]))
        self.session = str(state["session"])
        self.roll.numbers = {int(node): int(number) for node, number in state["numbers"]}
        self.roll.known = set(state["edges"])
        self.memory = Memory.from_state(state["memory"])
        self.records.load_state_dict(state["records"])
