"""LocalGrid when things go wrong: faults, deadlines, nodes that come and go, clients that answer nonsense."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from local_grid_apps import (
    ask,
    counting_app,
    deadly_app,
    numbers,
    overlap_app,
    raising_app,
    untravelling_app,
)

from flower_edge.errors import ConfigError
from flower_edge.runtime.faults import Fault, FaultScript
from flower_edge.runtime.local_grid import LocalGrid

FIRST = LocalGrid.FIRST_NODE_ID
POOLS = ("sequential", "threads", "processes")


def outcome(reply: Message) -> tuple[int, int | None]:
    """Place of the node, and the error code if there is one."""
    return reply.metadata.src_node_id - FIRST, reply.error.code if reply.has_error() else None


# -- scripted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["sequential", "threads"])
def test_a_scripted_error_comes_at_its_message_with_its_reason_and_the_client_is_not_called(pool: Any) -> None:
    with LocalGrid(counting_app, 2, pool=pool, script=[Fault(1, "raise", at=2, reason="disk full")]) as grid:
        assert [outcome(reply) for reply in ask(grid)] == [(0, None), (1, None)]
        second = ask(grid)
        assert [outcome(reply) for reply in second] == [(0, None), (1, 2)]
        assert second[1].error.reason == "disk full"
        assert numbers(ask(grid), "count") == [3, 2]


def test_a_silent_node_is_not_waited_for_and_never_answers() -> None:
    with LocalGrid(counting_app, 2, script=[Fault(0, "silent")]) as grid:
        # Without a deadline: a grid that waited would wait for ever.
        assert [outcome(reply) for reply in ask(grid)] == [(1, None)]
        ids = list(grid.push_messages([Message(RecordDict(), FIRST, "query")]))
        assert list(grid.pull_messages(ids)) == []


def test_a_late_reply_is_waited_for_unless_the_deadline_comes_first_and_is_then_dropped() -> None:
    script = [Fault(0, "late", delay_s=0.5)]
    with LocalGrid(counting_app, 2, script=script) as grid:
        started_s = time.monotonic()
        assert [outcome(reply) for reply in ask(grid)] == [(0, None), (1, None)]
        assert time.monotonic() - started_s >= 0.5

        messages = [Message(RecordDict(), node, "query") for node in grid.get_node_ids()]
        replies = list(grid.send_and_receive(messages, timeout=0.05))
        assert [outcome(reply) for reply in replies] == [(1, None)]
        time.sleep(0.55)
        assert list(grid.pull_messages([message.metadata.message_id for message in messages])) == []

        ids = list(grid.push_messages([Message(RecordDict(), FIRST, "query")]))
        assert list(grid.pull_messages(ids)) == []
        time.sleep(0.55)
        late = list(grid.pull_messages(ids))
        assert numbers(late, "count") == [3], "the dropped one was handled all the same"


def test_a_node_that_drops_out_answers_as_flower_says_and_comes_back_with_its_memory() -> None:
    with LocalGrid(counting_app, 2, script=[Fault(0, "drop-out", at=2)]) as grid:
        ask(grid)
        dropped, _ = ask(grid)
        assert outcome(dropped) == (0, 5)
        assert list(grid.get_node_ids()) == [FIRST + 1]
        (still_gone,) = grid.send_and_receive([Message(RecordDict(), FIRST, "query")])
        assert outcome(still_gone) == (0, 5)
        grid.connect(FIRST)
        assert list(grid.get_node_ids()) == [FIRST, FIRST + 1]
        assert numbers(ask(grid), "count") == [2, 3]


def test_disconnecting_hides_a_node_and_connecting_shows_it_in_its_old_place() -> None:
    with LocalGrid(counting_app, 3) as grid:
        grid.disconnect(FIRST + 1)
        assert list(grid.get_node_ids()) == [FIRST, FIRST + 2]
        grid.connect(FIRST + 1)
        assert list(grid.get_node_ids()) == [FIRST, FIRST + 1, FIRST + 2]


def test_a_message_to_a_node_nobody_knows_is_taken_and_answered_with_error_5() -> None:
    with LocalGrid(counting_app, 1) as grid:
        stranger, known = grid.send_and_receive(
            [Message(RecordDict(), 424242, "query"), Message(RecordDict(), FIRST, "query")]
        )
    assert stranger.error.code == 5
    assert stranger.metadata.src_node_id == 424242
    assert not known.has_error()


def test_the_first_fault_that_matches_is_the_one_that_happens() -> None:
    script = FaultScript.of([Fault(0, "silent", at=2), Fault(0, "raise")])
    assert [fault and fault.kind for fault in (script.at(0, 1), script.at(0, 2), script.at(1, 1))] == [
        "raise",
        "silent",
        None,
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "explode"}, "'explode'"),
        ({"kind": "raise", "at": 0}, "at = 0: .* from 1"),
        ({"kind": "late"}, "delay_s = 0.0"),
        ({"kind": "late", "delay_s": float("nan")}, "delay_s = nan"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Fault(0, **arguments)


# -- real ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", POOLS)
def test_a_client_that_raises_gives_an_error_reply_with_its_reason_and_the_others_answer(pool: Any) -> None:
    with LocalGrid(raising_app, 3, pool=pool) as grid:
        replies = ask(grid)
    assert [outcome(reply) for reply in replies] == [(0, None), (1, 2), (2, None)]
    assert replies[1].error.reason == "OSError: disk full"


def test_a_worker_process_that_dies_gives_error_replies_and_the_grid_can_still_be_used() -> None:
    with LocalGrid(deadly_app, 2, pool="processes", workers=1) as grid:
        twice = ask(grid, times=2)
        assert [outcome(reply) for reply in twice[::2]] == [(0, 2), (0, 2)]
        assert "BrokenProcessPool" in str(twice[0].error.reason)
        alive = list(grid.send_and_receive([Message(RecordDict(), FIRST + 1, "query")]))
        assert [outcome(reply) for reply in alive] == [(1, None)]


@pytest.mark.parametrize("pool", POOLS)
def test_a_reply_or_a_state_that_cannot_travel_is_caught_only_where_everything_is_serialised(pool: Any) -> None:
    with LocalGrid(untravelling_app, 4, pool=pool, serialise=True) as grid:
        replies = ask(grid)
        assert [outcome(reply) for reply in replies] == [(0, None), (1, 2), (2, 2), (3, None)]
        assert all("does not travel" in str(reply.error.reason) for reply in replies[1:3])
    with LocalGrid(untravelling_app, 4) as grid:
        assert not any(reply.has_error() for reply in ask(grid))


def test_a_message_that_cannot_travel_raises_at_its_sender_where_everything_is_serialised() -> None:
    from flwr.app import ConfigRecord

    content = RecordDict({"config": ConfigRecord({"n": 2**70})})
    with LocalGrid(counting_app, 1, serialise=True) as grid, pytest.raises(ValueError, match="out of range"):
        ask(grid, content=content)
    with LocalGrid(counting_app, 1) as grid:
        assert numbers(ask(grid, content=content), "count") == [1]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda message: None, "returned NoneType"),
        (lambda message: {"loss": 1.0}, "returned dict"),
        (lambda message: message, "not a reply"),
        (lambda message: Message(RecordDict(), FIRST, "query"), "not a reply"),
    ],
    ids=["nothing", "a dict", "the message itself", "a message of its own"],
)
def test_a_client_that_answers_nonsense_gives_an_error_reply_that_says_what_came(answer: Any, words: str) -> None:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        reply: Message = answer(message)
        return reply

    with LocalGrid(app, 1) as grid:
        (reply,) = ask(grid)
    assert outcome(reply) == (0, 2)
    assert words in str(reply.error.reason)


def test_a_message_type_without_a_function_is_answered_by_flowers_own_error() -> None:
    with LocalGrid(counting_app, 1) as grid:
        (reply,) = ask(grid, "train")
    assert outcome(reply) == (0, 2)
    assert "No train function" in str(reply.error.reason)


def test_closing_ends_what_runs_and_drops_what_waits() -> None:
    grid = LocalGrid(overlap_app(), 1, pool="threads")
    from flwr.app import ConfigRecord

    contents = [RecordDict({"config": ConfigRecord({"step": step})}) for step in range(50)]
    ids = list(grid.push_messages([Message(content, FIRST, "query") for content in contents]))
    first: list[Message] = []
    while not first:
        first = list(grid.pull_messages(ids[:1]))
        time.sleep(0.001)
    grid.close()
    handled = grid.context_of(FIRST).state.config_records["steps"]["list"]
    assert isinstance(handled, list)
    assert 0 < len(handled) < 50
    assert 1 + len(list(grid.pull_messages(ids))) == len(handled)
