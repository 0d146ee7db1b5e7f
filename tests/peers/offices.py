"""The worlds in which the mailboxes that are shipped are tested; see `laws.mailbox_laws.Office`."""

from __future__ import annotations

import threading
from pathlib import Path

from laws.mailbox_laws import NODES, Office, packet

from flower_edge.peers.mailbox import MOST_BYTES, Mailbox
from flower_edge.peers.opening import RELAY, open_mailbox
from flower_edge.peers.relay import Delivery, RelayMailbox, RelayStore
from flower_edge.peers.shared_folder import SharedFolder


class RelayOffice(Office):
    """A server that answers one node at a time."""

    def __init__(self) -> None:
        self.store = RelayStore()
        self.injected: dict[tuple[int, int, int], Delivery] = {}
        self._turn = threading.Lock()

    def mailbox(self, node: int, round: int, *, most_bytes: int = MOST_BYTES) -> Mailbox:
        others = [other for other in range(NODES) if other != node]
        with self._turn:
            inbox = self.store.letters(node, round=round, senders=others)
        inbox |= {k[1]: one for k, one in self.injected.items() if (k[0], k[2]) == (round, node)}
        return open_mailbox(RELAY, node, inbox, most_bytes=most_bytes)

    def hand_over(self, mailbox: Mailbox) -> None:
        assert isinstance(mailbox, RelayMailbox)
        with self._turn:
            self.store.put(mailbox.node, mailbox.outbox)

    def inject(self, data: bytes, *, round: int, sender: int, receiver: int) -> None:
        self.injected[round, sender, receiver] = Delivery(data)


class SharedMemoryOffice(Office):
    def __init__(self, root: Path | None = None) -> None:
        self.folder = SharedFolder(7, root)

    def mailbox(self, node: int, round: int, *, most_bytes: int = MOST_BYTES) -> Mailbox:
        return open_mailbox(self.folder.config(), node, most_bytes=most_bytes)

    def inject(self, data: bytes, *, round: int, sender: int, receiver: int) -> None:
        good = packet(sender, round=round)
        with self.mailbox(sender, round) as mailbox:
            mailbox.post(good, [receiver])
        path = self.folder.path / str(round) / str(sender) / "0"
        path.write_bytes(path.read_bytes().removesuffix(good.to_bytes()) + data)

    def close(self) -> None:
        self.folder.remove()
