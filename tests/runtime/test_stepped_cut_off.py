"""An exchange that ends early, how long nodes took, and exchanges that are open side by side."""

from __future__ import annotations

import pytest
from flwr.app import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from stepped_learner import Counting, alone, learner, model_of, order_to

from flower_edge.errors import ConfigError, ProtocolError
from flower_edge.rounds import Round
from flower_edge.runtime.abilities import cutting_off, last_duration_s
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import Continue, Decision, Progress, Replace
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.wrapped_grid import announce


def clocked(local: LocalGrid, *step_s: float) -> VirtualClock:
    return VirtualClock(local, [Device(step_s=s) for s in step_s], [Link()] * len(step_s))


# -- cut-off ---------------------------------------------------------------------------------------------------------


def test_an_exchange_ends_with_the_counted_reply_and_what_the_others_did_is_lost() -> None:
    with LocalGrid(learner(), nodes=3) as local:
        clock = clocked(local, 1.0, 3.0, 2.0)
        grid = SteppedGrid(clock, 4)
        with cutting_off(grid, 2):
            replies = list(grid.send_and_receive([order_to(node) for node in (1000, 1001, 1002)], timeout=30))
        assert [model_of(reply) for reply in replies] == [model_of(alone(10)), model_of(alone(10, node=1002))]
        assert clock.now_s == pytest.approx(20.0)
        assert (grid.events[-1].node_id, grid.events[-1].outcome) == (1001, "lost: 2 replies were enough")
        # Its slice in flight ends at 24 s; only then it begins anew.
        (again,) = grid.send_and_receive([order_to(1001)], timeout=30)
        assert model_of(again) == model_of(alone(10, node=1001))
        assert clock.now_s == pytest.approx(24.0 + 30.0)


def test_nothing_goes_on_with_a_task_that_was_cut_off() -> None:
    told: list[tuple[int, int, int]] = []

    def watch(progress: Progress) -> Continue:
        told.append((progress.round, progress.node_id, progress.steps_done))
        return Continue()

    with LocalGrid(learner(), nodes=2) as local:
        counting = Counting(clocked(local, 1.0, 5.0))
        grid = SteppedGrid(counting, 4, watch)
        with grid.cut_off_at(1):
            list(grid.send_and_receive([order_to(node, **{"server-round": 1}) for node in (1000, 1001)]))
        for number in range(2, 8):
            list(grid.send_and_receive([order_to(1000, **{"server-round": number})]))
    assert counting.steps(1001) == [(0, 4)], "its only answer came at 20 s, after the end of its task"
    assert {(number, node) for number, node, _ in told if node == 1001} == set()
    assert [event.outcome for event in grid.events if event.node_id == 1001] == ["lost: 1 reply was enough"]


def test_no_reply_to_a_task_that_was_cut_off_is_kept_for_anybody() -> None:
    with LocalGrid(learner(), nodes=2) as local:
        clock = clocked(local, 1.0, 1.05)
        grid = SteppedGrid(clock, 4)
        messages = [order_to(1000), order_to(1001)]
        with grid.cut_off_at(1):
            assert len(list(grid.send_and_receive(messages))) == 1
        clock.wait_until(100.0)  # the slice in flight was the last one: its answer is a whole task's
        assert list(grid.pull_messages([messages[1].metadata.message_id])) == []
        assert grid.last_duration_s(1001) == pytest.approx(10.5)


def test_outside_the_block_all_replies_are_waited_for() -> None:
    with LocalGrid(learner(), nodes=2) as local:
        grid = SteppedGrid(clocked(local, 1.0, 3.0), 4)
        with grid.cut_off_at(1):
            assert len(list(grid.send_and_receive([order_to(1000), order_to(1001)]))) == 1
        assert len(list(grid.send_and_receive([order_to(1000), order_to(1001)]))) == 2


def test_errors_are_no_usable_replies() -> None:
    with LocalGrid(learner(), nodes=3, script=[Fault(node=0, kind="raise", at=1)]) as local:
        grid = SteppedGrid(clocked(local, 1.0, 2.0, 3.0), 4)
        with grid.cut_off_at(1):
            replies = list(grid.send_and_receive([order_to(node) for node in (1000, 1001, 1002)]))
    assert [reply.has_error() for reply in replies] == [True, False]
    assert grid.events[-1].outcome == "lost: 1 reply was enough"


def test_messages_in_one_piece_are_cut_off_by_the_clock_inside() -> None:
    with LocalGrid(learner(), nodes=3) as local:
        clock = clocked(local, 1.0, 3.0, 2.0)
        with cutting_off(grid := SteppedGrid(clock, 20), 2):
            replies = list(grid.send_and_receive([order_to(node) for node in (1000, 1001, 1002)]))
    assert [reply.metadata.src_node_id for reply in replies] == [1000, 1002]
    assert (clock.now_s, clock.late) == (20.0, 1)


def test_a_cut_off_below_one_reply_is_refused() -> None:
    with LocalGrid(learner(), nodes=1) as local:
        grid = SteppedGrid(local, 4)
        with pytest.raises(ConfigError, match="expected 1 or more replies"), grid.cut_off_at(0):
            raise AssertionError("the block began")


def test_a_cut_off_lane_leaves_its_neighbour_alone() -> None:
    with LocalGrid(learner(), nodes=4) as local:
        clock = clocked(local, 1.0, 3.0, 1.0, 3.0)
        grid = SteppedGrid(clock, 4)

        def hasty() -> tuple[int, float]:
            with cutting_off(grid, 1):
                return len(list(grid.send_and_receive([order_to(1000), order_to(1001)]))), clock.now_s

        def patient() -> tuple[int, float]:
            return len(list(grid.send_and_receive([order_to(1002), order_to(1003)]))), clock.now_s

        assert clock.side_by_side([hasty, patient]) == [(1, 10.0), (2, 30.0)]


# -- how long a node took --------------------------------------------------------------------------------------------


def test_a_nodes_duration_is_that_of_its_whole_task() -> None:
    with LocalGrid(learner(), nodes=2) as local:
        clock = clocked(local, 1.0, 3.0)
        grid = SteppedGrid(clock, 4)
        assert grid.last_duration_s(1000) is None
        list(grid.send_and_receive([order_to(1000), order_to(1001)]))
        assert [last_duration_s(grid, node) for node in (1000, 1001)] == pytest.approx([10.0, 30.0])
        list(grid.send_and_receive([order_to(1000, 2)]))
        assert grid.last_duration_s(1000) is None
        assert last_duration_s(grid, 1000) == pytest.approx(2.0), "the clock inside knows of messages in one piece"


def test_of_a_task_that_was_cut_off_the_duration_is_what_it_would_have_been_at_its_pace() -> None:
    with LocalGrid(learner(), nodes=2) as local:
        grid = SteppedGrid(clocked(local, 1.0, 2.0), 4)
        with grid.cut_off_at(1):
            list(grid.send_and_receive([order_to(1000), order_to(1001)]))
        assert grid.last_duration_s(1001) == pytest.approx(20.0), "four of ten steps in 8 s"


def test_before_its_first_step_a_task_that_was_cut_off_would_have_taken_the_time_it_had_or_what_was_known() -> None:
    with LocalGrid(learner(), nodes=3) as local:
        grid = SteppedGrid(clocked(local, 1.0, 4.0, 9.0), 4)
        list(grid.send_and_receive([order_to(1001)]))
        with grid.cut_off_at(1):
            list(grid.send_and_receive([order_to(1000), order_to(1001), order_to(1002)]))
        assert [grid.last_duration_s(node) for node in (1000, 1001, 1002)] == pytest.approx([10.0, 40.0, 10.0])
        again = SteppedGrid(clocked(local, 1.0, 4.0, 9.0), 4)
        again.load_state_dict(grid.state_dict())
        assert again.last_duration_s(1002) == pytest.approx(10.0)


def test_a_task_that_never_began_tells_nothing_of_its_nodes_duration() -> None:
    with LocalGrid(learner(), nodes=1, script=[Fault(node=0, kind="silent", at=1)]) as local:
        grid = SteppedGrid(clocked(local, 1.0), 4)
        first, second = order_to(1000), order_to(1000)
        list(grid.push_messages([first]))
        assert list(grid.send_and_receive([second])) == []
        assert grid.last_duration_s(1000) is None


# -- lanes -----------------------------------------------------------------------------------------------------------

Edge = tuple[list[float], int, int]
EDGES = st.lists(
    st.tuples(
        st.lists(st.sampled_from([0.5, 1.0, 1.5, 4.0]), min_size=1, max_size=3), st.integers(1, 9), st.integers(1, 3)
    ),
    min_size=2,
    max_size=3,
)


def edge_runs(grid: SteppedGrid, clock: VirtualClock, cell: str, nodes: list[int], steps: int, rounds: int) -> object:
    """What an edge sees of its own rounds, and when."""
    told: list[tuple[float, list[tuple[int, bytes]]]] = []
    for number in range(1, rounds + 1):
        announce(grid, Round(1, number, cell))
        messages = [order_to(node, steps, **{"server-round": number}) for node in nodes]
        replies = list(grid.send_and_receive(messages, timeout=30))
        told.append((round(clock.now_s, 9), [(r.metadata.src_node_id, model_of(r)) for r in replies]))
    return told


@settings(max_examples=25, deadline=None)
@given(EDGES)
def test_edges_side_by_side_on_one_grid_see_what_each_would_see_alone(edges: list[Edge]) -> None:
    speeds = [step_s for step_s_of, _, _ in edges for step_s in step_s_of]
    nodes = iter(range(1000, 1000 + len(speeds)))
    jobs = [(f"edge-{at}", [next(nodes) for _ in own], steps, rounds) for at, (own, steps, rounds) in enumerate(edges)]
    seen: set[tuple[str, int]] = set()

    def watch(progress: Progress) -> Continue:
        seen.add((progress.cell, progress.node_id))
        assert progress.asked == {node for cell, own, _, _ in jobs for node in own if cell == progress.cell}
        return Continue()

    with LocalGrid(learner(), nodes=len(speeds)) as local:
        clock = clocked(local, *speeds)
        grid = SteppedGrid(clock, 2, watch)
        together = clock.side_by_side([lambda job=job: edge_runs(grid, clock, *job) for job in jobs])
    by_itself = []
    for job in jobs:
        with LocalGrid(learner(), nodes=len(speeds)) as local:
            own_clock = clocked(local, *speeds)
            by_itself.append(edge_runs(SteppedGrid(own_clock, 2), own_clock, *job))
    assert together == by_itself
    assert seen == {(cell, node) for cell, own, steps, _ in jobs for node in own if steps > 2}


def test_a_node_wanted_by_two_edges_works_for_one_after_the_other() -> None:
    def swap(progress: Progress) -> Decision:
        return Replace(1001) if (progress.cell, progress.node_id) == ("a", 1000) else Continue()

    with LocalGrid(learner(), nodes=2) as local:
        clock = clocked(local, 1.0, 1.0)
        grid = SteppedGrid(clock, 4, swap)

        def edge(cell: str, node: int) -> tuple[list[int], float]:
            announce(grid, Round(1, 1, cell))
            replies: list[Message] = list(grid.send_and_receive([order_to(node)], timeout=30))
            return [reply.metadata.src_node_id for reply in replies], clock.now_s

        told = clock.side_by_side([lambda: edge("a", 1000), lambda: edge("b", 1001)])
    assert told == [([1001], 20.0), ([1001], 10.0)]


def test_a_broken_policy_ends_the_exchanges_it_broke_and_leaves_no_task_behind() -> None:
    def broken(progress: Progress) -> Decision:
        if progress.round == 1 and progress.node_id == 1000:
            raise ZeroDivisionError("policy")
        return Continue()

    with LocalGrid(learner(), nodes=2) as local:
        clock = clocked(local, 1.0, 1.0)
        grid = SteppedGrid(clock, 4, broken)
        first = [order_to(node, **{"server-round": 1}) for node in (1000, 1001)]
        with pytest.raises(ZeroDivisionError):
            grid.send_and_receive(first)
        assert [event.outcome for event in grid.events[-2:]] == ["lost: its exchange was given up"] * 2
        second = [order_to(node, **{"server-round": 2}) for node in (1000, 1001)]
        replies = list(grid.send_and_receive(second))
    assert [model_of(r) for r in replies] == [
        model_of(alone(10, node=node, **{"server-round": 2})) for node in (1000, 1001)
    ]


def test_a_client_without_the_mod_breaks_its_own_edge_and_no_time_is_waited_for_ever() -> None:
    with LocalGrid(learner(mods=[]), nodes=2) as local:
        clock = clocked(local, 1.0, 2.0)
        grid = SteppedGrid(clock, 4)
        jobs = [lambda node=node: list(grid.send_and_receive([order_to(node)])) for node in (1000, 1001)]
        with pytest.raises(ProtocolError, match=r"ClientApp\(mods=\[step_mod\]\)"):
            clock.side_by_side(jobs)
    assert clock.now_s == pytest.approx(8.0)
