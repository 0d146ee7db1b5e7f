"""Ready-made strategies for people who want one name. Compositions of what is elsewhere; nothing here has a logic.

To change a part, write the composition that the class names in its first line, with another part in its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.serverapp.strategy import FedAvg

from flower_edge.filtering.judging import Evaluate
from flower_edge.rewards.budget import Budget
from flower_edge.rewards.enrolment import Enrolled, Enrolment
from flower_edge.rewards.rule import RewardRule
from flower_edge.rules import Rule

from .coverage.coverage import Coverage
from .coverage.covered import Covered
from .filtering.admitted import Admitted
from .filtering.filtered import Filtered
from .filtering.most_examples import MostExamples
from .hierarchy.cells import Cells
from .hierarchy.hierarchical import Hierarchical
from .layered import Layered
from .rewards.rewarded import Rewarded

if TYPE_CHECKING:
    from flower_edge.store.reward_book import RewardBook

__all__ = ["CoverageFedAvg", "FilteredFedAvg", "HierarchicalFedAvg", "RewardedFedAvg"]


class HierarchicalFedAvg(Hierarchical):
    """`Hierarchical(edge=lambda cell: FedAvg(**fedavg_options), cells=cells, edge_rounds=…, seed=…)`.

    Args:
        cells: which nodes belong to which edge: `blocks(5)`, `by_property("cell")`, or a function of your own.
        edge_rounds: rounds of every edge per round of the centre.
        seed: see `Hierarchical`.
        fedavg_options: of Flower's `FedAvg`, the same at every edge.

    >>> from .hierarchy.cells import blocks
    >>> HierarchicalFedAvg(blocks(2), edge_rounds=3, fraction_train=0.5).edge_rounds
    3
    """

    def __init__(self, cells: Cells, edge_rounds: int = 1, seed: int | None = None, **fedavg_options: Any) -> None:
        FedAvg(**fedavg_options)  # refuses what it does not know, now and not in the first round
        super().__init__(lambda cell: FedAvg(**fedavg_options), cells=cells, edge_rounds=edge_rounds, seed=seed)


class CoverageFedAvg(Hierarchical):
    """`Hierarchical(edge=lambda cell: Layered(FedAvg(**fedavg_options), Covered(coverage)), cells=coverage, …)`.

    Args:
        coverage: which terminals each edge reaches now.
        edge_rounds: rounds of every edge per round of the centre.
        seed: see `Hierarchical`.
        idle_s: what a round in which no edge has enough terminals lets pass; `None` raises `RoundFailed` instead.
        fedavg_options: of Flower's `FedAvg`, the same at every edge. An edge with fewer terminals than its minimums
            (2, where nothing else is said) is skipped.

    What happens to a terminal that leaves in mid-training is decided on the Grid:
    `SteppedGrid(clock, 10, decide=MidRound(coverage))`.
    """

    def __init__(
        self,
        coverage: Coverage,
        edge_rounds: int = 1,
        seed: int | None = None,
        idle_s: float | None = None,
        **fedavg_options: Any,
    ) -> None:
        super().__init__(
            lambda cell: Layered(FedAvg(**fedavg_options), Covered(coverage)),
            cells=coverage,
            edge_rounds=edge_rounds,
            seed=seed,
            idle_s=idle_s,
        )


class FilteredFedAvg(Layered):
    """`Layered(FedAvg(**fedavg_options), Filtered(evaluate=evaluate, …), Admitted(most_examples=most_examples))`.

    Args:
        evaluate: a model's arrays to its loss and accuracy on data that are held out; without it only the tests are
            made that compare replies with each other.
        most_examples: how many examples a node can have, see `Admitted`.
        collect, accept: rules that terminals satisfy before they are asked and after they have replied, see `Filtered`.
        seed: of the coordinates that are sampled. `None` draws them where nobody can know them.
        fedavg_options: of Flower's `FedAvg`.

    With honest nodes that all pass, the model is bit for bit that of `FedAvg`.

    >>> FilteredFedAvg(collect="battery >= 0.3", fraction_train=0.5).layers[0].narrows
    True
    """

    def __init__(
        self,
        evaluate: Evaluate | None = None,
        *,
        most_examples: MostExamples | None = None,
        collect: Rule | str | None = None,
        accept: Rule | str | None = None,
        seed: int | None = None,
        **fedavg_options: Any,
    ) -> None:
        strategy = FedAvg(**fedavg_options)
        key = strategy.weighted_by_key
        super().__init__(
            strategy,
            Filtered(evaluate=evaluate, collect=collect, accept=accept, weighted_by=key, seed=seed),
            Admitted(most_examples=most_examples, weighted_by=key, seed=seed),
        )


class RewardedFedAvg(Layered):
    """`Layered(FedAvg(**fedavg_options), Rewarded(evaluate, …), Filtered(evaluate=evaluate, …), Admitted(…))`.

    Args:
        evaluate: a model's arrays to its loss and accuracy on data that are held out: by it replies are let in, and
            by it those that are in are paid.
        budget: of a round, in micro-credits, and of the run. Default: one credit a round.
        book: a `RewardBook`, or its path or URL; `None` books nothing.
        run: the run's name in the book; needed with one.
        rule: size, recency and frequency to the base of a reward.
        enrolled: what is known of nodes by their keys. The gate refuses who tells more examples than it is enrolled
            with and, where this is a mapping, who is not in it.
        collect, accept: rules that terminals satisfy before they are asked and after they have replied, see `Filtered`.
        seed: of everything that is drawn. `None` draws it where nobody can know it.
        fedavg_options: of Flower's `FedAvg`.

    >>> from flower_edge.models import EvalResult
    >>> [type(layer).__name__ for layer in RewardedFedAvg(lambda arrays: EvalResult(0.0, 1.0, 1)).layers]
    ['Rewarded', 'Filtered', 'Admitted']
    """

    def __init__(
        self,
        evaluate: Evaluate,
        *,
        budget: Budget | None = None,
        book: RewardBook | str | Path | None = None,
        run: str = "",
        rule: RewardRule | None = None,
        enrolled: Enrolled | None = None,
        collect: Rule | str | None = None,
        accept: Rule | str | None = None,
        seed: int | None = None,
        **fedavg_options: Any,
    ) -> None:
        strategy = FedAvg(**fedavg_options)
        key = strategy.weighted_by_key
        super().__init__(
            strategy,
            Rewarded(
                evaluate,
                rule=rule,
                budget=budget,
                book=book,
                run=run,
                enrolled=enrolled,
                seed=seed,
                weighted_by=key,
            ),
            Filtered(evaluate=evaluate, collect=collect, accept=accept, weighted_by=key, seed=seed),
            Admitted(
                most_examples=enrolled.most_examples if isinstance(enrolled, Enrolment) else enrolled,
                weighted_by=key,
                seed=seed,
            ),
        )
