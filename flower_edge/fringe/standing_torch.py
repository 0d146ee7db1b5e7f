"""`Standing`: what a controller has reached so far, for whoever looks at it: versions, links, latency, goals, savings.

Threads may read all of it while the controller goes on. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from .actions import StepBook
from .deployed_torch import Deployed, links_now
from .goals import Goals
from .history import Version
from .links import Link, inference
from .pipeline_torch import Pipeline
from .report import Saving, savings
from .steering import Status, Steering
from .versions_torch import Versions

__all__ = ["Standing"]


class Standing:
    """Made by `Controller`, which changes it.

    Attributes:
        goals: what is to be reached, and the floor.
    """

    def __init__(self, goals: Goals, kept: Versions, deployed: Deployed | None, links: Sequence[Link] | None) -> None:
        self.goals = goals
        self._kept, self._deployed, self._given_links = kept, deployed, links
        self._steering = Steering()
        self._book = StepBook.new()

    @property
    def status(self) -> Status:
        """Whether it goes on, and why not."""
        return self._steering.status

    @property
    def whole(self) -> Pipeline:
        """Before any compression: version 0."""
        return self._kept.whole

    @property
    def versions(self) -> tuple[Version, ...]:
        """All that were accepted, and the uncompressed one first."""
        return tuple(self._kept.all)

    @property
    def pipeline(self) -> Pipeline:
        """The current version."""
        return self._kept.pipeline

    @property
    def version(self) -> Version:
        """The same as it is kept."""
        return self._kept.current

    def links(self) -> tuple[Link, ...]:
        """As they are now: as measured by what serves, and where nothing was measured yet, as they were given.

        Raises:
            FringeError: not one per connection, or one that is neither measured nor given.
        """
        return links_now(self._deployed, self._given_links, len(self.whole.wires))

    def latency_s(self, version: Version | None = None) -> float:
        """Of an inference of a version, over links as they are now; None: the current one."""
        one = version or self.version
        return inference(one.sizes_bytes, self.links(), one.compute_s).latency_s

    def goals_met(self) -> bool:
        """By the current version, over links as they are now."""
        before = self.versions[0]
        sizes = sum(before.sizes_bytes), sum(self.version.sizes_bytes)
        return self.goals.met(*sizes, self.latency_s(before), self.latency_s())

    @property
    def closed(self) -> dict[str, str]:
        """By "connection/method", why it is not tried any more."""
        return dict(self._book.closed)

    @property
    def frozen_digest(self) -> str:
        """SHA-256 over all arrays that may not change."""
        return self._kept.proof.digest

    def saving(self, version: Version | None = None, *, rate_per_s: float = 1.0) -> Saving:
        """Eqs. 1 and 2 of a version; None: the current one."""
        names = [f"{one.producer} -> {one.consumer}" for one in self.whole.connections]
        sizes = self.versions[0].sizes_bytes, (version or self.version).sizes_bytes
        return savings(names, *sizes, self.links(), rate_per_s=rate_per_s)
