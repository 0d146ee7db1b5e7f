"""`Copies`: nodes that send one and the same update speak with one voice.

The strongest attacks of the literature (ALIE, IPM, min-max, min-sum, mimic) let all attackers send one vector, which
then weighs as much as they are many. Honest nodes draw their own batches of their own data: their updates are apart.
How far, depends on the task, so the distance of two is measured against the typical one of the round.

Letters:
    d[i, j]    1 − the cosine of the updates i and j, on a fresh secret sample
    typical    the median over i of the median over j of d[i, j]
    k          how many coordinates an update has moved, the median of the replies

The last step of the model is such a voice, too: whoever sends it once more has not trained, and is paid for momentum.

Of two directions that have nothing to do with each other, d is below t times the typical one with a probability of
about t^((k − 1) / 2): never where k is in the hundreds, often where it is 3.

Source: C. Fung, C. J. M. Yoon, I. Beschastnikh, "The limitations of federated learning in Sybil settings" (FoolsGold),
RAID 2020, for similarity as the mark of sybils.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..updates.update import Update
from .judging import Judgement
from .moves import last_step, shared_moves

__all__ = ["Copies", "cosine_distances"]

#: Below this, 1 − cosine is rounding.
_ROUNDING = 1e-6
#: So seldom two honest updates may be the same by chance.
_BY_CHANCE = 1e-5


def cosine_distances(moves: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """1 − cosine of each two rows, float64 [replies, replies]; a row without length is at distance 1 of all others.

    >>> cosine_distances(np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]], np.float32)).tolist()
    [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
    """
    rows = moves.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0.0)
    distances = np.maximum(1.0 - rows @ rows.T, 0.0)
    np.fill_diagonal(distances, 0.0)
    return np.asarray(distances)


@dataclass(frozen=True)
class Copies:
    """Of updates that are the same but for a little noise, lets one through, and none that is the model's last step.

    Args:
        within: two are the same where d[i, j] is below `within` times the typical distance. With few coordinates to
            compare it is less, so that honest ones are seldom the same by chance: below 7, only what is all but equal.
        coordinates: how many are sampled.
        least_replies: with fewer to compare, the test abstains.

    Which of them stays is drawn: a copy and its original cannot be told apart. Where most are the same
    (everybody trains on the same data), nothing can be told, and the test abstains. So it does where no coordinates are
    shared.

    It refuses honest twins: two nodes with the same data, batches and seed. An attacker that adds noise of its own to
    every copy, about half the length of an honest update, escapes it; that costs the attack its point, and
    `WithAndWithout` looks at what is left.

    Raises:
        ConfigError: an argument out of its range.
    """

    within: float = 0.02
    coordinates: int = 16_384
    least_replies: int = 3

    def __post_init__(self) -> None:
        if not 0.0 < self.within < 1.0:
            raise ConfigError(f"Copies(within={self.within}): between 0 and 1, of the typical distance")
        if self.coordinates < 1:
            raise ConfigError(f"Copies(coordinates={self.coordinates}): expected 1 or more")
        if self.least_replies < 3:
            raise ConfigError(f"Copies(least_replies={self.least_replies}): two have one distance only; 3 or more")

    def judge(self, updates: Sequence[Update], rng: np.random.Generator) -> Judgement:
        """As `Judge.judge`; measures `nearest`, the distance to the nearest other over the typical one."""
        refused: dict[int, tuple[str, str]] = {}
        measured: dict[int, dict[str, float]] = {}
        step = last_step(updates)
        also = () if step is None else (step,)
        for holders, moves in shared_moves(updates, self.coordinates, rng, self.least_replies, also):
            distances = cosine_distances(moves)
            to_step, distances = distances[: len(holders), len(holders) :], distances[: len(holders), : len(holders)]
            moves = moves[: len(holders)]
            np.fill_diagonal(distances, np.nan)
            # Of a node to most others, and of most nodes: attackers that are all far away do not make honest ones near.
            typical = float(np.median(np.nanmedian(distances, axis=1)))
            moved = float(np.median(np.count_nonzero(moves, axis=1)))
            within = min(self.within, float(_BY_CHANCE ** (2.0 / max(1.0, moved - 1.0))))
            if typical <= _ROUNDING / within:
                continue
            np.fill_diagonal(distances, np.inf)
            relative = distances / typical
            heard: list[int] = []
            for row in rng.permutation(len(holders)).tolist():
                place = holders[row]
                nearest = float(relative[row].min())
                measured[place] = {"nearest": min(nearest, measured.get(place, {}).get("nearest", nearest))}
                if (to_step[row] < within * typical).any():
                    refused[place] = ("replayed", "the last step of the model sent back, and nothing of its own")
                    continue
                same = [holders[other] for other in heard if relative[row, other] < within]
                if same:
                    names = ", ".join(updates[other].node for other in same)
                    refused[place] = ("copied", f"the same update as that of node {names}, which is heard once")
                else:
                    heard.append(row)
        return Judgement(refused, dict(sorted(measured.items())))
