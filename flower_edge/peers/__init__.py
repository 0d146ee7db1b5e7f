"""Peers: how packets of neighbours arrive. Nothing here trains, mixes or decides."""

from __future__ import annotations

from .mailbox import Letter, Mailbox
from .opening import open_mailbox
from .packet import Packet
from .relay import RelayMailbox, RelayStore
from .shared_folder import SharedFolder
from .shared_memory import SharedMemoryMailbox

__all__ = [
    "Letter",
    "Mailbox",
    "Packet",
    "RelayMailbox",
    "RelayStore",
    "SharedFolder",
    "SharedMemoryMailbox",
    "open_mailbox",
]
