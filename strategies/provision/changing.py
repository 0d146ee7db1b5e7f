"""`ChangeSize`: a terminal's model becomes smaller or larger within the round. It decides; a `SteppedGrid` does it.

The policy of a `SteppedGrid` around a federation of `SubModels`: a terminal that asks for a `smaller-model` or a
`larger-model`, or one that the edge's own rule picks, hands in what it has done and makes the steps that are left with
another part of the model the round began with. Either part weighs by its own examples; no sample is lost or counted
twice.

Source: [4] ¶58-59 and claim 7.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flower_edge.errors import ConfigError
from flower_edge.runtime.steps.decisions import Continue, Decide, Decision, Progress, Renew, honour_requests
from flower_edge.submodels.sizes import Size

from .stepping import To, asked_of, reason_of
from .sub_models import SubModels

__all__ = ["ByPace", "ChangeSize", "Rule", "Wish"]


@dataclass(frozen=True)
class Wish:
    """What an edge's rule wants for a node.

    Attributes:
        to: `smaller` or `larger` on the ladder of `SubModels(sizes=...)`, or a size.
        why: for the event.
    """

    to: To
    why: str


#: The edge's own rule: what a node is to have instead; `None` leaves it as it is.
Rule = Callable[[Progress], Wish | Size | None]


@dataclass(frozen=True)
class ByPace:
    """A smaller model for a node that is slower than the others of its round, a larger one for a faster one.

    Args:
        slower: more than so many times the median seconds per step of the cell and round is slow; `None` never is.
        faster: less than so many times is fast; `None` never is.

    A pace holds for the model the node has: who was slow with a large one may be fast with a small one, and go back. So
    leave room between the two numbers, more than one step on the ladder changes the pace.

    Raises:
        ConfigError: `slower` not above 1, or `faster` not between 0 and 1.

    >>> ByPace(slower=2.0)(Progress(1000, 4, 20, step_s=2.3, median_step_s=1.0))
    Wish(to='smaller', why='edge: 2.3 times the median step')
    """

    slower: float | None = 2.0
    faster: float | None = None

    def __post_init__(self) -> None:
        if self.slower is not None and not self.slower > 1.0:
            raise ConfigError(f"slower = {self.slower}: expected more than 1 time the median, such as 2.0")
        if self.faster is not None and not 0.0 < self.faster < 1.0:
            raise ConfigError(f"faster = {self.faster}: expected a part of the median, such as 0.4")

    def __call__(self, progress: Progress) -> Wish | None:
        """What this node is to have."""
        if not progress.step_s or not progress.median_step_s:
            return None
        times = progress.step_s / progress.median_step_s
        why = f"edge: {times:.2g} times the median step"
        if self.slower is not None and times > self.slower:
            return Wish("smaller", why)
        return Wish("larger", why) if self.faster is not None and times < self.faster else None


class ChangeSize:
    """Changes sizes within the round: `SteppedGrid(grid, 4, ChangeSize(strategy))`.

    Args:
        strategy: the `SubModels` whose nodes train; at edges one by cell, the same that `Hierarchical(edge=...)` gives:
            `edges = {...}`, `Hierarchical(edge=edges.__getitem__, ...)`, `ChangeSize(edges)`.
        then: decides in all other cases. What it stops, replaces or changes goes before: the node then has its new size
            from the next round on.
        rule: the edge's own, such as `ByPace(2.0)`; asked where the terminal asks for nothing, and of each task until
            it has changed once.

    Inside a policy that moves terminals or ends rounds: `UntilPeriodEnds(20.0, then=ChangeSize(strategy))`,
    `MidRound(coverage, then=ChangeSize(strategy))`. A request that comes with the last slice of a task, or with
    a message in one piece, holds from the next round on: `SubModels` takes it from the reply.

    Raises:
        ConfigError: something else than `SubModels`.
    """

    def __init__(
        self,
        strategy: SubModels | Mapping[str, SubModels],
        *,
        then: Decide = honour_requests,
        rule: Rule | None = None,
    ) -> None:
        every = list(strategy.values()) if isinstance(strategy, Mapping) else [strategy]
        if not every or not all(isinstance(one, SubModels) for one in every):
            raise ConfigError(
                f"ChangeSize({strategy!r:.80}): expected the SubModels, or a mapping of one by cell; of "
                "Layered(SubModels(...), ...) give it what is inside"
            )
        self.strategy, self.then, self.rule = strategy, then, rule

    def __call__(self, progress: Progress) -> Decision:
        """Decide; called by `SteppedGrid`.

        Raises:
            ConfigError: a task of a cell that has no `SubModels` here.
        """
        decision = self.then(progress)
        if progress.error is not None:
            return decision
        goes_on = isinstance(decision, Continue) and not decision.enlist
        wish = self._wish(progress, ruled=goes_on)
        if wish is None:
            return decision
        records = self._of(progress.cell).change(progress.node_id, wish.to, wish.why, step=progress.steps_done)
        return decision if records is None or not goes_on else Renew(records, wish.why)

    def _wish(self, progress: Progress, *, ruled: bool) -> Wish | None:
        to = asked_of(progress.request)
        if progress.request is not None and to is not None:
            return Wish(to, reason_of(progress.request))
        if self.rule is None or not ruled or progress.renewals:
            return None
        found = self.rule(progress)
        return Wish(found, "edge") if isinstance(found, Size) else found

    def _of(self, cell: str) -> SubModels:
        if isinstance(self.strategy, SubModels):
            return self.strategy
        if cell not in self.strategy:
            raise ConfigError(
                f"a task of cell {cell!r}, and ChangeSize knows {', '.join(map(repr, self.strategy))}; give it the "
                "SubModels of every cell"
            )
        return self.strategy[cell]

    def __repr__(self) -> str:
        return f"ChangeSize(rule={self.rule!r})"
