"""`Deployed`: what a controller needs of machines that serve. `InProcess` is one in this process.

Nothing here compresses or decides.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import torch

from ..errors import FringeError
from .links import Link, LinkEstimate
from .pipeline_torch import Pipeline

__all__ = ["Deployed", "InProcess", "as_link", "links_now"]


class Deployed(Protocol):
    """Machines that serve a pipeline."""

    def swap(self, pipeline: Pipeline) -> object:
        """Serve another version. Of one controller, the same `pipeline.version` is always the same bytes.

        Returns when the entry machine sends requests through it. Should a machine not take it, the old version goes on
        and an `EdgeError` says which.
        """
        ...

    def links(self) -> Sequence[Link | LinkEstimate]:
        """Of the connections, as they are measured to be now."""
        ...


def as_link(link: Link | LinkEstimate) -> Link:
    """What an estimate says; a link itself as it is.

    Raises:
        FringeError: nothing was measured yet.
    """
    return link.link if isinstance(link, LinkEstimate) else link


def links_now(deployed: Deployed | None, given: Sequence[Link] | None, connections: int) -> tuple[Link, ...]:
    """As measured by what serves, and where nothing was measured yet, as they were given.

    Raises:
        FringeError: not one per connection, or one that is neither measured nor given.
    """
    seen: Sequence[Link | LinkEstimate] | None = given if deployed is None else deployed.links()
    if seen is None or {len(seen), len(given or seen)} != {connections}:
        raise FringeError(
            f"{len(seen or ())} links measured and {len(given or ())} given for {connections} connections; expected "
            "one each"
        )
    return tuple(
        given[number] if isinstance(one, LinkEstimate) and not one.transfers and given is not None else as_link(one)
        for number, one in enumerate(seen)
    )


class InProcess:
    """Serves in this process: for trials, tests, and models that are compressed before they are brought out.

    Threads may call all of it. A request is served by one version from its first machine to its last.

    Args:
        pipeline: to begin with.
        links: that are said to lie between its machines.

    Raises:
        FringeError: not one link per connection.
    """

    def __init__(self, pipeline: Pipeline, links: Sequence[Link]) -> None:
        self._lock = threading.Lock()
        self._pipeline = pipeline
        self._links: tuple[Link, ...] = ()
        self.relink(links)

    @property
    def version(self) -> int:
        """That is served."""
        return self._pipeline.version

    def swap(self, pipeline: Pipeline) -> None:
        """See `Deployed.swap`.

        Raises:
            FringeError: a pipeline of other machines.
        """
        if pipeline.machines != self._pipeline.machines:
            raise FringeError(f"a pipeline on {pipeline.machines}: expected {self._pipeline.machines}")
        with self._lock:
            self._pipeline = pipeline

    def infer(self, x: torch.Tensor) -> torch.Tensor:
        """Output of an input [batch, ...]."""
        with self._lock:
            pipeline = self._pipeline
        return pipeline.run(x)

    def links(self) -> tuple[Link, ...]:
        """See `Deployed.links`."""
        with self._lock:
            return self._links

    def relink(self, links: Sequence[Link]) -> None:
        """Say that links are others now.

        Raises:
            FringeError: not one per connection.
        """
        if len(links) != len(self._pipeline.wires):
            raise FringeError(f"{len(links)} links for {len(self._pipeline.wires)} connections; expected one each")
        with self._lock:
            self._links = tuple(links)
