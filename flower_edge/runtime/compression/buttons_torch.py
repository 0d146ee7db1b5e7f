"""`Buttons`: what a user does to a run that goes on: pause, resume, stop, go back to a version, set a link by hand.

Pressed by any thread, while the loop iterates. What is refused changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from ...errors import EdgeError, FringeError
from ...fringe.controller_torch import Controller
from ...fringe.links import Link
from .events import Events
from .fleets import connection_named
from .loop_torch import Loop
from .run_torch import Run
from .turns import Turns
from .watching import described

__all__ = ["Buttons"]


class Buttons:
    """See the module; each of them as `CompressionSession` says it.

    Args:
        loop: with the run that goes on.
        turns: of all who run models.
        events: where it is said.
        keep: writes what has to survive a restart.
    """

    def __init__(self, loop: Loop, turns: Turns, events: Events, keep: Callable[[], None]) -> None:
        self._loop, self._turns, self._events, self._keep = loop, turns, events, keep

    def pause(self) -> None:
        """See `CompressionSession`."""
        self._running()[1].pause()
        self._said("paused")

    def resume(self) -> None:
        """See `CompressionSession`."""
        self._loop.refuse_closed()
        run = self._loop.run
        if run is not None and run.controller is None and run.failed is None:
            run.stopped = False
            self._loop.wake()
            return
        run, controller = self._running()
        with self._turns.first():
            self._still(run)
            controller.resume()
            if controller.status in ("goals met", "floor reached") and not controller.goals_met():
                controller.aim(controller.goals)
        self._said("resumed")

    def stop(self) -> None:
        """See `CompressionSession`."""
        self._loop.refuse_closed()
        run = self._loop.run
        if run is None or run.controller is not None or run.failed is not None:
            self._running()[1].stop()
        else:
            _stop_soon(run)
        self._said("stopped by the user")

    def roll_back(self, number: int) -> None:
        """See `CompressionSession`."""
        run, controller = self._running()
        known = [one.number for one in controller.versions]
        if number not in known:
            raise FringeError(f"version {number!r}: expected one of {', '.join(map(str, known))}")
        went_on = controller.status == "running"
        controller.pause()
        with self._turns.first():
            self._still(run)
            try:
                controller.roll_back(number)
            except EdgeError:
                if went_on:
                    controller.resume()
                self._loop.wake()
                raise
            if controller.status != "paused":  # it had ended
                with suppress(FringeError):  # goals that links as they are now put out of reach: it stays ended
                    controller.aim(controller.goals)
                controller.pause()
            self._loop.automatic = False
            self._events.add(f"rolled back to version {number}; links are not followed until automatic is on again")
            self._keep()
        self._loop.wake()

    def automatic(self, on: bool) -> None:
        """See `CompressionSession`."""
        if not isinstance(on, bool):
            raise FringeError(f"automatic = {on!r}: expected true or false")
        self._loop.refuse_closed()
        self._loop.automatic = on
        self._said(f"automatic {'on' if on else 'off'}")

    def override_link(self, connection: int | str, link: Link | None) -> None:
        """See `CompressionSession`."""
        self._loop.refuse_closed()
        run = self._loop.run
        if run is None or run.serving is None:
            raise FringeError("no connection yet; submit first")
        number, name = connection_named(run.serving.machines, connection)
        run.serving.override(number, link)
        what = "taken as it is measured" if link is None else f"taken to be {described(link)}"
        self._said(f"link {name}: {what}")

    def _running(self) -> tuple[Run, Controller]:
        self._loop.refuse_closed()
        run = self._loop.run
        if run is None:
            raise FringeError("nothing was submitted yet; submit first")
        if run.failed is not None:
            raise FringeError(f"the compression has failed: {run.failed}; submit anew")
        if run.controller is None:
            raise FringeError("the compression is being prepared; wait a moment")
        return run, run.controller

    def _still(self, run: Run) -> None:
        """While this waited for its turn another submission may have come: what was meant is not there any more."""
        if self._loop.run is not run:
            raise FringeError("another submission has begun meanwhile; look at its versions, and try again")

    def _said(self, text: str) -> None:
        self._events.add(text)
        self._loop.unkept = True
        self._loop.wake()


def _stop_soon(run: Run) -> None:
    run.stopped = True
    if run.controller is not None:  # prepared in this very moment
        run.controller.stop()
