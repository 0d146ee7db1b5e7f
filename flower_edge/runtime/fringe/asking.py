"""`Asking`: stages that serve, seen by who asks and measures: requests, statistics, links, inputs they kept.

Nothing here changes what is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ...errors import EdgeError, FringeError, NotServed
from ...fringe.links import LinkEstimate
from ...fringe.wire import Wire
from ...transport.transport import Connection, PeerTransport
from .channels import RequestChannel, Served
from .controls import Controls
from .live_inputs import fetched
from .messages import REQUESTS
from .stage import hello_for

__all__ = ["Asking"]

Array = npt.NDArray[Any]


class Asking:
    """See `Deployment`, whose arguments these are; what requests are is known once it has deployed or attached."""

    def __init__(
        self,
        addresses: Mapping[str, str],
        transport: PeerTransport,
        *,
        deployment: str = "pipeline",
        secret: bytes | None = None,
        answer_s: float = 60.0,
        dial_s: float = 5.0,
    ) -> None:
        self.machines = tuple(addresses)

        def dial(machine: str, purpose: str) -> Connection:
            hello = hello_for(deployment, purpose, secret, machine)
            return transport.dial(addresses[machine], hello, timeout_s=dial_s)

        self._controls = Controls(self.machines, dial, answer_s)
        self._requests = RequestChannel(self.machines[0], partial(dial, self.machines[0], REQUESTS))
        self._current: int | None = None
        self._wire: Wire | None = None

    @property
    def version(self) -> int | None:
        """The number that serves."""
        return self._current

    def ask(self, x: Array) -> Future[Served]:
        """Send a request of samples [batch, ...]; the future gives the answer, or raises `NotServed`.

        Raises:
            FringeError, CodecError: a tensor that the pipeline does not take; or nothing is deployed.
        """
        if self._wire is None:
            raise FringeError("nothing is deployed; call deploy(pipeline) first")
        return self._requests.ask(self._wire, np.asarray(x))

    def infer(self, x: Array, *, timeout_s: float = 60.0) -> Array:
        """Output [batch, ...] of samples [batch, ...].

        Raises:
            NotServed: it was not answered; `code` and message say why, and which machine.
            FringeError, CodecError: as of `ask`.
        """
        future = self.ask(x)
        try:
            return future.result(timeout_s).output
        except TimeoutError:
            raise NotServed(f"no answer within {timeout_s:g} s", "late") from None

    def statistics(self) -> dict[str, dict[str, Any]]:
        """By machine, what `StageServer.statistics` gives; of one that cannot be reached, {"error": why}."""
        said = self._controls.each(lambda control: control.ask("statistics"))
        return {name: {"error": str(one)} if isinstance(one, EdgeError) else one for name, one in said.items()}

    def null_s(self, requests: int = 15) -> float:
        """Seconds that a request takes which carries nothing and is computed by nobody: the median of some, one by one.

        What remains of a request then is propagation, there and back, and handing over between threads and processes.
        They are not counted as requests; see `modelled` and `inference(null_s=...)`.

        Raises:
            NotServed: one was not answered.
            FringeError: nothing is deployed, or no request.
        """
        if self._wire is None or requests < 1:
            raise FringeError(
                f"{requests} requests to version {self.version}; deploy(pipeline) first, and ask 1 or more"
            )
        taken_s = []
        for _ in range(requests):
            try:
                taken_s.append(self._requests.ask(self._wire, None).result(60.0).seconds_s)
            except TimeoutError:
                raise NotServed("no answer within 60 s to a request that carries nothing", "late") from None
        return float(np.median(taken_s))

    def links(self) -> tuple[LinkEstimate, ...]:
        """Of each connection, from the frames that went over it; without any frame its `transfers` is 0.

        Raises:
            FringeError: a machine that sends cannot be reached.
        """
        return self._controls.links()

    def live_inputs(self, most: int | None = None) -> Array | None:
        """Samples [samples, ...] of requests that the entry keeps in memory, `ServingLimits(keep_inputs=...)`.

        Args:
            most: samples; None: all that it keeps.

        Returns:
            None where it keeps none, or none of this pipeline's kind yet.

        Raises:
            FringeError, TransportError: nothing is deployed; the entry cannot be reached, or sends something else.
        """
        if self._wire is None:
            raise FringeError("nothing is deployed; call deploy(pipeline) first")
        return fetched(self._controls.entry.ask, self._wire, most)

    def close(self) -> None:
        """End all channels; stages go on. Safe to call twice."""
        self._requests.close()
        self._controls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
