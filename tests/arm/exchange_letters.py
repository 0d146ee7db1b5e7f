"""What a ClientApp does with its agent in one round: posts a letter to all others, and collects theirs. On the device.

The argument is JSON: the round's `table`, the agent's `socket`, and how many `bytes` the letter has. Printed is JSON:
the SHA-256 of each letter that came, by sender.
"""

from __future__ import annotations

import hashlib
import json
import platform
import random
import sys
from typing import Any

from flower_edge.peers.direct import DirectMailbox
from flower_edge.peers.packet import Packet
from flower_edge.peers.round_table import RoundTable


def payload(node: int, size: int) -> bytes:
    """A node's letter."""
    return random.Random(node).randbytes(size)


def exchange(given: dict[str, Any]) -> dict[str, str]:
    """Digests of the letters that came."""
    table = RoundTable.from_json(given["table"])
    node, others = int(table.node or 0), list(table.hears)
    with DirectMailbox(node, table, str(given["socket"]), wait_s=600.0) as mailbox:
        mailbox.post(Packet(table.round, node, 0, "identity", payload(node, given["bytes"])), others)
        letters = mailbox.collect(table.round, others)
        # Until all has arrived: the others wait for it.
        assert mailbox.flush(600.0) == 0
    return {str(sender): hashlib.sha256(letter.packet.payload).hexdigest() for sender, letter in letters.items()}


if __name__ == "__main__":
    print(json.dumps({"machine": platform.machine(), "letters": exchange(json.loads(sys.argv[1]))}))
