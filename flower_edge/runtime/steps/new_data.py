"""What an edge tells a terminal that is to go on with data it has collected since its task began.

One entry of the train config, written by the edge's policy and read in the train function. Nothing here decides who is
told, or knows anybody's data.

Source: [4] ¶40 and claim 7: a terminal that leaves may train on newly collected data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flwr.app import Message

__all__ = ["NEW_DATA", "wants_new_data"]

#: Config of a slice that is to be trained on data collected since the task began.
NEW_DATA: Final[Mapping[str, str]] = {"training-data": "new"}


def wants_new_data(message: Message) -> bool:
    """Whether the steps of this message are to be made on data collected since its task began.

    True in every slice from the one on with which the terminal was told, to the last of that task; false in the first
    slice of every task.
    """
    ((key, value),) = NEW_DATA.items()
    return message.has_content() and any(record.get(key) == value for record in message.content.config_records.values())
