"""`Run`: what an agent does for one run: who may send, what came, what is to be delivered, over which links.

    mailbox -> Deliveries -> neighbours
    neighbour -> admit -> LetterFiles -> fetch -> mailbox                  Fetcher from the relay

Everything that was acknowledged is in files, from which a new `Run` goes on.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

from ...errors import TransportRefused
from ...peers.round_table import Card, RoundTable
from ...transport.signing import Signer
from ...transport.transport import Connection
from .counters import Counters, RoundFigures
from .deliveries import Deliveries
from .dialling import FETCH, Dialler
from .exchange import Delivered, take_letter
from .fetching import Fetcher
from .headers import SignedHeader
from .letter_files import Box, LetterFiles, Part, StoredLetter
from .link import Link
from .settings import AgentLimits
from .tables import Standing

__all__ = ["Run"]

_TABLE: Final = "table.json"
#: What lies in files, and the folder it lies in: to this node, for others, on its way here, from this node.
_SPOOL: Final = {"received": "in", "to_relay": "relay", "arriving": "part", "posted": "out"}


class Run:
    """See above.

    Args:
        folder: of this run; what is in it goes on.
        standing: who may send.
        signer, dialler: this agent's.
        limits, counters: the agent's.
        durable: as of `LetterFiles`.
    """

    def __init__(
        self,
        folder: Path,
        standing: Standing,
        signer: Signer,
        dialler: Dialler,
        limits: AgentLimits,
        counters: Counters,
        *,
        durable: bool = False,
    ) -> None:
        self.folder, self.standing, self.limits = folder, standing, limits
        self._dialler, self._counters = dialler, counters
        self.changed = threading.Condition(threading.RLock())
        self.closing = False
        self.used_s = time.monotonic()
        self.figures = RoundFigures()
        self._files = LetterFiles(folder, durable=durable)
        self._coming: set[Box] = set()
        self._fetcher: Fetcher | None = None
        standing.save(folder / _TABLE)
        self._deliveries = Deliveries(
            folder, standing, signer, dialler, limits, counters, self.figures, self.changed, durable=durable
        )
        #: Takes packets over, and waits until they are delivered.
        self.post, self.flush = self._deliveries.post, self._deliveries.flush
        self._follow_relay()

    @classmethod
    def standing_in(cls, folder: Path, limits: AgentLimits) -> Standing | None:
        """Of a run that an earlier agent has left in this folder; None where there is none."""
        return Standing.load(folder / _TABLE, limits.rounds)

    # -- the mailbox's side ------------------------------------------------------------------------------------------

    def update(self, table: RoundTable) -> None:
        """A round begins.

        Raises:
            PeerError: a table of another node.
        """
        with self.changed:
            self.used_s = time.monotonic()
            self.standing.update(table)
            self.standing.save(self.folder / _TABLE)
            self.changed.notify_all()
        self._kick()

    def pace(self, rates_bps: dict[int, float | None]) -> None:
        """Other rates from now on, in the middle of a letter too; None lifts one."""
        with self.changed:
            table = self.standing.table
            rates = {**table.rates_bps, **{node: bps for node, bps in rates_bps.items() if bps is not None}}
            kept = {node: bps for node, bps in rates.items() if rates_bps.get(node, bps) is not None}
            self.standing.table = table.model_copy(update={"rates_bps": kept})
        self._kick()

    def wait(self, round: int, senders: list[int], wait_s: float) -> list[int]:
        """Wait until letters of all these have come, or for so long; those that have not."""
        until_s = time.monotonic() + wait_s
        with self.changed:
            while True:
                missing = [sender for sender in senders if (round, sender) not in self._files.letters]
                left_s = until_s - time.monotonic()
                if not missing or left_s <= 0 or self.closing:
                    return missing
                self.changed.wait(left_s)

    def fetch(self, round: int, sender: int) -> StoredLetter | None:
        """The letter of a neighbour, if it is there."""
        with self.changed:
            return None if self.standing.is_out(sender) else self._files.letters.get((round, sender))

    def forget(self, before_round: int) -> None:
        """Give up what was posted and what came in earlier rounds."""
        with self.changed:
            self.standing.forget(before_round)
            self._files.forget(before_round, relayed=False)
            self._files.forget(before_round, relayed=True)
        self._deliveries.forget(before_round)

    def told(self) -> dict[str, Any]:
        """For a status."""
        with self.changed:
            table, fetcher, boxes = self.standing.table, self._fetcher, list(self._files.letters)
            measured = self.figures.newest()
        return {
            "run": table.run,
            "round": table.round,
            "node": table.node,
            "letters": sum(len(box) == 2 for box in boxes),
            "to_relay": sum(len(box) == 3 for box in boxes),
            "pending": self._deliveries.pending(),
            "links": self._deliveries.told(),
            "relay_connected": None if fetcher is None else fetcher.connected,
            "spool_bytes": {what: _bytes_in(self.folder / name) for what, name in _SPOOL.items()},
            "measured": measured,
        }

    def report(self, round: int) -> dict[str, Any]:
        """What was measured of a round, by neighbour."""
        with self.changed:
            return {way: {k: dict(v) for k, v in of.items()} for way, of in self.figures.told(round).items()}

    def close(self) -> None:
        """End all links; everything stays in files."""
        with self.changed:
            self.closing = True
            fetcher = self._fetcher
            self.changed.notify_all()
        enders: list[Link | Fetcher] = [*self._deliveries.links(), *([fetcher] if fetcher is not None else [])]
        threads = [threading.Thread(target=one.close, daemon=True) for one in enders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5.0)
        for one in enders:
            one.join(1.0)

    def remove(self) -> None:
        """Close it, and remove its files."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- what neighbours bring ---------------------------------------------------------------------------------------

    def take_from(self, connection: Connection, fingerprint: str | None, *, relayed: bool) -> None:
        """Take letters until the connection ends.

        Raises:
            TransportError: it has ended.
        """
        admit = partial(self._admit, fingerprint=fingerprint, relayed=relayed)
        while True:
            take_letter(connection, admit, self.limits, partial(self._arrived, relayed=relayed), relayed=relayed)

    def _admit(self, signed: SignedHeader, *, fingerprint: str | None, relayed: bool) -> Part:
        try:
            with self.changed:
                box = self._box(signed, fingerprint, relayed)
                self._coming.add(box)
        except TransportRefused as refused:
            self._counters.refused(refused.code)
            raise
        try:
            part = self._files.begin(signed, box)
        except BaseException:
            self._came(box)
            raise
        part.ended = partial(self._came, box)
        return part

    def _box(self, signed: SignedHeader, fingerprint: str | None, relayed: bool) -> Box:
        if self.closing:
            raise TransportRefused("this agent is stopping", "closing")
        header = signed.header
        box = self.standing.admit(signed, fingerprint, relayed=relayed)
        if header.size > self.limits.letter_bytes:
            raise TransportRefused(
                f"a letter of {header.size} bytes, the most is {self.limits.letter_bytes}; raise "
                "flower-edge agent --letter-mb there",
                "too-large",
            )
        there = self._files.letters.get(box)
        if there is not None and there.signed.header.sequence >= header.sequence:
            known = there.signed.header
            if known.sequence > header.sequence:
                raise TransportRefused("a later one of this round is here", "superseded")
            if known.digest == header.digest:
                raise TransportRefused("it is here", "have")
            raise TransportRefused("another letter of this round and sequence is here", "conflict")
        if box in self._coming:
            raise TransportRefused("it is coming over another connection; try again later", "busy")
        if shutil.disk_usage(self.folder).free < header.size + self.limits.spare_bytes:
            raise TransportRefused("there is no room for it on the disk here; try again later", "no-room")
        return box

    def _came(self, box: Box) -> None:
        with self.changed:
            self._coming.discard(box)

    def _arrived(self, letter: StoredLetter, carried_s: float | None, *, relayed: bool) -> None:
        header = letter.signed.header
        bits = 8 * header.size
        with self.changed:
            if header.dst == self.standing.table.node:
                self._files.letters[header.round, header.src] = letter
                link_s = letter.took_s + (carried_s or 0.0)
                self.figures.received(header.round, header.src, header.size, link_s, relay=relayed)
                self._counters.add(received_letters=1, received_bits=bits)
            else:
                self._files.letters[header.dst, header.round, header.src] = letter
                self._counters.add(relayed_letters=1, relayed_up_bits=bits)
            self.changed.notify_all()

    # -- what a relay hands out: `fetching.RelayOwner` ----------------------------------------------------------------

    def waiting_for(self, dst: int) -> tuple[Box, StoredLetter] | None:
        """The first letter for a node; none for one that was taken out."""
        if self.standing.is_out(dst):
            return None
        boxes = [box for box in self._files.letters if len(box) == 3 and box[0] == dst]
        return (min(boxes), self._files.letters[min(boxes)]) if boxes else None

    def handed_out(self, box: Box, letter: StoredLetter, told: Delivered) -> None:
        """It was answered."""
        with self.changed:
            if self._files.letters.get(box) is letter:
                self._files.remove(box)
        self._counters.add(relayed_down_bits=8 * told.sent_bytes)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _kick(self) -> None:
        self._deliveries.kick()
        self._follow_relay()

    def _follow_relay(self) -> None:
        if self._fetcher is not None:
            self._fetcher.kick()
        elif self._deliveries.relay_card() is not None and self.standing.table.node is not None:
            self._fetcher = Fetcher(self._deliveries.relay_card, self._dial_relay, self._take_relayed)

    def _dial_relay(self, card: Card) -> Connection:
        return self._dialler.dial(card, self.standing.table.run, self._deliveries.node(), FETCH, 10.0)

    def _take_relayed(self, connection: Connection) -> None:
        self.take_from(connection, None, relayed=True)


def _bytes_in(folder: Path) -> int:
    total = 0
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # it was taken meanwhile
                total += entry.stat(follow_symlinks=False).st_size
    return total
