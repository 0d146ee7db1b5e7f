"""`MultiKrumTest`: Flower's own MultiKrum selection as one more test, on the coordinates that the replies share.

The strategies Krum, MultiKrum, Bulyan, FedMedian and FedTrimmedAvg can stand behind a filter as they are. This test is
for a strategy that is none of them, and for sub-models, which those strategies cannot take. The selection is Flower's;
nothing of it is written again here.

Source: P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer, "Machine learning with adversaries", NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from flower_edge.errors import ConfigError
from flower_edge.filtering.judging import Judgement
from flower_edge.filtering.moves import shared_moves
from flower_edge.runtime.flower_private import select_multikrum
from flower_edge.updates.update import Update

__all__ = ["MultiKrumTest"]


@dataclass(frozen=True)
class MultiKrumTest:
    """Lets through what MultiKrum would merge.

    Args:
        malicious: how many of the replies may be wrong, f. With fewer than 2 f + 3 replies the selection promises
            nothing, and the test abstains.
        keep: how many are let through at most; `None` is all but f.
        coordinates: how many are sampled; 2^62 takes all.

    It refuses f replies in every round, honest ones too where nobody is wrong: it is not among the default tests. Of
    sub-models the largest region that enough replies share decides, and who has no part in it is let through.

    Raises:
        ConfigError: an argument out of its range.
    """

    malicious: int
    keep: int | None = None
    coordinates: int = 65_536

    def __post_init__(self) -> None:
        if type(self.malicious) is not int or self.malicious < 0:
            raise ConfigError(f"MultiKrumTest(malicious={self.malicious!r}): expected a whole number, 0 or more")
        if self.keep is not None and (type(self.keep) is not int or self.keep < 1):
            raise ConfigError(f"MultiKrumTest(keep={self.keep!r}): expected a whole number, 1 or more, or None")
        if self.coordinates < 1:
            raise ConfigError(f"MultiKrumTest(coordinates={self.coordinates}): expected 1 or more")

    def judge(self, updates: Sequence[Update], rng: np.random.Generator) -> Judgement:
        """As `Judge.judge`."""
        shared = shared_moves(updates, self.coordinates, rng, max(3, 2 * self.malicious + 3))
        holders, moves = next(iter(shared), ((), np.zeros((0, 0), np.float32)))
        if not holders:
            return Judgement()
        keep = len(holders) - self.malicious if self.keep is None else min(self.keep, len(holders))
        contents = [RecordDict({"arrays": ArrayRecord({"move": Array(move)})}) for move in moves]
        selected = {id(content) for content in select_multikrum(contents, self.malicious, keep)}
        refused = {
            place: ("robust", f"not among the {keep} of {len(holders)} that MultiKrum selects (f = {self.malicious})")
            for place, content in zip(holders, contents, strict=True)
            if id(content) not in selected
        }
        return Judgement(refused)
