"""The one configuration of gate and filter that every figure is measured with, and who it refuses.

The gate knows how many examples each node is enrolled with, which is what it has. The filter is the one a user gets who
gives held-out data and nothing else. A layer between them and the strategy writes down what was refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flwr.app import Message
from numpy.typing import NDArray

from flower_edge.filtering.copies import Copies
from flower_edge.filtering.cosine import Cosine
from flower_edge.filtering.held_out import AtLeastReference
from flower_edge.filtering.norm import Norm
from flower_edge.models.results import EvalResult
from flower_edge.rounds import Round
from flower_edge.runtime.error_codes import REFUSED
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies import Layer
from flower_edge.strategies.filtering.admitted import Admitted
from flower_edge.strategies.filtering.filtered import Filtered
from flower_edge.strategies.layers import Stage

from .filtering_task import Shares, held_out_score

__all__ = ["Verdicts", "gate"]

_CODE: Final = re.compile(r"refused \(([a-z-]+)\)")


@dataclass
class Verdicts:
    """What came back in training: each reply's node, counted as the partitions are, and the code if it was refused."""

    told: list[tuple[int, str]] = field(default_factory=list)

    def counts(self, nodes: frozenset[int]) -> dict[str, int]:
        """Of these nodes: replies by code; under "" those that passed."""
        found: dict[str, int] = {}
        for node, code in self.told:
            if node in nodes:
                found[code] = found.get(code, 0) + 1
        return found


class _Watching(Layer[None]):
    """Writes down what was refused below it; changes nothing."""

    stage = Stage.MODEL

    def __init__(self, verdicts: Verdicts) -> None:
        self._verdicts = verdicts

    def inbound(self, state: None, round: Round, replies: list[Message]) -> tuple[list[Message], None]:
        """The replies as they are, once looked at."""
        for reply in replies if round.kind == "train" else ():
            code = ""
            if reply.has_error():
                found = _CODE.match(reply.error.reason or "") if reply.error.code == REFUSED else None
                code = found.group(1) if found else "failed"
            self._verdicts.told.append((reply.metadata.src_node_id - LocalGrid.FIRST_NODE_ID, code))
        return replies, None


def gate(shares: Shares, verdicts: Verdicts, *, strict: bool = False) -> tuple[Layer[Any], ...]:
    """Gate and filter, from the strategy to the wire.

    Args:
        shares: whose held-out data the filter evaluates on, and whose sizes the gate knows.
        verdicts: takes down what becomes of the replies.
        strict: for comparison, the seed's strict form in place of the merge with a reply against that without it: the
            reply itself has to be as accurate as the model it began with.
    """

    def evaluate(arrays: Mapping[str, NDArray[Any]]) -> EvalResult:
        return held_out_score(shares, arrays)

    tests = (Copies(), Norm(), Cosine(), AtLeastReference(evaluate)) if strict else ()
    return (
        _Watching(verdicts),
        Filtered(*tests, evaluate=None if strict else evaluate, seed=shares.seed),
        Admitted(most_examples=shares.sizes, seed=shares.seed),
    )
