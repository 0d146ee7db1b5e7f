"""What every order of a run says alike: values, and the arguments of `Pieces` checked. Nothing here plans."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from flower_edge.errors import ConfigError, NotEnoughNodes
from flower_edge.pieces.order import Mode, PieceOrder
from flower_edge.splitting.capacity import Capacity
from flower_edge.splitting.costs import Job
from flower_edge.splitting.order import ArchitectureSpec, LossName, OptimiserSpec, WorkOrder

from ..arguments import check_choices, check_counts
from ..splitting.prepared import state_copies
from .seating import DataFrom

__all__ = ["MergeBy", "PieceSettings", "pieces_by_edge"]

MergeBy = Literal["chains", "edges"]

_CHOICES: Final = {
    "mode": ("exact", "decoupled"),
    "loss": ("cross-entropy", "mse"),
    "data": ("terminal", "segments"),
    "merge": ("chains", "edges"),
}


@dataclass(frozen=True)
class PieceSettings:
    """Arguments of `Pieces` that end up in orders; see there."""

    mode: Mode
    steps_per_round: int
    batch_size: int
    optimiser: OptimiserSpec
    loss: LossName
    data: DataFrom
    segments: int | None
    chains: int | None
    merge: MergeBy
    keep_optimiser: bool
    up: Mapping[str, Any] | None
    down: Mapping[str, Any] | None
    assumed: Capacity
    seed: int

    def __post_init__(self) -> None:
        check_choices({name: getattr(self, name) for name in _CHOICES}, _CHOICES)
        counts = {"steps_per_round": (self.steps_per_round, 1), "batch_size": (self.batch_size, 1)}
        counts |= {name: (count, 1) for name in ("segments", "chains") if (count := getattr(self, name)) is not None}
        check_counts({**counts, "seed": (self.seed, 0)})
        if self.segments is not None and self.data != "segments":
            raise ConfigError(
                f"segments = {self.segments} with data={self.data!r}: terminals load segments with data='segments'; "
                "set it, or leave segments out"
            )

    def job(self) -> Job:
        """What a round is, for planners."""
        return Job(
            batch_size=self.batch_size,
            steps=self.steps_per_round,
            merge_every=1,
            state_copies=state_copies(self.optimiser),
        )

    def orders(
        self,
        round: int,
        number: int,
        architecture: ArchitectureSpec,
        spans: Sequence[tuple[int, int]],
        first_step: int,
    ) -> list[PieceOrder]:
        """One chain's, by place."""
        found = []
        for place, (start, stop) in enumerate(spans):
            work = WorkOrder(
                round=round,
                number=number,
                architecture=architecture,
                cut=stop,
                first_step=first_step,
                steps=self.steps_per_round,
                batch_size=self.batch_size,
                seed=self.seed + number,
                loss=self.loss,
                optimiser=self.optimiser,
                up=None if self.up is None else dict(self.up),
                down=None if self.down is None else dict(self.down),
            )
            found.append(PieceOrder(work=work, start=start, stop=stop, place=place, pieces=len(spans), mode=self.mode))
        return found

    def plain(self) -> dict[str, Any]:
        """What a checkpoint must have been made with."""
        return {
            "mode": self.mode,
            "steps_per_round": self.steps_per_round,
            "batch_size": self.batch_size,
            "optimiser": self.optimiser.model_dump_json(),
            "loss": self.loss,
            "data": self.data,
            "segments": self.segments,
            "chains": self.chains,
            "merge": self.merge,
            "keep_optimiser": self.keep_optimiser,
            "up": None if self.up is None else json.dumps(dict(self.up), sort_keys=True),
            "down": None if self.down is None else json.dumps(dict(self.down), sort_keys=True),
            "seed": self.seed,
        }


def pieces_by_edge(
    pieces: int | Mapping[str, int] | None,
    cuts: Sequence[int] | None,
    edges: Sequence[str] | None,
    known: Collection[str] = (),
) -> dict[str, int]:
    """Into how many pieces each edge's part is cut; of the one edge `""` where there are none.

    Args:
        pieces: as `Pieces` was told.
        cuts: theirs, if they were.
        edges: names of the edges that are there now, in order; None: there are no edges.
        known: names of those that were ever there. The model is cut over the edges there are, unless `cuts` say where.

    Raises:
        ConfigError: neither says how many, or they contradict.
        NotEnoughNodes: an edge is gone, and cuts were given for all.

    >>> pieces_by_edge(3, None, None), pieces_by_edge(None, (2, 5), ["a", "b", "c"])
    ({'': 3}, {'a': 1, 'b': 1, 'c': 1})
    >>> pieces_by_edge({"b": 2}, None, ["a", "b"])
    {'a': 1, 'b': 2}
    """
    if edges is None:
        if isinstance(pieces, Mapping):
            raise ConfigError(f"pieces = {dict(pieces)!r} by edge without edges=; give a number, or name the edges")
        found = {"": pieces if pieces is not None else 1 if cuts is None else len(cuts) + 1}
    elif isinstance(pieces, Mapping):
        if unknown := sorted(set(pieces) - set(edges) - set(known)):
            raise ConfigError(f"pieces = {dict(pieces)!r}: no edge {unknown[0]!r}; there are {', '.join(edges)}")
        found = {edge: pieces.get(edge, 1) for edge in edges}
    else:
        found = dict.fromkeys(edges, 1 if pieces is None else pieces)
    for edge, count in found.items():
        check_counts({f"pieces[{edge!r}]" if edge else "pieces": (count, 1)})
    total = sum(found.values())
    if edges is not None and cuts is not None and (gone := sorted(set(known) - set(edges))):
        raise NotEnoughNodes(
            f"edge {gone[0]!r} has no terminals now, and cuts = {list(cuts)} are for all edges; wait for some, or "
            "leave cuts out: then the model is cut over the edges there are"
        )
    if not found or (cuts is not None and len(cuts) + 1 != total):
        raise ConfigError(
            f"cuts = {list(cuts or ())} make {len(cuts or ()) + 1} pieces and there are {total} places for them in a "
            f"chain{' over the edges ' + ', '.join(found) if edges is not None else ''}; give {max(0, total - 1)} cuts"
        )
    return found
