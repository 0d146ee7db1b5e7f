"""`Entrance`: where requests come in, whatever serves them just now. Each is counted; none is sent twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import FringeError, NotServed
from ..fringe.channels import Served
from .requests import Requests
from .serving_torch import Serving

__all__ = ["Entrance"]

_DRAIN_S: Final = 30.0


class Entrance:
    """See the module.

    Args:
        requests: where they are counted.

    Attributes:
        serving: what they go to; None before the first deployment.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._gate = threading.RLock()
        self.serving: Serving | None = None
        self._over = False

    def ask(self, x: npt.NDArray[Any]) -> Future[Served]:
        """See `CompressionSession.ask`."""
        with self._gate:
            if self._over:
                raise FringeError("this session is closed; make another CompressionSession")
            serving = self.serving
            if serving is None or serving.deployment is None:
                raise FringeError("nothing serves: submit first, on machines that serve (LocalStages, RunningStages)")
            future = serving.deployment.ask(np.asarray(x))
            self._requests.asked()
        future.add_done_callback(lambda done: self._answered(serving, done))
        return future

    def _answered(self, serving: Serving, done: Future[Served]) -> None:
        error = done.exception()
        if error is None:
            served = done.result()
            number = serving.number_of(served.version) if serving is self.serving else None
            self._requests.answered(number, served.seconds_s)
        else:
            code = error.code if isinstance(error, NotServed) else "failed"
            # What the entry itself says begins with the machine that is to blame.
            self._requests.failed(code, by_entry=not str(error).startswith("entry "))

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Nobody comes in, and those who were in have left; they wait outside meanwhile."""
        with self._gate:
            self._requests.idle(_DRAIN_S)
            yield

    def close(self) -> None:
        """Nobody comes in any more; those who are in are answered, if that takes no longer than they would wait."""
        with self._gate:
            self._over = True
        self._requests.idle(_DRAIN_S)

    def to(self, serving: Serving) -> None:
        """From now on requests go there; versions begin at 0 again."""
        with self._gate:
            self._requests.anew()
            self.serving = serving
