"""The one secure channel between hosts: gRPC streams behind `PeerTransport`, credentials as values.

Nothing here knows Flower, models or rounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy

if TYPE_CHECKING:
    from .certificates import KeyPair, fingerprint, issue, make_authority
    from .credentials import Credentials, Insecure, MutualTls, ServerTls, TrustServer
    from .grpc_transport import GrpcTransport
    from .pacing import Pace
    from .signing import Signer, signed_by
    from .tokens import TokenMaker
    from .transport import Connection, ConnectionClosed, Hello, Limits, Peer, PeerTransport, Server, TransportTimeout

__all__ = [
    "Connection",
    "ConnectionClosed",
    "Credentials",
    "GrpcTransport",
    "Hello",
    "Insecure",
    "KeyPair",
    "Limits",
    "MutualTls",
    "Pace",
    "Peer",
    "PeerTransport",
    "Server",
    "ServerTls",
    "Signer",
    "TokenMaker",
    "TransportTimeout",
    "TrustServer",
    "fingerprint",
    "issue",
    "make_authority",
    "signed_by",
]

_MODULES = {
    "certificates": (
        "KeyPair",
        "fingerprint",
        "issue",
        "make_authority",
    ),
    "credentials": (
        "Credentials",
        "Insecure",
        "MutualTls",
        "ServerTls",
        "TrustServer",
    ),
    "grpc_transport": ("GrpcTransport",),
    "pacing": ("Pace",),
    "signing": (
        "Signer",
        "signed_by",
    ),
    "tokens": ("TokenMaker",),
    "transport": (
        "Connection",
        "ConnectionClosed",
        "Hello",
        "Limits",
        "Peer",
        "PeerTransport",
        "Server",
        "TransportTimeout",
    ),
}

__getattr__, __dir__ = lazy(__name__, __all__, _MODULES)
