"""`SplitService`: the cloud's end of streamed split learning. Devices dial it, prove who they are, and are answered.

It runs beside a ServerApp in threads of its own and knows one round at a time: who is expected, with which token, and
what answers whose frames. It neither plans nor merges, and knows nothing of torch: an answer is a function.

A connection that breaks, falls silent or says what it should not ends that device's round, and no other's. A second
connection of a device in one round is refused: what the first had computed is not taken up again.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from logging import getLogger

from ...errors import EdgeError, ProtocolError, TransportRefused
from ...splitting.frame import Frame
from ...transport.listening import Listening, close_all
from ...transport.tokens import TokenMaker
from ...transport.transport import Connection, Handler, Hello, Peer, PeerTransport
from .channel import EDGE_KEY, PURPOSE, Exchange, exchanges, pack_answer, token_purpose
from .edge_part import unpack_result
from .job import Job, Outcome, Patience
from .turns import Turns

__all__ = ["Job", "Outcome", "Patience", "SplitService"]

log = getLogger("flwr.edge")


@dataclass
class _Round:
    session: str
    number: int
    jobs: Mapping[int, Job]
    turns: Turns | None
    outcomes: dict[int, Outcome]
    admitted: set[int] = field(default_factory=set)
    here: set[int] = field(default_factory=set)
    connections: dict[int, Connection] = field(default_factory=dict)
    working: set[int] = field(default_factory=set)
    first_s: float | None = None


class SplitService(Listening):
    """Answers devices' frames over channels they dial.

    Args:
        transport: of the channels, with the server's credentials.
        host, port: where to listen; port 0 takes a free one, see `port`.
        patience: time-outs.

    Usable as a context manager: `open` and `close`.
    """

    def __init__(
        self,
        transport: PeerTransport,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(transport, host, port)
        self._patience = patience or Patience()
        self._tokens = TokenMaker.fresh()
        self._round: _Round | None = None
        self._changed = threading.Condition()
        # Answers are computed one at a time: torch's global generators, from which dropout draws, are the process's.
        self._computing = threading.Lock()

    def close(self) -> None:
        """End the round and all connections, and stop listening. Safe to call twice."""
        self.end(())
        super().close()

    # -- a round -----------------------------------------------------------------------------------------------------

    def begin(self, session: str, round: int, jobs: Mapping[int, Job], *, shared: bool = False) -> dict[int, str]:
        """Expect devices, by number; a round that was going on ends.

        Args:
            session: of the run; devices say it when they call.
            round: of Flower's.
            jobs: what to do for each.
            shared: their batches take turns, see `Turns`.

        Returns:
            A token for each, which admits that device in this round.
        """
        self.end(())
        made = _Round(
            session=session,
            number=round,
            jobs=dict(jobs),
            turns=Turns(jobs) if shared else None,
            outcomes={number: Outcome() for number in jobs},
        )
        with self._changed:
            self._round = made
        return {
            number: self._tokens.make(
                run=session, node=number, purpose=token_purpose(round), valid_s=self._patience.round_s
            )
            for number in jobs
        }

    def end(self, finished: Collection[int], grace_s: float = 30.0) -> dict[int, Outcome]:
        """What became of everybody, by number. Nobody else is admitted in this round.

        Args:
            finished: numbers of devices that said, elsewhere, that they are done: what is still on its way from an
                edge is waited for. All others' connections are closed.
            grace_s: how long to wait at most.
        """
        with self._changed:
            round_, self._round = self._round, None
            if round_ is None:
                return {}
            unfinished = [one for number, one in round_.connections.items() if number not in finished]
            self._changed.notify_all()
        if round_.turns is not None:
            for number in round_.jobs.keys() - set(finished):
                round_.turns.leave(number)
        close_all(unfinished)
        with self._changed:
            self._changed.wait_for(lambda: not round_.connections, grace_s)
            late = dict(round_.connections)
            outcomes = {number: replace(outcome) for number, outcome in round_.outcomes.items()}
        close_all(late.values())
        for number in late:
            outcomes[number].lost = f"its channel had not ended {grace_s:g} s after the round"
        return outcomes

    # -- one connection ----------------------------------------------------------------------------------------------

    def accept(self, hello: Hello, peer: Peer) -> Handler:
        """Who is expected in this round and has its token."""
        """Whether to admit a caller.

        Raises:
            TransportRefused: no.
        """
        del peer  # the token says who it is; certificates, where they are mutual, the transport has compared
        if hello.purpose != PURPOSE:
            raise TransportRefused(f"purpose {hello.purpose!r}; this service is for {PURPOSE!r}", "other-purpose")
        with self._changed:
            round_ = self._round
            if round_ is None:
                raise TransportRefused("no round is going on", "no-round")
            if hello.run != round_.session:
                raise TransportRefused(f"run {hello.run[:40]!r}; another one is going on here", "other-run")
            self._tokens.check(hello.token, run=round_.session, node=hello.node, purpose=token_purpose(round_.number))
            if hello.data.get("round") != round_.number:
                raise TransportRefused(
                    f"round {str(hello.data.get('round'))[:20]}; round {round_.number} is going on", "other-round"
                )
            if bool(hello.data.get(EDGE_KEY)) != (round_.jobs[hello.node].edge is not None):
                where = "itself" if hello.data.get(EDGE_KEY) else "through its edge"
                raise TransportRefused(f"device {hello.node} is to dial {where} in this round", "other-way")
            if hello.node in round_.admitted:
                raise TransportRefused(
                    f"device {hello.node} has dialled before in round {round_.number}, or came too late for it; "
                    "it takes part in the next one",
                    "dialled-before",
                )
            round_.admitted.add(hello.node)
        return lambda connection: self._serve(round_, hello.node, connection)

    def _serve(self, round_: _Round, number: int, connection: Connection) -> None:
        job, outcome = round_.jobs[number], round_.outcomes[number]
        with self._changed:
            if self._round is not round_:
                raise TransportRefused("the round is over", "no-round")
            round_.connections[number] = connection
            round_.here.add(number)
            round_.first_s = round_.first_s or time.monotonic()
            self._changed.notify_all()
        why = "its channel broke"
        try:
            connection.pace(job.down_bps)
            if job.edge is not None:
                connection.send(job.edge.pack(), timeout_s=self._patience.silence_s)
            if round_.turns is not None:
                self._wait_for_all(round_, round_.turns)
            self._converse(round_, number, connection)
            if job.edge is not None:
                outcome.edge = unpack_result(connection.receive(self._patience.silence_s), job.edge)
            why = ""
        except EdgeError as error:
            why = f"{type(error).__name__}: {error}"
            raise TransportRefused(f"device {number}: {why}", "lost") from error
        except Exception as error:  # whatever a device's tensors make torch raise concerns this device alone
            log.exception("split service: device %d, round %d", number, round_.number)
            why = f"{type(error).__name__}: {error}"
            raise TransportRefused(f"device {number}: the cloud could not answer", "lost") from error
        finally:
            outcome.lost = why
            if round_.turns is not None and why:
                round_.turns.leave(number)
            with self._changed:
                del round_.connections[number]
                self._changed.notify_all()

    def _wait_for_all(self, round_: _Round, turns: Turns) -> None:
        """Whose batches take turns must all be there; who is not `dial_s` after the first is not waited for."""
        assert round_.first_s is not None
        with self._changed:
            left_s = round_.first_s + self._patience.dial_s - time.monotonic()
            self._changed.wait_for(lambda: round_.here >= round_.jobs.keys() or self._round is not round_, left_s)
            missing = round_.jobs.keys() - round_.here
            round_.here |= missing
            round_.admitted |= missing
        for number in missing:
            turns.leave(number)
            round_.outcomes[number].lost = (
                f"it had not dialled {self._patience.dial_s:g} s after the first one did; one half for all (SplitFed "
                "v2) needs devices that run at the same time: in process, LocalGrid(pool='threads', workers=<devices>)"
            )

    def _converse(self, round_: _Round, number: int, connection: Connection) -> None:
        job, outcome = round_.jobs[number], round_.outcomes[number]
        patience_s = 2.0 * len(round_.jobs) * self._patience.silence_s
        by_step = itertools.groupby(exchanges(job.order), key=lambda one: one.step)
        for i, (_, of_step) in enumerate(by_step):
            first, *more = of_step
            came = self._received(job, first, connection, outcome)
            # A step has its turn whole: in the U-shape the shared half may not move between the two frames of one.
            with nullcontext() if round_.turns is None else round_.turns.of(number, i, patience_s):
                try:
                    self._answer(job, first, came, connection, outcome)
                    for one in more:
                        self._answer(job, one, self._received(job, one, connection, outcome), connection, outcome)
                except BaseException:
                    job.drop()
                    raise
            outcome.steps += 1

    def _received(self, job: Job, one: Exchange, connection: Connection, outcome: Outcome) -> tuple[Frame, float]:
        data = connection.receive(self._patience.silence_s)
        came_s = time.perf_counter()
        outcome.up_bits += 8 * len(data)
        return job.coder.decode(data, one.asked, one.step), came_s

    def _answer(
        self, job: Job, one: Exchange, came: tuple[Frame, float], connection: Connection, outcome: Outcome
    ) -> None:
        frame, came_s = came
        with self._computing:
            began_s = time.perf_counter()
            answer = job.answer(frame)
            outcome.cloud_s += time.perf_counter() - began_s
        if (answer.kind, answer.step) != (one.answered, one.step):
            raise ProtocolError(
                f"the answer to {one.asked.name} of step {one.step} is {answer.kind.name} of step {answer.step}; "
                f"expected {one.answered.name}"
            )
        encoded = job.coder.encode(answer)
        outcome.waited_s += began_s - came_s
        outcome.down_bits += 8 * len(encoded)
        connection.send(pack_answer(time.perf_counter() - came_s, encoded), timeout_s=self._patience.silence_s)
