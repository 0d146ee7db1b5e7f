"""`Loop`: the thread in which a run is prepared, iterates and follows its links.

What fails here ends the run: it is said, and the version that served goes on serving. Nothing here is asked by users.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from logging import getLogger
from typing import Final

from ...errors import EdgeError, FringeError, NotServed
from ...fringe.history import Iteration
from ...fringe.links import Link
from .entrance_torch import Entrance
from .events import Events
from .fleets import Fleet
from .looking_torch import Looker
from .planning_torch import Planner
from .preparing_torch import Preparer
from .requests import Requests
from .run_torch import Run
from .serving_torch import Serving
from .task_torch import CompressionTask
from .told import Phase
from .turns import Turns
from .watching import changed

__all__ = ["Loop"]

log = getLogger("flwr.edge")

_ENDED: Final = ("goals met", "floor reached", "stopped")
_IDLE_S: Final = 0.5
_LIVE_S: Final = 10.0


class Loop:
    """See the module.

    Args:
        task, fleet, planner: what is compressed where.
        turns: shared with whoever else runs models.
        events, requests: where to say and to count.
        keep: writes what has to survive a restart.
        follow_s: between two looks at links by which another version may be chosen.
        look_s: between two looks at the machines.

    Attributes:
        run: the one that goes on; None before the first.
        automatic: whether it follows links.
        entrance: where requests come in.
        preparer: brings runs to their machines.
        unkept: whether something was said or pressed since it was last kept.
        changed: notified when a run is.
    """

    def __init__(
        self,
        task: CompressionTask,
        fleet: Fleet,
        planner: Planner,
        turns: Turns,
        events: Events,
        requests: Requests,
        keep: Callable[[], None],
        *,
        follow_s: float,
        look_s: float,
    ) -> None:
        self._task, self._fleet, self._turns = task, fleet, turns
        self._events, self._keep = events, keep
        self._follow_s = follow_s
        self.run: Run | None = None
        self.automatic = True
        self.unkept = False
        self.entrance = Entrance(requests)
        self.preparer = Preparer(task, fleet, planner, self.entrance, events, requests)
        self.changed = threading.Condition()
        self._closing = threading.Event()
        self._ending = threading.Lock()
        self._followed: tuple[Link, ...] = ()
        self._followed_s = self._learned_s = -1e9
        self._thread = threading.Thread(target=self._work, name="compression", daemon=True)
        self._looker = Looker(self, requests, events, look_s)

    # -- from outside ------------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """As it is told; an end is told once its report can be made."""
        run = self.run
        if run is None:
            return "idle"
        if run.failed is not None:
            return "failed"
        if run.controller is None:
            return "stopped" if run.stopped else "preparing"
        status = run.controller.status
        return "running" if status in _ENDED and run.settled != status else status

    @property
    def serving(self) -> Serving | None:
        """What serves; None before the first deployment."""
        return self.entrance.serving

    @property
    def swaps_in_all(self) -> int:
        """Of versions, so far."""
        return self.preparer.swaps + (0 if self.serving is None else self.serving.swaps)

    def links(self) -> tuple[Link | None, ...]:
        """Of the fleet's machines: as measured or set where the pipeline uses both ends, else as was said."""
        found = list(self._fleet.links())
        serving = self.serving
        for number, one in enumerate(() if serving is None else serving.links_seen()):
            assert serving is not None
            a, b = (self._fleet.machines.index(name) for name in serving.machines[number : number + 2])
            if b == a + 1 and (isinstance(one, Link) or one.transfers):
                found[a] = one if isinstance(one, Link) else one.link
        return tuple(found)

    def begin(self, run: Run) -> None:
        """Go on with this run, and with none before it."""
        self.refuse_closed()
        before, self.run = self.run, run
        if before is not None and before.controller is not None:
            before.controller.stop()
        if not self._thread.is_alive():
            self._thread.start()
            self._looker.start()
        self.wake()

    @property
    def closed(self) -> bool:
        """Whether it has ended, or is about to."""
        return self._closing.is_set()

    def refuse_closed(self) -> None:
        """Nothing can be done any more once it is closed.

        Raises:
            FringeError: it is.
        """
        if self.closed:
            raise FringeError("this session is closed; make another CompressionSession")

    def taken_up(self) -> Run | None:
        """The run that goes on; of a restart, once all that was kept is taken up, or could not be."""
        run = self.run
        if run is None or run.kept is None:
            return run
        run.stopped = run.stopped and run.controller is not None
        self.wake()
        with self.changed:
            self.changed.wait_for(
                lambda: run.controller is not None or run.failed is not None or self.closed or self.run is not run
            )
        return self.run

    def wake(self) -> None:
        """Something has changed: look at it now."""
        with self.changed:
            self.changed.notify_all()

    def close(self) -> None:
        """End both threads, after the iteration that goes on; requests under way are answered first.

        Safe to call twice, and from several threads.
        """
        self._closing.set()
        self.wake()
        with self._ending:
            if self._thread.is_alive():
                self._thread.join()
            self._looker.close()
            self.entrance.close()
            if self.unkept and self.run is not None and self.run.failed is None:
                self._keep()
            if self.serving is not None:
                self.serving.close()

    # -- the thread --------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._closing.is_set():
            run, busy = self.run, False
            if run is not None and run.failed is None:
                try:
                    busy = self._advance(run)
                except Exception as error:  # whatever a user's model raises ends this run, not the session
                    self._fail(run, error)
            with self.changed:
                self.changed.notify_all()
                if not busy and not self._closing.is_set() and self.run is run:
                    self.changed.wait(_IDLE_S)

    def _fail(self, run: Run, error: Exception) -> None:
        told = str(error) if isinstance(error, EdgeError) else f"{type(error).__name__}: {error}"
        if not isinstance(error, EdgeError):
            log.exception("compression")
        run.failed = told
        self._events.add(f"failed: {told}")

    def _advance(self, run: Run) -> bool:
        """Do what comes next; False if there is nothing."""
        if run.controller is None:
            if run.stopped:
                return False
            with self._turns.last():
                if self.run is run:
                    self.preparer.prepare(run, lambda iteration: self._iterated(run, iteration))
                    self._keep()
            return True
        status = run.controller.status
        if status == "running":
            run.settled = None
            self._learn_live(run)
            with self._turns.last():
                run.step()
            return True
        if status in _ENDED and run.settled != status:
            self._settle(run)
            return True
        if self.automatic and status in ("goals met", "floor reached") and self._follow(run):
            return True
        if self.unkept:
            with self._turns.last():
                self._keep()
        return False

    # -- iterating ---------------------------------------------------------------------------------------------------

    def _learn_live(self, run: Run) -> None:
        if not run.settings.live or time.monotonic() - self._learned_s < _LIVE_S:
            return
        self._learned_s = time.monotonic()
        samples = run.learn_live()
        if samples:
            self._events.add(f"healing learns from {samples} inputs that the entry saw")

    def _iterated(self, run: Run, one: Iteration) -> None:
        assert run.controller is not None
        assert run.whole is not None
        if run.goes_on:
            self._events.add(run.goes_on)
            run.goes_on = ""
        at = run.whole.connections[one.connection]
        unit = {"quantisation": "bits", "pruning": "channels", "distillation": "bytes"}[one.method]
        what = f"{one.number}: {one.method} to {one.amount} {unit} at {at.producer} -> {at.consumer}"
        metric = run.controller.goals.judge.name
        score = "" if one.after_score is None else f", {metric} {one.after_score:.4g}"
        sizes = f"{sum(one.before_bytes)} -> {sum(one.after_bytes)} bytes"
        done = f"accepted as version {one.version}" if one.accepted else f"rolled back, {one.why}"
        self._events.add(f"{what}, {sizes}{score}: {done}")
        if one.why.startswith("not taken by the machines"):
            run.notice = one.why
        self._keep()
        self.wake()

    def _settle(self, run: Run) -> None:
        """It has ended: measure what serves now, and judge it by the test set."""
        controller, serving = run.controller, run.serving
        assert controller is not None
        assert serving is not None
        status = controller.status
        self._judge(run)
        seen = serving.seen(controller.version.number, 0)
        if serving.deployment is not None and (seen is None or seen.seconds is None):
            with suppress(NotServed):
                self.preparer.measure(serving, controller.version.number)
        done = len(controller.iterations)
        if run.told_end != (status, done):
            self._events.add(f"{status}, after {done} iterations, with version {controller.version.number}")
        run.settled, run.told_end = status, (status, done)
        self._followed, self._followed_s = run.links(), time.monotonic()
        with self._turns.last():
            self._keep()

    def _judge(self, run: Run) -> None:
        """By the test set, for the report; nothing is chosen by it."""
        assert run.controller is not None
        with self._turns.last():
            for version in (0, run.controller.version.number):
                run.test_score(self._task, version)

    # -- following ---------------------------------------------------------------------------------------------------

    def _follow(self, run: Run) -> bool:
        controller = run.controller
        assert controller is not None
        if time.monotonic() - self._followed_s < self._follow_s:
            return False
        self._followed_s = time.monotonic()
        links = run.links()
        if controller.status == "floor reached" and not changed(
            self._followed, links, controller.versions[0].sizes_bytes
        ):
            return False  # nothing was left to try on such links
        before = controller.version.number
        with self._turns.last():
            try:
                made = controller.follow()
            except EdgeError as error:
                self._events.add(f"links could not be followed: {error}")
                return False
        self._followed = links
        if controller.version.number != before:
            self._events.add(f"links have changed: version {controller.version.number} instead of {before}")
            self._judge(run)
            with self._turns.last():
                self._keep()
        # Said once there is something left to try.
        run.goes_on = "goals are missed on links as they are now: compressing on" if made.what == "compress" else ""
        return made.what == "compress"
