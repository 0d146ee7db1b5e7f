"""`open_mailbox`: the node's mailbox from plain values that came with the gossip message.

The server says which way letters take (`RelayStore`, `SharedFolder.config()`); a node follows. Nothing here imports a
class by a name from outside: the kinds are a closed table.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import PeerError
from .direct import DirectMailbox
from .mailbox import MOST_BYTES, Mailbox
from .relay import Delivery, RelayMailbox
from .round_table import RoundTable
from .shared_memory import SharedMemoryMailbox

__all__ = ["RELAY", "open_mailbox"]

#: The config of a relayed mailbox: there is nothing to say but the kind.
RELAY: Mapping[str, bool | int | float | str] = {"kind": "relay"}


def open_mailbox(
    config: Mapping[str, bool | int | float | str],
    node: int,
    inbox: Mapping[int, Delivery] | None = None,
    *,
    agent: str = "",
    most_bytes: int = MOST_BYTES,
) -> Mailbox:
    """The mailbox of a node, as the server's message describes it.

    Args:
        config: `kind` (`relay`, `shared-memory` or `direct`) and what that kind needs: `folder` for shared memory,
            `table` (the JSON of a `RoundTable`) and `wait_s` for letters that agents bring.
        node: index of the node.
        inbox: letters that came inside the message, for a relayed mailbox.
        agent: the socket of this host's agent, for `direct`; empty: what `FLOWER_EDGE_AGENT` says. It is the node's
            own affair: no message can name it.
        most_bytes: see `Mailbox`.

    Raises:
        PeerError: another kind, or one that this host cannot follow; it says what to choose instead.

    >>> open_mailbox({"kind": "relay"}, node=3).via
    'relay'
    >>> open_mailbox({"kind": "pigeon"}, node=3)
    Traceback (most recent call last):
    ...
    flower_edge.errors.PeerError: mailbox of kind 'pigeon': expected 'relay', 'shared-memory' or 'direct'; \
install the same flower-edge version on both sides
    """
    kind = config.get("kind")
    if kind == "relay":
        return RelayMailbox(node, inbox, most_bytes=most_bytes)
    if kind == "shared-memory":
        return SharedMemoryMailbox(node, str(config.get("folder", "")), most_bytes=most_bytes)
    if kind == "direct":
        wait_s = config.get("wait_s", 30.0)
        if not isinstance(wait_s, int | float):
            raise PeerError(f"wait_s = {wait_s!r} of a mailbox: expected seconds")
        table = RoundTable.from_json(str(config.get("table", "")))
        return DirectMailbox(node, table, agent, wait_s=float(wait_s), most_bytes=most_bytes)
    raise PeerError(
        f"mailbox of kind {kind!r}: expected 'relay', 'shared-memory' or 'direct'; "
        "install the same flower-edge version on both sides"
    )
