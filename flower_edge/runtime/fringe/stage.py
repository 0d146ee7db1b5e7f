"""`StageServer`: one machine of a served pipeline. It holds its own part of each version and nothing else.

    requests  ->  entry  ->  frames of a version  ->  next machine  ->  …  ->  last machine
    answers back along the same channels

The entry gives each batch the version that is current, and the frame carries it: a request is served by one version on
all machines. Versions are loaded, flipped and dropped by who controls the deployment; a version is built beside the one
that serves. What waits is bounded: the entry refuses, the machines behind it make those before them wait.

Who may come is told by the transport's certificates, or by tokens made of a secret that all machines of the deployment
share. It knows nothing of training, and nothing of Flower's messages.

While torch.fx traces a model it replaces what calling a module means for the whole process: do not cut models in a
process whose stage is serving. Loading a version traces nothing.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from logging import getLogger
from typing import Any, Final

from ...errors import ConfigError, ProtocolError, TransportRefused
from ...loopback import is_loopback
from ...transport.listening import Listening
from ...transport.tokens import TokenMaker
from ...transport.transport import Connection, Handler, Hello, Peer, PeerTransport
from .controlling import Controlling
from .incoming import head_of, messages_of, tensors_of
from .jobs import Batch, Job, Jobs
from .kept_inputs import KeptInputs
from .measures import Window
from .messages import CONTROL, FRAMES, REQUESTS, Answer, Failed, Output, Received
from .replies import Replies
from .settings import ServingLimits
from .versions import Held, Versions
from .ways import Ways

__all__ = ["StageServer", "hello_for"]

log = getLogger("flwr.edge")

#: Tokens are made for each channel; hosts' clocks may differ by less than this.
_TOKEN_S: Final = 3600.0
#: Closing: for all answers together, and then for each kind of channel and thread.
_LAST_REPLIES_S: Final = 1.0
_CLOSE_S: Final = 2.5


def hello_for(deployment: str, purpose: str, secret: bytes | None, machine: str) -> Hello:
    """What is said to a stage when it is dialled; `machine` is who it is taken for."""
    token = "" if secret is None else TokenMaker(secret).make(run=deployment, node=0, purpose=purpose, valid_s=_TOKEN_S)
    return Hello(purpose=purpose, run=deployment, node=0, token=token, data={"machine": machine})


class StageServer(Listening):
    """A stage.

    Args:
        machine: its name in the pipeline.
        transport: it is dialled over, with this host's credentials.
        host, port: where it listens; port 0 takes a free one, see `port`.
        dialling: transport to the machine behind; None: `transport`.
        deployment: name of the deployment; others are refused.
        secret: 16 bytes or more that all machines and clients of the deployment share; None: whoever the transport lets
            in, which has to be mutual TLS unless `host` is this machine's own loopback.
        limits: what waits and how long.
        models: factories by name, for architectures that are not in `flower_edge.models`.

    Usable as a context manager: `open` and `close`.

    Raises:
        ConfigError: a secret that is too short.
    """

    def __init__(
        self,
        machine: str,
        transport: PeerTransport,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        dialling: PeerTransport | None = None,
        deployment: str = "pipeline",
        secret: bytes | None = None,
        limits: ServingLimits | None = None,
        models: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        super().__init__(transport, host, port)
        if not machine:
            raise ConfigError("machine = '': expected the name it has in the pipeline, such as 'camera'")
        self.machine = machine
        self._dialling = dialling or transport
        self._deployment, self._secret = deployment, secret
        self._tokens = None if secret is None else TokenMaker(secret)
        self._limits = limits or ServingLimits()
        self._models = models
        self._fresh()

    def _fresh(self) -> None:
        self._versions = Versions(self._limits.versions)
        self._jobs = Jobs(self._limits.waiting, self._limits.waiting_bytes)
        self._ways = Ways(self._dial, self._limits)
        self._inputs = KeptInputs(self._limits.keep_inputs) if self._limits.keep_inputs else None
        self._control = Controlling(
            self.machine, self._versions, self._ways, self._inputs, self._models, self.statistics
        )  # fmt: skip
        self._lock = threading.Lock()
        self._compute, self._latency, self._batch = Window(), Window(), Window()
        self._counts = dict.fromkeys(("requests", "served", "failed", "refused"), 0)
        self._worker: threading.Thread | None = None
        self._replies_until_s = math.inf

    def open(self) -> None:
        """Listen, with no version yet."""
        if self._worker is None:
            super().open()
            self._worker = threading.Thread(target=self._work, name=f"stage {self.machine}", daemon=True)
            self._worker.start()

    def close(self) -> None:
        """Answer what waits with an error, end all channels and forget all versions. Safe to call twice.

        It takes some seconds at most: nobody who does not listen, and no batch that is computed, is waited for longer.
        """
        worker, server = self._worker, self._server
        self._server = None
        self._replies_until_s = time.monotonic() + _LAST_REPLIES_S
        for job in self._jobs.close():
            job.reply(Failed(job.request, 0, "closing", self.machine, "this stage is stopping"))
        self._ways.close()
        self._versions.close()
        if server is not None:
            server.stop(_CLOSE_S)
        if worker is not None:
            worker.join(_CLOSE_S)
        self._fresh()

    # -- channels ----------------------------------------------------------------------------------------------------

    def accept(self, hello: Hello, peer: Peer) -> Handler:
        """Who belongs to this deployment and can prove it."""
        served = {CONTROL: self._control.serve, REQUESTS: self._requests, FRAMES: self._frames}
        if hello.purpose not in served:
            raise TransportRefused(f"purpose {hello.purpose!r}; this is a stage of a pipeline", "other-purpose")
        if hello.run != self._deployment:
            raise TransportRefused(f"deployment {hello.run[:40]!r}; this stage is of another one", "other-run")
        if self._tokens is not None:
            self._tokens.check(hello.token, run=self._deployment, node=0, purpose=hello.purpose)
        elif peer.fingerprint is None and not is_loopback(self._host):
            raise TransportRefused(
                "this stage sees no certificate and has no secret; use MutualTls, or give all machines one secret",
                "no-proof",
            )
        if hello.data.get("machine") != self.machine:
            raise TransportRefused(
                f"machine {str(hello.data.get('machine'))[:40]!r} was dialled; {self.machine!r} is here",
                "other-machine",
            )
        return served[hello.purpose]

    def _requests(self, connection: Connection) -> None:
        reply = self._reply(connection)
        for data in messages_of(connection):
            held = self._versions.serving
            if held is None:
                self._refuse(data, reply, "no-version", "nothing is deployed here yet")
                continue
            job = self._job(data, held, reply)
            if job is None:
                continue
            job.held = None  # it gets the version that is current when it is served
            if not self._jobs.put(job, wait=False):
                why = f"{len(self._jobs)} requests wait; ask again later, or raise ServingLimits(waiting=...)"
                self._refuse(data, reply, "busy", why)

    def _frames(self, connection: Connection) -> None:
        reply = self._reply(connection)
        for data in messages_of(connection):
            head = head_of(data)
            if not head.version:  # it measures the link
                reply(Received(head.request))
                continue
            held = self._versions.get(head.version)
            if held is None:
                why = f"version {head.version} is not here, {list(self._versions.numbers)} are; deploy anew"
                self._refuse(data, reply, "no-version", why)
                continue
            job = self._job(data, held, reply)
            if job is not None and not self._jobs.put(job, wait=True):
                self._refuse(data, reply, "closing", "this stage is stopping")

    def _job(self, data: bytes, held: Held, reply: Callable[[Answer], None]) -> Job | None:
        """What a frame asks; None: it was answered that it cannot be."""
        came_s = time.monotonic()
        try:
            arrays = tensors_of(held.takes, data)
        except ProtocolError as error:
            self._refuse(data, reply, "bad-frame", str(error))
            return None
        if arrays:
            self._count("requests")
        return Job(head_of(data).request, arrays, reply, held, came_s, time.monotonic() - came_s)

    def _refuse(self, data: bytes, reply: Callable[[Answer], None], code: str, why: str) -> None:
        self._count("refused")
        head = head_of(data)
        reply(Failed(head.request, head.version, code, self.machine, why))

    def _count(self, what: str, by: int = 1) -> None:
        with self._lock:
            self._counts[what] += by

    def _reply(self, connection: Connection) -> Replies:
        return Replies(self.machine, connection, lambda: self._replies_until_s - time.monotonic())

    def _dial(self, machine: str, address: str) -> Connection:
        fresh = hello_for(self._deployment, FRAMES, self._secret, machine)
        return self._dialling.dial(address, fresh, timeout_s=self._limits.dial_s)

    # -- work --------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            jobs = self._jobs.take(self._limits.batch_samples, self._limits.batch_wait_s)
            if not jobs:
                return
            try:
                self._batch_of(jobs[0].held, jobs)
            except Exception:  # the next batch is served whatever became of this one
                log.exception("stage %s", self.machine)

    def _batch_of(self, held: Held | None, jobs: list[Job]) -> None:
        begun = self._versions.begin(held)
        assert begun is not None  # a request is only taken while a version is current
        batch = Batch(begun, jobs, self._ended)
        began_s = time.perf_counter()
        try:
            out = () if batch.empty else begun.step(batch.arrays())
            answer = None if begun.onward is not None else Output.of(0, begun.number, out[0] if out else None)
        except Exception as error:  # whatever a request's tensors make torch raise concerns that request alone
            if len(jobs) > 1:
                for job in jobs:
                    self._batch_of(begun, [job])
                self._versions.end(begun)
                return
            log.exception("stage %s, version %d", self.machine, begun.number)
            batch.failed("failed", self.machine, f"{type(error).__name__}: {str(error)[:200]}")
            return
        computed_s = time.perf_counter() - began_s + sum(job.read_s for job in jobs)
        if answer is not None:
            self._measured(batch, computed_s)
            try:
                batch.output(answer)
            except ProtocolError as error:  # a part that gives other rows than it was given
                batch.failed("failed", self.machine, str(error))
        elif begun.onward is not None:
            begun.onward.send(batch, out)
            self._measured(batch, computed_s + batch.written_s)
            for job in jobs:
                if job.held is not None:  # a frame; requests come over no link of the pipeline
                    job.reply(Received(job.request, time.monotonic() - job.came_s))

    def _measured(self, batch: Batch, computed_s: float) -> None:
        if not batch.empty:
            self._batch.add(sum(job.samples for job in batch.jobs))
            for window in (self._compute, batch.held.compute):
                window.add(computed_s)

    def _ended(self, batch: Batch, served: bool) -> None:
        self._versions.end(batch.held)
        if batch.empty:
            return
        self._count("served" if served else "failed", len(batch.jobs))
        for job in batch.jobs if served else ():
            self._latency.add(time.monotonic() - job.came_s)
            if self._inputs is not None and job.held is None:  # a request; its answer is on its way by now
                self._inputs.add(job.arrays[0])

    # -- what it tells -----------------------------------------------------------------------------------------------

    def statistics(self) -> dict[str, Any]:
        """Plain values: what it holds, what it has served, seconds of computing and of answers, its link onwards."""
        with self._lock:
            counts = dict(self._counts)
        held, serving = self._versions.held, self._versions.serving
        return {
            "machine": self.machine,
            "versions": {str(one.number): one.digest for one in held},
            "next": {str(one.number): None if one.onward is None else one.onward.address for one in held},
            "takes": None if serving is None else serving.takes.config(),
            "current": None if serving is None else serving.number,
            "under_way": self._versions.under_way,
            "waiting": len(self._jobs),
            **counts,
            "compute": self._compute.summary(),
            "computes": {str(one.number): one.compute.summary() for one in held},
            "latency": self._latency.summary(),
            "batch_samples": self._batch.summary()["p50_s"],
            "onward": self._ways.measures(),
            "inputs": self._control.kept({}),
        }
