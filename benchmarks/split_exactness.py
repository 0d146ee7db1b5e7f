"""Whether a divided step is a step of the whole model: the greatest difference, in anything that training leaves.

Two sides that must agree to the last bit, on the benchmark's ResNet with BatchNorm and SGD with momentum:

    cuts        every cut, labels at the cloud and on the device, with and without a tail there: four steps against four
                steps of `flower_edge.models.train`, in parameters, buffers, momentum and mean loss
    federation  `Split` on a `LocalGrid`, the cut another one for each device and round, against Flower's own `FedAvg`
                whose clients train the whole model
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from flower_edge.clients import split_client
from flower_edge.models import get_arrays, make_model, set_arrays, train
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.wrapped_grid import WrappedGrid
from flower_edge.splitting.architecture import described
from flower_edge.splitting.order import WorkOrder
from flower_edge.splitting.planner import Scheduled
from flower_edge.strategies import Split
from flower_edge.wire import arrays_of, record_of, server_round_of

from .split_conversation import converse, ends
from .split_task import BATCH, DEVICES, MERGE_EVERY, OPTIMISER, SPEC, STEPS, Arrays, federation, first_model, profile

__all__ = ["CutJob", "FederationJob", "cut_jobs", "difference", "exactness_figures", "run_cuts", "run_federation"]

LR = OPTIMISER.lr
MOMENTUM = float(OPTIMISER.options["momentum"])


@dataclass(frozen=True)
class CutJob:
    """One cut, with labels on one side or the other."""

    cut: int
    tail: int = 0
    labels: Literal["cloud", "device"] = "cloud"
    seed: int = 0


@dataclass(frozen=True)
class FederationJob:
    """So many rounds of all devices."""

    rounds: int
    seed: int = 0


def cut_jobs() -> list[CutJob]:
    """Every cut with every variant that it allows."""
    last = profile().last
    jobs = [CutJob(cut) for cut in range(last + 1)]
    for tail in (0, 1, 3):
        jobs += [CutJob(cut, tail, "device") for cut in range(last - tail)]
    return jobs


def difference(a: Arrays, b: Arrays) -> float:
    """The greatest between two sets of arrays; infinite where they are not of the same names."""
    if set(a) != set(b):
        return float("inf")
    return max((float(np.abs(np.subtract(a[name], b[name], dtype=np.float64)).max()) for name in a), default=0.0)


def run_cuts(jobs: Sequence[CutJob]) -> list[float]:
    """Of each of some jobs, four steps, divided and whole."""
    return [_run_cut(job) for job in jobs]


def exactness_figures(apart: Mapping[CutJob, float], federations: Sequence[float]) -> dict[str, Any]:
    """The greatest difference, and of what."""
    cloud = [value for job, value in apart.items() if job.labels == "cloud"]
    device = [value for job, value in apart.items() if job.labels == "device"]
    ways = {
        "labels at the cloud": cloud,
        "labels on the device": device,
        "cuts by device and round, against FedAvg": federations,
    }
    return {
        "exactness_max_diff": max(max(values) for values in ways.values()),
        "exactness": {name: {"cases": len(values), "max_diff": max(values)} for name, values in ways.items()},
    }


def _run_cut(job: CutJob) -> float:
    data, first = federation(job.seed), first_model(job.seed)
    x, y = data.x[0], data.y[0]
    whole = make_model(SPEC.name, input_shape=SPEC.input_shape, num_classes=SPEC.num_classes, seed=job.seed)
    told = train(whole, x, y, steps=STEPS, batch_size=BATCH, lr=LR, momentum=MOMENTUM, seed=job.seed)
    order = WorkOrder(
        round=1,
        number=0,
        architecture=SPEC,
        cut=job.cut,
        tail=job.tail,
        labels=job.labels,
        steps=STEPS,
        batch_size=BATCH,
        seed=job.seed,
        optimiser=OPTIMISER,
    )
    found = converse(order, x, y, first, {})
    momentum = {f"{name}::momentum_buffer": array for name, array in told.velocity.items()}
    return max(
        difference(get_arrays(whole), found.arrays), difference(momentum, found.optimiser), abs(told.loss - found.loss)
    )


def run_federation(job: FederationJob) -> float:
    """Whole models after the last merge, divided and not."""
    data, spec = federation(job.seed), described(SPEC, ends().device)
    last = profile().last
    # Early, late and no cut at all; no device has the same twice in a row.
    draw = np.random.default_rng(job.seed)
    table = tuple(tuple(int(cut) for cut in draw.integers(1, last + 1, DEVICES)) for _ in range(job.rounds))
    initial = record_of(first_model(job.seed))

    def own(context: Context) -> tuple[Any, Any]:
        number = int(context.node_config["partition-id"])
        return data.x[number], data.y[number]

    split = Split(
        spec,
        planner=Scheduled(table),
        strategy=FedAvg(fraction_evaluate=0.0),
        steps_per_round=STEPS,
        batch_size=BATCH,
        optimiser=OPTIMISER,
        merge_every=MERGE_EVERY,
        seed=job.seed,
    )
    with LocalGrid(split_client(own), DEVICES) as grid:
        divided = split.start(grid, initial, num_rounds=job.rounds).arrays
    with LocalGrid(_whole_client(job.seed), DEVICES) as grid:
        plain = (
            FedAvg(fraction_evaluate=0.0).start(_InOrder(grid), initial, num_rounds=job.rounds // MERGE_EVERY).arrays
        )
    return difference(arrays_of(divided), arrays_of(plain))


class _InOrder(WrappedGrid):
    """Replies in the order of devices. FedAvg asks in an order it draws, and sums replies as they come: plain FedAvg
    differs from plain FedAvg in the last bit from run to run."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Sorted."""
        return sorted(super().send_and_receive(messages, timeout=timeout), key=lambda one: one.metadata.src_node_id)


def _whole_client(seed: int) -> ClientApp:
    """Plain federated training: MERGE_EVERY rounds' steps at a time, SGD at rest in the beginning of each."""
    app, data = ClientApp(), federation(seed)

    @app.train()
    def train_here(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        number_of_round = server_round_of(message) or 1
        model = make_model(SPEC.name, input_shape=SPEC.input_shape, num_classes=SPEC.num_classes, seed=seed)
        set_arrays(model, arrays_of(message.content.array_records["arrays"]))
        steps = MERGE_EVERY * STEPS
        train(
            model,
            data.x[number],
            data.y[number],
            steps=steps,
            batch_size=BATCH,
            lr=LR,
            momentum=MOMENTUM,
            # As `Split` has it: each device draws with a seed of its own.
            seed=seed + number,
            first_step=(number_of_round - 1) * steps,
        )
        metrics = MetricRecord({"num-examples": len(data.y[number])})
        return Message(RecordDict({"arrays": record_of(get_arrays(model)), "metrics": metrics}), reply_to=message)

    return app
