"""Letters through a relay: the relay hands out what waits for a node, on a connection that the node's agent dialled.

So neither end has to be reachable by the other, nor by the relay. `Fetcher` is the node's half, `hand_out` the relay's.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from logging import getLogger
from typing import Final, Protocol

from ...errors import TransportError
from ...peers.round_table import Card
from ...transport.transport import Connection
from .exchange import Answers, Chunks, Delivered, Outgoing, deliver
from .letter_files import Box, StoredLetter
from .link import DONE, LATER
from .settings import AgentLimits

__all__ = ["Fetcher", "RelayOwner", "hand_out"]

log = getLogger("flwr.edge")

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0


class Fetcher:
    """Keeps a connection to the relay, and takes what it has.

    Args:
        card: the relay's agent, as known now; None: there is none.
        dial: opens a connection to it.
        take: takes letters from it until it ends.
    """

    def __init__(
        self,
        card: Callable[[], Card | None],
        dial: Callable[[Card], Connection],
        take: Callable[[Connection], None],
    ) -> None:
        self._card, self._dial, self._take = card, dial, take
        self._changed = threading.Condition()
        self._closing = False
        self._connection: Connection | None = None
        #: Whether it is connected.
        self.connected = False
        self._thread = threading.Thread(target=self._work, name="flower-edge fetcher", daemon=True)
        self._thread.start()

    def kick(self) -> None:
        """The relay may be another one."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """End it."""
        with self._changed:
            self._closing = True
            connection = self._connection
            self._changed.notify_all()
        if connection is not None:
            connection.close()

    def join(self, timeout_s: float) -> None:
        """Wait until its thread has ended."""
        self._thread.join(timeout_s)

    def _work(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._closing:
            card = self._card()
            if card is not None:
                try:
                    connection = self._dial(card)
                    with self._changed:
                        self._connection, self.connected = connection, True
                    pause_s = _FIRST_PAUSE_S
                    try:
                        if not self._closing:
                            self._take(connection)
                    finally:
                        with self._changed:
                            self._connection, self.connected = None, False
                        connection.close()
                except TransportError as error:
                    if not self._closing:
                        log.info("the relay at %s: %s", card.address, error)
                except Exception:
                    log.exception("letters from the relay at %s could not be taken", card.address)
            with self._changed:
                if not self._closing:
                    self._changed.wait(pause_s if card is not None else None)
            pause_s = min(_LONGEST_PAUSE_S, 2.0 * pause_s)


class RelayOwner(Protocol):
    """Whom `hand_out` asks and tells."""

    limits: AgentLimits
    changed: threading.Condition
    closing: bool

    def waiting_for(self, dst: int) -> tuple[Box, StoredLetter] | None:
        """The first letter for a node. Called with `changed`."""

    def handed_out(self, box: Box, letter: StoredLetter, told: Delivered) -> None:
        """It was answered, and is not needed any more."""


def hand_out(owner: RelayOwner, connection: Connection, dst: int) -> None:
    """Bring a node what waits for it, until its connection ends.

    Raises:
        TransportError: it has ended.
    """

    def wake(error: TransportError) -> None:
        with owner.changed:
            owner.changed.notify_all()

    answers, chunks, limits = Answers(connection, wake), Chunks(), owner.limits
    while True:
        with owner.changed:
            while (found := owner.waiting_for(dst)) is None:
                if answers.error is not None or owner.closing:
                    return
                owner.changed.wait()
        box, letter = found
        try:
            fd = os.open(letter.path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            told = deliver(
                connection, answers, Outgoing(letter.signed, fd, letter.payload_at, letter.took_s), chunks, limits
            )
        finally:
            os.close(fd)
        if told.code in LATER:
            with owner.changed:
                if answers.error is None and not owner.closing:
                    owner.changed.wait(0.1)
            continue
        if told.code not in DONE:
            log.warning(
                "node %d does not take a relayed letter of node %d: %s", dst, letter.signed.header.src, told.why
            )
        owner.handed_out(box, letter, told)
