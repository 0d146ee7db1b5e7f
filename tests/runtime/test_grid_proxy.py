"""GridProxy around LocalGrid: deadlines, quorums, second copies, errors, expected nodes, properties, order."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.clients.properties import answer_properties
from flower_edge.errors import ConfigError, NestingError, NotEnoughNodes, WireError
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.flower_private import set_metadata
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.in_flight import Counts
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.node_properties import properties_of
from flower_edge.runtime.quorum import quorum_count
from flower_edge.runtime.wrapped_grid import WrappedGrid, grid_state, load_grid_state

FIRST = LocalGrid.FIRST_NODE_ID


class FakeTime:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def echo_app() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        place = int(context.node_config["partition-id"])
        content = RecordDict({"metrics": MetricRecord({"place": place, "num-examples": 1})})
        if "arrays" in message.content:
            content["arrays"] = ArrayRecord([np.full(2, float(place))])
        return Message(content, reply_to=message)

    return app


def local(nodes: int | list[dict[str, Any]], script: Iterable[Fault] = (), app: ClientApp | None = None) -> LocalGrid:
    return LocalGrid(app or echo_app(), nodes=nodes, script=script)


def proxied(inner: Grid, **options: Any) -> tuple[GridProxy, FakeTime]:
    fake = FakeTime()
    return GridProxy(inner, **({"ask_properties": False} | options), sleep=fake.sleep, clock=fake.clock), fake


def training(nodes: Iterable[int]) -> list[Message]:
    return [Message(RecordDict(), node, "train") for node in nodes]


def senders(replies: Iterable[Message]) -> list[int]:
    return [reply.metadata.src_node_id - FIRST for reply in replies]


# -- replies -----------------------------------------------------------------------------------------------------------


def test_fedavg_through_the_proxy_is_fedavg_on_the_bare_grid_bit_for_bit() -> None:
    def final(wrap: Callable[[LocalGrid], Grid]) -> list[np.ndarray[Any, Any]]:
        with local(5) as inner:
            random.seed(3)
            strategy = FedAvg(fraction_train=0.6, fraction_evaluate=0.0, min_available_nodes=5)
            return strategy.start(wrap(inner), ArrayRecord([np.zeros(2)]), num_rounds=3).arrays.to_numpy_ndarrays()

    bare = final(lambda inner: inner)
    wrapped = final(lambda inner: GridProxy(inner, ask_properties=False))
    assert bare[0].tobytes() == wrapped[0].tobytes()
    assert bare[0].any()


def test_messages_may_be_a_generator_and_replies_come_in_their_order() -> None:
    with local(4) as inner:
        grid, _ = proxied(inner)
        replies = grid.send_and_receive(message for message in training([1003, 1000, 1002]))
        assert senders(replies) == [3, 0, 2]
        assert grid.counts == Counts(sent=3, answered=3)


def test_no_messages_give_no_replies_and_do_not_wait() -> None:
    with local(2) as inner:
        grid, fake = proxied(inner)
        assert list(grid.send_and_receive([], timeout=None)) == []
        assert fake.slept == []


def test_arrival_order_gives_the_late_reply_last_and_message_order_in_its_place() -> None:
    for order, expected in {"arrival": [1, 2, 0], "message": [0, 1, 2]}.items():
        with local(3, [Fault(0, "late", delay_s=1.0)]) as inner:
            grid = GridProxy(inner, poll_s=0.05, order=order, ask_properties=False)  # type: ignore[arg-type]
            assert senders(grid.send_and_receive(training([1000, 1001, 1002]), timeout=60.0)) == expected


def test_replies_of_a_thread_pool_all_arrive_by_polling() -> None:
    with LocalGrid(echo_app(), nodes=6, pool="threads") as inner:
        grid = GridProxy(inner, poll_s=0.05, ask_properties=False)
        assert senders(grid.send_and_receive(training(range(1005, 999, -1)))) == [5, 4, 3, 2, 1, 0]


# -- deadline and quorum -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("timeout", "deadline_s", "expected_s"), [(3.0, 5.0, 3.0), (9.0, 5.0, 5.0), (None, 5.0, 5.0)])
def test_a_round_ends_at_the_smaller_of_timeout_and_deadline(
    timeout: float | None, deadline_s: float, expected_s: float
) -> None:
    with local(3, [Fault(1, "silent")]) as inner:
        grid, fake = proxied(inner, deadline_s=deadline_s)
        assert senders(grid.send_and_receive(training([1000, 1001, 1002]), timeout=timeout)) == [0, 2]
        assert fake.now_s == pytest.approx(expected_s)
        assert grid.counts == Counts(sent=3, answered=2, silent=1)


def test_a_round_ends_with_its_quorum_and_only_then() -> None:
    with local(4, [Fault(3, "silent")]) as inner:
        grid, fake = proxied(inner, quorum=0.75, deadline_s=100.0)
        assert senders(grid.send_and_receive(training(range(1000, 1004)))) == [0, 1, 2]
        assert fake.now_s == 0.0
    with local(4, [Fault(3, "silent"), Fault(2, "silent")]) as inner:
        grid, fake = proxied(inner, quorum=3, deadline_s=100.0)
        assert senders(grid.send_and_receive(training(range(1000, 1004)))) == [0, 1]
        assert fake.now_s == pytest.approx(100.0)


def test_after_the_quorum_the_others_have_the_linger_time_and_no_more() -> None:
    with local(3, [Fault(1, "late", delay_s=0.1), Fault(2, "silent")]) as inner:
        grid = GridProxy(inner, quorum=1, linger_s=1.5, poll_s=0.05, deadline_s=60.0, ask_properties=False)
        assert senders(grid.send_and_receive(training(range(1000, 1003)))) == [0, 1]


def test_errors_do_not_count_towards_the_quorum_but_end_a_round_when_all_have_answered() -> None:
    with local(4, [Fault(0, "raise"), Fault(1, "raise"), Fault(3, "silent")]) as inner:
        grid, fake = proxied(inner, quorum=2, deadline_s=50.0)
        replies = list(grid.send_and_receive(training(range(1000, 1003))))
        assert [reply.has_error() for reply in replies] == [True, True, False]
        assert fake.now_s == 0.0
        assert grid.counts == Counts(sent=3, answered=1, errors=2)
        assert len(list(grid.send_and_receive(training(range(1000, 1004))))) == 3
        assert fake.now_s == pytest.approx(50.0)


@given(st.floats(0.01, 1.0), st.integers(1, 1000))
def test_a_quorum_fraction_asks_for_that_share_rounded_up(fraction: float, messages: int) -> None:
    count = quorum_count(fraction, messages)
    assert 1 <= count <= messages
    assert fraction * messages - 1e-6 <= count < fraction * messages + 1


class HeldBack(WrappedGrid):
    """Hands a node's replies out some seconds of a clock after the message was pushed."""

    def __init__(self, inner: Grid, fake: FakeTime, delays_s: dict[int, float]) -> None:
        super().__init__(inner)
        self.fake, self.delays_s, self.due_s = fake, delays_s, dict[str, float]()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        ids = list(self.inner.push_messages(messages))
        for message_id, message in zip(ids, messages, strict=True):
            self.due_s[message_id] = self.fake.now_s + self.delays_s.get(message.metadata.dst_node_id - FIRST, 0.0)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self.inner.pull_messages([i for i in message_ids if self.due_s[i] <= self.fake.now_s])


def test_a_cut_off_ends_the_rounds_inside_it_and_no_others() -> None:
    fake = FakeTime()
    with local(4, [Fault(2, "raise")]) as inner:
        slow = HeldBack(inner, fake, {0: 3.0, 1: 1.0})
        grid = GridProxy(slow, ask_properties=False, sleep=fake.sleep, clock=fake.clock, poll_s=0.25)
        everyone = range(1000, 1004)
        with grid.cut_off_at(3):
            with grid.cut_off_at(1):
                assert senders(grid.send_and_receive(training(everyone))) == [2, 3]
            assert fake.now_s == 0.0
            with grid.cut_off_at(2):
                assert senders(grid.send_and_receive(training(everyone))) == [1, 2, 3]
            assert fake.now_s == 1.0
        assert senders(grid.send_and_receive(training(everyone))) == [0, 1, 2, 3]
        assert fake.now_s == 4.0
        assert grid.counts.silent == 3


def test_a_cut_off_never_waits_for_more_than_the_quorum_and_asks_for_one_reply_at_least() -> None:
    with local(3, [Fault(0, "silent")]) as inner:
        grid, fake = proxied(inner, quorum=2)
        with grid.cut_off_at(30):
            assert senders(grid.send_and_receive(training([1000, 1001, 1002]))) == [1, 2]
        assert fake.now_s == 0.0
        with pytest.raises(ConfigError, match=r"cut_off_at\(0\): expected 1 or more"), grid.cut_off_at(0):
            pass


def test_how_long_a_node_took_is_that_of_its_last_answered_training_message() -> None:
    fake, app = FakeTime(), echo_app()

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    with local(2, [Fault(0, "raise", at=3), Fault(1, "silent")], app) as inner:
        slow = HeldBack(inner, fake, {0: 2.0})
        grid = GridProxy(slow, ask_properties=False, sleep=fake.sleep, clock=fake.clock, poll_s=0.25, deadline_s=5.0)
        assert grid.last_duration_s(1000) is None
        grid.send_and_receive(training([1000]))
        assert grid.last_duration_s(1000) == 2.0
        slow.delays_s[0] = 1.0
        for message in (Message(RecordDict(), 1000, "evaluate"), *training([1000, 1001])):
            grid.send_and_receive([message])
        assert (grid.last_duration_s(1000), grid.last_duration_s(1001)) == (2.0, None)
        again, _ = proxied(inner)
        load_grid_state(again, grid_state(grid))
        assert again.last_duration_s(1000) == 2.0
        grid.send_and_receive(training([1000]))
        assert grid.last_duration_s(1000) == 1.0


def test_a_message_is_good_for_as_long_as_its_round_takes() -> None:
    def good_for_s(grid: GridProxy, *, ttl: float | None = None, timeout: float | None = None) -> float:
        message = Message(RecordDict(), 1000, "train", ttl=ttl)
        grid.send_and_receive([message], timeout=timeout)
        return float(message.metadata.ttl)

    with local(1) as inner:
        grid = GridProxy(inner, deadline_s=30.0, ask_properties=False)
        # And for as long as the clock of a node that was never heard may be ahead.
        assert good_for_s(grid) == pytest.approx(330.0, abs=5.0)
        # This one is right: for the five seconds that clocks may differ by.
        assert good_for_s(grid) == pytest.approx(35.0, abs=5.0)
        assert good_for_s(grid, timeout=2.0) == pytest.approx(7.0, abs=5.0)
        assert good_for_s(grid, ttl=3.0) == 3.0
        forever, usual_s = GridProxy(inner, ask_properties=False), Message(RecordDict(), 1000, "train").metadata.ttl
        assert good_for_s(forever) == usual_s
        # A question tells whose clock is wrong, and is no work that could be in vain.
        seen = LosesFirstPush(inner, lost=0)
        GridProxy(seen, deadline_s=30.0).properties(1000)
        assert [message.metadata.ttl for batch in seen.pushed for message in batch] == [usual_s]


# -- late replies ------------------------------------------------------------------------------------------------------


def test_a_late_reply_is_never_handed_to_a_later_round() -> None:
    with local(2, [Fault(1, "late", at=1, delay_s=3.0)]) as inner:
        grid = GridProxy(inner, deadline_s=0.1, poll_s=0.05, ask_properties=False)
        first = training([1000, 1001])
        assert senders(grid.send_and_receive(first)) == [0]
        second = training([1000, 1001])
        replies = list(grid.send_and_receive(second, timeout=5.0))
        assert [r.metadata.reply_to_message_id for r in replies] == [m.metadata.message_id for m in second]
        assert grid.counts == Counts(sent=4, answered=3, silent=1)
        latest_s = time.monotonic() + 60.0
        while not grid.counts.late and time.monotonic() < latest_s:
            time.sleep(0.05)
            grid.send_and_receive([])
        assert grid.counts == Counts(sent=4, answered=3, silent=1, late=1)


def test_leaving_the_proxy_takes_in_what_is_still_in_flight() -> None:
    with local(2, [Fault(1, "late", delay_s=1.5)]) as inner:
        with GridProxy(inner, poll_s=0.05, drain_s=60.0, ask_properties=False) as grid:
            ids = grid.push_messages(training([1000, 1001]))
            assert senders(grid.pull_messages(ids)) == [0]
        assert grid.counts == Counts(sent=2, answered=1, silent=1, late=1)


def test_draining_gives_up_after_its_time() -> None:
    with local(1, [Fault(0, "silent")]) as inner:
        grid, fake = proxied(inner, drain_s=2.0)
        grid.push_messages(training([1000]))
        grid.close()
        assert fake.now_s == pytest.approx(2.0, abs=0.11)
        assert grid.counts == Counts(sent=1, silent=1)


# -- second copies -----------------------------------------------------------------------------------------------------


class LosesFirstPush(WrappedGrid):
    """Takes a message, and the first time never delivers it."""

    def __init__(self, inner: Grid, lost: int) -> None:
        super().__init__(inner)
        self.lost = lost
        self.pushed: list[list[Message]] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        batch = list(messages)
        self.pushed.append(batch)
        ids = []
        for message in batch:
            if message.metadata.dst_node_id == self.lost and len(self.pushed) == 1:
                set_metadata(message, message_id="lost")
                ids.append("lost")
            else:
                ids += self.inner.push_messages([message])
        return ids


def test_a_lost_message_is_sent_once_more_and_its_answer_answers_the_first() -> None:
    with local(3) as inner:
        lossy = LosesFirstPush(inner, lost=1001)
        grid, fake = proxied(lossy, resend_after_s=2.0, deadline_s=60.0)
        messages = training([1000, 1001, 1002])
        replies = list(grid.send_and_receive(messages))
        assert senders(replies) == [0, 1, 2]
        assert [r.metadata.reply_to_message_id for r in replies] == [m.metadata.message_id for m in messages]
        assert grid.counts == Counts(sent=3, answered=3, resent=1)
        assert 2.0 <= fake.now_s < 2.5
        (copy,) = lossy.pushed[1]
        assert copy is not messages[1]
        assert copy.metadata.created_at > messages[1].metadata.created_at
        # It is good for as long as the first, and no longer.
        ends_s = [one.metadata.created_at + one.metadata.ttl for one in (copy, messages[1])]
        assert ends_s[0] == pytest.approx(ends_s[1], abs=1e-3)


def test_a_silent_node_gets_one_copy_not_two() -> None:
    with local(1, [Fault(0, "silent")]) as inner:
        grid, _ = proxied(inner, resend_after_s=1.0, deadline_s=30.0)
        assert list(grid.send_and_receive(training([1000]))) == []
        assert grid.counts == Counts(sent=1, silent=1, resent=1)


def test_when_both_copies_are_answered_one_answer_is_handed_over_and_the_other_dropped() -> None:
    with local(1, [Fault(0, "late", at=1, delay_s=1.5)]) as inner:
        grid = GridProxy(inner, resend_after_s=0.05, poll_s=0.05, deadline_s=60.0, ask_properties=False)
        assert len(list(grid.send_and_receive(training([1000])))) == 1
        grid.close()
        assert grid.counts == Counts(sent=1, answered=1, resent=1, late=1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(["fine", "raise", "silent", "drop-out"]), min_size=1, max_size=5), st.booleans())
def test_every_message_sent_is_answered_failed_or_silent(kinds: list[str], resend: bool) -> None:
    script = [Fault(i, kind, at=1) for i, kind in enumerate(kinds) if kind != "fine"]  # type: ignore[arg-type]
    with local(len(kinds), script) as inner:
        grid, _ = proxied(inner, deadline_s=5.0, resend_after_s=1.0 if resend else None)
        for _ in range(2):
            grid.send_and_receive(training(range(1000, 1000 + len(kinds))))
        counts = grid.counts
        assert counts.sent == 2 * len(kinds) == counts.answered + counts.errors + counts.silent
        assert counts.resent == (kinds.count("silent") if resend else 0)
        assert counts.silent == (0 if resend else kinds.count("silent"))


# -- errors ------------------------------------------------------------------------------------------------------------


class SpeaksAsSuperLink(WrappedGrid):
    """Labels errors as a SuperLink does: with itself as the source."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = list(self.inner.pull_messages(list(message_ids)))
        for reply in replies:
            if reply.has_error():
                set_metadata(reply, src_node_id=1)
        return replies


def test_an_error_made_by_the_superlink_names_the_node_it_is_about() -> None:
    with local(3, [Fault(1, "drop-out")]) as inner:
        grid, _ = proxied(SpeaksAsSuperLink(inner))
        replies = list(grid.send_and_receive(training(range(1000, 1003))))
        assert [(r.metadata.src_node_id, r.has_error()) for r in replies] == [
            (1000, False),
            (1001, True),
            (1002, False),
        ]


class RefusesLargeBatches(WrappedGrid):
    """Takes nothing of a batch above its limit, as Flower's HTTP Grid does; a limit of 0 takes nothing at all."""

    def __init__(self, inner: Grid, limit: int) -> None:
        super().__init__(inner)
        self.limit = limit

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        batch = list(messages)
        return self.inner.push_messages(batch) if len(batch) <= self.limit else []


def test_a_batch_that_is_too_large_goes_one_by_one() -> None:
    with local(3) as inner:
        grid, _ = proxied(RefusesLargeBatches(inner, limit=1))
        assert senders(grid.send_and_receive(training(range(1000, 1003)))) == [0, 1, 2]


def test_a_message_the_grid_does_not_take_is_answered_by_an_error_at_once() -> None:
    with local(2) as inner:
        grid, fake = proxied(RefusesLargeBatches(inner, limit=0))
        messages = training([1000, 1001])
        replies = list(grid.send_and_receive(messages))
        assert [(r.metadata.src_node_id, r.error.code) for r in replies] == [(1000, 3), (1001, 3)]
        assert [r.metadata.reply_to_message_id for r in replies] == [m.metadata.message_id for m in messages]
        assert fake.now_s == 0.0
        assert grid.counts == Counts(sent=2, errors=2)


# -- push and pull -----------------------------------------------------------------------------------------------------


def test_pulling_twice_gives_a_reply_once_and_unknown_ids_give_nothing() -> None:
    with local(2) as inner:
        grid, _ = proxied(inner)
        ids = list(grid.push_messages(training([1000, 1001])))
        assert senders(grid.pull_messages([ids[1], ids[1], "unknown"])) == [1]
        assert senders(grid.pull_messages(ids)) == [0]
        assert list(grid.pull_messages(ids)) == []


# -- nodes -------------------------------------------------------------------------------------------------------------


class NodesJoin(WrappedGrid):
    """Shows one more node at every listing."""

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self.shown = 0

    def get_node_ids(self) -> Iterable[int]:
        self.shown += 1
        return list(self.inner.get_node_ids())[: self.shown]


def test_the_first_listing_waits_for_the_expected_nodes() -> None:
    with local(6) as inner:
        grid, fake = proxied(NodesJoin(inner), expected_nodes=4)
        assert len(list(grid.get_node_ids())) >= 4
        assert fake.now_s == pytest.approx(0.3)


def test_too_few_nodes_are_told_with_their_number_and_what_to_do() -> None:
    with local(3) as inner:
        grid, fake = proxied(inner, expected_nodes=5, join_timeout_s=7.0)
        with pytest.raises(NotEnoughNodes, match=r"3 of the 5 expected nodes came within 7 s; start the missing"):
            grid.get_node_ids()
        assert fake.now_s == pytest.approx(7.0, abs=0.11)


def test_nodes_are_listed_by_partition_whatever_their_ids() -> None:
    configs = [{"partition-id": place} for place in (2, 0, 3, 1)]
    with local(configs, app=answer_properties(echo_app())) as inner:
        grid = GridProxy(inner)
        assert grid.get_node_ids() == [1001, 1003, 1000, 1002]
        assert [grid.properties(node)["partition-id"] for node in grid.get_node_ids()] == [0, 1, 2, 3]


def test_nodes_that_tell_nothing_come_after_the_others_by_id() -> None:
    configs: list[dict[str, Any]] = [{}, {"partition-id": 1}, {"partition-id": True}, {"partition-id": 0}]
    with local(configs, app=answer_properties(echo_app())) as inner:
        assert GridProxy(inner).get_node_ids() == [1003, 1001, 1000, 1002]


def counting_app() -> tuple[ClientApp, list[int]]:
    """An app, and the ids of the nodes that were asked for their properties, in that order."""
    asked: list[int] = []

    def extra(context: Context) -> dict[str, int]:
        asked.append(context.node_id)
        return {"asked": len(asked)}

    return answer_properties(echo_app(), extra), asked


def test_each_node_is_asked_once_and_a_new_one_when_it_appears() -> None:
    app, asked = counting_app()
    with local(3, app=app) as inner:
        inner.disconnect(1002)
        grid = GridProxy(inner)
        for _ in range(3):
            grid.get_node_ids()
        assert asked == [1000, 1001]
        inner.connect(1002)
        assert grid.get_node_ids() == [1000, 1001, 1002]
        assert asked == [1000, 1001, 1002]
        assert grid.counts == Counts()


def test_clients_without_the_query_function_are_listed_with_empty_properties() -> None:
    with local(2) as inner:
        grid = GridProxy(inner)
        assert grid.get_node_ids() == [1000, 1001]
        assert dict(grid.properties(1000)) == {}
        assert grid.counts == Counts()


def test_a_node_that_went_away_during_the_question_is_asked_when_it_comes_back() -> None:
    with local(2, [Fault(1, "drop-out", at=1)], app=answer_properties(echo_app())) as inner:
        grid = GridProxy(inner)
        grid.get_node_ids()
        inner.connect(1001)
        grid.get_node_ids()
        assert grid.properties(1001)["partition-id"] == 1


def test_a_node_silent_to_the_question_holds_the_listing_up_for_the_join_timeout_only() -> None:
    with local(2, [Fault(1, "silent", at=1)], app=answer_properties(echo_app())) as inner:
        grid, fake = proxied(inner, ask_properties=True, join_timeout_s=4.0)
        assert grid.get_node_ids() == [1000, 1001]
        assert fake.now_s == pytest.approx(4.0)
        grid.get_node_ids()
        assert fake.now_s == pytest.approx(4.0)


def test_properties_cannot_be_changed_by_their_reader() -> None:
    with local(1, app=answer_properties(echo_app())) as inner, pytest.raises(TypeError):
        GridProxy(inner).properties(1000)["partition-id"] = 7  # type: ignore[index]


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        (None, "without a ConfigRecord"),
        (MetricRecord({"partition-id": 1}), "without a ConfigRecord"),
        (ConfigRecord({f"k{i}": i for i in range(65)}), "told 65 properties"),
        (ConfigRecord({"k" * 129: 1}), "name of 129 characters"),
        (ConfigRecord({"site": "x" * 1025}), "'site' in 1025 characters"),
        (ConfigRecord({"blob": b"x"}), "'blob' as bytes"),
        (ConfigRecord({"many": [1, 2]}), "'many' as list"),
        (ConfigRecord({"speed": float("nan")}), "'speed' = nan"),
    ],
)
def test_properties_that_are_not_plain_and_small_are_refused_by_name(record: Any, complaint: str) -> None:
    app = ClientApp()

    @app.query("properties")
    def properties(message: Message, context: Context) -> Message:
        content = RecordDict() if record is None else RecordDict({"properties": record})
        return Message(content, reply_to=message)

    with local(1, app=app) as inner:
        (reply,) = inner.send_and_receive([Message(RecordDict(), 1000, "query.properties")])
        with pytest.raises(WireError, match=complaint):
            properties_of(reply)
        grid = GridProxy(inner)
        assert grid.get_node_ids() == [1000]
        assert dict(grid.properties(1000)) == {}


def test_an_error_reply_holds_no_properties() -> None:
    with local(1) as inner:
        (reply,) = inner.send_and_receive([Message(RecordDict(), 1000, "train")])
        error = Message(Error(2, "no"), reply_to=reply)
        with pytest.raises(WireError, match="register answer_properties"):
            properties_of(error)


# -- repeatable sampling and checkpoints -------------------------------------------------------------------------------


def test_the_seed_makes_sampling_repeat_and_is_set_once() -> None:
    def samples(seed: int | None) -> list[list[int]]:
        with local(20) as inner:
            grid, _ = proxied(inner, seed=seed)
            return [random.sample(list(grid.get_node_ids()), 5) for _ in range(3)]

    random.seed(1)
    first = samples(7)
    random.seed(2)
    assert samples(7) == first
    assert first[0] != first[1]
    assert samples(8) != first


def test_without_a_seed_the_global_generator_is_left_alone() -> None:
    with local(3) as inner:
        before = random.getstate()
        proxied(inner)[0].get_node_ids()
        assert random.getstate() == before


def test_a_restored_proxy_goes_on_where_it_was() -> None:
    app, asked = counting_app()
    with local(4, app=app) as inner:
        grid = GridProxy(inner, seed=5)
        random.sample(list(grid.get_node_ids()), 2)
        grid.send_and_receive(training([1000, 1001]))
        state, generator = grid.state_dict(), random.getstate()
        expected = random.sample(list(grid.get_node_ids()), 2)

        resumed = GridProxy(inner, seed=5)
        resumed.load_state_dict(state)
        random.setstate(generator)
        assert random.sample(list(resumed.get_node_ids()), 2) == expected
        assert len(asked) == 4
        assert resumed.counts == grid.counts == Counts(sent=2, answered=2)
        assert resumed.state_dict() == state


# -- arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"poll_s": 0.01}, "poll_s = 0.01"),
        ({"quorum": 0}, "quorum = 0"),
        ({"quorum": 1.5}, "quorum = 1.5"),
        ({"quorum": True}, "quorum = True"),
        ({"deadline_s": 0.0}, "deadline_s = 0.0"),
        ({"resend_after_s": -1.0}, "resend_after_s = -1.0"),
        ({"linger_s": -0.1}, "linger_s = -0.1"),
        ({"drain_s": float("nan")}, "drain_s = nan"),
        ({"expected_nodes": 0}, "expected_nodes = 0"),
        ({"order": "sorted"}, "order = 'sorted'"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(options: dict[str, Any], complaint: str) -> None:
    with local(1) as inner, pytest.raises(ConfigError, match=complaint):
        GridProxy(inner, **options)


def test_a_proxy_around_a_virtual_clock_is_refused_with_the_right_order() -> None:
    with local(1) as inner, pytest.raises(NestingError, match=r"write VirtualClock\(GridProxy\(grid\)"):
        GridProxy(VirtualClock(inner, [Device()], [Link()]))
