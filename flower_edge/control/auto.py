"""`Auto`: the controller for this radio and these devices, chosen by what has been measured.

Whether sparse links pay depends on the radio: where links are mild, complete averaging costs a quarter of a round more
and needs somewhat fewer rounds; where some are bad, it costs twenty rounds' time. Each candidate makes a plan; what
counts is `predicted_s`, the mean true time of its rounds for the P seen so far times the rounds its weights cost. All
links with the best split of the band are among the candidates, and stay unless another wins by a margin: they are EQUAL
with shorter rounds. Nothing here trains or sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import TopologyError
from .controller import Control, Observation, Start, State
from .matcha import Matcha
from .phases import Outlook, Phase, begin, go_on
from .schedules import BaseKPlus1, OnePeerExponential
from .sparse_plans import everything
from .true_time import SEARCHED, Sparse, TimeOptimal, predicted_s

__all__ = ["Auto"]

_Candidate = Sparse | TimeOptimal | OnePeerExponential | BaseKPlus1 | Matcha


@dataclass(frozen=True)
class Auto:
    """Plans of several kinds, compared; the one with the least predicted time to an accuracy is carried out.

    The state's "chosen" says which, and what was predicted for each, seconds.

    Args:
        margin: by what part a plan has to win over complete averaging.
        every: rounds after which the choice is made anew; also as P becomes known, and when S has changed.
        tries: sets of links costed per plan of `TimeOptimal`.
        seed: of all searches and draws.
    """

    margin: float = 0.02
    every: int = 50
    tries: int = 4000
    seed: int = 0
    clairvoyant: ClassVar[bool] = False
    #: Links come and go by plan: a change is no news.
    scheduled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0.0 <= self.margin < 1.0:
            raise TopologyError(f"margin = {self.margin}: expected a part of 1, such as 0.02")

    def init(self, start: Start) -> tuple[Control, State]:
        """The best plan for S as first measured and P as expected."""
        return begin(self.plan, start)

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """The next round of the plan chosen; a new choice where one is due."""
        return go_on(self.plan, state, observation, self.every)

    def plan(self, outlook: Outlook) -> tuple[list[Phase], Mapping[str, Any]]:
        """The phases of the best candidate, from an outlook."""
        complete = [everything(outlook)]
        candidates: dict[str, list[Phase]] = {"all links": complete}
        for name, controller in self._candidates(outlook.topology.nodes).items():
            phases = controller.plan(outlook)[0]
            # Before P is known nothing is begun that would have to be gone through with.
            if outlook.p_seen > 0 or len(phases) == 1:
                candidates[name] = phases
        predicted = {name: predicted_s(outlook, phases) for name, phases in candidates.items()}
        best = min(predicted, key=lambda name: predicted[name])
        if predicted[best] > (1.0 - self.margin) * predicted["all links"]:
            best = "all links"
        return candidates[best], {"name": best, "predicted_s": predicted}

    def _candidates(self, nodes: int) -> dict[str, _Candidate]:
        # The search of a small network begins with all of them.
        candidates: dict[str, _Candidate] = {
            f"sparse {k}": Sparse(k) for k in ((4,) if nodes <= SEARCHED else (3, 4, 5, 6))
        }
        return candidates | {
            "time optimal": TimeOptimal(tries=self.tries, seed=self.seed),
            "one peer": OnePeerExponential(seed=self.seed, trials=4000),
            "base 2": BaseKPlus1(seed=self.seed, trials=4000),
            "matcha": Matcha(seed=self.seed),
        }
