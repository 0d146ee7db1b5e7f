"""`Looker`: a thread that asks machines what they counted and measured, and says what has changed.

It changes nothing.
"""

from __future__ import annotations

import threading
from itertools import pairwise
from logging import getLogger
from typing import Protocol

from .events import Events
from .requests import Requests
from .run_torch import Run
from .serving_torch import Serving
from .watching import LinkWatch

__all__ = ["Looker", "Looks"]

log = getLogger("flwr.edge")


class Looks(Protocol):
    """Where it looks."""

    @property
    def run(self) -> Run | None:
        """That goes on."""
        ...

    @property
    def serving(self) -> Serving | None:
        """What serves."""
        ...


class Looker:
    """See the module.

    Args:
        of: where to look.
        requests, events: where to count and to say.
        look_s: between two looks.
    """

    def __init__(self, of: Looks, requests: Requests, events: Events, look_s: float) -> None:
        self._of, self._requests, self._events, self._look_s = of, requests, events, look_s
        self._closing = threading.Event()
        self._unreachable: set[str] = set()
        self._watch: tuple[Run, LinkWatch] | None = None
        self._thread = threading.Thread(target=self._work, name="compression looks", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End. Safe to call twice, and before it began."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while not self._closing.wait(self._look_s):
            run, serving = self._of.run, self._of.serving
            if run is None or serving is None:
                continue
            try:
                self.look(run, serving)
            except Exception:  # looking is not worth ending anything for
                log.exception("compression: looking at the machines")

    def look(self, run: Run, serving: Serving) -> None:
        """Once.

        Args:
            run: that goes on.
            serving: what serves it; or, while it is prepared and once it has failed, the one before it.
        """
        serving.look()
        if serving.entry is not None:
            self._requests.look(serving.entry, serving.deployment)
        lost = {name for name, said in serving.statistics().items() if "error" in said}
        for name in sorted(lost ^ self._unreachable):
            self._events.add(f"machine {name!r} {'cannot be reached' if name in lost else 'is there again'}")
        self._unreachable = lost
        if run.controller is None or run.serving is not serving or not serving.known:
            return
        if self._watch is None or self._watch[0] is not run:
            self._watch = run, LinkWatch([f"{a} -> {b}" for a, b in pairwise(serving.machines)], run.links_at_first)
        # By frames as they are now: short ones say little of what long ones would take.
        for said in self._watch[1].look(run.links(), run.controller.version.sizes_bytes):
            self._events.add(said)
