"""What a node tells the server about itself, and how the server reads it: bounded, because it comes from outside.

The question is a message of type `query.properties`, the answer one ConfigRecord `properties`. Nothing here asks
(`GridProxy` does), answers (`answer_properties` in `flower_edge.clients` does) or believes what is told.
"""

from __future__ import annotations

import math

from flwr.app import ConfigRecord, Message

from ..errors import WireError

__all__ = ["PROPERTIES", "Property", "properties_of"]

#: Name of the query (`query.properties`) and of the record in its answer.
PROPERTIES = "properties"
#: Bounds on what a node may tell: entries, characters of a name, characters of a text.
MOST_ENTRIES, LONGEST_NAME, LONGEST_TEXT = 64, 128, 1024

Property = bool | int | float | str


def properties_of(reply: Message) -> dict[str, Property]:
    """What a node told about itself, checked.

    Raises:
        WireError: no record `properties`, too many entries, too long a name or text, or a value that is not a plain
            bool, int, finite float or str.
    """
    sender = f"node {reply.metadata.src_node_id}"
    record = reply.content.get(PROPERTIES) if reply.has_content() else None
    if not isinstance(record, ConfigRecord):
        raise WireError(
            f"{sender} answered without a ConfigRecord {PROPERTIES!r}; register answer_properties(app) on the client"
        )
    if len(record) > MOST_ENTRIES:
        raise WireError(f"{sender} told {len(record)} properties, at most {MOST_ENTRIES} are read")
    told: dict[str, Property] = {}
    for name, value in record.items():
        if len(name) > LONGEST_NAME:
            raise WireError(f"{sender} told a property with a name of {len(name)} characters, at most {LONGEST_NAME}")
        if not isinstance(value, bool | int | float | str):
            raise WireError(f"{sender} told {name!r} as {type(value).__name__}, expected bool, int, float or str")
        if isinstance(value, float) and not math.isfinite(value):
            raise WireError(f"{sender} told {name!r} = {value}, expected a finite number")
        if isinstance(value, str) and len(value) > LONGEST_TEXT:
            raise WireError(f"{sender} told {name!r} in {len(value)} characters, at most {LONGEST_TEXT}")
        told[name] = value
    return told
