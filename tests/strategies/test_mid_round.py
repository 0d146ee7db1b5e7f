"""`MidRound`: what becomes of a terminal, and of its work, that leaves, lags, fails or comes within a round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from travellers import alone, app, clock, order, train_round, world

from flower_edge.coverage import ByFunction
from flower_edge.errors import ConfigError
from flower_edge.events import Event
from flower_edge.rules import Rule
from flower_edge.runtime import Change, Continue, Replace, SteppedGrid, Stop
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.stepped_decisions import Decision, Detach, Drop, Progress
from flower_edge.runtime.wrapped_grid import announce
from flower_edge.strategies.coverage import Coverage
from flower_edge.strategies.handover import Handover
from flower_edge.strategies.mid_round import MidRound
from flower_edge.wire import arrays_of

Path = Mapping[float, str | None]
STAYS: Path = {0.0: "a"}


class Outcome:
    """One round of cell `a`, whose first `asked` terminals get the task; 2 steps per slice, 8 steps, 1 s each."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        asked: int = 2,
        step_s: Sequence[float] | None = None,
        handover: bool = True,
        cell: str = "a",
        script: Sequence[Fault] = (),
        **options: Any,
    ) -> None:
        self.coverage = Coverage(world(["a", "b"], paths), handover=handover)
        self.trained: list[tuple[int, int, str]] = []
        with LocalGrid(app(self.trained), len(paths), script=list(script)) as local:
            virtual = clock(local, step_s or [1.0] * len(paths))
            decide = MidRound(self.coverage, **options)
            grid = SteppedGrid(virtual, 2, decide, reachable=self.coverage.reachable)
            self.coverage(grid, train_round(1, 1, cell))
            announce(grid, train_round(1, 1, cell))
            replies: list[Message] = list(grid.send_and_receive([order(1000 + i, 1) for i in range(asked)]))
            self.ended_s = virtual.now_s
        good = [reply for reply in replies if not reply.has_error()]
        self.steps = {
            reply.metadata.src_node_id - 1000: reply.content.metric_records["metrics"]["steps"] for reply in good
        }
        self.models = {reply.metadata.src_node_id - 1000: arrays_of(reply.content["arrays"])["w"] for reply in good}  # type: ignore[arg-type]
        self.failed = sorted(reply.metadata.src_node_id - 1000 for reply in replies if reply.has_error())
        self.events = self.coverage.events()
        self.carried: list[Handover] = [moved for moved in self.coverage.handed_over() if not moved.idle]

    def told(self, what: str) -> Event:
        (event,) = (event for event in self.events if event.what == what)
        return event


def leaves(to: str | None, at_s: float = 3.0) -> Path:
    return {0.0: "a", at_s: to}


# -- leaving ---------------------------------------------------------------------------------------------------------


def test_nobody_who_stays_is_touched() -> None:
    done = Outcome([STAYS, STAYS], replace_slower_than=1.5, enlist=True)
    assert done.steps == {0: 8, 1: 8}
    np.testing.assert_array_equal(done.models[1], alone(1001, 1, 8))
    assert [event.what for event in done.events] == ["found"]


def test_a_terminal_that_is_handed_over_stops_and_its_work_is_collected_through_the_next_edge() -> None:
    done = Outcome([STAYS, leaves("b")])
    assert done.steps == {0: 8, 1: 4}
    np.testing.assert_array_equal(done.models[1], alone(1001, 1, 4))
    event = done.told("exited")
    assert (event.node, event.cell, event.time_s, event.values["steps"]) == ("1", "a", 4.0, 4)
    assert event.values["work"] == "its work is collected through b"
    (carried,) = done.carried
    assert (carried.source, carried.target, carried.job) == ("a", "b", "a/1")
    assert (carried.base_version, carried.step, carried.steps_total) == (1, 4, 8)


def test_a_substitute_takes_the_task_over_from_the_rounds_own_model_beside_the_partial_work() -> None:
    done = Outcome([STAYS, leaves("b"), STAYS, STAYS])
    assert done.steps == {0: 8, 1: 4, 2: 8}
    np.testing.assert_array_equal(done.models[2], alone(1002, 1, 8))
    assert done.told("exited").values["substitute"] == "2"
    assert done.ended_s == 12.0


@pytest.mark.parametrize(("to", "handover"), [(None, True), (None, False), ("b", False)])
def test_what_cannot_be_collected_is_discarded_and_another_does_the_task(to: str | None, handover: bool) -> None:
    lonely = Outcome([STAYS, leaves(to)], handover=handover)
    assert (lonely.steps, lonely.failed) == ({0: 8}, [1])
    replaced = Outcome([STAYS, leaves(to), STAYS], handover=handover)
    assert (replaced.steps, replaced.failed) == ({0: 8, 2: 8}, [])
    for done in (lonely, replaced):
        assert done.told("exited").values["work"] == "its work is discarded"
        assert done.carried == []


def test_a_terminal_that_keeps_training_through_another_edge_brings_all_its_steps_to_its_own() -> None:
    done = Outcome([STAYS, leaves("b"), STAYS], on_exit="keep")
    assert done.steps == {0: 8, 1: 8}
    np.testing.assert_array_equal(done.models[1], alone(1001, 1, 8))
    assert "to come through b" in done.told("exited").text
    assert [(carried.step, carried.job) for carried in done.carried] == [(4, "a/1")]


def test_a_terminal_that_keeps_training_out_of_coverage_is_not_waited_for() -> None:
    done = Outcome([STAYS, leaves(None)], on_exit="keep", step_s=[1.0, 3.0])
    assert done.steps == {0: 8}
    assert done.ended_s == 8.0
    assert done.told("detached").values["steps"] == 2
    assert done.coverage.work.to_come("a") == {1}


def test_without_handover_work_that_goes_on_at_another_edge_is_lost() -> None:
    done = Outcome([STAYS, leaves("b"), STAYS], on_exit="keep", handover=False)
    assert done.steps == {0: 8, 2: 8}
    assert "lost" in str(done.told("exited").values["work"])


@pytest.mark.parametrize("to", ["b", None])
def test_with_new_data_it_is_told_once_and_trains_on_it_from_then_on(to: str | None) -> None:
    done = Outcome([STAYS, leaves(to)], on_exit="new-data")
    assert [(step, data) for node, step, data in done.trained if node == 1] == [
        (step, "new" if step >= 4 else "") for step in range(8)
    ]
    assert [event.what for event in done.events if event.node == "1" and event.what != "left"] == (
        ["handed-over", "exited"] if to else ["exited", "detached"]
    )
    assert done.steps == ({0: 8, 1: 8} if to else {0: 8})


def test_one_that_comes_back_while_it_trains_just_goes_on() -> None:
    done = Outcome([STAYS, {0.0: "a", 3.0: "b", 5.0: "a"}], on_exit="keep")
    assert done.steps == {0: 8, 1: 8}
    assert [event.what for event in done.events if event.node == "1"] == [
        "handed-over", "exited", "handed-over", "returned"
    ]  # fmt: skip


def test_in_a_flat_federation_only_leaving_every_cell_is_leaving() -> None:
    done = Outcome([STAYS, leaves("b"), leaves(None)], asked=3, cell="")
    assert (done.steps, done.failed) == ({0: 8, 1: 8}, [2])
    assert "left the coverage" in done.told("exited").text


def test_a_reply_is_fetched_through_any_edge_with_handover_and_only_through_its_own_without() -> None:
    for handover, there in ((True, [False, True, True]), (False, [False, False, True])):
        coverage = Coverage(world(["a", "b"], [{0.0: "a", 1.0: None, 2.0: "b", 3.0: "a"}]), handover=handover)
        assert coverage.reachable(1000)
        with LocalGrid(app(), 1) as local:
            virtual = clock(local, [1.0])
            coverage(virtual, train_round(1, 1, "a"))
            coverage.detached(1000, "a", 1)
            seen = []
            for at_s in (1.0, 2.0, 3.0):
                virtual.wait_until(at_s)
                seen.append(coverage.reachable(1000))
        assert seen == there


# -- lagging, failing, coming ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [{"replace_slower_than": 2.0}, {"reference_step_s": 2.5}])
def test_a_terminal_below_the_reference_is_replaced_once_and_its_steps_are_collected(limit: dict[str, float]) -> None:
    """Terminals 1, 3 and 4 need 5 s per step; 3 is the first substitute, and slow as it is it is not replaced."""
    done = Outcome([STAYS] * 5, asked=3, step_s=[1.0, 5.0, 1.0, 5.0, 5.0], prefer=lambda nodes: sorted(nodes), **limit)
    assert done.steps == {0: 8, 1: 2, 2: 8, 3: 8}
    event = done.told("replaced")
    assert (event.node, event.values["substitute"], event.time_s) == ("1", "3", 10.0)
    assert "5 s per step" in event.text


def test_nobody_is_replaced_where_nobody_can_take_over() -> None:
    done = Outcome([STAYS] * 2, step_s=[1.0, 5.0], replace_slower_than=1.2)
    assert done.steps == {0: 8, 1: 8}


def test_a_terminal_that_fails_is_replaced_once() -> None:
    script = [Fault(node=1, kind="raise", at=2), Fault(node=2, kind="raise", at=1)]
    done = Outcome([STAYS] * 4, script=script, prefer=lambda nodes: sorted(nodes))
    assert (done.steps, done.failed) == ({0: 8}, [2])
    assert done.told("replaced").values["substitute"] == "2"


def test_one_that_comes_within_the_round_is_enlisted_only_where_that_was_asked_for() -> None:
    comes: Path = {0.0: "b", 3.0: "a"}
    assert Outcome([STAYS, STAYS, comes]).steps == {0: 8, 1: 8}
    done = Outcome([STAYS, STAYS, comes, STAYS], enlist=True)
    assert done.steps == {0: 8, 1: 8, 2: 8}  # not 3, which was there and not asked
    np.testing.assert_array_equal(done.models[2], alone(1002, 1, 8))
    assert done.told("enlisted").time_s == 4.0
    assert done.ended_s == 12.0


def test_those_who_came_are_the_first_substitutes() -> None:
    done = Outcome([STAYS, leaves("b"), STAYS, {0.0: "b", 2.0: "a"}])
    assert done.told("exited").values["substitute"] == "3"


def test_a_rule_and_an_order_of_ones_own_choose_substitutes() -> None:
    known: Callable[[int], Mapping[str, Any]] = lambda node: {"battery": 0.1 * (node - 1000)}  # noqa: E731
    paths = [STAYS, leaves("b"), STAYS, STAYS, STAYS]
    done = Outcome(paths, eligible=Rule("battery >= 0.25"), known=known)
    assert done.told("exited").values["substitute"] == "3"
    done = Outcome(paths, eligible=Rule("battery >= 0.25"), known=known, prefer=lambda nodes: sorted(nodes)[::-1])
    assert done.told("exited").values["substitute"] == "4"
    done = Outcome(paths, prefer=lambda nodes: [])
    assert "substitute" not in done.told("exited").values
    done = Outcome(paths, eligible=Rule("partition_id == 4"))
    assert done.told("exited").values["substitute"] == "4"


def test_other_decisions_are_left_to_whoever_decided_before() -> None:
    def stops(progress: Progress) -> Decision:
        return Stop() if progress.node_id == 1000 and progress.steps_done == 6 else Continue()

    assert Outcome([STAYS, STAYS], then=stops).steps == {0: 6, 1: 8}


def test_every_decision_about_one_that_left_is_of_the_promised_kind() -> None:
    coverage = Coverage(ByFunction(["a", "b"], 2, lambda time_s: ["b", "a"]))
    with LocalGrid(app(), 2) as local:
        coverage(clock(local, [1.0, 1.0]), train_round(1, 1, "a"))
        one = Progress(1000, 4, 8, round=1, cell="a", asked=frozenset([1000]))
        assert MidRound(coverage)(one) == Replace(1001, keep_work=True)
        asked = Progress(1000, 4, 8, round=1, cell="a", asked=frozenset([1000, 1001]))
        assert MidRound(coverage)(asked) == Stop()
        assert MidRound(coverage, on_exit="keep")(asked) == Continue()
        assert MidRound(coverage, on_exit="new-data")(asked) == Change({"training-data": "new"})
        local.disconnect(1000)
        coverage(coverage._looked_at(), train_round(1, 2, "a"))
        assert MidRound(coverage, on_exit="keep")(asked) == Detach()
        assert MidRound(coverage)(asked) == Drop()


def test_a_task_of_a_cell_that_is_not_one_of_the_coverage_is_refused() -> None:
    coverage = Coverage(ByFunction(["a"], 1, lambda time_s: ["a"]))
    with pytest.raises(ConfigError, match=r"cell 'edge-7', .*cells=coverage"):
        MidRound(coverage)(Progress(1000, 4, 8, round=1, cell="edge-7"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on_exit": "panic"}, "on_exit = 'panic'"),
        ({"replace_slower_than": 0.5}, "replace_slower_than = 0.5"),
        ({"reference_step_s": 0.0}, "reference_step_s = 0.0"),
    ],
)
def test_what_cannot_be_used_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        MidRound(Coverage(ByFunction(["a"], 1, lambda time_s: ["a"])), **options)
