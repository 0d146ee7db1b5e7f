"""A federation of widths that trains in steps, asks for other models, and the same by hand."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy
from submodel_toy import GROUPS, SIZES, numbers, whole

from flower_edge.clients.steps import request, step_mod, steps_of
from flower_edge.clients.submodel import submodel
from flower_edge.models import NumpyMLP, train
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import Decide
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.submodels.choices import prefix
from flower_edge.submodels.groups import index_of
from flower_edge.updates.places import brackets
from flower_edge.wire import record_of

BATCH, STEPS, SLICE = 4, 9, 3
LADDER = (1.0, 0.5, 0.25)
#: What terminals ask for, by (partition, round, step) after which they do.
Wishes = Mapping[tuple[int, int, int], str]
#: (partition, round, step, width) of every step made.
Made = list[tuple[int, int, int, int]]


def one_step(model: NumpyMLP, partition: int, round: int, step: int) -> None:
    """SGD on the batch of this absolute step."""
    rng = np.random.default_rng([partition, round, step])
    x = rng.normal(size=(BATCH, SIZES[0])).astype(np.float32)
    train(model, x, x[:, : SIZES[-1]].argmax(axis=1), steps=1, batch_size=BATCH, lr=0.1, seed=step)


def app(wishes: Wishes | None = None, made: Made | None = None, mods: tuple[Any, ...] = (step_mod,)) -> ClientApp:
    """Clients that make the steps they are asked, and stop where they ask for another model before the last slice."""
    client = ClientApp(mods=list(mods))

    @client.train()
    def train_(message: Message, context: Context) -> Message:
        config: dict[str, Any] = dict(message.content.config_records["config"])
        partition, round_ = int(context.node_config["partition-id"]), int(config["server-round"])
        model, done, asks = submodel(message, NumpyMLP(SIZES)), 0, None
        steps = steps_of(message)
        for step in steps:
            one_step(model, partition, round_, step)
            done += 1
            if made is not None:
                made.append((partition, round_, step, model.sizes[1]))
            asks = (wishes or {}).get((partition, round_, step)) or asks
            if asks and steps.stop < steps.total:
                break
        metrics = MetricRecord({"num-examples": BATCH * done, "steps": done})
        content = RecordDict({"arrays": record_of(model.arrays()), "metrics": metrics})
        return Message(request(content, asks, load=0.97) if asks else content, reply_to=message)

    return client


def run(
    strategy: Strategy,
    decide: Decide | None = None,
    *,
    client: ClientApp | None = None,
    rounds: int = 1,
    stepped: bool = True,
    nodes: int = 3,
    **how: Any,
) -> Any:
    """A run from the same model, in slices where `stepped`."""
    random.seed(3)
    with LocalGrid(client or app(), nodes) as local:
        grid: Any = SteppedGrid(local, SLICE, decide, poll_s=0.002) if stepped else local
        config = ConfigRecord({"local-steps": STEPS})
        return strategy.start(grid, whole(), num_rounds=rounds, timeout=60, train_config=config, **how)


def by_hand(model: ArrayRecord, rates: Mapping[int, float], wishes: Wishes, round: int = 1) -> dict[str, np.ndarray]:
    """One round: every part of everybody's work in a dense sum, and the mean by coordinate."""
    base = numbers(model)
    sums = {name: np.zeros(a.shape) for name, a in base.items()}
    counts = {name: np.zeros(a.shape) for name, a in base.items()}

    def begin(rate: float) -> tuple[NumpyMLP, Any]:
        index = index_of(GROUPS, prefix(GROUPS, rate))
        parts = {name: a[brackets(a.shape, index[name])] for name, a in base.items()}
        small = NumpyMLP((SIZES[0], parts["linear0.bias"].size, SIZES[-1]))
        small.load(parts)
        return small, index

    def hand_in(small: NumpyMLP, index: Any, steps: int) -> None:
        for name, end in small.arrays().items():
            where = brackets(base[name].shape, index[name])
            sums[name][where] += BATCH * steps * end.astype(np.float64)
            counts[name][where] += BATCH * steps

    for partition, most in rates.items():
        own = [rate for rate in LADDER if rate <= most]
        at, made, begun = 0, 0, 0
        small, index = begin(own[at])
        for step in range(STEPS):
            one_step(small, partition, round, step)
            made += 1
            asks = wishes.get((partition, round, step))
            to = {"smaller-model": min(at + 1, len(own) - 1), "larger-model": max(at - 1, 0)}.get(asks or "", at)
            if begun + SLICE >= STEPS:
                continue  # in the last slice there is nothing to decide
            if asks or step == begun + SLICE - 1:
                begun = step + 1
            if to != at:
                hand_in(small, index, made)
                at, made = to, 0
                small, index = begin(own[at])
        hand_in(small, index, made)
    return {
        name: np.where(counts[name] > 0, sums[name] / np.maximum(counts[name], 1), a).astype(a.dtype)
        for name, a in base.items()
    }
