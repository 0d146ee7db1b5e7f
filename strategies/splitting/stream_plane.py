"""`StreamPlane`: frames travel over a channel that each device dials; Flower carries one message a round each way.

    server -> device   the order with address, token and certificate, and its half
    device <-> cloud   every batch over the channel
    device -> server   its half, and how it went

For deployments, where an exchange of Flower messages takes seconds. The service runs beside the ServerApp, in its
process; devices dial out, so they may stand behind NAT. Which plane frames take changes no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flwr.app import Message

from flower_edge.errors import ConfigError, EdgeError, ProtocolError
from flower_edge.runtime.splitting.messages import SplitOrder
from flower_edge.runtime.splitting.service import Outcome, Patience, SplitService
from flower_edge.splitting.architecture import build
from flower_edge.splitting.order import ArchitectureSpec
from flower_edge.transport.credentials import Insecure, ServerTls
from flower_edge.transport.reachable import Reachable
from flower_edge.transport.transport import Limits

from .outcome import begun, by_number, finish, lose, report_of
from .plane import Exchanges, Task
from .stream_ways import Edge, Way

if TYPE_CHECKING:
    from flower_edge.splitting.cutting_torch import CutModel

__all__ = ["Edge", "StreamPlane"]

MakeMessage = Callable[[Task, SplitOrder, Mapping[str, Any]], Message]


class StreamPlane:
    """Frames over channels that devices dial.

    Args:
        host, port: where the service listens; port 0 takes a free one. On another host than the loopback address the
            port has to be open in firewalls, for connections that come in.
        address: under which devices reach it: a host name or an IP address, with `:port` where it is not the one it
            listens on; by default `host`.
        credentials: `ServerTls` with a certificate for that address, together with `authority`. By default an authority
            and a certificate are made when the plane is opened, and kept in memory alone. `Insecure()`: no TLS.
        authority: PEM of who vouches for the certificate; devices believe nobody else.
        pace: hold each device, and the answers to it, to what is reserved for it. Answers that go through an edge are
            not held back: what is reserved is the device's link, not the edge's.
        patience: time-outs.
        limits: of the channels: messages' sizes, how many at once.
        days: how long a certificate of its own making is good for.
        edges: hosts in between, for all devices or by a device's number, see `Edge`; whose cut is at or behind the
            edge's units dials the cloud itself.
        models: factories by name, as given to `Split`; needed with edges where an architecture is one of them.

    Raises:
        ConfigError: credentials without an authority, or the other way round; an address that nobody can dial.
    """

    name = "stream"

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        address: str | None = None,
        credentials: ServerTls | Insecure | None = None,
        authority: bytes | None = None,
        pace: bool = True,
        patience: Patience | None = None,
        limits: Limits | None = None,
        days: float = 30.0,
        edges: Edge | Mapping[int, Edge] | None = None,
        models: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self._reachable = Reachable(
            "flower-edge split",
            host,
            port,
            address=address,
            credentials=credentials,
            authority=authority,
            limits=limits,
            days=days,
        )
        self._pace, self._patience = pace, patience or Patience()
        self.edges, self._models = edges or {}, models
        self._built: tuple[str, CutModel] | None = None
        self._service: SplitService | None = None
        self._trusted = b""

    def open(self) -> None:
        """Listen. Safe to call twice."""
        if self._service is not None:
            return
        transport, self._trusted = self._reachable.transport()
        service = SplitService(transport, self._reachable.host, self._reachable.port, patience=self._patience)
        service.open()
        self._service = service

    def close(self) -> None:
        """End every channel, and stop listening. Safe to call twice."""
        service, self._service = self._service, None
        if service is not None:
            service.close()

    @property
    def address(self) -> str:
        """What devices are told to dial.

        Raises:
            ProtocolError: the plane is not open.
        """
        if self._service is None:
            raise ProtocolError("the plane is not open; Split opens it at the start of a run, or call open()")
        return self._reachable.address(self._service.port)

    def round(self, tasks: Mapping[int, Task], message: MakeMessage, shared: bool) -> Exchanges:
        """As `Plane.round`: one exchange. With `shared`, devices must be able to run at the same time.

        Raises:
            ConfigError: `shared` and edges in between.
        """
        if shared and self.edges:
            raise ConfigError("edges= with one cloud half for all (SplitFed v2): each device needs its own; use v1")
        self.open()
        service = self._service
        assert service is not None
        ways = {number: way for number, task in tasks.items() if (way := self._way(number, task)) is not None}
        tokens: dict[int, str] = {}
        for task in list(tasks.values())[:1]:
            jobs = {number: way.job for number, way in ways.items()}
            tokens = service.begin(task.order.session, task.order.work.round, jobs, shared=shared)
        outcomes: dict[int, Outcome] = {}
        replies: Sequence[Message] = ()
        try:
            replies = yield (
                [self._message(number, task, tokens.get(number), message) for number, task in tasks.items()],
                True,
            )
        finally:
            # Also when nobody goes on with this round: a channel left open would wait for a device until it gives up.
            outcomes = service.end(_done(tasks, replies))
        for number, reply in by_number(tasks, replies).items():
            try:
                self._settle(tasks[number], reply, outcomes.get(number))
            except EdgeError as error:
                lose(tasks[number], str(error))
        for number, outcome in outcomes.items():
            task = tasks[number]
            task.count(cloud_s=outcome.cloud_s, up_bits=outcome.up_bits, down_bits=outcome.down_bits)
            if not task.lost:
                task.work = ways[number].joined(outcome.edge)

    def _edge(self, number: int) -> Edge | None:
        return self.edges if isinstance(self.edges, Edge) else self.edges.get(number)

    def _way(self, number: int, task: Task) -> Way | None:
        if task.work is None or task.coder is None:
            return None
        edge = self._edge(number)
        if edge is not None and task.order.work.cut < edge.stop:
            return Way.through(edge, task, self._model(task.order.work.architecture))
        return Way.direct(task, task.order.down_bps if self._pace else None)

    def _model(self, architecture: ArchitectureSpec) -> CutModel:
        """How units compute; built once, as in a run there is one architecture."""
        key = architecture.model_dump_json()
        if self._built is None or self._built[0] != key:
            self._built = key, build(architecture, models=self._models)
        return self._built[1]

    def _message(self, number: int, task: Task, token: str | None, message: MakeMessage) -> Message:
        changes: dict[str, Any] = {"plane": "stream", "begin": True}
        if token is not None:
            edge = self._edge(number)
            if edge is not None and task.order.work.cut < edge.stop:
                changes |= {"address": edge.address, "certificate": edge.authority.decode()}
            else:
                changes |= {"address": self.address, "certificate": self._trusted.decode()}
            changes["token"] = token
        if not self._pace:
            changes |= {"up_bps": None, "down_bps": None}
        return message(task, task.order.model_copy(update=changes), begun(task))

    @staticmethod
    def _settle(task: Task, reply: Message, outcome: Outcome | None) -> None:
        """Take a device's half, if the cloud's end saw all of its batches too.

        Raises:
            EdgeError: it did not, or the half cannot be used.
        """
        report = report_of(task, reply)
        if outcome is not None and outcome.lost:
            number = task.order.work.number
            raise ProtocolError(f"device {number} says it is done, but at the cloud's end: {outcome.lost}")
        finish(task, reply, report)


def _done(tasks: Mapping[int, Task], replies: Sequence[Message]) -> set[int]:
    """Numbers of those that say they are done; whether it is true is looked at afterwards."""
    by_node = {reply.metadata.src_node_id: reply for reply in replies if not reply.has_error()}
    done = set()
    for number, task in tasks.items():
        if task.node in by_node:
            with suppress(EdgeError):
                report_of(task, by_node[task.node])
                done.add(number)
    return done
