"""Peers: how packets of neighbours arrive. Nothing here trains, mixes or decides."""

from __future__ import annotations

from .agent_client import AgentClient
from .direct import DirectMailbox
from .mailbox import Letter, Mailbox
from .opening import open_mailbox
from .packet import Packet
from .relay import RelayMailbox, RelayStore
from .revoked import RevokedPeers
from .round_table import Card, RoundTable
from .shared_folder import SharedFolder
from .shared_memory import SharedMemoryMailbox

__all__ = [
    "AgentClient",
    "Card",
    "DirectMailbox",
    "Letter",
    "Mailbox",
    "Packet",
    "RelayMailbox",
    "RelayStore",
    "RevokedPeers",
    "RoundTable",
    "SharedFolder",
    "SharedMemoryMailbox",
    "open_mailbox",
]
