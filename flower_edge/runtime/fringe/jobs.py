"""`Job`: a frame that waits for this machine; `Jobs`: those that wait, bounded; `Batch`: those that go together."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ProtocolError
from .messages import Answer, Failed, Output
from .versions import Held

__all__ = ["Batch", "Job", "Jobs"]

Array = npt.NDArray[Any]


@dataclass(eq=False)
class Job:
    """One frame.

    Attributes:
        request: its number at whoever sent it.
        arrays: [batch, ...] each; none of a frame that carries nothing, which is computed by nobody.
        reply: brings an answer to whoever sent it; never raises.
        came_s: when it came.
        read_s: seconds that reading it took.
        held: the version it is for; None at the entry, where it has none yet.
    """

    request: int
    arrays: tuple[Array, ...]
    reply: Callable[[Answer], None]
    held: Held | None = None
    came_s: float = field(default_factory=time.monotonic)
    read_s: float = 0.0

    @property
    def samples(self) -> int:
        return len(self.arrays[0]) if self.arrays else 0

    @property
    def size_bytes(self) -> int:
        """Of its arrays."""
        return sum(array.nbytes for array in self.arrays)


@dataclass(eq=False)
class Batch:
    """Jobs of one version that go through the part together.

    Attributes:
        held: the version.
        jobs: one or more.
        ended: called once, when all have their answer.
        written_s: seconds that writing its frame to the next machine took.
    """

    held: Held
    jobs: list[Job]
    ended: Callable[[Batch, bool], None]
    written_s: float = 0.0

    @property
    def empty(self) -> bool:
        """It carries nothing, and counts for nothing."""
        return not self.jobs[0].arrays

    def arrays(self) -> tuple[Array, ...]:
        """Of all of them, [batch, ...] each."""
        if len(self.jobs) == 1:
            return self.jobs[0].arrays
        return tuple(np.concatenate(each) for each in zip(*(job.arrays for job in self.jobs), strict=True))

    def output(self, answer: Output) -> None:
        """Each its share.

        Raises:
            ProtocolError: it holds no tensor, or one of another number of samples; nobody was told anything.
        """
        if len(self.jobs) == 1:
            self.jobs[0].reply(Output(self.jobs[0].request, answer.version, answer.body, self._held_s(self.jobs[0])))
        else:
            whole, at, samples = answer.tensor(), 0, sum(job.samples for job in self.jobs)
            if len(whole) != samples:
                raise ProtocolError(f"an answer of {len(whole)} samples to {samples}; is its part of this version?")
            for job in self.jobs:
                job.reply(Output.of(job.request, answer.version, whole[at : at + job.samples], self._held_s(job)))
                at += job.samples
        self.ended(self, True)

    def _held_s(self, job: Job) -> float:
        """The last machine says with its answer how long ago the frame came; the others have said so already."""
        return time.monotonic() - job.came_s if self.held.onward is None else 0.0

    def failed(self, code: str, machine: str, message: str) -> None:
        """Each the same."""
        for job in self.jobs:
            job.reply(Failed(job.request, self.held.number, code, machine, message))
        self.ended(self, False)


class Jobs:
    """Jobs that wait.

    Args:
        most: that may wait.
        most_bytes: of all their arrays; one that is larger by itself waits alone.
    """

    def __init__(self, most: int, most_bytes: int = 1 << 30) -> None:
        self._most, self._most_bytes, self._bytes = most, most_bytes, 0
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, job: Job, *, wait: bool) -> bool:
        """Keep a job; False: there is no room and `wait` is false, or it is closed."""
        with self._changed:
            while wait and not self._fits(job) and not self._closed:
                self._changed.wait()
            if self._closed or not self._fits(job):
                return False
            self._waiting.append(job)
            self._bytes += job.size_bytes
            self._changed.notify_all()
            return True

    def take(self, most_samples: int, wait_s: float) -> list[Job]:
        """One, or as many as are together no more than `most_samples`; none: it is closed.

        The first is waited for without end, then others for at most `wait_s`. Only those that have no version yet go
        together: a frame from the machine before is a batch already, and one that carries nothing goes alone.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return []
            taken, until_s = [self._pop()], time.monotonic() + wait_s
            samples = taken[0].samples
            while 0 < samples < most_samples and not self._closed and taken[0].held is None:
                if not self._waiting:
                    left_s = until_s - time.monotonic()
                    if left_s <= 0 or not self._changed.wait_for(lambda: self._waiting or self._closed, left_s):
                        break
                    continue
                if not 0 < self._waiting[0].samples <= most_samples - samples or self._waiting[0].held is not None:
                    break
                taken.append(self._pop())
                samples += taken[-1].samples
            return taken

    def close(self) -> list[Job]:
        """Nothing is taken any more; those that wait."""
        with self._changed:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._bytes = 0
            self._changed.notify_all()
            return left

    def __len__(self) -> int:
        return len(self._waiting)

    def _fits(self, job: Job) -> bool:
        if not self._waiting:
            return True
        return len(self._waiting) < self._most and self._bytes + job.size_bytes <= self._most_bytes

    def _pop(self) -> Job:
        job = self._waiting.popleft()
        self._bytes -= job.size_bytes
        self._changed.notify_all()
        return job
