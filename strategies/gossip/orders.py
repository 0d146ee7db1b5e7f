"""The message that a worker gets for a round: its order, and beside it the records that the order speaks of.

Composes; what an order says is `Group`'s. Nothing here is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from flower_edge.runtime.gossip_messages import (
    DATA_RECORD,
    EARLIER_RECORD,
    GOSSIP_RECORD,
    INBOX_RECORD,
    Order,
    earlier_record,
    inbox_record,
)
from flower_edge.wire import record_of

from .group import Group

__all__ = ["train_message"]


def train_message(
    group: Group,
    node: int,
    order: Order,
    *,
    config: Mapping[str, ConfigRecord],
    model: Mapping[str, ArrayRecord],
    relays: bool,
    dataset: Callable[[int], Mapping[str, npt.NDArray[Any]]] | None,
) -> Message:
    """For one worker.

    Args:
        group: has the packets that are relayed.
        node: id of the worker's node.
        order: what it is told.
        config, model: the round's, under the names they travel by; the model only for who begins afresh.
        relays: whether neighbours' packets go along.
        dataset: makes the data set of a worker, by number; None where it needs none, or has it already.
    """
    content = RecordDict({**config, GOSSIP_RECORD: order.write()})
    if order.fresh:
        content.update(dict(model))
    if relays and (letters := group.letters(order)):
        content[INBOX_RECORD] = inbox_record({sender: letter.data for sender, letter in letters.items()})
    if earlier := group.earlier_letters(order, relays=relays):
        content[EARLIER_RECORD] = earlier_record(earlier)
    if dataset is not None:
        content[DATA_RECORD] = record_of(dataset(order.index))
    return Message(content, node, "train")
