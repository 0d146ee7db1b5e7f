"""`codec_mod`: a node's half of a `Compressed` layer, around the user's own functions: `ClientApp(mods=[codec_mod])`.

The functions see ordinary messages with models and return ordinary replies; codes are what travels. What the node has
to remember is kept in `NodeState`: with plain models down and a codec that remembers nothing, that is nothing at all.
Nothing here chooses a codec: the server's comes with the first message.
"""

from __future__ import annotations

import zlib
from typing import Final

from flwr.app import Context, Message
from flwr.clientapp.typing import ClientAppCallable

from flower_edge.codecs.envelope import SERVER
from flower_edge.runtime.coded_node import answer_coded
from flower_edge.runtime.node_state import NodeState

__all__ = ["codec_mod", "node_number"]

#: Name of what a node remembers.
STATE: Final = "codec"


def codec_mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower's mod signature: `ClientApp(mods=[codec_mod])`, before mods that look at models.

    Messages that do not come from a `Compressed` layer pass through.

    Raises:
        WireError, CodecError: (as an error reply) an order that is none, or arrays that the codec cannot carry.
        ModelMismatch: (as an error reply) the train function returned arrays that are not the model's.
    """
    memory = NodeState(context, STATE)
    return answer_coded(message, node_number(context), memory, lambda given: call_next(given, context))


def node_number(context: Context) -> int:
    """A number of this node that stays: its `partition-id`, else one made from the node id.

    >>> from flwr.app import RecordDict
    >>> node_number(Context(run_id=1, node_id=9, node_config={"partition-id": 3}, state=RecordDict(), run_config={}))
    3
    """
    partition = context.node_config.get("partition-id")
    if isinstance(partition, int) and not isinstance(partition, bool) and 0 <= partition < SERVER:
        return partition
    return zlib.crc32(str(context.node_id).encode()) % SERVER
