"""`Standing`: who may send what in a run, from the tables of its rounds. Nothing here opens or stores a letter.

Admission is by certificate, signature and round, never by a name: the one who connects is known by its certificate's
fingerprint, the one who wrote the letter by its signature, and both must belong to the node that the table names.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from ...errors import PeerError, TransportRefused
from ...peers.round_table import Card, RoundTable
from .headers import LetterHeader, SignedHeader
from .letter_files import Box

__all__ = ["Standing"]

#: Rounds that a neighbour may be ahead of this agent's newest table, and be told to wait.
_AHEAD: Final = 1 << 20


class Standing:
    """What is known of a run's rounds. Its owner has the lock.

    Args:
        table: the newest.
        most_rounds: that are remembered.
    """

    def __init__(self, table: RoundTable, most_rounds: int) -> None:
        self.table = table
        self._most_rounds = most_rounds
        # By round: whose letters are taken, and which links are relayed.
        self._hears: dict[int, set[int]] = {}
        self._links: dict[int, set[tuple[int, int]]] = {}
        self._keep_from = 0
        # Where to deliver what was posted in an earlier round, to nodes that are no neighbours now.
        self._last: dict[int, tuple[int, Card]] = {}
        # For good: who was taken out does not come back under the same certificate.
        self._revoked: set[str] = set()
        self._note(table)

    def update(self, table: RoundTable) -> None:
        """Another round; one that is older than the newest only adds who may send in it.

        Raises:
            PeerError: it is another node's.
        """
        if table.node != self.table.node:
            raise PeerError(
                f"a table for node {table.node} of run {table.run!r}; this agent serves node {self.table.node}: "
                "start one agent per node"
            )
        if table.round >= self.table.round:
            self.table = table
        self._note(table)

    def _note(self, table: RoundTable) -> None:
        self._revoked.update(table.revoked)
        self._last.update((node, (table.round, card)) for node, card in table.neighbours.items())
        self._hears.setdefault(table.round, set()).update(table.hears)
        self._links.setdefault(table.round, set()).update(table.links)
        for round_, sender in table.owed:
            self._hears.setdefault(round_, set()).add(sender)
        self._keep_from = max(self._keep_from, table.keep_from)
        for known in (self._hears, self._links):
            for round_ in sorted(known)[: max(0, len(known) - self._most_rounds)]:
                del known[round_]
            for round_ in [round_ for round_ in known if round_ < self._keep_from]:
                del known[round_]

    def forget(self, before_round: int) -> None:
        """Letters of earlier rounds are refused from now on."""
        self._keep_from = max(self._keep_from, min(before_round, self.table.round))
        for known in (self._hears, self._links):
            for round_ in [round_ for round_ in known if round_ < self._keep_from]:
                del known[round_]

    def card(self, node: int) -> Card | None:
        """The agent of a neighbour; None for everybody else."""
        return self._unless_revoked(self.table.neighbours.get(node))

    def _unless_revoked(self, card: Card | None) -> Card | None:
        return None if card is not None and card.fingerprint in self._revoked else card

    def sender_card(self, node: int) -> Card | None:
        """The agent of somebody from whom a letter may come: a neighbour, or one heard in a round that is kept.

        Which letters it may send is another matter: those of the rounds in which it was heard.
        """
        card = self.card(node)
        if card is None and node in self._last and any(node in nodes for nodes in self._hears.values()):
            return self._unless_revoked(self._last[node][1])
        return card

    def last_card(self, node: int, round: int) -> Card | None:
        """The agent to which a packet of that round is delivered, where it is no neighbour now but was one then."""
        until, card = self._last.get(node, (-1, None))
        return self._unless_revoked(card) if round <= until else None

    def is_out(self, node: int) -> bool:
        """Whether the certificate under which this node was known last is revoked."""
        _, card = self._last.get(node, (-1, None))
        return card is not None and card.fingerprint in self._revoked

    def check_peer(self, node: int, fingerprint: str | None) -> None:
        """Pass, or refuse somebody who is not this neighbour.

        Raises:
            TransportRefused: `not-neighbour`, `revoked`.
        """
        self._check_revoked(fingerprint)
        card = self.sender_card(node)
        if card is None or fingerprint is None or card.fingerprint != fingerprint:
            raise TransportRefused(
                f"certificate {str(fingerprint)[:16]}… is not that of a neighbour called {node} in this round",
                "not-neighbour",
            )

    def admit(self, signed: SignedHeader, fingerprint: str | None, *, relayed: bool) -> Box:
        """Where a letter goes.

        Args:
            signed: its header.
            fingerprint: whose connection it came over; the relay's where `relayed`.
            relayed: the other end is this run's relay.

        Raises:
            TransportRefused: it is not taken.
        """
        header = signed.header
        if header.run != self.table.run:
            raise TransportRefused("a letter of another run on this connection", "other-run")
        if header.src == header.dst:
            raise TransportRefused(f"a letter of node {header.src} to itself", "self-loop")
        if header.round > self.table.round:
            # Before anything else: who is a neighbour then is not known yet.
            code = "not-yet" if header.round - self.table.round < _AHEAD else "future-round"
            raise TransportRefused(f"round {header.round} has not begun here, it is {self.table.round}", code)
        if not relayed:
            self._check_revoked(fingerprint)
        card = self.sender_card(header.src)
        if card is None and self.is_out(header.src):
            raise TransportRefused(f"the certificate of node {header.src} was revoked", "revoked")
        if card is None:
            raise TransportRefused(f"node {header.src} is no neighbour in this round", "not-neighbour")
        if not relayed and fingerprint != card.fingerprint:
            raise TransportRefused(f"a letter of node {header.src} over somebody else's connection", "impersonation")
        signed.check(card.key)
        mine = header.dst == self.table.node
        if not mine and (relayed or not self.table.links):
            raise TransportRefused(f"a letter to node {header.dst}; this is not its agent", "other-node")
        self._check_round(header, mine)
        return (header.round, header.src) if mine else (header.dst, header.round, header.src)

    def _check_revoked(self, fingerprint: str | None) -> None:
        if fingerprint in self._revoked:
            raise TransportRefused(f"certificate {str(fingerprint)[:16]}… was revoked; join anew", "revoked")

    def _check_round(self, header: LetterHeader, mine: bool) -> None:
        if header.round < self._keep_from:
            raise TransportRefused(
                f"a letter of round {header.round}; those before {self._keep_from} are over", "stale-round"
            )
        known = self._hears.get(header.round, ()) if mine else self._links.get(header.round, ())
        if (header.src if mine else (header.src, header.dst)) not in known:
            raise TransportRefused(
                f"node {header.src} is not heard by node {header.dst} in round {header.round}", "not-neighbour"
            )

    # -- a restart ---------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """For the agent's next start."""
        told = {
            "table": self.table.to_json(),
            "hears": [[round_, sorted(nodes)] for round_, nodes in self._hears.items()],
            "links": [[round_, sorted(links)] for round_, links in self._links.items()],
            "keep_from": self._keep_from,
            "revoked": sorted(self._revoked),
            "last": {str(node): [until, card.model_dump()] for node, (until, card) in self._last.items()},
        }
        beside = path.with_suffix(".new")
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(told, file)
        beside.replace(path)

    @classmethod
    def load(cls, path: Path, most_rounds: int) -> Standing | None:
        """What `save` left; None where there is nothing that can be read."""
        try:
            told: dict[str, Any] = json.loads(path.read_text())
            found = cls(RoundTable.from_json(told["table"]), most_rounds)
            found._hears = {int(round_): set(nodes) for round_, nodes in told["hears"]}
            found._links = {int(round_): {(a, b) for a, b in links} for round_, links in told["links"]}
            found._keep_from = int(told["keep_from"])
            found._revoked = {str(one) for one in told.get("revoked", [])}
            found._last = {int(node): (int(until), Card(**card)) for node, (until, card) in told["last"].items()}
        except (OSError, ValueError, KeyError, TypeError, PeerError):
            return None
        return found
