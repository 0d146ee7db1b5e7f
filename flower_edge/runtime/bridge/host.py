"""`EdgeHost`: an edge that answers its centre through the bridge, and goes on while the centre is away.

It lives in a ServerApp of the edge's own SuperLink and has one order at a time, in the thread that called `run`; who
asks and waits is served by threads of its own. What was answered is on the disk before it is sent, with the strategy's
state: an edge that is killed and started again goes on from there, and whoever asks the same once more is told the
same. Nothing here samples, merges or starts a process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from logging import getLogger
from typing import Any, Final

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from ...errors import ConfigError, EdgeError, ProtocolError
from ..edge_messages import COUNTED_NODES, COUNTED_ORDER, COUNTED_WEIGHTS, EDGE_RECORD, EVALUATES_KEY
from ..edge_rounds import EdgeRounds
from ..flower_private import set_metadata
from ..narrowed_grid import minimum_nodes
from .channel import Listener
from .counting import Counted, StableKey
from .edge_disk import EdgeDisk
from .messages import FRAME_BYTES, Answer, Status, body_of, content_of
from .orders import Job, Orders
from .place import BridgePlace

__all__ = ["EdgeHost", "HostSettings"]

log = getLogger("flwr.edge")

#: Between two looks whether there is something to do.
_LOOK_S: Final = 0.5
#: Between two looks who is on the grid, while there is nothing to do.
_LIST_S: Final = 2.0
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
        self._heard_s = time.monotonic()
        self._status = Status(pid=os.getpid(), flower_run=flower_run)
        self._orders = Orders(self._status_now)
        self._disk = EdgeDisk(place, lambda trouble: self._tell(trouble=trouble), lambda: self._orders.ended)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self, ready: Callable[[], None] = lambda: None) -> str:
        """Answer until somebody else listens for this edge, or `end` was called; returns which, in words.

        Args:
            ready: called once, when it listens: to wait for terminals. Orders wait for it.
        """
        listener = Listener(self._place.key(), most_bytes=self._settings.frame_bytes)
        address = self._place.publish(listener.port)
        self._orders.listen(listener)
        log.info("edge: listens for its centre on port %d", listener.port)
        try:
            ready()
            self._restore()
            self._heard_s = listed_s = time.monotonic()
            while not self._orders.ended:
                now = self._place.address()
                if now is not None and now.nonce != address.nonce:
                    return "another process listens for this edge now"
                job = self._orders.next(_LOOK_S)
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
            self._orders.end_all("the edge has ended; ask again")

    def end(self) -> None:
        """Let `run` return, when its present work is done."""
        self._orders.stop()

    def _status_now(self) -> Status:
        return self._status.model_copy(update={"since_s": time.monotonic() - self._heard_s})

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

    def _do(self, job: Job) -> None:
        try:
            content = self._handle(job)
        except Exception as error:
            # Whatever a strategy raises, the edge lives on: its centre is told, and goes on with the others.
            reason = str(error) if isinstance(error, EdgeError) else f"{type(error).__name__}: {error}"
            log.warning("edge: %s", reason)
            job.end(Answer(ok=False, reason=reason[:4000]))
            self._tell(trouble=reason[:4000])
        else:
            again = job.answer is not None and job.answer.again
            job.end(Answer(ok=True, again=again), content)
            self._tell(trouble="")
        self._orders.finished(job)
        self._heard_s = time.monotonic()
        self._tell(state="waiting", alone=0)

    def _handle(self, job: Job) -> bytes:
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
        if job.ask.kind == "train":
            self._disk.wait_for_room(len(job.body), job.latest_s)
            left_s = job.latest_s - time.monotonic()
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
        try:
            return self._done(edge, message, job)
        except Exception:
            if job.ask.kind == "train":
                self._undo()
            raise

    def _done(self, edge: EdgeRounds, message: Message, job: Job) -> bytes:
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
            self._save(job.latest_s)
        return body

    def _undo(self) -> None:
        """A training order that failed has changed nothing: the edge is what its disk says, as after a restart."""
        self._edge, self._answered = None, {}
        self._counted.undo()
        self._restore()

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

    def _save(self, latest_s: float = 0.0) -> None:
        assert self._edge is not None
        tree = {
            "cell": self._status.cell,
            "run": self._status.run,
            "cloud-round": self._status.cloud_round,
            "version": self._status.version,
            "edge": self._edge.state_dict(),
            "answered": self._answered,
        }
        self._disk.save(tree, latest_s)

    def _restore(self) -> None:
        """Go on from what an earlier process of this edge has left."""
        tree = self._disk.load()
        if tree is None:
            return
        self._edge = self._made(tree["cell"])
        self._edge.load_state_dict(tree["edge"])
        self._answered = dict(tree["answered"])
        self._tell(cell=tree["cell"], run=tree["run"], cloud_round=tree["cloud-round"], version=tree["version"])
        log.info("edge: goes on as %s in %s after round %d", tree["cell"], tree["run"], tree["cloud-round"])
