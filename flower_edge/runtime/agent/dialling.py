"""How an agent opens a connection to another, and both prove who they are.

The one who serves knows the one who dials by its certificate. The one who dials is told its server's certificate by
nobody (gRPC does not), so it sends a number that was never used before, and the server signs it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final

from ...errors import TransportError, TransportRefused
from ...peers.round_table import Card
from ...transport.signing import Signer
from ...transport.transport import Connection, Hello, PeerTransport
from .headers import proof, proves

__all__ = ["FETCH", "LETTERS", "Dialler", "nonce_in", "show"]

#: What a connection is for: to bring letters, or to get those that wait at a relay.
LETTERS: Final = "letters"
FETCH: Final = "fetch"
_P: Final = b"P"
_NONCE: Final = "nonce"


@dataclass(frozen=True)
class Dialler:
    """Opens connections as this agent.

    Attributes:
        transport: with this agent's certificate.
        fingerprint: of that.
    """

    transport: PeerTransport
    fingerprint: str

    def dial(self, card: Card, run: str, node: int, purpose: str, timeout_s: float) -> Connection:
        """A connection to the agent of this card, and to no other.

        Raises:
            TransportRefused: it said no.
            TransportError: it cannot be reached, or another agent is there.
        """
        nonce = secrets.token_hex(32)
        hello = Hello(purpose=purpose, run=run, node=node, data={_NONCE: nonce})
        connection = self.transport.dial(card.address, hello, timeout_s=timeout_s)
        try:
            shown = connection.receive(timeout_s)
            if shown[:1] != _P or not proves(card.key, shown[1:], run, nonce, self.fingerprint):
                raise TransportError(
                    f"the agent at {card.address} is not the one that was to be there; nothing was sent"
                )
        except BaseException:
            connection.close()
            raise
        return connection


def nonce_in(data: dict[str, Any]) -> str:
    """What whoever dialled wants signed.

    Raises:
        TransportRefused: `bad-hello`.
    """
    nonce = data.get(_NONCE)
    if not isinstance(nonce, str) or len(nonce) != 64 or len(data) != 1:
        raise TransportRefused("a hello without a nonce of 64 digits; is the other end an agent?", "bad-hello")
    return nonce


def show(connection: Connection, signer: Signer, run: str, nonce: str) -> None:
    """Prove to whoever dialled which agent this is."""
    connection.send(_P + proof(signer, run, nonce, connection.peer.fingerprint))
