"""`Coverage`: the nodes of each cell at each time, what moved, and who takes part."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import toy_app

from flower_edge.coverage import ByFunction, Jumping
from flower_edge.errors import ConfigError
from flower_edge.rounds import Round
from flower_edge.runtime import Device, Link, VirtualClock
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.narrowed_grid import NarrowedGrid
from flower_edge.store.tree import tree_from_bytes, tree_to_bytes
from flower_edge.strategies.coverage.coverage import Coverage

#: Cell of four terminals by time: 1 is handed over at 10 s, 2 leaves at 20 s and is back at 30 s, 3 enters at 10 s.
PATHS = {
    0.0: ["a", "a", "b", None],
    10.0: ["a", "b", "b", "b"],
    20.0: ["a", "b", None, "b"],
    30.0: ["a", "b", "a", "b"],
}


def paths(time_s: float) -> list[str | None]:
    return PATHS[max(at for at in PATHS if at <= time_s)]


def located() -> ByFunction:
    return ByFunction(["a", "b", "empty"], 4, paths)


def clock(local: LocalGrid) -> VirtualClock:
    nodes = len(list(local.get_node_ids()))
    return VirtualClock(local, [Device()] * nodes, [Link()] * nodes)


@pytest.fixture
def grid() -> Iterator[VirtualClock]:
    with LocalGrid(toy_app(), 4) as local:
        yield clock(local)


def test_members_are_those_of_the_time_on_the_virtual_clock_and_empty_cells_are_told(grid: VirtualClock) -> None:
    coverage = Coverage(located())
    assert coverage(grid, Round(1)) == {"a": [1000, 1001], "b": [1002], "empty": []}
    grid.wait_until(10.0)
    assert coverage(grid, Round(1, 1, "a")) == {"a": [1000], "b": [1001, 1002, 1003], "empty": []}
    grid.wait_until(20.0)
    assert [coverage.where(node) for node in range(1000, 1004)] == ["a", "b", None, "b"]
    assert coverage.members() == [1000, 1001, 1003]
    assert coverage.joined("b") == []  # no training round of that cell has begun
    coverage(grid, Round(1, 2, "a"))
    grid.wait_until(30.0)
    assert coverage.joined("a") == [1002]
    assert not coverage.joined("empty")


def test_only_what_changed_is_told_and_each_change_once(grid: VirtualClock) -> None:
    coverage = Coverage(located())
    for at_s in (0.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0):
        grid.wait_until(at_s)
        coverage(grid, Round(1, int(at_s)))
    told = [(event.what, event.node, event.cell, event.time_s) for event in coverage.events()]
    assert told == [
        ("found", "", "", 0.0),
        ("handed-over", "1", "b", 10.0),
        ("entered", "3", "b", 10.0),
        ("left", "2", "b", 20.0),
        ("entered", "2", "a", 30.0),
    ]
    assert coverage.events() == []
    (moved,) = coverage.handed_over()
    assert (moved.terminal, moved.node_id, moved.source, moved.target, moved.idle) == ("1", 1001, "a", "b", True)
    assert coverage.handed_over() == []


def test_without_handover_a_terminal_leaves_one_edge_and_enters_another_and_nothing_is_passed_on(
    grid: VirtualClock,
) -> None:
    coverage = Coverage(located(), handover=False)
    coverage(grid, Round(1))
    grid.wait_until(10.0)
    coverage(grid, Round(1, 2))
    told = [(event.what, event.node, event.cell) for event in coverage.events()[1:]]
    assert told == [("left", "1", "a"), ("entered", "1", "b"), ("entered", "3", "b")]
    assert coverage.handed_over() == []


def test_the_mapping_is_the_same_object_while_nothing_moves(grid: VirtualClock) -> None:
    coverage = Coverage(located())
    first = coverage(grid, Round(1))
    grid.wait_until(5.0)
    assert coverage(grid, Round(1, 2)) is first
    grid.wait_until(10.0)
    assert coverage(grid, Round(1, 3)) is not first


def test_it_sees_the_whole_grid_from_inside_a_cell(grid: VirtualClock) -> None:
    assert Coverage(located())(NarrowedGrid(grid, [1000]), Round(1, 1, "a"))["b"] == [1002]


def test_a_terminal_that_drops_off_the_grid_has_left_and_enters_when_it_is_back() -> None:
    with LocalGrid(toy_app(), 4) as local:
        coverage = Coverage(located(), round_s=1.0)
        coverage(local, Round(1))
        local.disconnect(1000)
        assert coverage(local, Round(2))["a"] == [1001]
        local.connect(1000)
        assert coverage(local, Round(3))["a"] == [1000, 1001]
    assert [(event.what, event.node) for event in coverage.events()[1:]] == [("left", "0"), ("entered", "0")]


def test_without_a_clock_the_edge_rounds_are_the_time_and_every_edge_is_shown_the_same() -> None:
    coverage = Coverage(located(), round_s=10.0)
    with LocalGrid(toy_app(), 4) as local:
        seen = [coverage(local, Round(1, 0)), coverage(local, Round(1, 1, "a")), coverage(local, Round(1, 2, "a"))]
        assert seen[0] is seen[1]
        assert seen[2]["a"] == [1000]
        # The second edge has its turn after the first has finished, and is at the first edge round again.
        assert coverage(local, Round(1, 1, "b")) is seen[0]
        assert coverage.where(1001) == "a"
        assert coverage(local, Round(1, 2, "b")) is seen[2]
        assert coverage(local, Round(2))["b"] == [1001, 1003]
        assert coverage(local, Round(2, 1, "a", "evaluate"))["b"] == [1001, 1003]
    assert [event.time_s for event in coverage.events()] == [0.0, 10.0, 10.0, 20.0]


def test_without_a_clock_and_without_round_s_the_error_says_both() -> None:
    with (
        LocalGrid(toy_app(), 4) as local,
        pytest.raises(ConfigError, match=r"VirtualClock .* Coverage\(located, round_s"),
    ):
        Coverage(located())(local, Round(1))


def test_real_time_tells_who_leaves_within_a_round_and_goes_on_after_a_checkpoint() -> None:
    shown_s = 100.0
    coverage = Coverage(located(), clock=lambda: shown_s)
    with LocalGrid(toy_app(), 4) as local:
        assert coverage(local, Round(1))["a"] == [1000, 1001]
        shown_s += 10.0
        assert (coverage.where(1001), coverage.time_s) == ("b", 10.0)
        saved = tree_from_bytes(tree_to_bytes(coverage.state_dict()))
        shown_s = 7.0  # another process, another clock
        resumed = Coverage(located(), clock=lambda: shown_s)
        resumed.load_state_dict(saved)
        resumed(local, Round(2))
        assert (resumed.where(1002), resumed.time_s) == ("b", 10.0)
        shown_s += 10.0
        assert (resumed.where(1002), resumed.time_s) == (None, 20.0)
        coverage.begin()
        coverage(local, Round(1))
        assert coverage.time_s == 0.0


def test_a_virtual_clock_comes_before_real_time(grid: VirtualClock) -> None:
    coverage = Coverage(located(), clock=time.monotonic)
    grid.wait_until(10.0)
    coverage(grid, Round(1))
    assert coverage.time_s == 10.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"join": "always"}, "join = 'always'"),
        ({"round_s": 0.0}, "round_s = 0.0"),
        ({"look_every_s": -1.0}, "look_every_s = -1.0"),
        ({"ask_again_s": math.nan}, "ask_again_s = nan"),
        ({"clock": time.monotonic, "round_s": 1.0}, "one of the two"),
        ({"clock": 3.0}, "clock = 3.0"),
    ],
)
def test_what_cannot_be_used_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Coverage(located(), **options)


def test_asked_before_a_round_it_says_where_it_belongs() -> None:
    with pytest.raises(ConfigError, match=r"Hierarchical\(cells=coverage\)"):
        Coverage(located()).where(1000)


def test_a_second_run_on_another_grid_begins_anew() -> None:
    coverage = Coverage(located(), round_s=10.0)
    for _ in range(2):
        with LocalGrid(toy_app(), 4) as local:
            assert coverage(local, Round(1))["a"] == [1000, 1001]
            assert [event.what for event in coverage.events()] == ["found"]
            coverage(local, Round(2))


@given(st.integers(0, 50), st.floats(0.0, 1.0), st.lists(st.floats(0.0, 200.0), min_size=2, max_size=6))
@settings(max_examples=25)
def test_every_terminal_is_in_exactly_one_cell_and_the_told_moves_lead_there(
    seed: int, share: float, times_s: list[float]
) -> None:
    world = Jumping(["x", "y", "z"], 12, share, 40.0, seed)
    coverage = Coverage(world)
    with LocalGrid(toy_app(), 12) as local:
        grid = clock(local)
        where = dict(enumerate(world.where(0.0).tolist()))
        coverage(grid, Round(1))
        for number, at_s in enumerate(sorted(times_s), 2):
            grid.wait_until(at_s)
            members = coverage(grid, Round(number))
            assert sorted(node for cell in members.values() for node in cell) == list(range(1000, 1012))
            for moved in coverage.handed_over():
                assert world.cells[where[int(moved.terminal)]] == moved.source
                where[int(moved.terminal)] = world.cells.index(moved.target)
            assert [world.cells[where[i]] for i in range(12)] == [coverage.where(1000 + i) for i in range(12)]


def test_a_look_is_good_for_as_long_as_was_said_within_a_round(grid: VirtualClock) -> None:
    coverage = Coverage(located(), look_every_s=3.0)
    grid.wait_until(9.0)
    coverage(grid, Round(1))
    seen = []
    for at_s in (11.0, 12.0, 12.5):
        grid.wait_until(at_s)
        seen.append(coverage.where(1001))
    assert seen == ["a", "a", "b"]
    grid.wait_until(20.0)
    coverage(grid, Round(2))  # a round always begins with a look
    grid.wait_until(22.0)
    assert (coverage.time_s, coverage.where(1002)) == (20.0, None)


def test_edges_that_begin_rounds_at_times_of_their_own_share_a_look(grid: VirtualClock) -> None:
    """Sixty edges begin edge round 1 or 2 at a time of their own; each of the two numbers is begun once."""
    names, looks = [f"edge-{i}" for i in range(60)], []

    def where(time_s: float) -> list[str | None]:
        looks.append(time_s)
        return ["edge-0"] * 4

    for every_s, wanted in ((30.0, 3), (0.0, 61)):
        looks.clear()
        coverage = Coverage(ByFunction(names, 4, where), look_every_s=every_s)
        begun_s = grid.now_s
        coverage(grid, Round(1))
        for i, name in enumerate(names):
            grid.wait_until(begun_s + 0.05 * (i + 1))
            coverage(grid, Round(1, 1 + i % 2, name))
        assert len(looks) <= wanted
    assert len(looks) == 61


def test_a_handover_tells_what_was_credited_in_this_cycle_and_the_work_it_carries(grid: VirtualClock) -> None:
    coverage = Coverage(located())
    for cloud, credited in ((1, 40.0), (2, 0.0)):
        coverage.begin()
        coverage(grid, Round(1, 1, "a"))
        coverage.work.credited(1, "a", 1, 40.0)
        coverage(grid, Round(cloud, 2, "a"))
        coverage.work.moved(1, 1001, "a", "b", 10.0)
        coverage.work.carries(1, 1001, "b", 10.0, job="a/7", base_version=7, step=3, steps_total=8)
        (moved,) = coverage.handed_over()
        assert (moved.credited, moved.job, moved.step) == (credited, "a/7", 3)
        # Fetched before the work was known: it is told once more, with the work.
        coverage.work.carries(1, 1001, "b", 12.0, job="a/7", base_version=7, step=5, steps_total=8)
        (again,) = coverage.handed_over()
        assert (again.source, again.target, again.step) == ("a", "b", 5)


# -- the three ways to take part -------------------------------------------------------------------------------------


def answering(answer: Callable[[int, float], dict[str, Any]], asked: list[tuple[int, float]]) -> ClientApp:
    app = ClientApp()

    @app.query("available")
    def available(message: Message, context: Context) -> Message:
        node, now_s = int(context.node_config["partition-id"]), float(message.content["request"]["now-s"])  # type: ignore[arg-type,index,call-overload]
        asked.append((node, now_s))
        return Message(RecordDict({"available": ConfigRecord(answer(node, now_s))}), reply_to=message)

    return app


@pytest.mark.parametrize("nodes", [4])
def test_asked_terminals_are_members_if_they_say_so_and_are_asked_again_in_a_new_cell_or_after_a_while(
    nodes: int,
) -> None:
    asked: list[tuple[int, float]] = []
    app = answering(lambda node, now_s: {"available": node != 0 or now_s >= 15, "requests": False}, asked)
    with LocalGrid(app, nodes) as local:
        grid = clock(local)
        coverage = Coverage(located(), join="ask", ask_again_s=14.0)
        assert coverage(grid, Round(1)) == {"a": [1001], "b": [1002], "empty": []}
        assert coverage(grid, Round(1, 1, "a")) == {"a": [1001], "b": [1002], "empty": []}
        assert sorted(asked) == [(0, 0.0), (1, 0.0), (2, 0.0)]
        grid.wait_until(10.0)
        assert coverage(grid, Round(1, 2, "a")) == {"a": [], "b": [1001, 1002, 1003], "empty": []}
        assert sorted(asked[3:]) == [(1, 10.0), (3, 10.0)]
        grid.wait_until(15.0)
        assert coverage(grid, Round(1, 3, "a"))["a"] == [1000]
        assert sorted(asked[5:]) == [(0, 15.0), (2, 15.0)]
    told = [(event.what, event.node) for event in coverage.events() if event.what in ("joined", "declined")]
    assert sorted(told[:3]) == [("declined", "0"), ("joined", "1"), ("joined", "2")]
    assert sorted(told[3:]) == [("joined", "0"), ("joined", "1"), ("joined", "3")]


def test_by_request_only_those_with_a_standing_request_take_part() -> None:
    app = answering(lambda node, now_s: {"available": True, "requests": node == 1}, [])
    with LocalGrid(app, 4) as local:
        assert Coverage(located(), join="request", round_s=1.0)(local, Round(1)) == {"a": [1001], "b": [], "empty": []}


def test_a_terminal_that_cannot_answer_takes_no_part_and_nothing_is_raised() -> None:
    with LocalGrid(ClientApp(), 4) as local:
        coverage = Coverage(located(), join="ask", round_s=1.0)
        assert coverage(local, Round(1))["a"] == []
        assert "did not answer" in next(event for event in coverage.events() if event.what == "declined").text


def test_automatic_joining_sends_nothing() -> None:
    asked: list[tuple[int, float]] = []
    with LocalGrid(answering(lambda node, now_s: {"available": False}, asked), 4) as local:
        assert Coverage(located(), round_s=1.0)(local, Round(1))["a"] == [1000, 1001]
    assert asked == []


def test_who_moves_while_its_answer_is_under_way_is_asked_again_at_its_new_edge() -> None:
    asked: list[tuple[int, float]] = []
    with LocalGrid(answering(lambda node, now_s: {"available": True}, asked), 4) as local:
        grid = VirtualClock(local, [Device()] * 4, [Link(latency_s=6.0)] * 4)
        coverage = Coverage(located(), join="ask")
        # Asked at 0 s in cell a, the answer is there at 12 s, and terminal 1 is in cell b since 10 s.
        assert coverage(grid, Round(1)) == {"a": [1000], "b": [1002], "empty": []}
        assert coverage(grid, Round(2)) == {"a": [1000], "b": [1001, 1003], "empty": []}
    assert [now_s for node, now_s in asked if node == 1] == [0.0, 12.0]


# -- checkpoints -----------------------------------------------------------------------------------------------------


def test_state_through_a_file_goes_on_exactly_where_it_was(grid: VirtualClock) -> None:
    asked: list[tuple[int, float]] = []
    app = answering(lambda node, now_s: {"available": node != 0}, asked)
    with LocalGrid(app, 4) as local:
        watch = clock(local)
        whole = Coverage(located(), join="ask")
        whole(watch, Round(1))
        watch.wait_until(10.0)
        whole(watch, Round(1, 2, "a"))
        whole.detached(1002, "b", 2)
        saved = tree_from_bytes(tree_to_bytes(whole.state_dict()))
        resumed = Coverage(located(), join="ask")
        resumed.load_state_dict(saved)
        asked.clear()
        watch.wait_until(20.0)
        for coverage in (whole, resumed):
            assert coverage(watch, Round(1, 3, "a")) == {"a": [], "b": [1001, 1003], "empty": []}
            assert [moved.terminal for moved in coverage.handed_over()] == ["1"]
            assert coverage.work.to_come("b") == {2}
        assert asked == []
        assert [event.to_json() for event in resumed.events()] == [event.to_json() for event in whole.events()]


def test_state_of_other_terminals_is_refused() -> None:
    coverage = Coverage(located(), round_s=1.0)
    with LocalGrid(toy_app(), 4) as local:
        coverage(local, Round(1))
    with pytest.raises(ConfigError, match="state of 4 terminals for a coverage of 9"):
        Coverage(Jumping(["x", "y"], 9, 0.1, 10.0, 0)).load_state_dict(coverage.state_dict())


def test_looking_at_a_hundred_thousand_terminals_takes_a_fraction_of_a_second() -> None:
    nodes = 100_000
    coverage = Coverage(Jumping([f"edge-{i}" for i in range(1000)], nodes, 0.3, 60.0, 1), round_s=60.0)
    with LocalGrid(ClientApp(), nodes) as local:
        coverage(local, Round(1))
        begun_s = time.process_time()
        members = coverage(local, Round(2))
        took_s = time.process_time() - begun_s
    assert sum(map(len, members.values())) == nodes
    assert len(coverage.handed_over()) > 0.25 * nodes
    assert took_s < 1.0, "0.3 s measured"
