"""Uploads of a SuperNode over slow links: how long one may take. The one private name that is needed, feature-checked.

In flwr 1.41 each request of a SuperNode may take half a minute from when its bytes are with the system to its answer,
whatever its size. One that takes longer is begun anew, from its first byte: over 0.1 Mbit/s a reply of 400 KB is
uploaded again and again, without an end. Here a request has half a minute and what its size needs. The SuperLink gives
an upload three minutes for each array (each 5 MB of one), which no node can change: 2 MB at 0.1 Mbit/s.

Nothing here sends. Where Flower has moved the name, its own time stays, and it is said.
"""

from __future__ import annotations

import importlib
import inspect
from logging import getLogger
from typing import Any, Final

__all__ = ["upload_patience_s", "wait_for_uploads"]

log = getLogger("flwr.flower-edge")

_FLEET: Final = "flwr.supernode.fleet_http_client"
#: What Flower waits for an answer; and how slow a link may be, with what is sent again, for what goes before it.
_ANSWER_S, _SLOWEST_BPS = 30.0, 50_000.0


def upload_patience_s(size_bytes: int) -> float:
    """How long a request of so many bytes may take.

    >>> upload_patience_s(0), upload_patience_s(1_000_000)
    (30.0, 190.0)
    """
    return _ANSWER_S + 8 * size_bytes / _SLOWEST_BPS


def wait_for_uploads() -> bool:
    """Let requests of the SuperNode in this process take the longer the larger they are; whether that could be done."""
    try:
        client = importlib.import_module(_FLEET).FleetHttpClient
        stock = client._unary_unary
        known = {"timeout", "request"} <= set(inspect.signature(stock).parameters)
    except (ImportError, AttributeError):
        known = False
    if not known:
        log.warning("this flwr sends replies in another way; one that takes more than 30 s to upload may never arrive")
        return False

    def patient(self: Any, **named: Any) -> Any:
        if named.get("timeout") is None:  # a heartbeat has a time of its own
            named["timeout"] = upload_patience_s(named["request"].ByteSize())
        return stock(self, **named)

    client._unary_unary = patient
    return True
