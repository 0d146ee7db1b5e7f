"""Three stages over TLS, the links between them, and whoever asks, all processes of their own on this machine.

Ends what it started and nothing else. Nothing here measures.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from flower_edge.errors import LaunchError
from flower_edge.fringe.links import Link
from flower_edge.fringe.pipeline_torch import Pipeline
from flower_edge.runtime.compression.local_stages import LocalStages
from flower_edge.runtime.fringe.deployment_torch import Deployment
from flower_edge.runtime.fringe.loading_torch import request_wire
from flower_edge.transport import GrpcTransport, TrustServer

__all__ = ["Child", "Hosts"]


class Child:
    """`fringe_serving_child` in a process of its own."""

    def __init__(self, role: str) -> None:
        self._role = role
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fringe_serving_child", role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, what: dict[str, Any]) -> None:
        """Say something; `told` has the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def told(self) -> Any:
        """The answer to what was said.

        Raises:
            LaunchError: it has ended.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LaunchError(f"the process of {self._role} has ended with code {self._process.wait(10)}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Hosts:
    """A deployment, and a process that asks it.

    Args:
        pipeline: that is served first.
        links: between the machines.
        samples: inputs [samples, ...] that are asked about.
        keep: versions that stay loaded beside the one that serves.

    A context manager, which starts and ends all of it.
    """

    def __init__(
        self, pipeline: Pipeline, links: Sequence[Link], samples: NDArray[np.float32], *, keep: int = 5
    ) -> None:
        self._pipeline, self._links, self._samples, self._keep = pipeline, links, samples, keep
        self._running = ExitStack()
        self.deployment: Deployment
        self._relays: Child
        self._traffic: Child

    def __enter__(self) -> Self:
        with ExitStack() as running:
            folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="flower-edge-serving-")))
            machines = self._pipeline.machines
            # A batch may round otherwise than its samples one by one, and answers are compared bit for bit.
            stages = running.enter_context(LocalStages(machines, folder=folder, options=("--batch", "1")))
            addresses = dict(stages.addresses())
            self._relays = running.enter_context(Child("links"))
            targets = [addresses[name] for name in machines[1:]]
            ways = [[link.goodput_bps, link.delay_s] for link in self._links]
            self._relays.tell({"targets": targets, "links": ways})
            via = dict(zip(machines[1:], self._relays.told(), strict=True))
            transport = GrpcTransport(TrustServer((folder / "authority.pem").read_bytes()))
            secret = (folder / "secret").read_bytes()
            self.deployment = running.enter_context(
                Deployment(addresses, transport, via=via, secret=secret, keep=self._keep)
            )
            self.deployment.deploy(self._pipeline)
            np.save(folder / "samples.npy", self._samples)
            self._traffic = running.enter_context(Child("traffic"))
            entry = {"machine": machines[0], "address": addresses[machines[0]], "folder": str(folder)}
            self._traffic.tell({**entry, "wire": request_wire(self._pipeline).config()})
            self._traffic.told()
            self._running = running.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._running.close()

    def delay_back(self, back: bool) -> None:
        """Whether answers are as slow as frames, or the way back is free."""
        self._relays.tell({"back": back})
        self._relays.told()

    def each(self, count: int, *, null: bool = False) -> list[dict[str, Any]]:
        """Answers to requests one after the other; `null` ones carry nothing."""
        self._traffic.tell({"do": "each", "count": count, "null": null})
        answers: list[dict[str, Any]] = self._traffic.told()
        return answers

    def begin(self, at_s: Sequence[float]) -> None:
        """Requests at these times of `time.monotonic`; see `end`."""
        self._traffic.tell({"do": "open", "at_s": list(at_s)})

    def end(self) -> list[dict[str, Any]]:
        """Answers to all that was begun."""
        answers: list[dict[str, Any]] = self._traffic.told()
        return answers
