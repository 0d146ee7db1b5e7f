"""The world of `laws.mailbox_laws` in which agents bring the letters."""

from __future__ import annotations

import threading
from pathlib import Path

from agent_cases import Group
from laws.mailbox_laws import NODES, Office

from flower_edge.peers.agent_client import AgentClient
from flower_edge.peers.direct import DirectMailbox
from flower_edge.peers.mailbox import MOST_BYTES, Mailbox
from flower_edge.peers.opening import open_mailbox


class AgentOffice(Office):
    def __init__(self, folder: Path) -> None:
        self.group = Group(folder, range(NODES))
        self._injected = 0
        self._turn = threading.Lock()

    def mailbox(self, node: int, round: int, *, most_bytes: int = MOST_BYTES) -> Mailbox:
        # The server tells all of a round before anybody posts in it.
        with self._turn:
            self.group.begin(round)
        config = {"kind": "direct", "table": self.group.table(node, round).to_json(), "wait_s": 0.0}
        return open_mailbox(config, node, agent=str(self.group.agents[node].socket), most_bytes=most_bytes)

    def hand_over(self, mailbox: Mailbox) -> None:
        assert isinstance(mailbox, DirectMailbox)
        assert mailbox.flush(60.0) == 0

    def inject(self, data: bytes, *, round: int, sender: int, receiver: int) -> None:
        """As a neighbour whose agent is in order and whose mailbox is not."""
        with self._turn:
            self.group.begin(round)
        self._injected += 1
        told = {"do": "post", "run": self.group.run, "round": round, "sequence": self._injected, "to": [receiver]}
        with AgentClient(self.group.agents[sender].socket) as agent:
            if data:
                agent.call(told, data)
            else:
                # An agent takes no packet of no bytes; a sender without one says as much in one byte.
                agent.call(told, b"\0")
            assert agent.call({"do": "flush", "run": self.group.run, "wait_s": 60.0}, wait_s=60.0)[0]["pending"] == 0

    def close(self) -> None:
        self.group.close()
