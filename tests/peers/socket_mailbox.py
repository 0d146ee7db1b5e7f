"""A mailbox over loopback sockets: proof that something direct between hosts can keep the promise. Not shipped.

No encryption, no credentials, no pacing: what a transport owes beyond the laws is another matter. An agent listens for
its node as long as the run lasts; a mailbox lives for one message.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress

from laws.mailbox_laws import NODES, Office

from flower_edge.errors import PeerError, WireError
from flower_edge.peers.mailbox import MOST_BYTES, Letter, Mailbox
from flower_edge.peers.packet import Packet

#: round, sender, sequence as the sender claims them; processing_s (NaN: not told); length of what follows
FRAME = struct.Struct("<QIIdQ")
Key = tuple[int, int]  # round, sender


class Agent:
    """Takes in letters for one node."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.letters: dict[Key, dict[int, tuple[bytes, float, float]]] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(OSError, EOFError):
                self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        begun_s = time.perf_counter()
        round_, sender, sequence, processing_s, length = FRAME.unpack(_exactly(connection, FRAME.size))
        if length > MOST_BYTES:
            return
        data = _exactly(connection, length)
        kept = dict(self.letters.get((round_, sender), {}))
        kept[sequence] = data, processing_s, time.perf_counter() - begun_s
        self.letters[round_, sender] = kept  # replaced whole: the node's thread reads without a lock
        connection.sendall(b"!")

    def close(self) -> None:
        # A blocked accept() does not see that its socket is closed; a connection wakes it.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=10)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        if not (got := connection.recv_into(view)):
            raise EOFError
        view = view[got:]
    return bytes(data)


def send(address: tuple[str, int], data: bytes, key: tuple[int, int, int], processing_s: float) -> None:
    with socket.create_connection(address, timeout=30) as connection:
        connection.sendall(FRAME.pack(*key, processing_s, len(data)))
        connection.sendall(data)
        if connection.recv(1) != b"!":
            raise OSError("not taken")


class SocketMailbox(Mailbox):
    via = "direct"

    def __init__(self, node: int, agents: dict[int, Agent], *, most_bytes: int = MOST_BYTES) -> None:
        super().__init__(node, most_bytes=most_bytes)
        self._own, self._peers = agents[node], {peer: agent.address for peer, agent in agents.items()}
        self._bad: set[tuple[int, int, int]] = set()

    def forget(self, before_round: int) -> None:
        for key in [key for key in self._own.letters if key[0] < before_round]:
            del self._own.letters[key]

    def _send(self, packet: Packet, to: tuple[int, ...], processing_s: float | None) -> None:
        data, key = packet.to_bytes(), (packet.round, packet.sender, packet.sequence)
        for peer in to:
            try:
                send(self._peers[peer], data, key, float("nan") if processing_s is None else processing_s)
            except OSError as error:
                raise PeerError(f"node {peer} cannot be reached: {error}") from error

    def _fetch(self, round: int, sender: int) -> Letter | None:
        letters = self._own.letters.get((round, sender), {})
        for sequence in sorted(letters, reverse=True):
            data, processing_s, link_s = letters[sequence]
            try:
                if len(data) > self.most_bytes:
                    raise WireError(f"{len(data)} bytes, at most {self.most_bytes} are read")
                packet = Packet.from_bytes(data)
                if (packet.round, packet.sender) != (round, sender):
                    raise WireError(f"a packet of node {packet.sender}, round {packet.round}")
            except WireError as error:
                if (round, sender, sequence) not in self._bad:
                    self._bad.add((round, sender, sequence))
                    self._refuse(sender, error)
                continue
            return Letter(packet, processing_s if processing_s == processing_s else None, link_s, self.via)
        return None


class SocketOffice(Office):
    def __init__(self) -> None:
        self.agents = {node: Agent() for node in range(NODES)}

    def mailbox(self, node: int, round: int, *, most_bytes: int = MOST_BYTES) -> Mailbox:
        return SocketMailbox(node, self.agents, most_bytes=most_bytes)

    def inject(self, data: bytes, *, round: int, sender: int, receiver: int) -> None:
        send(self.agents[receiver].address, data, (round, sender, 0), float("nan"))

    def close(self) -> None:
        for agent in self.agents.values():
            agent.close()
