"""`Versions`: all pipelines that were accepted, each made again from what is kept of it, byte for byte.

Of a version only the arrays that may change are kept; the frozen ones are those of the uncompressed pipeline, which
`FrozenProof` checks. Nothing here decides which version is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..errors import FringeError
from .actions import Operation
from .deployed_torch import Deployed
from .digest_torch import FrozenProof
from .fringe_torch import Fringe
from .history import Version
from .operations_torch import fingerprint, kept_arrays, restored
from .pipeline_torch import Pipeline

__all__ = ["Versions"]


class Versions:
    """See the module.

    Args:
        pipeline: before any compression; a copy is kept, as version 0.
        fringe: the layers that may change, found on it.
        deployed: machines that serve the current version; None: nobody does.

    Attributes:
        all: that were accepted, the uncompressed one first.
        current: the one that is served, and its `pipeline`.
    """

    all: list[Version]
    current: Version
    pipeline: Pipeline

    def __init__(self, pipeline: Pipeline, fringe: Fringe, deployed: Deployed | None = None) -> None:
        self.whole = self.pipeline = replace(pipeline.copied(), version=0)
        self.fringe, self._deployed = fringe, deployed
        self._frozen = fringe.frozen(self.whole)
        self.proof = FrozenProof.of(self.whole, self._frozen)
        self.all = []
        self._next = 0

    def begin(self, score: float, compute_s: Sequence[float]) -> None:
        """Version 0 is that without any compression. Nothing is swapped: it is taken to be what is served."""
        self.current = self._described(self.whole, (), score, compute_s)
        self.all, self._next = [self.current], 1

    def take(
        self, pipeline: Pipeline, operations: Sequence[Operation], score: float, compute_s: Sequence[float]
    ) -> None:
        """Make it the current version, on the machines first.

        Raises:
            FrozenMoved: an array that may not change is another.
            EdgeError: the machines do not take it; the version before it goes on, and this number is not used again.
        """
        pipeline, self._next = replace(pipeline, version=self._next), self._next + 1
        new = self._described(pipeline, operations, score, compute_s)
        if self._deployed is not None:
            self._deployed.swap(pipeline)
        self.all.append(new)
        self.current, self.pipeline = new, pipeline

    def go_to(self, number: int) -> None:
        """Make a version that there was current again, on the machines first.

        Raises:
            FringeError: no such version, or what is kept of it is not what it was.
            EdgeError: the machines do not take it.
        """
        pipeline = self.restored(number)
        if self._deployed is not None:
            self._deployed.swap(pipeline)
        self.current, self.pipeline = self.version(number), pipeline

    def check(self) -> tuple[str, str]:
        """Digest of the frozen arrays, and of the whole current pipeline, if both are what they were.

        Raises:
            FrozenMoved, FringeError: somebody changed an array.
        """
        frozen, now = self.proof.check(self.pipeline), fingerprint(self.pipeline)
        if now != self.current.digest:
            raise FringeError(
                f"version {self.current.number} is {now[:12]}, expected {self.current.digest[:12]}: somebody changed "
                "the pipeline; call roll_back with its number"
            )
        return frozen, now

    def _described(
        self, pipeline: Pipeline, operations: Sequence[Operation], score: float, compute_s: Sequence[float]
    ) -> Version:
        self.proof.check(pipeline)
        sizes = tuple(connection.size_bytes for connection in pipeline.connections)
        return Version(
            pipeline.version, tuple(operations), kept_arrays(pipeline, self._frozen), sizes, score, tuple(compute_s),
            fingerprint(pipeline),
        )  # fmt: skip

    def version(self, number: int) -> Version:
        """By its number.

        Raises:
            FringeError: there is none.
        """
        for version in self.all:
            if version.number == number:
                return version
        known = ", ".join(str(version.number) for version in self.all)
        raise FringeError(f"version {number}: expected one of {known}")

    def restored(self, number: int) -> Pipeline:
        """A version again, with parts of its own.

        Raises:
            FringeError: no such version, or what is kept of it is not what it was.
        """
        version = self.version(number)
        found = restored(self.whole, self.fringe, version.operations, version.arrays, version.number)
        if fingerprint(found) != version.digest:
            raise FringeError(
                f"version {number} is {fingerprint(found)[:12]}, expected {version.digest[:12]}: what was kept of it "
                "was changed; go on from another version"
            )
        self.proof.check(found)
        return found

    def state(self) -> dict[str, Any]:
        """Plain values and arrays; `resume` takes them."""
        kept = [version.state() for version in self.all]
        return {"kept": kept, "current": self.current.number, "next": self._next}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave, and serve its current version.

        Raises:
            FringeError: no such state.
        """
        try:
            self.all = [Version.from_state(one) for one in state["kept"]]
            current, self._next = int(state["current"]), int(state["next"])
        except (KeyError, TypeError, ValueError) as error:
            raise FringeError(f"versions: {error!s:.200}; expected what Versions.state gives") from error
        self.go_to(current)
