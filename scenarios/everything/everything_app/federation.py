"""The whole of it: gossiping cells that follow the terminals, and a centre that checks, pays and encodes.

Nothing here trains or sends. Each part is a value, and each can be made to do nothing: then the rest is as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.serverapp.strategy import FedAvg, Strategy

from everything_app import task, world
from everything_app.config import Everything
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.named import make_codec
from flower_edge.control.named import make_controller
from flower_edge.filtering.judging import Evaluate
from flower_edge.models import EvalResult, evaluate, set_arrays
from flower_edge.rewards.budget import Budget
from flower_edge.rewards.credits import micro_of
from flower_edge.runtime.generators import derive_seed
from flower_edge.selection import Oort, Pipeline, RandomScore
from flower_edge.store.reward_book import RewardBook
from flower_edge.strategies import (
    Admitted,
    Compressed,
    Coverage,
    Covered,
    Filtered,
    Gossip,
    Hierarchical,
    Layered,
    Metered,
    Rewarded,
    Selected,
)
from flower_edge.strategies.layers import Layer


def federation(config: Everything, terminals: int, coverage: Coverage, book: RewardBook, run: str) -> Layered:
    """Centre, edges and what is around them."""

    def edge(cell: str) -> Layered:
        inner, coded = _inner(config, terminals)
        pipeline = Pipeline(
            config.select.per_edge or 1.0,
            eligible=config.select.eligible or None,
            score=Oort() if config.select.score == "oort" else RandomScore(),
        )
        return Layered(inner, Covered(coverage), Selected(pipeline, seed=config.seed, hold=True), *coded, Metered())

    tiers = Hierarchical(
        edge=edge, cells=coverage, edge_rounds=config.edge_rounds, seed=config.seed, idle_s=config.area.away_s
    )
    return Layered(tiers, *_around_the_centre(config, book, run), Metered())


def evaluation(config: Everything, data: task.Dataset) -> Evaluate:
    """A model's loss and accuracy on some data."""
    model = task.model(config)

    def score(arrays: Mapping[str, Any]) -> EvalResult:
        set_arrays(model, arrays)
        # A model of noise may be too large for its own loss.
        with np.errstate(all="ignore"):
            return evaluate(model, data.x, data.y)

    return score


def _inner(config: Everything, terminals: int) -> tuple[Strategy, list[Layer[Any]]]:
    """What an edge runs, and what its terminals' models travel as where that is not its own affair."""
    codec = make_codec(config.cells.codec, seed=config.seed)
    if config.cells.kind == "gossip":
        controller = make_controller(config.cells.controller, seed=config.seed)
        return Gossip(controller, world=world.radio(config, terminals), codec=codec, fraction_evaluate=0.0), []
    inner = FedAvg(fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    return inner, [Compressed(codec)]


def _around_the_centre(config: Everything, book: RewardBook, run: str) -> list[Layer[Any]]:
    """The layers between the centre and its edges, from the strategy to the wire."""
    centre, judged = config.centre, evaluation(config, task.data(config).held_out)
    layers: list[Layer[Any]] = []
    if centre.credits:
        budget = Budget(micro_of(centre.credits))
        layers.append(Rewarded(judged, budget=budget, book=book, run=run, seed=derive_seed(config.seed, "reward")))
    if centre.filter:
        layers.append(Filtered(evaluate=judged, seed=derive_seed(config.seed, "filter")))
    if centre.gate:
        layers.append(Admitted(seed=derive_seed(config.seed, "gate")))
    down = None if centre.down == "none" else make_codec(centre.down, seed=config.seed)
    return [*layers, Compressed(make_codec(centre.up, seed=config.seed), down=down, first=Identity())]
