"""A Grid that looks sooner: the same replies, and never more than it was asked to wait."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from local_grid_apps import counting_app
from toy import initial_model, same_model, toy_app

from flower_edge.errors import ConfigError
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.short_polling import ShortPolling
from flower_edge.runtime.wrapped_grid import WrappedGrid

FIRST = LocalGrid.FIRST_NODE_ID


class Slow(WrappedGrid):
    """A Grid like Flower's: it gives a reply some time after the message, the last node's first, and counts looks."""

    def __init__(self, inner: LocalGrid, after_s: float) -> None:
        super().__init__(inner)
        self.after_s, self.looks = after_s, 0
        self._pushed: dict[str, float] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        identities = list(super().push_messages(messages))
        for place, identity in enumerate(reversed(identities)):
            self._pushed[identity] = time.monotonic() + self.after_s * (place + 1)
        return identities

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.looks += 1
        return super().pull_messages([i for i in message_ids if self._pushed[i] <= time.monotonic()])


class Loses(WrappedGrid):
    """Could not send the first message of each exchange: Flower's Grid then has None in its place."""

    def push_messages(self, messages: Iterable[Message]) -> Any:
        _, *rest = list(messages)
        return [None, *super().push_messages(rest)]


def messages(count: int) -> list[Message]:
    return [Message(RecordDict(), FIRST + node, "query") for node in range(count)]


def test_a_strategy_learns_the_same_through_it() -> None:
    def train(wrap: bool) -> ArrayRecord:
        random.seed(1)
        with LocalGrid(toy_app, 3) as local:
            grid = ShortPolling(Slow(local, 0.02), 0.05) if wrap else local
            return FedAvg(fraction_evaluate=0.0).start(grid, initial_model(), num_rounds=2).arrays

    assert same_model(train(True), train(False))


def test_replies_come_in_the_order_of_their_messages_whoever_was_faster() -> None:
    with LocalGrid(counting_app, 3) as local:
        grid = ShortPolling(Slow(local, 0.05), 0.05)
        asked = messages(3)
        replies = list(grid.send_and_receive(asked))
        assert [reply.metadata.src_node_id for reply in replies] == [FIRST, FIRST + 1, FIRST + 2]


def test_a_reply_is_seen_within_a_look_and_a_deadline_is_kept() -> None:
    with LocalGrid(counting_app, 2) as local:
        slow = Slow(local, 1.5)
        grid = ShortPolling(slow, 0.5)
        began_s = time.monotonic()
        (reply,) = grid.send_and_receive(messages(2), timeout=2.0)  # the other comes after 3 s
        assert time.monotonic() - began_s >= 2.0
        assert reply.metadata.src_node_id == FIRST + 1
        assert 2 <= slow.looks <= 8


def test_nothing_sent_is_nothing_waited_for() -> None:
    with LocalGrid(counting_app, 1) as local:
        slow = Slow(local, 60.0)
        assert list(ShortPolling(slow).send_and_receive([])) == []
        assert slow.looks == 0


def test_a_message_that_could_not_be_sent_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with LocalGrid(counting_app, 3) as local:
        replies = list(ShortPolling(Loses(local)).send_and_receive(messages(3)))
    assert [reply.metadata.src_node_id for reply in replies] == [FIRST + 1, FIRST + 2]
    assert "1 of 3 messages could not be sent" in caplog.text


@pytest.mark.parametrize("poll", [0.0, 0.01, 4.0, float("nan"), float("inf")])
def test_a_pause_that_costs_more_than_it_gains_is_refused(poll: float) -> None:
    with LocalGrid(counting_app, 1) as local, pytest.raises(ConfigError, match=r"expected 0\.05 to 3 s"):
        ShortPolling(local, poll)
