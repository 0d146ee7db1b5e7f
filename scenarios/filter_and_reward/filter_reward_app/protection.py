"""What stands around FedAvg at the edges and at the centre: nothing, the gate, or gate, filter and rewards.

Nothing here trains. What the operator knows of terminals and edges is what they were enrolled with: how many examples
they have at most.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.serverapp.strategy import FedAvg

from filter_reward_app import task
from filter_reward_app.config import FilterAndReward, RunName
from flower_edge.data import Dataset
from flower_edge.filtering.judging import Evaluate
from flower_edge.models import EvalResult, evaluate, set_arrays
from flower_edge.rewards.budget import Budget
from flower_edge.rewards.credits import micro_of
from flower_edge.rewards.enrolment import Enrolment
from flower_edge.runtime.generators import derive_seed
from flower_edge.store.reward_book import RewardBook
from flower_edge.strategies import Hierarchical, Layered, Metered, blocks
from flower_edge.strategies.filtering.admitted import Admitted
from flower_edge.strategies.filtering.filtered import Filtered
from flower_edge.strategies.layers import Layer
from flower_edge.strategies.rewards.rewarded import Rewarded
from flower_edge.updates.update import Arrays


def strategy(config: FilterAndReward, name: RunName, terminals: int, book: RewardBook | None, run: str) -> Layered:
    """The hierarchy of a run.

    Args:
        config: of the scenario.
        name: what stands around FedAvg.
        terminals: how many there are.
        book: where rewards are booked; `None` where nobody is paid.
        run: the run's name in the book.
    """
    held_out = {f"edge-{edge}": own for edge, own in enumerate(task.data(config).edges)}
    enrolled = enrolment(config, terminals)

    def edge(cell: str) -> Layered:
        inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        credits = config.rewards.edge_credits
        return Layered(inner, *_around(config, name, cell, held_out[cell], credits, enrolled, book, run), Metered())

    hierarchical = Hierarchical(edge=edge, cells=blocks(config.edges), seed=config.seed)
    own, credits = task.data(config).centre, config.rewards.centre_credits
    return Layered(hierarchical, *_around(config, name, "centre", own, credits, enrolled, book, run), Metered())


def enrolment(config: FilterAndReward, terminals: int) -> dict[str, Enrolment]:
    """What each terminal and each edge can have trained on in a round at most."""
    sizes = [len(own) for own in task.partition(config, terminals)]
    edges = {f"edge-{edge}": 0 for edge in range(config.edges)}
    for terminal, size in enumerate(sizes):
        edges[f"edge-{task.edge_of(config, terminal, terminals)}"] += size
    most = {**{str(terminal): size for terminal, size in enumerate(sizes)}, **edges}
    return {key: Enrolment(most_examples=examples) for key, examples in most.items()}


def evaluation(config: FilterAndReward, held_out: Dataset) -> Evaluate:
    """A model's loss and accuracy on a held-out set."""
    model = task.model(config)

    def score(arrays: Arrays) -> EvalResult:
        set_arrays(model, arrays)
        with np.errstate(all="ignore"):
            return evaluate(model, held_out.x, held_out.y)

    return score


def _around(
    config: FilterAndReward,
    name: RunName,
    payer: str,
    held_out: Dataset,
    credits: int,
    enrolled: dict[str, Enrolment],
    book: RewardBook | None,
    run: str,
) -> list[Layer[Any]]:
    """The layers of one server, from the strategy to the wire."""
    if name in ("none", "honest"):
        return []
    gate = Admitted(
        most_examples=lambda key: enrolled[key].most_examples, seed=derive_seed(config.seed, "admission", payer)
    )
    if name == "gate":
        return [gate]
    score = evaluation(config, held_out)
    return [
        Rewarded(
            score,
            budget=Budget(micro_of(credits)),
            book=book,
            run=run,
            enrolled=enrolled,
            seed=derive_seed(config.seed, "reward", payer),
        ),
        Filtered(evaluate=score, seed=derive_seed(config.seed, "filter", payer)),
        gate,
    ]
