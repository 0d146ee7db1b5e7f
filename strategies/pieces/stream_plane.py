"""`PieceStream`: frames between pieces travel over channels that the terminals dial; Flower carries one message each.

    server -> terminal        the call with address, token and certificate, and its piece
    terminal <-> edge <-> terminal   every frame of the round
    server <- terminal        its piece, and how it went

For deployments, where an exchange of Flower messages takes seconds. The service runs beside the ServerApp, in its
process, and only passes on; terminals dial out, so they may stand behind NAT and need not reach each other. Which plane
frames take changes no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flwr.app import Message

from flower_edge.errors import ConfigError, EdgeError, ProtocolError
from flower_edge.runtime.pieces.service import ChainJob, ChainOutcome, Passed, Patience, PieceService
from flower_edge.transport.credentials import Insecure, ServerTls
from flower_edge.transport.reachable import Reachable
from flower_edge.transport.transport import Limits

from .outcome import begun, by_node, finish, lose, report_of
from .plane import Carried, ChainTask, MakeMessage, PieceTask

__all__ = ["PieceStream"]


class PieceStream:
    """Frames over channels that terminals dial. All terminals of a chain must run at the same time.

    Args:
        host, port: where the service listens; port 0 takes a free one. On another host than the loopback address the
            port has to be open in firewalls, for connections that come in.
        address: under which terminals reach it: a host name or an IP address, with `:port` where it is not the one it
            listens on; by default `host`.
        credentials: `ServerTls` with a certificate for that address, together with `authority`. By default an authority
            and a certificate are made when the plane is opened, and kept in memory alone. `Insecure()`: no TLS.
        authority: PEM of who vouches for the certificate; terminals believe nobody else.
        patience: time-outs.
        limits: of the channels: messages' sizes, how many at once; one for each terminal of a round.
        days: how long a certificate of its own making is good for.

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
        patience: Patience | None = None,
        limits: Limits | None = None,
        days: float = 30.0,
    ) -> None:
        self._reachable = Reachable(
            "flower-edge pieces",
            host,
            port,
            address=address,
            credentials=credentials,
            authority=authority,
            limits=limits,
            days=days,
        )
        self._patience = patience or Patience()
        self._service: PieceService | None = None
        self._trusted = b""
        self.passed: dict[tuple[int, int], Passed] = {}

    def open(self) -> None:
        """Listen. Safe to call twice."""
        if self._service is not None:
            return
        transport, self._trusted = self._reachable.transport()
        service = PieceService(transport, self._reachable.host, self._reachable.port, patience=self._patience)
        service.open()
        self._service = service

    def close(self) -> None:
        """End every channel, and stop listening. Safe to call twice."""
        service, self._service = self._service, None
        if service is not None:
            service.close()

    @property
    def address(self) -> str:
        """What terminals are told to dial.

        Raises:
            ProtocolError: the plane is not open.
        """
        if self._service is None:
            raise ProtocolError("the plane is not open; Pieces opens it at the start of a run, or call open()")
        return self._reachable.address(self._service.port)

    def carry(self, chains: Sequence[ChainTask], message: MakeMessage) -> Carried:
        """As `PiecePlane.carry`: one exchange. What passed for each (chain, place) is in `passed` afterwards.

        Raises:
            ConfigError: more terminals than channels are allowed.
        """
        self.open()
        service = self._service
        assert service is not None
        # A piece that is the whole model has nobody to talk to.
        divided = [chain for chain in chains if len(chain.tasks) > 1]
        self._expect_room(sum(len(chain.tasks) for chain in divided))
        tokens: dict[tuple[int, int], str] = {}
        if divided:
            call = divided[0].tasks[0].call
            jobs = {
                chain.number: ChainJob(tuple(task.order for task in chain.tasks), chain.profile) for chain in divided
            }
            tokens = service.begin(call.session, call.piece.work.round, jobs)
        outcomes: dict[int, ChainOutcome] = {}
        tasks = [task for chain in chains for task in chain.tasks]
        replies: Sequence[Message] = ()
        try:
            replies = yield [self._message(task, tokens, message) for task in tasks]
        finally:
            # Also when nobody goes on with this round: a channel left open would wait for a terminal until it gives up.
            outcomes = service.end(_done(chains, replies))
        answers = {id(task): reply for task, reply in by_node(tasks, replies)}
        for chain in chains:
            outcome = outcomes.get(chain.number)
            for place, task in enumerate(chain.tasks):
                if outcome is not None:
                    self.passed[chain.number, place] = outcome.passed[place]
                    task.up_bits += outcome.passed[place].up_bits
                    task.down_bits += outcome.passed[place].down_bits
                if (reply := answers.get(id(task))) is not None:
                    _settle(task, reply, outcome)
            _blame(chain, outcome)

    def _expect_room(self, terminals: int) -> None:
        most = self._reachable.limits.connections
        if terminals > most:
            raise ConfigError(
                f"{terminals} terminals in a round and {most} channels; write "
                f"PieceStream(limits=Limits(connections={terminals}))"
            )

    def _message(self, task: PieceTask, tokens: Mapping[tuple[int, int], str], message: MakeMessage) -> Message:
        changes: dict[str, Any] = {"plane": "stream", "what": "begin"}
        token = tokens.get((task.order.work.number, task.order.place))
        if token is not None:
            changes |= {"address": self.address, "token": token, "certificate": self._trusted.decode()}
        return message(task, task.call.model_copy(update=changes), begun(task))


def _done(chains: Sequence[ChainTask], replies: Sequence[Message]) -> set[int]:
    """Chains all of whose terminals have replied without an error; whether they are done is looked at afterwards."""
    good = {reply.metadata.src_node_id for reply in replies if not reply.has_error()}
    return {chain.number for chain in chains if all(task.node in good for task in chain.tasks)}


def _settle(task: PieceTask, reply: Message, outcome: ChainOutcome | None) -> None:
    """Take a terminal's piece, if it is done. One that could not go on because of another is neither lost nor done."""
    try:
        report = report_of(task, reply)
        if report.done:
            finish(task, reply, report)
    except EdgeError as error:
        if outcome is None or not outcome.lost or not outcome.places or task.order.place in outcome.places:
            lose(task, str(error))


def _blame(chain: ChainTask, outcome: ChainOutcome | None) -> None:
    """A chain that did not come to its end has somebody who is lost: as the edge saw it, else who is not done."""
    if chain.lost or (chain.done and (outcome is None or not outcome.lost)):
        return
    places = outcome.places if outcome is not None and outcome.lost else ()
    why = outcome.lost if outcome is not None and outcome.lost else "it is not done, and does not say why"
    blamed = [chain.tasks[place] for place in places] or [task for task in chain.tasks if not task.done] or chain.tasks
    for task in blamed[: len(places) or 1]:
        lose(task, why)
