"""`EdgeHost`: an edge that answers its centre through the bridge, and goes on while the centre is away.

It lives in a ServerApp of the edge's own SuperLink and has one order at a time, in the thread that called `run`; who
asks and waits is served by threads of its own. What was answered is on the disk before it is sent, with the strategy's
state: an edge that is killed and started again goes on from there, and whoever asks the same once more is told the
same. Nothing here samples, merges or starts a process.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from logging import getLogger
from typing import Any, Final

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from ...errors import ConfigError, EdgeError, ProtocolError, TransportError
from ...store.tree import load_tree, save_tree
from ..edge_messages import COUNTED_NODES, COUNTED_ORDER, COUNTED_WEIGHTS, EDGE_RECORD, EVALUATES_KEY
from ..edge_rounds import EdgeRounds
from ..flower_private import set_metadata
from ..narrowed_grid import minimum_nodes
from .channel import Channel, Listener
from .counting import Counted, StableKey
from .messages import FRAME_BYTES, Answer, Ask, Status, body_of, content_of, digest_of
from .place import BridgePlace

__all__ = ["EdgeHost", "HostSettings"]

log = getLogger("flwr.edge")

_SCHEMA: Final = "flower-edge.edge-host/1"
#: Between two looks whether there is something to do.
_LOOK_S: Final = 0.5
#: Between two looks who is on the grid, while there is nothing to do.
_LIST_S: Final = 2.0
#: At the same time, whoever they are.
_CONNECTIONS: Final = 64
#: Of what is left of an order's time its edge rounds may take so much; the rest is for merging and the way back.
_SHARE: Final = 0.95


@dataclass(frozen=True)
class HostSettings:
    """How an edge behaves.

    Attributes:
        alone_after_s: seconds without a word of the centre after which the edge trains on alone.
        alone_rounds: edge rounds it trains alone at most, until the centre is back; 0: it waits.
        frame_bytes: the longest message taken, in bytes.

    Raises:
        ConfigError: a number that cannot be meant.
    """

    alone_after_s: float = 120.0
    alone_rounds: int = 10
    frame_bytes: int = FRAME_BYTES

    def __post_init__(self) -> None:
        if not (isinstance(self.alone_after_s, int | float) and self.alone_after_s > 0):
            raise ConfigError(f"alone_after_s = {self.alone_after_s!r}: expected seconds, more than 0")
        if type(self.alone_rounds) is not int or self.alone_rounds < 0:
            raise ConfigError(f"alone_rounds = {self.alone_rounds!r}: expected a whole number, 0 to wait")
        if type(self.frame_bytes) is not int or self.frame_bytes < 1:
            raise ConfigError(f"frame_bytes = {self.frame_bytes!r}: expected a whole number above 0")


@dataclass
class _Job:
    """A message that waits for its answer."""

    ask: Ask
    body: bytes
    digest: str
    latest_s: float
    answer: Answer | None = None
    content: bytes = b""
    done: threading.Event = field(default_factory=threading.Event)

    def end(self, answer: Answer, content: bytes = b"") -> None:
        self.answer, self.content = answer, content
        self.done.set()


class EdgeHost:
    """One edge at its end of the bridge.

    Args:
        place: the bridge's folder; its key is made if there is none.
        edge: makes the inner strategy from the cell's name.
        grid: the edge's terminals.
        settings: how it behaves.
        stable: of a terminal's node id, the key by which it is known at every edge.
        flower_run: Flower's number of the run this lives in, to be told.

    Raises:
        ConfigError: the folder cannot be used.
    """

    def __init__(
        self,
        place: BridgePlace,
        edge: Callable[[str], Strategy],
        grid: Grid,
        *,
        settings: HostSettings | None = None,
        stable: StableKey,
        flower_run: int = 0,
    ) -> None:
        place.make()
        self._place, self._factory, self._grid = place, edge, grid
        self._settings = settings or HostSettings()
        self._counted = Counted(stable)
        self._edge: EdgeRounds | None = None
        self._answered: dict[str, Any] = {}
        self._lock = threading.Condition()
        self._jobs: dict[str, _Job] = {}
        self._waiting: _Job | None = None
        self._ending = False
        self._heard_s = time.monotonic()
        self._status = Status(pid=os.getpid(), flower_run=flower_run)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self, ready: Callable[[], None] = lambda: None) -> str:
        """Answer until somebody else listens for this edge, or `end` was called; returns which, in words.

        Args:
            ready: called once, when it listens: to wait for terminals. Orders wait for it.
        """
        listener = Listener(self._place.key(), most_bytes=self._settings.frame_bytes)
        address = self._place.publish(listener.port)
        threading.Thread(target=self._accept, args=(listener,), name="bridge", daemon=True).start()
        log.info("edge: listens for its centre on port %d", listener.port)
        try:
            ready()
            self._restore()
            self._heard_s = listed_s = time.monotonic()
            while not self._ending:
                now = self._place.address()
                if now is not None and now.nonce != address.nonce:
                    return "another process listens for this edge now"
                job = self._next()
                if job is not None:
                    self._do(job)
                elif self._alone_now():
                    self._go_on_alone()
                elif time.monotonic() - listed_s > _LIST_S:
                    self._list()
                    listed_s = time.monotonic()
            return "it was told to end"
        finally:
            listener.close()
            self._end_all("the edge has ended; ask again")

    def end(self) -> None:
        """Let `run` return, when its present work is done."""
        with self._lock:
            self._ending = True
            self._lock.notify_all()

    def _next(self) -> _Job | None:
        with self._lock:
            if self._waiting is None and not self._ending:
                self._lock.wait(_LOOK_S)
            job, self._waiting = self._waiting, None
            return job

    def _end_all(self, reason: str) -> None:
        with self._lock:
            self._ending = True
            for job in self._jobs.values():
                if not job.done.is_set():
                    job.end(Answer(ok=False, reason=reason))

    def _tell(self, **values: Any) -> None:
        self._status = self._status.model_copy(update=values)

    def _list(self) -> None:
        """Who is there; new terminals are asked who they are now and not in a round."""
        try:
            terminals = len(list(self._grid.get_node_ids()))
        except Exception as error:
            log.warning("edge: the terminals cannot be listed: %s", error)
        else:
            self._tell(terminals=terminals, state="waiting")

    # -- orders ------------------------------------------------------------------------------------------------------

    def _do(self, job: _Job) -> None:
        try:
            content = self._handle(job)
        except Exception as error:
            # Whatever a strategy raises, the edge lives on: its centre is told, and goes on with the others.
            reason = str(error) if isinstance(error, EdgeError) else f"{type(error).__name__}: {error}"
            log.warning("edge: %s", reason)
            job.end(Answer(ok=False, reason=reason[:4000]))
        else:
            again = job.answer is not None and job.answer.again
            job.end(Answer(ok=True, again=again), content)
        with self._lock:
            self._jobs.pop(job.digest, None)
        self._heard_s = time.monotonic()
        self._tell(state="waiting", alone=0)

    def _handle(self, job: _Job) -> bytes:
        if job.digest == self._answered.get("digest"):
            job.answer = Answer(ok=True, again=True)
            return bytes(self._answered["body"])
        left_s = job.latest_s - time.monotonic()
        if left_s <= 0:
            raise ProtocolError("the edge was at work, and nobody waits for the answer to this order any more")
        content = content_of(job.body)
        record = content.config_records.get(EDGE_RECORD)
        if job.ask.kind not in ("train", "evaluate") or record is None or "cell" not in record:
            raise ProtocolError(
                f"a {job.ask.kind!r} message without an order for an edge came over the bridge; the centre's strategy "
                "has to be Hierarchical(tier=BridgeTier())"
            )
        edge = self._edge_of(str(record["cell"]), job.ask.run)
        rounds = int(record.get("edge-rounds", 1)) if job.ask.kind == "train" else 1  # type: ignore[arg-type]
        # Time that the order has waited for this process to come back is not there any more.
        each_s = _SHARE * left_s / max(1, rounds)
        record["timeout-s"] = min(float(record["timeout-s"]), each_s)  # type: ignore[arg-type]
        self._tell(
            state="training" if job.ask.kind == "train" else "evaluating",
            cloud_round=int(record.get("cloud-round", 0)),  # type: ignore[arg-type]
            version=int(record.get("version", 0)),  # type: ignore[arg-type]
            handled=self._status.handled + 1,
        )
        message = Message(content, 1, job.ask.kind)
        set_metadata(message, message_id=job.digest)
        self._counted.begin()
        reply = edge.handle(message)
        if job.ask.kind == "train":
            report = reply.content.config_records[EDGE_RECORD]
            report[EVALUATES_KEY] = minimum_nodes(edge.strategy, "evaluate") > 0
            keys, weights, orders = self._counted.lists()
            if keys:
                report[COUNTED_NODES], report[COUNTED_WEIGHTS], report[COUNTED_ORDER] = keys, weights, orders
        body = body_of(reply.content)
        if job.ask.kind == "train":
            # Before it is sent: what the centre has was kept here, whatever happens next.
            self._answered = {"digest": job.digest, "body": body}
            self._save()
        return body

    def _edge_of(self, cell: str, run: str) -> EdgeRounds:
        """The edge as it is; a new one for another run of the centre, or another name."""
        if self._edge is None or (self._status.cell, self._status.run) != (cell, run):
            self._edge = self._made(cell)
            self._answered = {}
            self._tell(cell=cell, run=run, alone=0)
            log.info("edge: is %s in %s", cell, run)
        return self._edge

    def _made(self, cell: str) -> EdgeRounds:
        strategy = self._factory(cell)
        if not isinstance(strategy, Strategy):
            raise ConfigError(
                f"edge({cell!r}) returned {strategy!r}, which is no Flower strategy; return one: "
                "edge=lambda cell: FedAvg(...)"
            )
        keeps = self._settings.alone_rounds > 0
        made = EdgeRounds(cell, strategy, self._grid, accepted=self._counted.note, keeps_model=keeps)
        made.state_dict()  # a strategy that does not say what its state is, is refused now and not after a crash
        return made

    # -- without the centre ------------------------------------------------------------------------------------------

    def _alone_now(self) -> bool:
        return (
            self._edge is not None
            and self._edge.has_model
            and self._status.alone < self._settings.alone_rounds
            and time.monotonic() - self._heard_s >= self._settings.alone_after_s
        )

    def _go_on_alone(self) -> None:
        assert self._edge is not None
        self._tell(state="alone", alone=self._status.alone + 1)
        try:
            what = self._edge.carry_on(edge_rounds=1)
            self._save()
        except Exception as error:
            what = f"could not train alone: {type(error).__name__}: {error}"
            time.sleep(_LOOK_S)
        log.info("edge: nothing was heard of the centre; %s", what)
        self._tell(state="waiting")

    # -- the disk ----------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        assert self._edge is not None
        tree = {
            "schema": _SCHEMA,
            "cell": self._status.cell,
            "run": self._status.run,
            "cloud-round": self._status.cloud_round,
            "version": self._status.version,
            "edge": self._edge.state_dict(),
            "answered": self._answered,
        }
        save_tree(self._place.state, tree)

    def _restore(self) -> None:
        """Go on from what an earlier process of this edge has left."""
        if not self._place.state.exists():
            return
        tree: Mapping[str, Any] = load_tree(self._place.state)
        if tree.get("schema") != _SCHEMA:
            raise ConfigError(
                f"{self._place.state} is of another version of flower-edge; remove it to begin this edge anew"
            )
        self._edge = self._made(tree["cell"])
        self._edge.load_state_dict(tree["edge"])
        self._answered = dict(tree["answered"])
        self._tell(cell=tree["cell"], run=tree["run"], cloud_round=tree["cloud-round"], version=tree["version"])
        log.info("edge: goes on as %s in %s after round %d", tree["cell"], tree["run"], tree["cloud-round"])

    # -- who asks ----------------------------------------------------------------------------------------------------

    def _accept(self, listener: Listener) -> None:
        free = threading.BoundedSemaphore(_CONNECTIONS)
        while (prove := listener.accept()) is not None:
            free.acquire()
            threading.Thread(target=self._serve, args=(prove, free), name="bridge-asked", daemon=True).start()

    def _serve(self, prove: Callable[[], Channel], free: threading.BoundedSemaphore) -> None:
        try:
            with prove() as channel:
                self._talk(channel)
        except (TransportError, ProtocolError) as error:
            log.debug("edge: %s", error)
        finally:
            free.release()

    def _talk(self, channel: Channel) -> None:
        ask = Ask.from_bytes(channel.receive(latest_s=time.monotonic() + 10.0))
        latest_s = time.monotonic() + ask.within_s
        if ask.what == "status":
            status = self._status.model_copy(update={"since_s": time.monotonic() - self._heard_s})
            channel.send(status.to_bytes(), latest_s=latest_s)
            return
        body = channel.receive(latest_s=latest_s)
        job = self._queued(ask, body, latest_s)
        job.done.wait(max(0.0, latest_s - time.monotonic()))
        if job.answer is None or not job.done.is_set():
            return
        channel.send(job.answer.to_bytes(), latest_s=latest_s)
        if job.answer.ok:
            channel.send(job.content, latest_s=latest_s)

    def _queued(self, ask: Ask, body: bytes, latest_s: float) -> _Job:
        """The job of this order: one there is already, if somebody asks the same again."""
        digest = digest_of(ask, body)
        with self._lock:
            job = self._jobs.get(digest)
            if job is None:
                job = _Job(ask, body, digest, latest_s)
                if self._ending:
                    job.end(Answer(ok=False, reason="the edge has ended; ask again"))
                    return job
                if (older := self._waiting) is not None:
                    older.end(Answer(ok=False, reason="another order came before this one was begun"))
                    self._jobs.pop(older.digest, None)
                self._jobs[digest] = self._waiting = job
                self._lock.notify_all()
            else:
                job.latest_s = max(job.latest_s, latest_s)
            return job
