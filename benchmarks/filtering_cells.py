"""One cell of the matrix: an attack, an aggregator, a share of attackers, with or without our gate and filter.

Thirty rounds through Flower's own strategy. The accuracy of a run is the mean over its last five rounds on the test
set; what a run loses is counted against the same aggregator, set up in the same way, whose twenty nodes are all honest.
A robust aggregator is told how many attackers there may be, in the attack-free run as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import EdgeError
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies import Layered

from .filtering_attacks import ATTACKS, HARDER, Attacked
from .filtering_gate import Verdicts, gate
from .filtering_task import NODES, ROUNDS, accuracy_on_test, arrays_of, client_app, first_model, uneven_shares

__all__ = ["AGGREGATORS", "HONEST", "Cell", "Outcome", "attackers_of", "run_cell"]

#: The attack of a cell that has none.
HONEST: Final = "none"
_LAST: Final = 5
#: What a run is worth that ended in an error: guessing.
_CHANCE: Final = 10.0

_ALL: Final[Mapping[str, Any]] = {"fraction_evaluate": 0.0}


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        attack: of `ATTACKS` or `HARDER`, or "none".
        aggregator: of `AGGREGATORS`.
        fraction: of the nodes, which the aggregator is told and, with an attack, attack.
        gated: whether gate and filter stand before it.
        seed: of the data, of who attacks and of all that is drawn.
        alpha: of the Dirichlet distribution the data is dealt by.
        rounds: how many.
        strict: whether the filter is the strict form.
    """

    attack: str
    aggregator: str
    fraction: float
    gated: bool
    seed: int
    alpha: float = 0.5
    rounds: int = ROUNDS
    strict: bool = False

    def __str__(self) -> str:
        gated = "gated" if self.gated else "plain"
        return f"{self.attack}, {self.aggregator}, {100 * self.fraction:g} %, {gated}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        accuracies: per cent of the test set after each round.
        accuracy: mean over the last five rounds; guessing where the run ended in an error.
        honest, attackers: with the gate, replies of either by the code they were refused with; "" for those used.
        error: why the run ended early, or empty.
    """

    accuracies: tuple[float, ...]
    accuracy: float
    honest: Mapping[str, int] = field(default_factory=dict)
    attackers: Mapping[str, int] = field(default_factory=dict)
    error: str = ""


#: Flower's own: by name, what makes one for so many malicious nodes of twenty, with our filter before it or without.
AGGREGATORS: Final[Mapping[str, Callable[[int, bool], Strategy]]] = {
    "FedAvg": lambda malicious, gated: flower.FedAvg(**_ALL),
    "FedMedian": lambda malicious, gated: flower.FedMedian(**_ALL),
    "FedTrimmedAvg": lambda malicious, gated: flower.FedTrimmedAvg(beta=malicious / NODES, **_ALL),
    "Krum": lambda malicious, gated: flower.Krum(num_malicious_nodes=malicious, **_ALL),
    "MultiKrum": lambda malicious, gated: flower.MultiKrum(
        num_malicious_nodes=malicious, num_nodes_to_select=NODES - malicious, **_ALL
    ),
    # It does nothing with fewer than 4 f + 3 replies, and the filter takes some away.
    "Bulyan": lambda malicious, gated: flower.Bulyan(
        num_malicious_nodes=malicious // 2 if gated else malicious, **_ALL
    ),
}


def attackers_of(cell: Cell) -> frozenset[int]:
    """The nodes that attack, drawn from all."""
    if cell.attack == HONEST:
        return frozenset()
    drawn = np.random.default_rng([cell.seed, 7]).permutation(NODES)[: round(cell.fraction * NODES)]
    return frozenset(int(node) for node in drawn)


def run_cell(cell: Cell) -> Outcome:
    """Run it to its end, or to the error that ends it."""
    shares, attackers = uneven_shares(cell.alpha, cell.seed), attackers_of(cell)
    attack = {**ATTACKS, **HARDER}.get(cell.attack)
    accuracies: list[float] = []

    def score(_: int, arrays: ArrayRecord) -> MetricRecord:
        accuracies.append(accuracy_on_test(shares, arrays_of(arrays)))
        return MetricRecord({"accuracy": accuracies[-1]})

    verdicts = Verdicts()
    layers = gate(shares, verdicts, strict=cell.strict) if cell.gated else ()
    told = round(cell.fraction * NODES)
    strategy = AGGREGATORS[cell.aggregator](told, cell.gated)
    app = client_app(shares, attackers if attack is not None and attack.flips else frozenset())
    error = ""
    with LocalGrid(app, NODES, seed=cell.seed) as local:
        ids = list(local.get_node_ids())
        grid = local if attack is None else Attacked(local, attack, [ids[node] for node in attackers], cell.seed)
        try:
            with np.errstate(all="ignore"):
                Layered(strategy, *layers).start(grid, first_model(cell.seed), cell.rounds, evaluate_fn=score)
        except (EdgeError, ValueError, ArithmeticError) as failed:
            error = f"{type(failed).__name__}: {failed}"
    after = accuracies[1:]
    accuracy = _CHANCE if error else float(np.mean(after[-_LAST:]))
    honest = frozenset(range(NODES)) - attackers
    return Outcome(tuple(after), accuracy, verdicts.counts(honest), verdicts.counts(attackers), error)
