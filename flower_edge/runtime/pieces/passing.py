"""`ChainPassing`: one chain's round at the edge: who is there, whose turn it is, and what is passed on to whom.

    place k says a frame  ->  is it k's turn, is it that frame  ->  wait for the neighbour's channel  ->  pass it on

Frames are decoded to be checked and passed on as they came: a terminal that says what it should not is lost here, and
not its neighbour that would have to compute with it. One thread for each terminal calls `serve`; nothing here decides
who may come, and nothing computes with a model.
"""

from __future__ import annotations

import threading
import time
from logging import getLogger
from typing import Final

from ...errors import EdgeError, ProtocolError, TransportError, TransportRefused
from ...transport.transport import Connection, TransportTimeout
from ..splitting.job import Patience
from .channel import is_taken, lost_code
from .frames import ChainFrames
from .job import ChainJob, ChainOutcome, Passed
from .progress import Progress

__all__ = ["ChainPassing"]

log = getLogger("flwr.edge")

#: How often a thread that waits for its terminal looks whether the chain is lost meanwhile.
_LOOK_S: Final = 0.2


class ChainPassing:
    """The chain of one job.

    Args:
        job: who says what.
        patience: `dial_s` from the first terminal's call until all have called; `silence_s` for a frame from the
            moment all it is computed from has been passed on.
    """

    def __init__(self, job: ChainJob, patience: Patience) -> None:
        self.job = job
        self._patience = patience
        self._changed = threading.Condition()
        self._progress = [Progress(order) for order in job.orders]
        self._frames = ChainFrames(job.orders, job.profile)
        self._passed = [Passed() for _ in job.orders]
        self._connections: dict[int, Connection] = {}
        self._admitted: set[int] = set()
        #: Those whose channel was opened; and when the first one's was.
        self._called: set[int] = set()
        self._first_s = 0.0
        #: Since when it is a place's turn.
        self._since_s = [0.0 for _ in job.orders]
        self._lost = ""
        self._places: tuple[int, ...] = ()

    def admit(self, place: int) -> bool:
        """Whether this place has not called before; it has now."""
        with self._changed:
            new = place not in self._admitted
            self._admitted.add(place)
            return new

    def serve(self, place: int, connection: Connection) -> None:
        """Pass on what this terminal says until its round is over, in the thread of its connection.

        Raises:
            TransportRefused: it, or another one of its chain, is lost; the message says who and why, the code who.
        """
        with self._changed:
            now_s = time.monotonic()
            self._first_s = self._first_s or now_s
            self._connections[place] = connection
            self._called.add(place)
            self._since_s[place] = now_s
            self._changed.notify_all()
        try:
            while (payload := self._received(place, connection)) is not None:
                self._pass_on(place, payload)
        except EdgeError as error:
            self.lose(f"place {place}: {type(error).__name__}: {error}", place)
        except Exception as error:  # whatever is wrong here concerns this chain alone
            log.exception("pieces service: chain %d, place %d", self.job.orders[0].work.number, place)
            self.lose(f"place {place}: {type(error).__name__}: {error}", place)
        finally:
            with self._changed:
                del self._connections[place]
                self._changed.notify_all()
        if self._lost:
            number = self.job.orders[0].work.number
            raise TransportRefused(f"chain {number} is lost: {self._lost}", lost_code(self._places))

    def lose(self, why: str, *places: int) -> None:
        """End this chain, for the first reason that is given; `places`: who it is to blame on. Safe to call twice.

        A chain that has come to its end is not lost any more.
        """
        with self._changed:
            if not self._lost and not self.over:
                self._lost, self._places = why, places
                self._changed.notify_all()

    def ended(self, timeout_s: float) -> bool:
        """Wait until no terminal is connected; whether it is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._connections, timeout_s)

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Of the terminals that are there now."""
        with self._changed:
            return tuple(self._connections.values())

    @property
    def over(self) -> bool:
        """All frames of all places have been passed on."""
        with self._changed:
            return all(one.over for one in self._progress)

    def outcome(self) -> ChainOutcome:
        """What became of it so far."""
        with self._changed:
            lost, places = self._lost, self._places
            if not lost and not all(one.over for one in self._progress):
                places = tuple(sorted(set(range(len(self._progress))) - self._called))
                lost = f"{_named(places)} did not dial" if places else "its round ended before its frames did"
            return ChainOutcome(lost, places, tuple(Passed(**vars(one)) for one in self._passed))

    # -- one terminal ------------------------------------------------------------------------------------------------

    def _received(self, place: int, connection: Connection) -> bytes | None:
        """What the terminal says next; None at its end, or the chain's."""
        while not self._ended(place):
            try:
                return connection.receive(_LOOK_S)
            except TransportTimeout:
                self._look(place)
            except TransportError:
                if not self._ended(place):
                    raise
        return None

    def _ended(self, place: int) -> bool:
        with self._changed:
            return bool(self._lost) or self._progress[place].over

    def _look(self, place: int) -> None:
        """Whether somebody keeps the chain waiting for too long.

        Raises:
            ProtocolError: this terminal does.
        """
        with self._changed:
            self._look_for_missing()
            progress, silence_s = self._progress[place], self._patience.silence_s
            if progress.owes and time.monotonic() - self._since_s[place] > silence_s:
                assert progress.next is not None
                raise ProtocolError(
                    f"it has not said {progress.next.kind.name} of step {progress.next.step} for {silence_s:g} s"
                )

    def _look_for_missing(self) -> None:
        missing = tuple(sorted(set(range(len(self._progress))) - self._called))
        if missing and time.monotonic() - self._first_s > self._patience.dial_s:
            self.lose(
                f"{_named(missing)} had not dialled {self._patience.dial_s:g} s after the first terminal did; the "
                "pieces of a chain need terminals that run at the same time: in process, LocalGrid(pool='threads', "
                "workers=<terminals>)",
                *missing,
            )

    def _pass_on(self, place: int, payload: bytes) -> None:
        progress = self._progress[place]
        if progress.may_take and is_taken(payload, progress.order.work.first_step + progress.took):
            with self._changed:
                progress.take()
                self._progress[place - 1].release()
                self._its_turn(place - 1)
            self._send(place - 1, payload)
            return
        with self._changed:
            turn = progress.say()
            passed = self._passed[place]
            passed.frames += 1
            passed.up_bits += 8 * len(payload)
            passed.turn_s += time.monotonic() - self._since_s[place]
            self._its_turn(place)
        self._frames.check(place, turn.side, turn.step, payload)
        target = place + 1 if turn.side == "next" else place - 1
        with self._changed:
            while target not in self._called and not self._lost:
                self._changed.wait(_LOOK_S)
                self._look_for_missing()
            if self._lost:
                return
            # Before it leaves: its answer may come back sooner than `send` does.
            self._progress[target].put()
            self._passed[target].down_bits += 8 * len(payload)
            self._its_turn(target)
        self._send(target, payload)

    def _its_turn(self, place: int) -> None:
        """Count from now, if it is this place's turn. With the lock."""
        if self._progress[place].owes:
            self._since_s[place] = time.monotonic()

    def _send(self, place: int, payload: bytes) -> None:
        """To a terminal; what does not reach it is its loss, not the sender's."""
        with self._changed:
            connection = self._connections.get(place)
        try:
            if connection is None:
                self.lose(f"place {place}: its channel has ended", place)
            else:
                connection.send(payload, timeout_s=self._patience.silence_s)
        except TransportError as error:
            self.lose(f"place {place}: {type(error).__name__}: {error}", place)
        finally:
            with self._changed:
                self._progress[place].arrived()
                self._changed.notify_all()


def _named(places: tuple[int, ...]) -> str:
    """
    >>> _named((1,)), _named((0, 2))
    ('place 1', 'places 0 and 2')
    """
    if len(places) == 1:
        return f"place {places[0]}"
    return f"places {', '.join(map(str, places[:-1]))} and {places[-1]}"
