"""What it costs that terminals move between edges in mid-training, with handover and without it.

The task of the selection benchmark (100 terminals, logistic regression on MNIST-10k, Dirichlet 0.3, uneven devices and
links), here over five edges that each train two terminals in an edge round. A `SteppedGrid` around a `VirtualClock`
around a `LocalGrid`: whoever leaves its edge is noticed after the slice it is at. Three runs per seed differ in nothing
else:

    static        nobody moves
    handover      30 % of the terminals change the edge per edge round; work under way is collected through the new edge
    no-handover   they move in the same way, and what they had under way is lost

Compared is the accuracy on the 1,000 test images at the same virtual time. How long an edge round takes, and with it
how often terminals move, is that of the static run of the same seed. Nothing here moves or trains: the library does.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from flower_edge.clients.steps import step_mod, steps_of
from flower_edge.coverage import Jumping
from flower_edge.data import dirichlet
from flower_edge.models.numpy_mlp import NumpyMLP, evaluate, train
from flower_edge.rounds import Round
from flower_edge.runtime import LocalGrid, SteppedGrid, VirtualClock
from flower_edge.runtime.clock.devices import draw_devices, draw_links
from flower_edge.runtime.generators import derive_seed
from flower_edge.strategies import Hierarchical, Layer, Layered
from flower_edge.strategies.coverage.coverage import Coverage
from flower_edge.strategies.coverage.covered import Covered
from flower_edge.strategies.coverage.mid_round import MidRound
from flower_edge.wire import arrays_of, record_of

from .harness.figures import mean_and_error
from .hierarchy_data import CLASSES, INPUTS, images

__all__ = ["ARMS", "Course", "MobilitySetting", "mobility_figures", "mobility_settings", "run_arm", "run_seed"]

ARMS: Final = ("static", "handover", "no-handover")
TERMINALS: Final = 100
EDGES: Final = tuple(f"edge-{k}" for k in range(5))
PER_EDGE: Final = 2
EDGE_ROUNDS: Final = 2
SHARE: Final = 0.3
LOCAL_STEPS: Final = 20
SLICE: Final = 5
BATCH: Final = 20
RATE: Final = 0.05
#: Accuracy is the mean over this last part of the time: a single round of ten terminals says little.
WINDOW: Final = 0.2


@dataclass(frozen=True)
class MobilitySetting:
    """One seed.

    Args:
        seed: of data, devices, links, model, batches, sampling and movement.
        cloud_rounds: of the static run, whose end is the time of the comparison.
    """

    seed: int
    cloud_rounds: int


@dataclass(frozen=True)
class Course:
    """How a run went.

    Args:
        time_s: virtual time of each evaluation, from 0.
        accuracy: found then.
        happened: events by kind, and `merged`, the usable replies at the edges.
        steps, steps_lost: that terminals made, and those of them that nobody got anything of.
    """

    time_s: Sequence[float]
    accuracy: Sequence[float]
    happened: Mapping[str, int]
    steps: int = 0
    steps_lost: int = 0

    def around(self, end_s: float, window: float = WINDOW) -> float:
        """Mean accuracy over the last part of the time up to `end_s`, each value holding until the next.

        >>> round(Course([0.0, 5.0, 9.0], [0.1, 0.5, 0.7], {}).around(10.0, window=0.2), 3)
        0.6
        """
        begin_s = (1 - window) * end_s
        edges = np.clip(np.append(self.time_s, max(end_s, self.time_s[-1])), begin_s, end_s)
        spans = np.diff(edges)
        return float(np.dot(spans, self.accuracy) / spans.sum())

    def at(self, time_s: float) -> float:
        """The last accuracy found by then."""
        return self.accuracy[int(np.searchsorted(self.time_s, time_s, side="right")) - 1]


@lru_cache(maxsize=2)
def shards(seed: int) -> tuple[tuple[NDArray[Any], NDArray[np.int64]], ...]:
    """Each terminal's images and classes."""
    data = images()
    return tuple((data.x[mine], data.y[mine]) for mine in dirichlet(data.y, TERMINALS, alpha=0.3, seed=seed))


def terminals_app(seed: int) -> ClientApp:
    """What every terminal runs: some steps of SGD, from the batch of its task at which the slice begins."""
    data, model = shards(seed), NumpyMLP([INPUTS, CLASSES])
    app = ClientApp(mods=[step_mod])

    @app.train()
    def fit(message: Message, context: Context) -> Message:
        place = int(context.node_config["partition-id"])
        x, y = data[place]
        number = int(str(message.content.config_records["config"]["server-round"]))
        steps = steps_of(message)
        model.load(arrays_of(message.content.array_records["arrays"]))
        batches = derive_seed(seed, "batches", place, number)
        done = train(model, x, y, steps=len(steps), first_step=steps.start, batch_size=BATCH, lr=RATE, seed=batches)
        # A whole task weighs as much as the terminal has images, a part of it as much less.
        weight = len(x) * len(steps) / LOCAL_STEPS
        numbers = MetricRecord({"num-examples": weight, "train_loss": done.loss, "steps": done.steps})
        return Message(RecordDict({"arrays": record_of(model.arrays()), "metrics": numbers}), reply_to=message)

    return app


class _Until(Layer[None]):
    """Ends the training at a virtual time, and keeps what happened. One per run."""

    def __init__(self, end_s: float) -> None:
        self.end_s = end_s
        self.time_s: list[float] = []
        self.accuracy: list[float] = []

    def stop(self, state: None, round: Round) -> str | None:
        return "the time is over" if self.time_s[-1] >= self.end_s else None


class _Heard(Layer[None]):
    """Counts what the coverage and its policy tell of one edge, last in the row."""

    def __init__(self, counts: Counter[str], coverage: Coverage) -> None:
        self.counts, self.coverage = counts, coverage

    def inbound(self, state: None, round: Round, replies: list[Message]) -> tuple[list[Message], None]:
        self.counts.update(event.what for event in self.coverage.events())
        good = [reply for reply in replies if not reply.has_error()]
        self.counts["merged"] += len(good)
        for reply in good:
            self.counts["steps"] += int(str(reply.content.metric_records["metrics"]["steps"]))
        return replies, state


def run_arm(arm: str, setting: MobilitySetting, *, end_s: float = 0.0, round_s: float = 0.0) -> Course:
    """One run.

    Args:
        arm: one of `ARMS`.
        setting: the seed.
        end_s: the virtual time at which it ends; 0 runs `cloud_rounds`.
        round_s: how long an edge round is taken to last; of no account where nobody moves.
    """
    seed, data, counts = setting.seed, images(), Counter[str]()
    model = NumpyMLP([INPUTS, CLASSES], seed=seed)
    share = 0.0 if arm == "static" else SHARE
    coverage = Coverage(
        Jumping(EDGES, TERMINALS, share, round_s or 1.0, derive_seed(seed, "who moves")), handover=arm != "no-handover"
    )
    watch = _Until(end_s or np.inf)
    random.seed(derive_seed(seed, "sampling"))
    with LocalGrid(terminals_app(seed), TERMINALS, seed=seed) as local:
        clock = VirtualClock(local, draw_devices(TERMINALS, seed), draw_links(TERMINALS, seed), seed=seed)
        grid = SteppedGrid(clock, SLICE, MidRound(coverage), reachable=coverage.reachable)

        def central(number: int, arrays: ArrayRecord) -> MetricRecord:
            model.load(arrays_of(arrays))
            watch.accuracy.append(evaluate(model, data.test_x, data.test_y).accuracy)
            watch.time_s.append(clock.now_s)
            return MetricRecord({"accuracy": watch.accuracy[-1]})

        def edge(cell: str) -> Layered:
            # The fraction rounds to none, so that it is the minimum that counts, however many are in reach.
            strategy = FedAvg(
                fraction_train=0.001, fraction_evaluate=0.0, min_train_nodes=PER_EDGE, min_available_nodes=PER_EDGE
            )
            return Layered(strategy, Covered(coverage), _Heard(counts, coverage))

        strategy = Hierarchical(edge=edge, cells=coverage, edge_rounds=EDGE_ROUNDS, seed=seed)
        Layered(strategy, watch).start(
            grid,
            record_of(model.arrays()),
            num_rounds=100 * setting.cloud_rounds if end_s else setting.cloud_rounds,
            train_config=ConfigRecord({"local-steps": LOCAL_STEPS}),
            evaluate_fn=central,
        )
        lost = sum(event.step for event in grid.events if event.outcome.startswith(("discarded", "lost")))
    used = counts.pop("steps")
    return Course(watch.time_s, watch.accuracy, dict(counts), used + lost, lost)


def run_seed(setting: MobilitySetting) -> dict[str, Course]:
    """All three runs of one seed, the static one first: it says what time it is."""
    static = run_arm("static", setting)
    end_s = static.time_s[-1]
    round_s = end_s / (setting.cloud_rounds * EDGE_ROUNDS)
    moving = {arm: run_arm(arm, setting, end_s=end_s, round_s=round_s) for arm in ARMS[1:]}
    return {"static": static, **moving}


def mobility_settings(*, quick: bool, seeds: Sequence[int] = (0, 1, 2, 3, 4)) -> list[MobilitySetting]:
    """One per seed; the long form goes on until the static run has made three times as many rounds."""
    return [MobilitySetting(seed, cloud_rounds=20 if quick else 60) for seed in seeds]


def mobility_figures(found: Mapping[MobilitySetting, Mapping[str, Course]]) -> dict[str, Any]:
    """The gaps, in points of accuracy.

    Returns:
        `handover_gap_points` and `no_handover_gap_points`, static less moving, with `_se` over seeds; `mobility` with
        every seed's figures.
    """
    ends_s = [courses["static"].time_s[-1] for courses in found.values()]

    def percent(arm: str, window: float) -> list[float]:
        runs = zip(found.values(), ends_s, strict=True)
        return [100 * courses[arm].around(end_s, window) for courses, end_s in runs]

    figures: dict[str, Any] = {}
    whole: dict[str, Any] = {}
    for key, arm in (("handover_gap_points", "handover"), ("no_handover_gap_points", "no-handover")):
        for into, window in ((figures, WINDOW), (whole, 1.0)):
            gaps = np.subtract(percent("static", window), percent(arm, window))
            into[key], into[f"{key}_se"] = mean_and_error(gaps)
    arms = {
        arm: {
            "accuracy_percent": percent(arm, WINDOW),
            "cloud_rounds": [len(courses[arm].accuracy) - 1 for courses in found.values()],
            "steps_lost_percent": 100
            * sum(courses[arm].steps_lost for courses in found.values())
            / max(sum(courses[arm].steps for courses in found.values()), 1),
            "happened": [dict(sorted(courses[arm].happened.items())) for courses in found.values()],
        }
        for arm in ARMS
    }
    figures["mobility"] = {"virtual_s": ends_s, "over_the_whole_time": whole, **arms}
    return figures
