"""`DirectMailbox`: letters that neighbours' agents bring directly, from host to host.

The agent is a process beside the SuperNode that lives as long as the node; this mailbox lives for one message and talks
to it over its Unix socket. Opening it tells the agent the round's table: who is heard, and how fast to send to whom.

A packet that was posted is the agent's from then on: it delivers it in the background, through the relay where a
neighbour cannot be reached, and again after it was itself killed. `collect` waits for what is still on its way.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import PeerError, WireError
from .agent_client import AgentClient
from .mailbox import MOST_BYTES, Letter, Mailbox
from .packet import Packet
from .round_table import RoundTable

__all__ = ["DirectMailbox"]

#: What a letter's answer may have beside the letter.
_SLACK_BYTES = 4096


class DirectMailbox(Mailbox):
    """The mailbox of a node whose agent is on this host.

    Args:
        node: index of the node.
        table: the round's, with this `node`.
        agent: path of the agent's socket; empty: what `FLOWER_EDGE_AGENT` says.
        wait_s: for how long `collect` waits in all for letters that have not come yet.
        most_bytes: see `Mailbox`.

    Raises:
        PeerError: no agent, a table of another node, or one that the agent refuses.
    """

    via = "direct"

    def __init__(
        self,
        node: int,
        table: RoundTable,
        agent: str = "",
        *,
        wait_s: float = 30.0,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        super().__init__(node, most_bytes=most_bytes)
        if table.node != self.node:
            raise PeerError(f"a round's table for node {table.node} at node {self.node}; pass the one of the message")
        if not 0 <= wait_s < float("inf"):
            raise PeerError(f"wait_s = {wait_s}: expected seconds, 0 or more")
        self._run, self._round, self._wait_s = table.run, table.round, wait_s
        self._owed = set(table.owed)
        self._until_s: float | None = None
        self._bad: set[tuple[int, int]] = set()
        self._mixed_s: dict[int, float] = {}
        self._agent = AgentClient(agent)
        try:
            self._agent.call({"do": "round", "table": table.to_json()})
        except PeerError:
            self._agent.close()
            raise

    def collect(self, round: int, senders: Sequence[int]) -> Mapping[int, Letter]:
        """As of every mailbox, once those that the table says are on their way are there, or the time is over."""
        if owed := [int(sender) for sender in senders if (round, sender) in self._owed]:
            if self._until_s is None:
                self._until_s = time.monotonic() + self._wait_s
            left_s = max(0.0, self._until_s - time.monotonic())
            asked = {"do": "wait", "run": self._run, "round": round, "senders": owed}
            self._agent.call({**asked, "wait_s": left_s}, wait_s=left_s)
        return super().collect(round, senders)

    def forget(self, before_round: int) -> None:
        """Give up letters of earlier rounds at the agent, those included that have not left it."""
        self._agent.call({"do": "forget", "run": self._run, "before_round": max(0, before_round)})

    def flush(self, wait_s: float) -> int:
        """Wait until all packets posted here have been acknowledged; how many deliveries are still to be made."""
        return int(self._agent.call({"do": "flush", "run": self._run, "wait_s": wait_s}, wait_s=wait_s)[0]["pending"])

    def mixed(self, sender: int, took_s: float) -> None:
        """Told to the agent when this mailbox is closed; part of its report."""
        self._mixed_s[sender] = took_s

    def report(self) -> dict[str, Any]:
        """What the agent measured of this round so far, by neighbour; see docs/agent.md."""
        return self._agent.call({"do": "report", "run": self._run, "round": self._round})[0]["report"]  # type: ignore[no-any-return]

    def close(self) -> None:
        """The agent keeps what was posted."""
        told, self._mixed_s = self._mixed_s, {}
        if told:
            try:
                took_s = {str(sender): seconds for sender, seconds in told.items()}
                self._agent.call({"do": "mixed", "run": self._run, "round": self._round, "took_s": took_s})
            except PeerError:  # a report that lacks a figure is no reason to lose a round
                pass
        self._agent.close()

    def _send(self, packet: Packet, to: tuple[int, ...], processing_s: float | None) -> None:
        head = {"do": "post", "run": self._run, "round": packet.round, "sequence": packet.sequence}
        self._agent.call({**head, "to": list(to), "processing_s": processing_s}, packet.to_bytes())

    def _fetch(self, round: int, sender: int) -> Letter | None:
        asked = {"do": "fetch", "run": self._run, "round": round, "sender": sender, "most_bytes": self.most_bytes}
        answer, data = self._agent.call(asked, most_bytes=self.most_bytes + _SLACK_BYTES)
        if not answer.get("found"):
            return None
        try:
            if not data:
                raise WireError(f"{answer.get('size')} bytes, at most {self.most_bytes} are read")
            packet = Packet.from_bytes(data)
            if (packet.round, packet.sender) != (round, sender):
                says = f"round {packet.round}, node {packet.sender}"
                raise WireError(f"it says it is of {says}; expected round {round}, node {sender}")
        except WireError as error:
            if (round, sender) not in self._bad:
                self._bad.add((round, sender))
                self._refuse(sender, error)
            return None
        return Letter(packet, answer.get("processing_s"), answer.get("link_s"), str(answer.get("via", self.via)))
