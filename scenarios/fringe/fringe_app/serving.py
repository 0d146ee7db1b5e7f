"""Serves the trained model on three machines and compresses it while people ask, on a link that gets worse and better.

    asked, uncompressed  ->  compressed  ->  a link gets worse  ->  compressed on, or swapped  ->  it recovers

The machines are processes of this one, with TLS between them; the links are relays as slow as the run config says.
Nothing here draws.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from logging import getLogger
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from flower_edge.errors import FringeError
from flower_edge.fringe import Link
from flower_edge.fringe.fitting_torch import Recipe
from flower_edge.fringe.metrics import METRICS
from flower_edge.models import Model
from flower_edge.runtime.compression.local_stages import LocalStages
from flower_edge.runtime.compression.session_torch import CompressionSession
from flower_edge.runtime.compression.settings import CompressionSettings
from flower_edge.runtime.compression.task_torch import CompressionTask
from flower_edge.runtime.compression.told import Told
from flower_edge.runtime.fringe.channels import Served as Answered
from flower_edge.runtime.fringe.loading_torch import use_threads
from flower_edge.runtime.fringe.open_traffic import Answer, OpenTraffic
from fringe_app import task
from fringe_app.config import FringeRun

Array = npt.NDArray[Any]

# A child of Flower's own logger: what it says appears where Flower's lines do.
log = getLogger("flwr.fringe")

#: Different inputs that are asked about: few, so that each version answers each of them several times.
INPUTS: Final = 12
ENDED: Final = ("goals met", "floor reached")
#: Between two looks at links, and at what machines measure.
FOLLOW_S: Final = 2.0
LOOK_S: Final = 0.5
_POLL_S: Final = 0.1
#: When all of the test data are asked about.
_AT_ONCE, _ANSWER_S = 16, 30.0


@dataclass(frozen=True)
class Phase:
    """A stretch of the run, in seconds since requests began."""

    name: str
    begin_s: float
    end_s: float


@dataclass(frozen=True)
class Current:
    """From when on which version of the controller is current, and its bytes of an inference at each connection."""

    since_s: float
    number: int
    sizes_bytes: tuple[int, ...]


@dataclass
class Served:
    """What was seen. Times are seconds since requests began.

    Attributes:
        answers: in the order they came.
        phases: one after the other.
        versions: that were current, one after the other.
        happened: when what happened, in words.
        told: of the session, at the end.
        accuracy: on test, asked of the machines with the last version.
        unanswered: requests of which nothing was heard.
    """

    answers: list[Answer] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    versions: list[Current] = field(default_factory=list)
    happened: list[tuple[float, str]] = field(default_factory=list)
    told: Told | None = None
    accuracy: float = float("nan")
    unanswered: int = 0

    @property
    def lost(self) -> int:
        """Requests without an answer, for whatever reason."""
        return self.unanswered + sum(one.served is None for one in self.answers)

    @property
    def mixed(self) -> int:
        """Answers that are not what their version gives to that input, bit for bit.

        Each version is asked about each input several times: were one request served by parts of two versions, its
        answer would be another than the rest.
        """
        found: dict[tuple[int, int], Counter[bytes]] = {}
        for one in self.answers:
            if one.served is not None:
                outputs = found.setdefault((one.served.version, one.sample), Counter())
                outputs[one.served.output.tobytes()] += 1
        return sum(sum(outputs.values()) - max(outputs.values()) for outputs in found.values())

    def seconds_s(self, phase: Phase) -> list[float]:
        """Of the answers to requests that were sent in a phase."""
        return [one.seconds_s for one in self.answers if one.served and phase.begin_s <= one.sent_s < phase.end_s]

    def p50_s(self, phase: Phase) -> float:
        """Their median; NaN where there were none."""
        taken = self.seconds_s(phase)
        return float(np.median(taken)) if taken else float("nan")


def settings_of(config: FringeRun) -> CompressionSettings:
    """The submission."""
    return CompressionSettings(
        machines=config.serve.machine_names,
        cuts=config.serve.cut_names,
        depth=config.goal.depth,
        methods=tuple(config.goal.methods.split()),
        metric=config.goal.metric,
        drop=config.goal.drop,
        latency=f"{config.goal.latency_ms:g} ms",
        seed=config.seed,
    )


def compression_task(config: FringeRun, model: Model) -> CompressionTask:
    """The trained model and what it is compressed with; labels of what it heals with are left behind."""
    validation, test = task.validation_data(config), task.datasets(config)[1]
    assert isinstance(model, torch.nn.Module)
    return CompressionTask(
        f"{config.data.name}, trained by a federation",
        model.eval(),
        torch.from_numpy(task.learn_data(config).x),
        (torch.from_numpy(validation.x), torch.from_numpy(validation.y)),
        (torch.from_numpy(test.x), torch.from_numpy(test.y)),
        healing=Recipe(epochs=3, seed=config.seed),
    )


def serve(config: FringeRun, model: Model, folder: Path) -> Served:
    """All of it; every process that is started has ended when this returns.

    Args:
        config: the run config.
        model: that the federation trained.
        folder: where stages say what they have to say, and the session keeps what survives a restart.
    """
    links, worse = config.serve.links, config.worse
    # Healing must not take from the machines, which are on the same processor, nor from what tells Flower that we live.
    use_threads(1)
    # One request at a time on a machine: a batch may round otherwise than its samples one by one.
    with LocalStages(config.serve.machine_names, links, folder=folder / "stages", options=("--batch", "1")) as fleet:
        work = compression_task(config, model)
        with CompressionSession(
            work, fleet, folder=folder, rate_per_s=config.serve.requests_per_s, follow_s=FOLLOW_S, look_s=LOOK_S
        ) as session:
            # A goal that is met by all: what serves is the model as it was trained.
            session.submit(replace(settings_of(config), latency="1000 s"))
            if session.wait(config.phases.most_s + 60.0) != "goals met":
                raise FringeError(f"the model is not served: {session.told()['error'] or session.phase}")
            story = _Story(config, session)
            inputs = work.test[0].numpy()[:INPUTS]
            traffic = OpenTraffic(
                session.ask,
                inputs,
                config.serve.requests_per_s,
                seed=config.seed,
                told=story.answered,
                clock=story.now_s,
            )
            with traffic:
                story.phase("uncompressed", config.calm_s)
                session.submit(settings_of(config))
                story.phase("compressing", None, lambda told: told["phase"] in ENDED and len(told["iterations"]) > 0)
                story.phase("compressed", config.calm_s)

                before, bad = story.version, links[worse.connection]
                fleet.relink(worse.connection, Link(bad.goodput_bps / worse.times, bad.delay_s))
                story.say(f"link {worse.connection} falls to {bad.goodput_bps / worse.times / 1e6:g} Mbit/s")
                story.phase("worse", None, lambda told: told["phase"] in ENDED and story.version != before)
                story.phase("compressed on", config.calm_s)

                before, scores = story.version, {one["number"]: one["score"] for one in session.told()["versions"]}
                fleet.relink(worse.connection, bad)
                story.say(f"link {worse.connection} is back at {bad.goodput_bps / 1e6:g} Mbit/s")
                if any(METRICS[config.goal.metric].better(score, scores[before]) for score in scores.values()):
                    story.phase("better", None, lambda told: story.version != before)
                else:
                    story.say("no version is better than this one: it stays")
                    story.phase("better", config.calm_s)
                story.phase("backed off", config.calm_s)
            session.automatic(False)  # what is judged now is what is served
            test = task.datasets(config)[1]
            return story.end(traffic, test.x, test.labels)


class _Story:
    """Waits, and writes down what is seen meanwhile."""

    def __init__(self, config: FringeRun, session: CompressionSession) -> None:
        self._most_s, self._session = config.phases.most_s, session
        self._began_s, self._began_epoch_s = time.monotonic(), time.time()
        self.seen = Served()

    def now_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began_s

    @property
    def version(self) -> int:
        """That is current."""
        return self.seen.versions[-1].number

    def answered(self, answer: Answer) -> None:
        """A request was."""
        self.seen.answers.append(answer)

    def say(self, text: str) -> None:
        """Something happened."""
        self.seen.happened.append((self.now_s(), text))
        log.info("%s", text)

    def until(self, there: Callable[[Told], bool], most_s: float | None = None) -> bool:
        """Wait for something; whether it came in time.

        Raises:
            FringeError: the compression failed.
        """
        end_s = self.now_s() + (self._most_s if most_s is None else most_s)
        while True:
            told = self._session.told()
            if told["phase"] == "failed":
                raise FringeError(f"the compression failed: {told['error']}")
            self._look(told)
            if there(told):
                return True
            if self.now_s() >= end_s:
                return False
            time.sleep(_POLL_S)

    def phase(self, name: str, calm_s: float | None, there: Callable[[Told], bool] = lambda told: False) -> None:
        """A stretch: so long, or until something is there."""
        begin_s = self.now_s()
        came = self.until(there, calm_s)
        self.seen.phases.append(Phase(name, begin_s, self.now_s()))
        if calm_s is None and not came:
            self.say(f"{name}: nothing came of it in {self._most_s:g} s")

    def end(self, traffic: OpenTraffic, x: Array, labels: Array) -> Served:
        """After the traffic has ended."""
        under_way: deque[Future[Answered]] = deque()
        classes: list[int] = []
        for number in range(len(x)):
            under_way.append(self._session.ask(x[number : number + 1]))
            while under_way and (len(under_way) == _AT_ONCE or number == len(x) - 1):
                classes.append(int(under_way.popleft().result(_ANSWER_S).output.argmax()))
        self.seen.accuracy = float(np.mean(np.array(classes) == labels))
        self._session.report()  # judges the last version by the test set
        self.seen.told = self._session.told()
        self._look(self.seen.told)
        self.seen.unanswered = traffic.sent - traffic.answered - traffic.lost
        self.seen.happened += [
            (event["time_s"] - self._began_epoch_s, event["text"]) for event in self.seen.told["events"]
        ]
        self.seen.happened.sort()
        return self.seen

    def _look(self, told: Told) -> None:
        number = next((one["number"] for one in told["versions"] if one["current"]), None)
        if number is None or (self.seen.versions and self.version == number):
            return
        sizes = tuple(one["now_bytes"] for one in told["connections"])
        self.seen.versions.append(Current(self.now_s(), number, sizes))
        log.info("version %d serves: %s bytes", number, " + ".join(map(str, sizes)))
