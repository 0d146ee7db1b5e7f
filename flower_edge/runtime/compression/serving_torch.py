"""`Serving`: the machines as a controller sees them, whether they serve or are only modelled, and what was seen there.

It numbers versions as the controller does, takes links as somebody set them, as they are measured or as they were
said to be, in this order, and keeps what each version really sent. Nothing here decides.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import EdgeError, FringeError, NotServed
from ...fringe.links import Link, LinkEstimate
from ...fringe.pipeline_torch import Pipeline
from ..fringe.deployment_torch import Deployment

__all__ = ["Seen", "Serving"]

#: Frames before what a link takes for a version is told: more than half of those that a stage tells the median of.
_ENOUGH = 17
_WARM_S = 30.0
#: Requests per frame from which there were batches.
_BATCHED = 1.25
#: Links are asked for several times in an iteration; what was seen so lately is not asked for again.
_FRESH_S = 0.5


@dataclass(frozen=True)
class Seen:
    """What was measured of a version at a connection.

    Attributes:
        frames: that were sent.
        size_bytes: per request on average.
        seconds: of a frame of late, until it was there.
    """

    frames: int
    size_bytes: float
    seconds: float | None


class Serving:
    """See the module.

    Args:
        machines: of the pipeline.
        deployment: what serves; None: nothing does.
        given: links as they were said to be; None for one that nothing was said of.
    """

    def __init__(self, machines: Sequence[str], deployment: Deployment | None, given: Sequence[Link | None]) -> None:
        self.machines = tuple(machines)
        self.deployment = deployment
        self.swaps = 0
        self._given = tuple(given)
        self._overridden: dict[int, Link] = {}
        self._numbers: dict[int, int] = {}
        self._version: int | None = None
        self._statistics: dict[str, dict[str, Any]] = {}
        self._begun: dict[str, dict[str, Any]] = {}
        self._seen: dict[tuple[int, int], Seen] = {}
        self._looked_s = -math.inf
        self._lock = threading.Lock()

    def again(self, given: Sequence[Link | None]) -> Serving:
        """The same machines for another run, whose versions begin at 0 again."""
        new = Serving(self.machines, self.deployment, given)
        new.swaps, new._overridden = self.swaps, dict(self._overridden)
        with self._lock:
            new._statistics = self._statistics
        return new

    def take_up(self) -> None:
        """After a restart of who controls: take what is served already as it is, if it is served.

        Raises:
            SwapRefused: a machine that cannot be reached.
        """
        if self.deployment is not None and self.deployment.version is None:
            self.deployment.attach()
            self.look()

    # -- as a controller sees it -------------------------------------------------------------------------------------

    def swap(self, pipeline: Pipeline) -> None:
        """Serve a version; the first one, and one of other machines, is deployed. See `Deployed.swap`."""
        deployment = self.deployment
        if deployment is None:
            self._version = pipeline.version
            return
        self.look()
        if deployment.version is None:
            done = deployment.deploy(pipeline)
        else:
            done = deployment.swap(pipeline)
            self.swaps += done.before != done.version
        with self._lock:
            self._numbers[done.version] = pipeline.version
            self._version = pipeline.version
            self._begun = {}
        self.look()

    def links(self) -> tuple[Link | LinkEstimate, ...]:
        """Of the connections, as they are taken to be now. See `Deployed.links`."""
        if time.monotonic() - self._looked_s > _FRESH_S:
            self.look()
        return self.links_seen()

    # -- what is known without asking anybody --------------------------------------------------------------------------

    def links_seen(self) -> tuple[Link | LinkEstimate, ...]:
        """The same as they were when somebody looked last."""
        found: list[Link | LinkEstimate] = []
        for number, given in enumerate(self._given):
            estimate = self.estimate(number)
            set_by_hand = self._overridden.get(number)
            if set_by_hand is not None:
                found.append(set_by_hand)
            elif estimate.transfers or given is None:
                found.append(estimate)
            else:
                found.append(given)
        return tuple(found)

    @property
    def known(self) -> bool:
        """Whether there is something to say of each link."""
        return all(isinstance(one, Link) or one.transfers for one in self.links_seen())

    def estimate(self, connection: int) -> LinkEstimate:
        """From the frames that went over a connection; without any its `transfers` is 0."""
        onward = self._onward(self._latest(), connection)
        return LinkEstimate() if onward is None else LinkEstimate.from_state(onward["estimate"])

    def overridden(self, connection: int) -> bool:
        """Whether somebody set its link."""
        return connection in self._overridden

    def override(self, connection: int, link: Link | None) -> None:
        """Take a link to be another than is measured; None: as it is measured again."""
        if link is None:
            self._overridden.pop(connection, None)
        else:
            self._overridden[connection] = link

    def number_of(self, version: int) -> int | None:
        """The controller's number of a version of the deployment."""
        return self._numbers.get(version)

    def seen(self, version: int, connection: int) -> Seen | None:
        """What was measured of a version there."""
        return self._seen.get((version, connection))

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Of each machine, when somebody looked last; {"error": why} of one that could not be reached."""
        return dict(self._latest())

    @property
    def entry(self) -> dict[str, Any] | None:
        """What the first machine counts; None while it cannot be reached."""
        said = self._latest().get(self.machines[0])
        return None if said is None or "error" in said else said

    # -- looking -----------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Ask all machines what they have counted and measured."""
        deployment = self.deployment
        if deployment is None or deployment.version is None:
            return
        said = deployment.statistics()
        self._looked_s = time.monotonic()
        with self._lock:
            # One that cannot be reached now is known by what it said last, but for its error.
            self._statistics = {
                name: one if "error" not in one else {**self._statistics.get(name, {}), **one}
                for name, one in said.items()
            }
            if not self._begun and not any("error" in one for one in said.values()):
                self._begun = said
            version = self._version
            if version is None or not self._begun:
                return
            for number in range(len(self._given)):
                found = self._measured(number)
                if found is not None:
                    self._seen[version, number] = found

    def _measured(self, connection: int) -> Seen | None:
        now, then = self._onward(self._statistics, connection), self._onward(self._begun, connection)
        entry = self.machines[0]
        served = self._statistics[entry].get("served", 0) - self._begun[entry]["served"]
        if now is None or served < 1:
            return None
        frames = now["frames"] - (0 if then is None else then["frames"])
        sent = now["bytes"] - (0 if then is None else then["bytes"])
        if frames < 1:
            return None
        # Of a batch the frame is that of several requests. What is under way as counting begins and ends counts on one
        # side only: that makes a few per cent, and no batch.
        per_frame = served / frames if served > _BATCHED * frames else 1.0
        taken = now["taken"]
        seconds = float(taken["p50_s"]) if frames >= _ENOUGH and taken["count"] else None
        return Seen(frames, sent / frames / per_frame, seconds)

    def _onward(self, statistics: dict[str, dict[str, Any]], connection: int) -> dict[str, Any] | None:
        machine, behind = self.machines[connection], self.machines[connection + 1]
        ways = [one for one in statistics.get(machine, {}).get("onward", ()) if one["to"] == behind]
        return ways[-1] if ways else None

    def _latest(self) -> dict[str, dict[str, Any]]:
        with self._lock:
            return self._statistics

    def tried(self, samples: np.ndarray[Any, Any], requests: int = 14) -> list[float]:
        """Send some requests, one after the other, so that links and answers are measured.

        Returns:
            Seconds of each but the first two, which dial and wake up.

        Raises:
            NotServed: one was not answered.
        """
        assert self.deployment is not None
        seconds = []
        for number in range(requests):
            future = self.deployment.ask(samples[number % len(samples)][None])
            try:
                seconds.append(future.result(_WARM_S).seconds_s)
            except TimeoutError:
                raise NotServed(
                    f"machine {self.machines[0]!r} did not answer a request of the session's own in {_WARM_S:g} s",
                    "late",
                ) from None
        self.look()
        return seconds[2:]

    def live_inputs(self) -> np.ndarray[Any, Any] | None:
        """What the entry kept of the requests it saw; None: it keeps nothing."""
        return None if self.deployment is None else self.deployment.live_inputs()

    def close(self) -> None:
        """End the channels; stages go on."""
        if self.deployment is not None:
            try:
                self.deployment.close()
            except EdgeError as error:
                raise FringeError(f"the deployment could not be closed: {error}") from error
