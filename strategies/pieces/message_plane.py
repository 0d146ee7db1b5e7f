"""`PieceMessages`: frames between pieces travel inside Flower messages, one each, by way of the server.

    server -> terminal   its piece, to begin   | a frame of the piece before or behind it | at place 0 of a decoupled
                                               |                                          | chain: its next turn
    terminal -> server   what it says          | what it says, and its piece when it is done

All chains go in step, and within an exchange every terminal is asked for which something waits. A chain of N pieces
takes, for s steps,

    exact       N + (2N - 2) s messages in 1 + (2N - 2) s exchanges: one terminal computes at a time
    decoupled   N + N s - 1 messages in s + N - 1 exchanges: all terminals compute at the same time

In a deployment of Flower an exchange takes seconds: see `PieceStream`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from flwr.app import Message

from flower_edge.errors import EdgeError, ProtocolError
from flower_edge.runtime.pieces.frames import ChainFrames
from flower_edge.runtime.pieces.messages import FRAME_RECORD, PieceCall
from flower_edge.wire import packet_bytes, packet_record

from .outcome import begun, by_node, finish, lose, report_of
from .plane import Carried, ChainTask, MakeMessage, PieceTask

__all__ = ["PieceMessages"]

Side = Literal["next", "previous"]
_SIDES: tuple[Side, ...] = ("next", "previous")


class _Waiting(NamedTuple):
    """A frame on its way to a terminal; `source` is where it comes from, as that terminal sees it."""

    source: Side
    step: int
    data: bytes


class PieceMessages:
    """Frames in messages; nothing to open."""

    name = "messages"

    def open(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def carry(self, chains: Sequence[ChainTask], message: MakeMessage) -> Carried:
        """As `PiecePlane.carry`."""
        relays = [_Relay(chain) for chain in chains]
        asked = [(relay, task, message(task, _begin(task), begun(task))) for relay in relays for task in relay.tasks]
        begins = True
        while asked:
            replies = yield [sent for _, _, sent in asked]
            of = {id(task): relay for relay, task, _ in asked}
            for task, reply in by_node([task for _, task, _ in asked], replies):
                of[id(task)].hear(task, reply, begins=begins)
            begins = False
            asked = [
                (relay, task, message(task, call, records)) for relay in relays for task, call, records in relay.turns()
            ]


class _Relay:
    """One chain: what waits for whom."""

    def __init__(self, chain: ChainTask) -> None:
        self.chain, self.tasks = chain, chain.tasks
        self._waiting: list[deque[_Waiting]] = [deque() for _ in chain.tasks]
        #: By place and side, the number of frames it has said.
        self._said = {(place, side): 0 for place in range(len(chain.tasks)) for side in _SIDES}
        self._frames = ChainFrames([task.order for task in chain.tasks], chain.profile)

    def turns(self) -> list[tuple[PieceTask, PieceCall, dict[str, Any]]]:
        """Who is asked in the next exchange, and with what; nobody once the chain is done or broken."""
        if self.chain.lost or self.chain.done:
            return []
        found: list[tuple[PieceTask, PieceCall, dict[str, Any]]] = []
        for place, task in enumerate(self.tasks):
            records: dict[str, Any] = {}
            call = task.call.model_copy(update={"plane": "messages", "what": "go-on"})
            if self._waiting[place]:
                source, step, data = self._waiting[place].popleft()
                task.down_bits += 8 * len(data)
                call = call.model_copy(update={"heard": (source, step)})
                records[FRAME_RECORD] = packet_record(data)
            elif not (place == 0 and task.order.mode == "decoupled" and not task.done):
                continue
            found.append((task, call, records))
        if not found:
            slow = next(task for task in self.tasks if not task.done)
            lose(slow, "it is not done, and nothing waits for it: it has said fewer frames than its steps need")
        return found

    def hear(self, task: PieceTask, reply: Message, *, begins: bool) -> None:
        """Take what a terminal replied; `begins`: to its piece, else to a turn."""
        try:
            report, order = report_of(task, reply), task.order
            silent = order.last if order.mode == "decoupled" else order.first and report.done
            if not self._heard(task, reply) and not silent and (order.first or not begins):
                raise ProtocolError(
                    f"terminal {task.number} at place {order.place} of {order.pieces} replied without a frame, and one "
                    "was due"
                )
            if report.done:
                finish(task, reply, report)
        except EdgeError as error:
            lose(task, str(error))

    def _heard(self, task: PieceTask, reply: Message) -> int:
        """Take the frames in a reply; how many."""
        order, sender, found = task.order, f"terminal {task.number}", 0
        for side in _SIDES:
            record = reply.content.array_records.get(f"{FRAME_RECORD}-{side}")
            if record is None:
                continue
            if (order.last if side == "next" else order.first or order.mode == "decoupled") or task.done:
                raise ProtocolError(
                    f"{sender} at place {order.place} of {order.pieces} said a frame to the {side} place, which nobody "
                    "waits for"
                )
            to = order.place + (1 if side == "next" else -1)
            step = order.work.first_step + self._said[order.place, side]
            data = packet_bytes(record, sender=sender)
            # Believed by nobody before it is read: what is wrong with it is the sender's fault, not the receiver's.
            self._frames.check(order.place, side, step, data)
            self._said[order.place, side] += 1
            task.up_bits += 8 * len(data)
            self._waiting[to].append(_Waiting("previous" if side == "next" else "next", step, data))
            found += 1
        return found


def _begin(task: PieceTask) -> PieceCall:
    return task.call.model_copy(update={"plane": "messages", "what": "begin"})
