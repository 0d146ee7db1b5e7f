"""A `GridProxy` around a `SteppedGrid`: every part of a message's work is handed over, each once, from who did it."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from stepped_writer import once, steps_in, writer, written

from flower_edge.runtime.faults import Fault
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.in_flight import Counts
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import Continue, Decide, Decision, Detach, Progress, Renew, Replace
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.steps.messages import LATE_RECORD


def order(node: int, steps: int = 10) -> Message:
    return Message(RecordDict({**written(8), "config": ConfigRecord({"local-steps": steps})}), node, "train")


def made(
    decide: Decide, to: tuple[int, ...] = (1000,), script: tuple[Fault, ...] = (), **how: Any
) -> tuple[list[tuple[int, list[int], int]], Counts]:
    with LocalGrid(writer(), nodes=3, script=list(script)) as local:
        grid = GridProxy(SteppedGrid(local, 4, decide, poll_s=0.002), poll_s=0.05, ask_properties=False, **how)
        replies = list(grid.send_and_receive([order(node) for node in to], timeout=30))
        parts = [(reply.metadata.src_node_id, *steps_in(reply)) for reply in replies if not reply.has_error()]
        assert list(grid.pull_messages([reply.metadata.reply_to_message_id for reply in replies])) == []
        return parts, grid.counts


@pytest.mark.parametrize("arranged", ["message", "arrival"])
def test_both_parts_of_a_renewed_task_come_and_the_message_counts_once(arranged: Any) -> None:
    parts, counts = made(once(4, Renew(written(2))), (1000, 1001), order=arranged)
    assert sorted(parts) == [
        (1000, [0, 1, 2, 3], 8),
        (1000, [4, 5, 6, 7, 8, 9], 2),
        (1001, list(range(10)), 8),
    ]
    assert counts == Counts(sent=2, answered=2)


def test_both_replies_of_a_replaced_node_come_and_each_names_who_did_it() -> None:
    def decide(progress: Progress) -> Decision:
        return Replace(1001, keep_work=True) if progress.node_id == 1000 else Continue()

    parts, counts = made(decide)
    assert sorted(parts) == [(1000, [0, 1, 2, 3], 8), (1001, list(range(10)), 8)]
    assert counts == Counts(sent=1, answered=1)


def test_who_was_enlisted_comes_too() -> None:
    parts, _ = made(lambda progress: Continue(enlist=(1001, 1002)))
    assert sorted(node for node, _, _ in parts) == [1000, 1001, 1002]


def test_a_quorum_counts_a_renewed_node_only_with_its_last_part() -> None:
    # Node 1000's first part is there before either node has ended: alone it must not end the round.
    parts, _ = made(once(4, Renew(written(2))), (1000, 1001), quorum=1)
    whole = [(node, steps[-1]) for node, steps, _ in parts if steps[-1] == 9]
    assert whole, "a round ended with half of one node's work"


def test_a_second_part_that_never_comes_ends_with_the_time_and_the_first_is_kept() -> None:
    # Flower's count of what came: the first part, and nothing is silent, for the message was answered.
    parts, counts = made(once(4, Renew(written(2))), script=(Fault(node=0, kind="silent", at=3),), deadline_s=1.0)
    assert parts == [(1000, [0, 1, 2, 3], 8)]
    assert counts == Counts(sent=1, answered=1)


def test_a_detached_second_part_is_waited_for_like_any_other() -> None:
    def decide(progress: Progress) -> Decision:
        return Detach() if progress.renewals else Renew(written(2))

    with LocalGrid(writer(), nodes=1) as local:
        grid = GridProxy(SteppedGrid(local, 4, decide, poll_s=0.002), poll_s=0.05, ask_properties=False)
        first, late = grid.send_and_receive([order(1000)], timeout=30)
    assert [steps_in(reply)[0] for reply in (first, late)] == [[0, 1, 2, 3], [4, 5, 6, 7, 8, 9]]
    assert (LATE_RECORD in first.content, LATE_RECORD in late.content) == (False, True)
