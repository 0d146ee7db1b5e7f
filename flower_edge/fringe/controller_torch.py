"""`Controller`: compresses a pipeline step by step until its goals are met, and never below its floor.

    choose a connection and a method -> compress -> heal -> evaluate -> accept, or stay with what was there and halve
    the step

It ends when the goals are met, when nothing is left to try that the floor allows, or when somebody stops it. After each
iteration the frozen arrays and the whole pipeline are hashed. All of it may be kept (`state`) and gone on with after a
restart, bit for bit but for `seconds_s`. Threads may call everything. Nothing here serves: see `Deployed`.

Source: [2] ¶34-46 and FIG. 5.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy.typing as npt
import torch

from ..errors import EdgeError, FringeError, FrozenMoved
from .actions import METHODS, Candidate, StepBook, candidates, checked_methods
from .adapting import Adapting, Decision
from .deployed_torch import Deployed
from .distil_recipe import DistilRecipe
from .fringe_torch import Fringe
from .goals import Goals
from .healing_torch import Recipe
from .history import Iteration
from .learning_torch import Learning
from .links import Attainable, Link, attainable
from .operations_torch import Compressor, fingerprint
from .pipeline_torch import Pipeline
from .policy import Policy, SlowestFirst
from .standing_torch import Standing
from .steering import Status
from .trials_torch import SLOWER, attempt
from .versions_torch import Versions

__all__ = ["Controller"]

log = logging.getLogger(__name__)

_FORM: Final = "fringe-control/1"


class Controller(Standing):
    """See the module.

    Args:
        pipeline: before any compression; stays as it is.
        fringe: the layers that may change, found on it.
        goals: what is to be reached, and the floor.
        evaluate: the metric of a pipeline on validation data, as `evaluation(x, y, goals.metric)` gives it.
        samples: inputs [samples, ...] to learn from, without labels.
        links: of the connections, where `deployed` measured none; None: it measures all.
        labels: of the samples, for distillation; None does without.
        methods: some of `METHODS`.
        policy: which candidate is tried next; None: `SlowestFirst()`.
        deployed: machines that serve; each version that is accepted is swapped in.
        compute_s: seconds of each machine for an inference of a pipeline, such as `stage_seconds` measures. With it,
            what makes an inference slower on these links is not taken. None: links alone count, and nothing here
            depends on a clock.
        bits: that numbers on the wire may have.
        healing, distilling: recipes.
        adapting: when to go to another version as links change, see `follow`.
        on_iteration: is called with each iteration, in the thread that made it.
        state: what `state` gave, of a controller with the same other arguments.
        other_samples: go on from a `state` that learned from other samples than these. Without it that is refused.
        clock: seconds, for `Iteration.seconds_s`.

    Raises:
        FringeError: goals that cannot be reached, with what could be; a pipeline that is below its floor already;
            methods, bits or state that are none; samples that the pipeline does not take.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        fringe: Fringe,
        goals: Goals,
        evaluate: Callable[[Pipeline], float],
        samples: torch.Tensor | npt.NDArray[Any],
        links: Sequence[Link] | None = None,
        *,
        labels: torch.Tensor | None = None,
        methods: Sequence[str] = METHODS,
        policy: Policy | None = None,
        deployed: Deployed | None = None,
        compute_s: Callable[[Pipeline], Sequence[float]] | None = None,
        bits: Sequence[int] = (16, 8, 4, 2),
        healing: Recipe | None = None,
        distilling: DistilRecipe | None = None,
        adapting: Adapting | None = None,
        on_iteration: Callable[[Iteration], None] | None = None,
        state: Mapping[str, Any] | None = None,
        other_samples: bool = False,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if links is None and deployed is None:
            raise FringeError("neither links nor deployed; give links=[Link(10e6, 0.010), …], or what serves")
        if not pipeline.wires:
            raise FringeError(f"a pipeline on {pipeline.machines[0]!r} alone: expected two machines or more")
        if not bits or any(one not in (16, 8, 4, 2) for one in bits):
            raise FringeError(f"bits = {tuple(bits)}: expected some of 16, 8, 4, 2")
        super().__init__(goals, Versions(pipeline, fringe, deployed), deployed, links)
        self.methods, self.policy = checked_methods(methods), policy or SlowestFirst()
        self.fringe, self._evaluate, self._compute_s = fringe, evaluate, compute_s
        self._bits, self._clock = tuple(bits), clock
        self.adapting, self._on_iteration = adapting or Adapting(), on_iteration
        self.learning = Learning.of(pipeline, samples, labels)
        self._compressor = Compressor(
            self.whole, fringe, self.learning.samples, self.learning.labels, healing, distilling
        )  # fmt: skip
        self._turn = threading.RLock()  # one iteration, roll back or swap at a time
        self._seen = 0
        self.iterations: list[Iteration] = []
        self._kept.begin(evaluate(self.whole), self._computed(self.whole))
        if state is None:
            self.attainable = self._possible(goals)
        else:  # links as they happen to be now are no reason not to go on
            first = self.versions[0]
            self.attainable = attainable(first.sizes_bytes, self.links(), first.compute_s)
            self._resume(state, other_samples)

    # -- what it does ------------------------------------------------------------------------------------------------

    def run(self, most: int | None = None) -> Status:
        """Iterate until it ends. While it is paused, wait for another thread to resume or stop it.

        Args:
            most: iterations; None: as many as it takes.

        Returns:
            Why it ended; "running" if there were `most` iterations first.
        """
        done = 0
        while (most is None or done < most) and self._steering.wait_while_paused() == "running":
            done += self.step() is not None
        return self.status

    def step(self) -> Iteration | None:
        """One iteration; None if there is nothing to do: it ended, or is paused.

        Raises:
            FrozenMoved, FringeError: somebody changed an array of the pipeline. Nothing was accepted.
            Exception: whatever `evaluate` raises; everything is as it was.
        """
        with self._turn:
            if self.status != "running":
                return None
            if self.goals_met():
                self._steering.set("goals met", only=("running",))
                return None
            links = self.links()
            found = candidates(
                self.pipeline.wires, self.version.operations, self.versions[0].sizes_bytes, links, self._book,
                methods=self.methods, bits=self._bits, multiples=self.policy.multiples,
            )  # fmt: skip
            if not found:
                self._steering.set("floor reached", only=("running",))
                return None
            slack = max(0.0, self.goals.judge.lost(self.goals.worst(self.versions[0].score), self.version.score))
            chosen = self.policy.choose(found, slack)
            iteration = self._tried(chosen, links, slack)
            self.iterations.append(iteration)
            log.info("%d: %s: %s", iteration.number, chosen.action, "accepted" if iteration.accepted else iteration.why)
            if self.goals_met():
                self._steering.set("goals met", only=("running",))
        if self._on_iteration is not None:
            self._on_iteration(iteration)
        return iteration

    def follow(self) -> Decision:
        """Look at the links again: go to a version that suits them better, or compress on. See `Adapting`."""
        with self._turn:
            links = self.links()
            made = self.adapting.decide(self.versions, self.version.number, links, self.goals, self._seen)
            self._seen = made.seen
            if made.version != self.version.number:
                self._go_to(made.version)
            if made.what == "compress" and self.status in ("goals met", "floor reached"):
                # Other links: what was too slow to be worth it may be worth it now.
                kept = {key: why for key, why in self._book.closed.items() if why != SLOWER}
                self._book = replace(self._book, closed=kept)
                self._steering.set("running")
            return made

    def pause(self) -> None:
        """After the iteration that goes on now, wait."""
        self._steering.set("paused", only=("running",))

    def resume(self) -> None:
        """Go on after `pause` or `stop`."""
        self._steering.set("running", only=("paused", "stopped"))

    def stop(self) -> None:
        """After the iteration that goes on now, end; also from a pause."""
        self._steering.set("stopped", only=("running", "paused"))

    def aim(self, goals: Goals) -> None:
        """Go for other goals from the current version on; what was closed is open again.

        Raises:
            FringeError: goals of another metric, or such as cannot be reached; those before are kept.
        """
        with self._turn:
            if goals.judge.name != self.goals.judge.name:
                raise FringeError(
                    f"goals by {goals.judge.name!r}: expected {self.goals.judge.name!r}, by which versions were judged"
                )
            self.attainable, self.goals = self._possible(goals), goals
            self._book, self._seen = StepBook.new(), 0
            self._steering.set("running", only=("goals met", "floor reached", "stopped"))

    def learn_from(
        self, samples: torch.Tensor | npt.NDArray[Any], labels: torch.Tensor | None = None, *, anew: bool = False
    ) -> None:
        """Heal and distil with other inputs from the next iteration on, such as those that live requests brought.

        Args:
            samples: inputs [samples, ...], without labels; copied.
            labels: of the samples, for distillation; None does without, those given before are not of these.
            anew: try again what the floor did not allow with the samples before; go on, if that was the end. Not to be
                said with each few samples that came: then nothing is ever closed.

        Raises:
            FringeError: inputs that the pipeline does not take; it goes on with those before.
        """
        learning = Learning.of(self.whole, samples, labels)
        with self._turn:
            self.learning = learning
            self._compressor = replace(self._compressor, samples=learning.samples, labels=learning.labels)
            if anew:
                self._book, self._seen = StepBook.new(), 0
                self._steering.set("running", only=("floor reached",))

    def roll_back(self, to: int) -> None:
        """Make an earlier (or later) version current, byte for byte, and pause if it was going on.

        Raises:
            FringeError: no such version, or one that is not what it was.
        """
        self.pause()
        with self._turn:
            self._go_to(to)

    # -- one iteration -----------------------------------------------------------------------------------------------

    def _tried(self, chosen: Candidate, links: tuple[Link, ...], slack: float) -> Iteration:
        self._kept.check()
        begun, before, before_s, action = self._clock(), self.version, self.latency_s(), chosen.action
        trial = attempt(
            self._compressor, self.pipeline, before.operations, chosen, self.goals, links, self._evaluate,
            first_score=self.versions[0].score, latency_s=before_s,
            compute_s=None if self._compute_s is None else self._computed,
        )  # fmt: skip
        why, accepted, book = trial.why, False, self._book
        if trial.outcome == "fits":
            assert trial.score is not None
            try:
                self._kept.take(trial.pipeline, trial.operations, trial.score, trial.compute_s)
                accepted = True
                book = book.paired(action.connection) if action.method == "distillation" else book
            except FrozenMoved:
                raise
            except EdgeError as error:  # says nothing about the step, and the next one would fare no better
                why = f"not taken by the machines: {error}"
                self.stop()
        elif trial.outcome == "below the floor":
            book = book.halved(chosen, why)
        else:
            book = book.shut(action, why)
        self._book = book
        frozen, digest = self._kept.check()
        return Iteration(
            len(self.iterations) + 1, action.method, action.connection, action.amount, action.octaves, accepted, why,
            before.sizes_bytes, trial.sizes_bytes, before_s, None if math.isnan(trial.latency_s) else trial.latency_s,
            before.score, trial.score, trial.healed, frozen, before.digest, digest, self.version.number,
            self._clock() - begun, {**chosen.row(), "slack": slack}, self.learning.digest,
        )  # fmt: skip

    def _possible(self, goals: Goals) -> Attainable:
        first = self.versions[0]
        return goals.refuse_impossible(first.sizes_bytes, self.links(), first.compute_s, score=first.score)

    def _go_to(self, number: int) -> None:
        self._kept.go_to(number)
        # Steps that failed from another version say little of this one.
        self._book, self._seen = StepBook.new(), 0

    def _computed(self, pipeline: Pipeline) -> tuple[float, ...]:
        return () if self._compute_s is None else tuple(float(seconds) for seconds in self._compute_s(pipeline))

    # -- a restart ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All there is to go on from, nested plain values and arrays, for `flower_edge.store.save_tree`."""
        with self._turn:
            return {
                **self._about(),
                "status": self.status,
                "book": self._book.state(),
                "seen": self._seen,
                "learning": self.learning.about(),
                "iterations": [one.row() for one in self.iterations],
                "versions": self._kept.state(),
            }

    def _about(self) -> dict[str, Any]:
        about = {"form": _FORM, "model": fingerprint(self.whole), "frozen": self._kept.proof.digest}
        return {**about, "goals": self.goals.config()}

    def _resume(self, state: Mapping[str, Any], other_samples: bool) -> None:
        other = [name for name, value in self._about().items() if state.get(name) != value]
        if other:
            raise FringeError(
                f"state of a controller with another {', '.join(other)}; go on with the pipeline, the fringe and the "
                "goals it was begun with, or begin anew: state=None"
            )
        if not other_samples:
            self.learning.refuse_other(state.get("learning"))
        try:
            self._kept.resume(state["versions"])
            self.iterations = [Iteration.from_row(row) for row in state["iterations"]]
            self._book, self._seen = StepBook(**state["book"]), int(state["seen"])
            self._steering.set(state["status"])
        except (KeyError, TypeError, ValueError) as error:
            raise FringeError(f"state of a controller: {error!s:.200}; expected what Controller.state gives") from error
