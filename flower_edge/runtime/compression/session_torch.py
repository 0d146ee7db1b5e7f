"""`CompressionSession`: a compression that goes on while its pipeline serves; page, command line and programs drive it.

    submit  ->  links, choice, cut, deploy, measure  ->  iterate  ->  goals met, floor reached, or stopped
                                                     ->  follow the links, and compress on where that is needed

All that takes long happens in one thread of the session; methods may be called by any thread. What fails there ends the
run and not the session: the version that served goes on serving. The machines are a `Fleet`'s, which whoever made it
closes. Nothing here chooses a step: see `Controller`.

Source: [2] ¶45-47 and FIG. 4, what the control panel offers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import numpy.typing as npt

from ...errors import EdgeError, FringeError, StateError
from ...fringe.links import Link
from ..fringe.channels import Served
from .buttons_torch import Buttons
from .events import Events
from .fleets import Fleet
from .kept import KeptSession
from .loop_torch import Loop
from .planning_torch import Planner
from .reporting_torch import csv_text, json_text, report_of, save_text
from .requests import Requests
from .restart_torch import kept_of, restored
from .settings import CompressionSettings
from .submitting_torch import accepted, going_on
from .task_torch import CompressionTask
from .telling_torch import told_of
from .told import Phase, Told
from .turns import Turns

__all__ = ["CompressionSession"]


class CompressionSession:
    """See the module.

    Args:
        task: a model and its data.
        fleet: the machines; not closed here.
        folder: where everything is kept that has to survive a restart; None keeps nothing.
        rate_per_s: inferences per second, for Eq. 1 in bits per second.
        follow_s: between two looks at links by which another version may be chosen.
        look_s: between two looks at what machines count and measure.
        clock: seconds since the epoch, of events.

    Usable as a context manager: `close` at the end.

    Raises:
        SplitError: a model that cannot be cut.
    """

    def __init__(
        self,
        task: CompressionTask,
        fleet: Fleet,
        *,
        folder: str | Path | None = None,
        rate_per_s: float = 1.0,
        follow_s: float = 5.0,
        look_s: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for name, value in (("rate_per_s", rate_per_s), ("follow_s", follow_s), ("look_s", look_s)):
            if not value > 0:
                raise FringeError(f"{name} = {value}: expected above 0")
        self.task, self.fleet, self._rate_per_s = task, fleet, rate_per_s
        self._told_task = task.told()  # traces the model, before anything else runs it
        self._turns, self._events, self._requests = Turns(), Events(clock), Requests()
        self._file = KeptSession(folder)
        self._taken_up = not self._file.there
        self._planner = Planner(task, fleet)
        self._refused: str | None = None
        self._unwritten: str | None = None
        self._submitting = threading.Lock()
        self._loop = Loop(
            task, fleet, self._planner, self._turns, self._events, self._requests, self._keep,
            follow_s=follow_s, look_s=look_s,
        )  # fmt: skip
        self._buttons = Buttons(self._loop, self._turns, self._events, self._keep)

    # -- submissions -------------------------------------------------------------------------------------------------

    def propose(self, settings: CompressionSettings, *, refuse: bool = True) -> dict[str, Any]:
        """What would be chosen, what an inference costs uncompressed, and the most that could go.

        Nothing is changed. While an iteration goes on this may have to wait for its end. Of what would go on from where
        it is, see `submit`, nothing is chosen again; `from_version` is the version it would go on from, else None.

        Args:
            settings: that would be submitted.
            refuse: whether goals that cannot be reached are an error; else `refused` says why.

        Raises:
            FringeError: settings that do not go with the task or the machines; goals that cannot be reached, with what
                could be.
            SplitError: a model that cannot be cut there.
        """
        with self._turns.first():
            run = going_on(self._loop, settings)
            choice = None if run is None else run.choice
            told = self._planner.plan(settings, self._loop.links(), choice=choice, refuse=refuse).told
            at = None if run is None or run.controller is None else run.controller.version.number
            return {**told, "from_version": at}

    def submit(self, settings: CompressionSettings) -> dict[str, Any]:
        """Compress. Returns what was proposed, once it is accepted; the rest happens in a thread.

        While another goes on: where only goals are others, it aims at these from where it is, else it ends and this one
        begins, without losing a request.

        Raises:
            FringeError, SplitError: as of `propose`; what went on before goes on. `told()["error"]` says it, too.
            StateError: the folder holds a session that was not taken up, or could not be; it stays as it is.
        """
        with self._submitting:
            if not self._taken_up:
                raise StateError(f"{self._file.path} holds a compression: go on with it, resume_kept(), or use another")
            self._loop.refuse_closed()
            before = self._loop.taken_up()
            if before is not None and before.kept is not None and before.controller is None:
                raise StateError(
                    f"{self._file.path} holds a compression that could not be gone on with: {before.failed}; mend that "
                    "and resume_kept(), or use another folder"
                )
            try:
                told = accepted(settings, self.task, self._loop, self._planner, self._turns, self._events, self._keep)
            except EdgeError as error:
                self._refused = str(error)
                self._events.add(f"refused: {error}")
                raise
            self._refused = None
            return told

    # -- buttons -----------------------------------------------------------------------------------------------------

    def pause(self) -> None:
        """After the iteration that goes on, wait.

        Raises:
            FringeError: nothing goes on.
        """
        self._buttons.pause()

    def resume(self) -> None:
        """Go on after `pause`, `stop` or `roll_back`.

        Raises:
            FringeError: nothing was submitted, or it failed.
        """
        self._buttons.resume()

    def stop(self) -> None:
        """After the iteration that goes on, end; the current version goes on serving.

        Raises:
            FringeError: nothing goes on.
        """
        self._buttons.stop()

    def roll_back(self, number: int) -> None:
        """Make a version current again, byte for byte; iterating pauses, and links are not followed until told to.

        Raises:
            FringeError: no such version, nothing goes on, or another submission began meanwhile.
            EdgeError: the machines do not take it; the one before goes on.
        """
        self._buttons.roll_back(number)

    @property
    def is_automatic(self) -> bool:
        """Whether it follows links."""
        return self._loop.automatic

    def automatic(self, on: bool) -> None:
        """Follow links as they change, or let the version be as it is.

        Raises:
            FringeError: neither true nor false, or the session is closed.
        """
        self._buttons.automatic(on)

    def override_link(self, connection: int | str, link: Link | None) -> None:
        """Take a link to be another than is measured or said; None: as it is measured or said.

        Args:
            connection: its number, or its name, such as "camera -> gateway".
            link: that it is taken to be.

        Raises:
            FringeError: no such connection.
        """
        self._buttons.override_link(connection, link)

    # -- requests ----------------------------------------------------------------------------------------------------

    def ask(self, x: npt.NDArray[Any]) -> Future[Served]:
        """Send a request of samples [batch, ...] through what serves; the future gives the answer.

        It is counted whatever becomes of it; the future raises `NotServed` where it was not answered. While machines
        are exchanged for others it waits here.

        Raises:
            FringeError: nothing serves, or a tensor that the pipeline does not take.
        """
        return self._loop.entrance.ask(x)

    # -- what there is -----------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """As in `told`."""
        return self._loop.phase

    def told(self) -> Told:
        """All there is to show, as plain values; asks no machine."""
        return told_of(
            self._loop, self.fleet, self._told_task, self._requests, self._events.told(),
            self._refused or self._unwritten,
        )  # fmt: skip

    def report(self) -> dict[str, Any]:
        """Eqs. 1 and 2, measured beside modelled, the metric on the test set, the proof. Best when it has ended.

        Raises:
            FringeError: nothing was compressed yet.
        """
        with self._turns.first():
            report = report_of(self._loop.run, self.task, self._requests, self._rate_per_s)
        return {**report, "requests": self.told()["requests"]}

    def save_csv(self, path: str | Path) -> Path:
        """The iterations, one line each.

        Raises:
            StateError: it cannot be written.
        """
        return save_text(path, self.csv())

    def csv(self) -> str:
        """The same as text."""
        return csv_text(self.told()["iterations"])

    def save_json(self, path: str | Path) -> Path:
        """All that is told, and the report if there is one.

        Raises:
            StateError: it cannot be written.
        """
        return save_text(path, self.json())

    def json(self) -> str:
        """The same as text."""
        run = self._loop.run
        report = None if run is None or run.controller is None else self.report()
        return json_text(self.told(), report)

    def wait(self, timeout_s: float | None = None) -> Phase:
        """Until it has ended: goals met, floor reached, stopped or failed; or paused, closed, or nothing was submitted.

        Args:
            timeout_s: at most; None: as long as it takes.

        Returns:
            The phase, whichever it is then.
        """
        going = ("preparing", "running")
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        with self._loop.changed:
            while self.phase in going and not self._loop.closed:
                left_s = None if until_s is None else until_s - time.monotonic()
                if left_s is not None and left_s <= 0:
                    break
                self._loop.changed.wait(0.5 if left_s is None else min(0.5, left_s))
        return self.phase

    # -- a restart ---------------------------------------------------------------------------------------------------

    def continued(self) -> bool:
        """Whether the folder holds a session to go on with, see `resume_kept`; nothing is done yet."""
        return self._file.there and not self._taken_up

    def resume_kept(self) -> None:
        """Go on with what the folder holds, where it was: the same iterations, and the current version serves again.

        Raises:
            StateError: there is nothing, or a file that is damaged or something else's; it stays as it is. Or
                something goes on already.
            FringeError: of another task, or of machines that there are not.
        """
        with self._submitting:
            self._loop.refuse_closed()
            before = self._loop.run
            if before is not None and (before.kept is None or before.controller is not None or before.failed is None):
                raise StateError(f"{self._file.path}: this session goes on already; nothing was taken up")
            kept = self._file.read()
            with self._turns.first():
                run = restored(kept, str(self._file.path), self.task, self._planner, self._events, self._requests)
            self._taken_up = True
            self._events.add("goes on after a restart")
            self._loop.automatic, self._loop.preparer.swaps = kept["automatic"], kept["swaps"]
            self._loop.begin(run)

    def _keep(self) -> None:
        run = self._loop.run
        if self._file.path is None or run is None or run.controller is None:
            return
        self._loop.unkept = False
        parts = kept_of(run, self.task, self._events, self._requests, self._loop.automatic, self._loop.swaps_in_all)
        try:
            self._file.write(parts)
        except StateError as error:
            # A disk that is full is no reason to lose what was compressed: it goes on, and is written once it can be.
            if self._unwritten is None:
                self._events.add(f"not kept: {error}")
            self._unwritten = str(error)
            return
        self._unwritten = None
        self._taken_up = True

    def close(self) -> None:
        """End the thread after the iteration that goes on, then the channels, once what was asked is answered.

        Stages go on. Safe to call twice.
        """
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
