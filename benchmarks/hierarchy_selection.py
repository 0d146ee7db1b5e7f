"""Who is chosen, and how soon the model is good: selectors beside each other on a virtual clock.

100 terminals, logistic regression on MNIST-10k (rows 0..8999 are trained on, rows 9000..9999 tested on), Dirichlet 0.3,
10 terminals a round, 20 local steps of batch 20 at rate 0.01 (batch and rate are those of the HierFAVG reference).
Heterogeneous: speeds log-normal with σ = 1, uplinks log-uniform from 1 to 20 Mbit/s; homogeneous: all at the median of
both. Measured is the virtual time at which the test accuracy first is 80 %, and, for what it costs later, the accuracy
after many rounds.

Terms are equal: for one seed all selectors meet the same data, devices, links, initial model and batches (a batch
depends on the seed, the terminal and the round), and each asks ten a round; over-selection asks thirteen and is shown
beside them. The headline figures are of the selectors as anybody gets them who gives no numbers (`DEFAULTS`). All go
through `Layered(FedAvg(), Selected(...))` on a `VirtualClock` around a `LocalGrid`; questions for conditions travel on
it too and take their time. Defaults were chosen on seeds 100..119, which are not measured here.

Nothing here selects: how it is done is the library's business.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from flower_edge.clients.conditions import answer_conditions
from flower_edge.conditions import Conditions
from flower_edge.data import dirichlet
from flower_edge.models.numpy_mlp import NumpyMLP, evaluate, train
from flower_edge.rounds import Round
from flower_edge.runtime import LocalGrid, VirtualClock
from flower_edge.runtime.clock.devices import Device, Link, draw_devices, draw_links
from flower_edge.runtime.generators import derive_seed
from flower_edge.selection import FedCS, Job, Oort, Pipeline, PowerOfChoice, RandomScore, RoundRobin
from flower_edge.strategies import Layer, Layered
from flower_edge.strategies.selected import Selected
from flower_edge.wire import arrays_of, record_of

from .harness.figures import mean_and_error, ratio_and_error
from .hierarchy_data import INPUTS, images

__all__ = ["DEFAULTS", "SELECTORS", "SETUPS", "Run", "measure_selection", "run_once"]

TERMINALS: Final = 100
PER_ROUND: Final = 10
TARGET_ACCURACY: Final = 0.8
LOCAL_STEPS: Final = 20
BATCH: Final = 20
RATE: Final = 0.01
MOST_ROUNDS: Final = 300
LATE_ROUNDS: Final = 120
SETUPS: Final = ("heterogeneous", "homogeneous")
MODEL_BITS: Final = 8 * 4 * (INPUTS * 10 + 10)
JOB: Final = Job(steps=LOCAL_STEPS, up_bits=MODEL_BITS, down_bits=MODEL_BITS)

Shards = tuple[tuple[NDArray[Any], NDArray[np.int64]], ...]

#: Selectors as anybody gets them who gives no numbers.
DEFAULTS: Final[Mapping[str, Callable[[], Pipeline]]] = {
    "round-robin": lambda: Pipeline(PER_ROUND, score=RoundRobin()),
    "oort": lambda: Pipeline(PER_ROUND, score=Oort()),
    "power-of-choice": lambda: Pipeline(PER_ROUND, score=PowerOfChoice()),
    "fedcs": lambda: Pipeline(PER_ROUND, score=FedCS()),
}
#: All that are measured. FedCS reckons with one shared uplink, and here each terminal has its own: it is told so once.
SELECTORS: Final[Mapping[str, Callable[[], Pipeline]]] = {
    "random": lambda: Pipeline(PER_ROUND, score=RandomScore()),
    **DEFAULTS,
    "fedcs-own-uplinks": lambda: Pipeline(PER_ROUND, score=FedCS(shared_uplink=False)),
    "oort-published": lambda: Pipeline(PER_ROUND, score=Oort.published()),
    "random-over-selected": lambda: Pipeline(PER_ROUND, score=RandomScore(), over_select=1.3),
    "oort-over-selected": lambda: Pipeline(PER_ROUND, score=Oort(), over_select=1.3),
}


@cache
def shards(seed: int) -> Shards:
    """Each terminal's images and classes; the same for every selector."""
    data = images()
    parts = dirichlet(data.y, TERMINALS, alpha=0.3, seed=seed)
    return tuple((data.x[mine], data.y[mine]) for mine in parts)


def terminals_of(setup: str, seed: int) -> tuple[list[Device], list[Link]]:
    """Devices and links of a seed; homogeneous ones are at the median of the heterogeneous distribution."""
    if setup == "heterogeneous":
        return draw_devices(TERMINALS, seed, sigma=1.0), draw_links(TERMINALS, seed, 1e6, 20e6)
    median_bps = math.sqrt(1e6 * 20e6)
    return draw_devices(TERMINALS, seed, sigma=0.0), draw_links(TERMINALS, seed, median_bps, median_bps)


def terminal_app(seed: int, devices: Sequence[Device], links: Sequence[Link]) -> ClientApp:
    """What every terminal runs: logistic regression in NumPy, and an answer to the question for its conditions."""
    data, model = shards(seed), NumpyMLP([INPUTS, 10])
    app = ClientApp()

    @app.train()
    def fit(message: Message, context: Context) -> Message:
        place = int(context.node_config["partition-id"])
        x, y = data[place]
        config = message.content.config_records["config"]
        number = int(config["server-round"])  # type: ignore[arg-type]
        model.load(arrays_of(message.content.array_records["arrays"]))
        batches = derive_seed(seed, place, number) % 2**31
        done = train(model, x, y, steps=LOCAL_STEPS, batch_size=BATCH, lr=RATE, seed=batches)
        numbers = MetricRecord({"num-examples": len(x), "train_loss": done.loss, "steps": done.steps})
        return Message(RecordDict({"arrays": record_of(model.arrays()), "metrics": numbers}), reply_to=message)

    def source(context: Context, time_s: float | None) -> Conditions:
        place = int(context.node_config["partition-id"])
        device, link = devices[place], links[place]
        return Conditions(
            step_s=device.step_s, up_bps=link.up_bps, down_bps=link.down_bps, num_examples=len(data[place][1])
        )

    return answer_conditions(app, source)


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        time_s: virtual time at which the target was reached; at which the run ended if it was not.
        reached: whether it was.
        rounds: rounds until then.
        asked: how many terminals had taken part by then.
        accuracy: mean test accuracy of the last ten rounds.
    """

    time_s: float
    reached: bool
    rounds: int
    asked: int
    accuracy: float


class _Watch(Layer[None]):
    """Keeps what happens in one run, and ends it at the target unless it is to go on."""

    def __init__(self, goes_on: bool) -> None:
        self.goes_on = goes_on
        self.accuracy: list[float] = []
        self.time_s: list[float] = []
        self.asked: set[int] = set()

    def outbound(self, state: None, round: Round, messages: list[Message]) -> tuple[list[Message], None]:
        self.asked |= {message.metadata.dst_node_id for message in messages}
        return messages, None

    def stop(self, state: None, round: Round) -> str | None:
        return "target reached" if self.accuracy[-1] >= TARGET_ACCURACY and not self.goes_on else None


def run_once(pipeline: Pipeline, setup: str, seed: int, rounds: int = MOST_ROUNDS, goes_on: bool = False) -> Run:
    """Train with one selector until the target, or for all the rounds if it `goes_on`."""
    devices, links = terminals_of(setup, seed)
    data, model, watch = images(), NumpyMLP([INPUTS, 10], seed=seed), _Watch(goes_on)
    random.seed(derive_seed(seed, "sampling"))
    with LocalGrid(terminal_app(seed, devices, links), TERMINALS) as local:
        clock = VirtualClock(local, devices, links, seed=seed)

        def central(number: int, arrays: ArrayRecord) -> MetricRecord:
            model.load(arrays_of(arrays))
            watch.accuracy.append(evaluate(model, data.test_x, data.test_y).accuracy)
            watch.time_s.append(clock.now_s)
            return MetricRecord({"accuracy": watch.accuracy[-1]})

        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        layered = Layered(strategy, Selected(pipeline, seed=seed, job=JOB), watch)
        layered.start(clock, record_of(model.arrays()), rounds, evaluate_fn=central)
    first = next((i for i, accuracy in enumerate(watch.accuracy) if accuracy >= TARGET_ACCURACY), None)
    last = len(watch.accuracy) - 1 if first is None else first
    late = float(np.mean(watch.accuracy[-10:]))
    return Run(watch.time_s[last], first is not None, last, len(watch.asked), late)


def measure_selection(
    quick: bool, progress: Callable[[str], None], selectors: Mapping[str, Callable[[], Pipeline]] = SELECTORS
) -> dict[str, Any]:
    """All selectors in both set-ups.

    Args:
        quick: 5 seeds to the target and 2 for the late accuracy; otherwise 20 and 5.
        progress: told what is being measured.
        selectors: `random` and those beside it.

    Returns:
        `best_selection_time_ratio` (mean time over random's of the best of `DEFAULTS`, heterogeneous) and
        `homogeneous_worst_time_ratio` (of the worst of them, homogeneous), each with `_se`; and `selection`, by set-up
        and selector, with `loses` in words, and `best` and `homogeneous_worst`, which they were.
    """
    seeds, late_seeds = (range(5), range(2)) if quick else (range(20), range(5))
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for setup in SETUPS:
        runs: dict[str, list[Run]] = {}
        for name, make in selectors.items():
            runs[name] = [run_once(make(), setup, seed) for seed in seeds]
            progress(f"selection, {setup}, {name}: {np.mean([run.time_s for run in runs[name]]):.2f} s to the target")
        found[setup] = {name: _figures(mine, runs["random"]) for name, mine in runs.items()}
    late: dict[str, Sequence[float]] = {}
    for name, make in selectors.items():
        late[name] = [run_once(make(), SETUPS[0], seed, LATE_ROUNDS, goes_on=True).accuracy for seed in late_seeds]
        progress(f"selection, {name}: {100 * np.mean(late[name]):.1f} % after {LATE_ROUNDS} rounds")
    # Neither the control nor over-selection, which asks thirteen terminals, nor variants chosen among afterwards.
    single = [name for name in selectors if name in DEFAULTS]
    uneven, equal = found["heterogeneous"], found["homogeneous"]
    best = min(single, key=lambda name: float(uneven[name]["time_ratio"]))
    worst = max(single, key=lambda name: float(equal[name]["time_ratio"]))
    return {
        "best_selection_time_ratio": uneven[best]["time_ratio"],
        "best_selection_time_ratio_se": uneven[best]["time_ratio_se"],
        "homogeneous_worst_time_ratio": equal[worst]["time_ratio"],
        "homogeneous_worst_time_ratio_se": equal[worst]["time_ratio_se"],
        "selection": {
            "best": best,
            "homogeneous_worst": worst,
            "seeds": len(seeds),
            **found,
            "late_rounds": LATE_ROUNDS,
            "late_accuracy": {
                name: dict(zip(("accuracy", "accuracy_se"), mean_and_error(mine), strict=True))
                for name, mine in late.items()
            },
            "loses": _losses(found, late),
        },
    }


def _figures(runs: Sequence[Run], randoms: Sequence[Run]) -> dict[str, Any]:
    times_s = [run.time_s for run in runs]
    time_s, time_error_s = mean_and_error(times_s)
    ratio, error = ratio_and_error(times_s, [run.time_s for run in randoms])
    return {
        "time_s": time_s,
        "time_s_se": time_error_s,
        "time_ratio": ratio,
        "time_ratio_se": error,
        "rounds": float(np.mean([run.rounds for run in runs])),
        "terminals_asked": float(np.mean([run.asked for run in runs])),
        "not_reached": sum(not run.reached for run in runs),
    }


def _losses(found: Mapping[str, Mapping[str, Mapping[str, Any]]], late: Mapping[str, Sequence[float]]) -> list[str]:
    """Where a selector is behind random, in words."""
    said = []
    for name in late:
        for setup in SETUPS:
            figures, control = found[setup][name], found[setup]["random"]
            if figures["time_ratio"] > 1.0:
                said.append(f"{name}: {figures['time_ratio']:.2f} of random's time where terminals are {setup}")
            if figures["rounds"] > 1.1 * control["rounds"]:
                said.append(
                    f"{name}: {figures['rounds']:.1f} rounds against random's {control['rounds']:.1f} where terminals "
                    f"are {setup}"
                )
        behind = 100 * (float(np.mean(late["random"])) - float(np.mean(late[name])))
        if behind > 0.5:
            said.append(f"{name}: {behind:.1f} points behind random after {LATE_ROUNDS} rounds")
    return said
