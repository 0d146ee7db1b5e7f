"""A neighbour with a certificate and a key in order that says what it likes."""

from __future__ import annotations

import hashlib
import json
import math
import struct
from typing import Any

from agent_cases import LIMITS, RUN, Group, credentials, pair

from flower_edge.errors import TransportError, TransportRefused
from flower_edge.peers.round_table import Card
from flower_edge.runtime.agent.dialling import LETTERS
from flower_edge.runtime.agent.headers import Answer
from flower_edge.transport.grpc_transport import GrpcTransport
from flower_edge.transport.signing import Signer
from flower_edge.transport.transport import Connection, Hello

#: What a signature is over, before the header.
LABEL = b"flower-edge letter 1\0"


class RawPeer:
    """Node `node` of a group, without its agent's manners."""

    def __init__(self, group: Group, node: int) -> None:
        self.node = node
        self.signer = Signer.from_pem((group.folder / str(node) / "signing.key").read_bytes())
        self._transport = GrpcTransport(credentials(pair(f"node {node}")), LIMITS.transport())

    def dial(self, card: Card) -> Connection:
        hello = Hello(purpose=LETTERS, run=RUN, node=self.node, data={"nonce": "0" * 64})
        connection = self._transport.dial(card.address, hello, timeout_s=30.0)
        assert connection.receive(30.0)[:1] == b"P"
        return connection

    def header(self, body: bytes, round: int, dst: int = 0, **changed: Any) -> dict[str, Any]:
        told = {
            "version": 1,
            "run": RUN,
            "round": round,
            "src": self.node,
            "dst": dst,
            "sequence": 0,
            "size": len(body),
            "digest": hashlib.sha256(body).hexdigest(),
            "processing_s": None,
        }
        return {**told, **changed}

    def signed(self, header: dict[str, Any] | bytes) -> bytes:
        data = header if isinstance(header, bytes) else json.dumps(header).encode()
        return self.signer.sign(LABEL + data) + data

    def send(self, card: Card, signed: bytes, body: bytes = b"", pieces: int = 1 << 20) -> str:
        """Offer something, and send it if it is asked for; the last code that came back."""
        connection = self.dial(card)
        try:
            connection.send(b"O" + struct.pack(">d", math.nan) + signed)
            answer = Answer.from_bytes(connection.receive(30.0))
            if answer.code != "go":
                return answer.code
            for at in range(0, len(body), pieces):
                connection.send(body[at : at + pieces])
            return Answer.from_bytes(connection.receive(30.0)).code
        except TransportRefused as refused:
            return refused.code
        except TransportError:
            return "ended"
        finally:
            connection.close()
