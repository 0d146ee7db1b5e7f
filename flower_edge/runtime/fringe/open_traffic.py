"""`OpenTraffic`: requests at random times, whether those before were answered or not, as many people ask a service.

Gaps between requests are exponential, so arrivals are a Poisson process of `rate_per_s`. A load that waits for each
answer before it asks again would slow down with the service and hide that requests queue. Nothing here serves or keeps
answers: whoever wants them is told each one.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from ...errors import EdgeError, FringeError, NotServed
from .channels import Served

__all__ = ["Answer", "OpenTraffic"]

Array = npt.NDArray[Any]


class Answer(NamedTuple):
    """What became of a request.

    Attributes:
        number: of the request, from 1.
        sample: which of the samples it asked about.
        sent_s: when, on the clock that the traffic was given.
        seconds_s: until it was answered, or failed.
        served: the answer; None if there was none.
        code: why there was none, as of `NotServed`; "" with an answer.
    """

    number: int
    sample: int
    sent_s: float
    seconds_s: float
    served: Served | None
    code: str


class OpenTraffic:
    """Sends between `start` and `stop`; a context manager of the two.

    Args:
        ask: sends a request [1, ...] and gives the future of its answer, such as `Deployment.ask`.
        samples: inputs [samples, ...], asked about in random order, again and again.
        rate_per_s: requests per second, on average.
        seed: of gaps and order.
        told: is called with each answer, in the thread that it came in; it has to be quick.
        clock: seconds, for `Answer.sent_s`.

    Raises:
        FringeError: no samples, or a rate that is not above 0.
    """

    def __init__(
        self,
        ask: Callable[[Array], Future[Served]],
        samples: Array,
        rate_per_s: float,
        *,
        seed: int = 0,
        told: Callable[[Answer], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not len(samples) or not 0.0 < rate_per_s < math.inf:
            raise FringeError(
                f"{len(samples)} samples at rate_per_s = {rate_per_s}: expected 1 or more, and requests per second "
                "above 0, such as 8"
            )
        self._ask, self._samples, self._rate_per_s = ask, samples, rate_per_s
        self._random, self._told, self._clock = np.random.default_rng(seed), told, clock
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._sent = self._answered = self._lost = 0

    @property
    def sent(self) -> int:
        """Requests so far."""
        return self._sent

    @property
    def answered(self) -> int:
        """Of those, how many have their answer."""
        return self._answered

    @property
    def lost(self) -> int:
        """Of those, how many failed."""
        return self._lost

    def start(self) -> None:
        """Send from now on.

        Raises:
            FringeError: it does already.
        """
        if self._thread is not None:
            raise FringeError("this traffic runs already; stop() it first")
        self._ending.clear()
        self._thread = threading.Thread(target=self._run, name="open traffic", daemon=True)
        self._thread.start()

    def stop(self, wait_s: float = 30.0) -> bool:
        """Send no more, and wait for what is under way. Safe to call twice.

        Returns:
            Whether all that was sent has been answered or failed.
        """
        self._ending.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(wait_s)
        with self._changed:
            return self._changed.wait_for(lambda: self._answered + self._lost == self._sent, wait_s)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def _run(self) -> None:
        next_s = time.monotonic()
        while True:
            # From the planned time on, not from when this thread came to it: a late thread must not thin the traffic.
            next_s += float(self._random.exponential(1.0 / self._rate_per_s))
            if self._ending.wait(max(0.0, next_s - time.monotonic())):
                return
            self._send(int(self._random.integers(len(self._samples))))

    def _send(self, sample: int) -> None:
        with self._changed:
            self._sent += 1
            number = self._sent
        asked = partial(self._done, number, sample, self._clock(), time.perf_counter())
        try:
            future = self._ask(self._samples[sample : sample + 1])
        except EdgeError as error:
            future = Future()
            future.set_exception(error)
        future.add_done_callback(asked)

    def _done(self, number: int, sample: int, sent_s: float, began_s: float, future: Future[Served]) -> None:
        seconds_s = time.perf_counter() - began_s
        error = CancelledError() if future.cancelled() else future.exception()
        served = None if error is not None else future.result()
        code = "" if error is None else error.code if isinstance(error, NotServed) else type(error).__name__
        try:
            if self._told is not None:
                self._told(Answer(number, sample, sent_s, seconds_s, served, code))
        finally:
            with self._changed:
                self._answered += served is not None
                self._lost += served is None
                self._changed.notify_all()
