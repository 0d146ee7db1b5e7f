"""`MidRound`: what becomes of a terminal, and of its work, that leaves, lags, fails or comes within a round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp.strategy import FedAvg
from travellers import CONFIG, ONE, alone, app, clock, order, start_model, train_round, world

from flower_edge.coverage import ByFunction
from flower_edge.errors import ConfigError, NestingError
from flower_edge.events import Event
from flower_edge.rules import Rule
from flower_edge.runtime import Change, Continue, Replace, SteppedGrid, Stop, UntilPeriodEnds, VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import Decision, Detach, Drop, Progress
from flower_edge.runtime.wrapped_grid import announce, find
from flower_edge.selection import Experience, Job, Known, Pipeline
from flower_edge.strategies import Hierarchical, Layered, Selected
from flower_edge.strategies.coverage.coverage import Coverage
from flower_edge.strategies.coverage.covered import Covered
from flower_edge.strategies.coverage.handover import Handover
from flower_edge.strategies.coverage.mid_round import MidRound
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
        decided = [event for event in grid.events if event.decision != "continue"]
        self.decided = {(event.node_id - 1000, event.decision): event for event in decided}
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

    def heir_of(self, node: int) -> int | None:
        """Who took its place, as the grid tells it."""
        event = self.decided.get((node, "replace"))
        return None if event is None or event.other_id is None else event.other_id - 1000


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
    assert event.text == "terminal 1 left a for b after 4 of 8 steps; b can collect its work"
    (carried,) = done.carried
    assert (carried.source, carried.target, carried.job) == ("a", "b", "a/1")
    assert (carried.base_version, carried.step, carried.steps_total) == (1, 4, 8)


def test_a_substitute_takes_the_task_over_from_the_rounds_own_model_beside_the_partial_work() -> None:
    done = Outcome([STAYS, leaves("b"), STAYS, STAYS])
    assert done.steps == {0: 8, 1: 4, 2: 8}
    np.testing.assert_array_equal(done.models[2], alone(1002, 1, 8))
    assert done.heir_of(1) == 2
    assert done.ended_s == 12.0


@pytest.mark.parametrize(("to", "handover"), [(None, True), (None, False), ("b", False)])
def test_what_cannot_be_collected_is_discarded_and_another_does_the_task(to: str | None, handover: bool) -> None:
    lonely = Outcome([STAYS, leaves(to)], handover=handover)
    assert (lonely.steps, lonely.failed) == ({0: 8}, [1])
    replaced = Outcome([STAYS, leaves(to), STAYS], handover=handover)
    assert (replaced.steps, replaced.failed) == ({0: 8, 2: 8}, [])
    for done in (lonely, replaced):
        assert done.told("exited").values["work"] == "its work cannot be collected"
        assert done.carried == []


def test_a_terminal_that_keeps_training_through_another_edge_brings_all_its_steps_to_its_own() -> None:
    done = Outcome([STAYS, leaves("b"), STAYS], on_exit="keep")
    assert done.steps == {0: 8, 1: 8}
    np.testing.assert_array_equal(done.models[1], alone(1001, 1, 8))
    assert done.told("exited").text.endswith("it may go on, and b collect its work")
    assert [(carried.step, carried.job) for carried in done.carried] == [(4, "a/1")]


def test_a_terminal_that_keeps_training_out_of_coverage_is_not_waited_for() -> None:
    done = Outcome([STAYS, leaves(None)], on_exit="keep", step_s=[1.0, 3.0])
    assert done.steps == {0: 8}
    assert done.ended_s == 8.0
    assert done.told("exited").values["steps"] == 2
    assert done.told("exited").text.endswith("it may go on, and its work come late")
    assert done.coverage.work.to_come("a") == {1}


def test_without_handover_work_that_goes_on_at_another_edge_is_lost() -> None:
    done = Outcome([STAYS, leaves("b"), STAYS], on_exit="keep", handover=False)
    assert done.steps == {0: 8, 2: 8}
    assert done.told("exited").values["work"] == "its work cannot be collected"


@pytest.mark.parametrize("to", ["b", None])
def test_with_new_data_it_is_told_so_in_every_slice_from_then_on(to: str | None) -> None:
    done = Outcome([STAYS, leaves(to)], on_exit="new-data")
    assert [(step, data) for node, step, data in done.trained if node == 1] == [
        (step, "new" if step >= 4 else "") for step in range(8)
    ]
    assert [data for node, _, data in done.trained if node == 0] == [""] * 8


@pytest.mark.parametrize("to", ["b", None])
def test_what_is_told_of_one_with_new_data_is_that_it_left_once(to: str | None) -> None:
    done = Outcome([STAYS, leaves(to)], on_exit="new-data")
    assert [event.what for event in done.events if event.node == "1" and event.what != "left"] == (
        ["handed-over", "exited"] if to else ["exited"]
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
    event = done.told("slow")
    assert (event.node, event.time_s, done.heir_of(1)) == ("1", 10.0, 3)
    assert "5 s per step" in event.text


def test_nobody_is_replaced_where_nobody_can_take_over() -> None:
    done = Outcome([STAYS] * 2, step_s=[1.0, 5.0], replace_slower_than=1.2)
    assert done.steps == {0: 8, 1: 8}


def test_a_terminal_that_fails_is_replaced_once() -> None:
    script = [Fault(node=1, kind="raise", at=2), Fault(node=2, kind="raise", at=1)]
    done = Outcome([STAYS] * 4, script=script, prefer=lambda nodes: sorted(nodes))
    assert (done.steps, done.failed) == ({0: 8}, [2])
    assert (done.told("failed").node, done.heir_of(1)) == ("1", 2)


def test_one_that_comes_within_the_round_is_enlisted_only_where_that_was_asked_for() -> None:
    comes: Path = {0.0: "b", 3.0: "a"}
    assert Outcome([STAYS, STAYS, comes]).steps == {0: 8, 1: 8}
    done = Outcome([STAYS, STAYS, comes, STAYS], enlist=True)
    assert done.steps == {0: 8, 1: 8, 2: 8}  # not 3, which was there and not asked
    np.testing.assert_array_equal(done.models[2], alone(1002, 1, 8))
    assert (done.told("came").node, done.told("came").time_s) == ("2", 4.0)
    assert done.ended_s == 12.0


def test_those_who_came_are_the_first_substitutes() -> None:
    done = Outcome([STAYS, leaves("b"), STAYS, {0.0: "b", 2.0: "a"}])
    assert done.heir_of(1) == 3


def test_a_rule_and_an_order_of_ones_own_choose_substitutes() -> None:
    known: Callable[[int], Mapping[str, Any]] = lambda node: {"battery": 0.1 * (node - 1000)}  # noqa: E731
    paths = [STAYS, leaves("b"), STAYS, STAYS, STAYS]
    assert Outcome(paths, eligible=Rule("battery >= 0.25"), known=known).heir_of(1) == 3
    done = Outcome(paths, eligible=Rule("battery >= 0.25"), known=known, prefer=lambda nodes: sorted(nodes)[::-1])
    assert done.heir_of(1) == 4
    assert Outcome(paths, prefer=lambda nodes: []).heir_of(1) is None
    assert Outcome(paths, eligible=Rule("partition_id == 4")).heir_of(1) == 4
    assert Outcome(paths, eligible=Rule("battery >= 0.25 and partition_id == 4"), known=known).heir_of(1) == 4


def test_a_rule_on_what_nobody_knows_finds_nobody_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", "flwr.edge"):
        paths = [STAYS, leaves("b"), leaves("b"), STAYS]
        done = Outcome(paths, asked=3, eligible=Rule("battery >= 0.3 and partition_id >= 0"))
    assert (done.heir_of(1), done.heir_of(2)) == (None, None)
    (said,) = [record.getMessage() for record in caplog.records if "take over" in record.getMessage()]
    assert "nothing here knows battery, which" in said
    assert "Selected(..., known=known)" in said


@pytest.mark.parametrize("handover", [True, False])
def test_a_rule_reads_what_selection_knows_and_without_handover_what_the_own_edge_knows(handover: bool) -> None:
    known = Known()
    told = Experience().noted("battery", {1002: 0.9, 1003: 0.9})
    known.lay_out("a", Experience(), Experience().noted("battery", {1002: 0.1, 1003: 0.9}), Job())
    known.lay_out("aa", Experience(), told, Job())
    paths = [STAYS, leaves("b"), STAYS, STAYS]
    assert Outcome(paths, eligible=Rule("battery >= 0.3"), known=known, handover=handover).heir_of(1) == 3
    known.lay_out("a", Experience(), Experience(), Job())
    done = Outcome(paths, eligible=Rule("battery >= 0.3"), known=known, handover=handover)
    assert done.heir_of(1) == (2 if handover else None)


def test_terminals_that_answer_about_their_battery_can_take_over_where_selection_shares_what_it_knows() -> None:
    """The way through: `query.conditions`, `Selected(known=…)` at the edges, `MidRound(known=…)` on the grid."""
    made = app()

    @made.query("conditions")
    def conditions(message: Message, context: Context) -> Message:
        battery = [0.9, 0.9, 0.2, 0.5, 0.5, 0.5][int(context.node_config["partition-id"])]
        return Message(RecordDict({"conditions": ConfigRecord({"battery": battery})}), reply_to=message)

    known = Known()
    coverage = Coverage(world(["a", "b"], [leaves("b")] * 2 + [STAYS] * 4))

    def edge(cell: str) -> Layered:
        selected = Selected(Pipeline(2, eligible="battery >= 0.8"), seed=0, known=known)
        return Layered(FedAvg(fraction_evaluate=0.0, **ONE), Covered(coverage), selected)

    with LocalGrid(made, 6) as local:
        decide = MidRound(coverage, eligible=Rule("battery >= 0.3"), known=known)
        grid = SteppedGrid(clock(local, [1.0] * 6), 2, decide, reachable=coverage.reachable)
        Hierarchical(edge=edge, cells=coverage, seed=3).start(grid, start_model(), 1, 60.0, ConfigRecord(dict(CONFIG)))
        heirs = sorted(event.other_id for event in grid.events if event.decision == "replace")
    assert heirs == [1003, 1004]


def test_where_the_period_overrules_it_what_it_told_is_still_true() -> None:
    """At 8 s the period is over: nobody takes the place of terminal 1, and nothing says that somebody does."""
    coverage = Coverage(world(["a", "b"], [STAYS, leaves("b", 7.5), STAYS, STAYS]))
    with LocalGrid(app(), 4) as local:
        decide = UntilPeriodEnds(8.0, then=MidRound(coverage))
        grid = SteppedGrid(clock(local, [1.0] * 4), 4, decide, reachable=coverage.reachable)
        coverage(grid, train_round(1, 1, "a"))
        announce(grid, train_round(1, 1, "a"))
        replies = list(grid.send_and_receive([order(1000 + i, 1, steps=1000) for i in range(2)]))
    assert sorted(reply.metadata.src_node_id for reply in replies) == [1000, 1001]
    (told,) = (event for event in coverage.events() if event.what == "exited")
    assert told.text == "terminal 1 left a for b after 8 of 1000 steps; b can collect its work"


def test_where_collecting_fails_what_it_told_is_still_true() -> None:
    done = Outcome([STAYS, leaves("b")], script=[Fault(node=1, kind="raise", at=3)])
    assert (done.steps, done.failed) == ({0: 8}, [1])
    assert done.told("exited").text.endswith("b can collect its work")
    assert any("lost" in event.outcome for (node, _), event in done.decided.items() if node == 1)


def test_who_leaves_in_real_time_is_seen_in_mid_round() -> None:
    """The terminals' steps are the clock: no virtual one, and nobody waits."""
    trained: list[tuple[int, int, str]] = []
    coverage = Coverage(world(["a"], [STAYS, leaves(None, 5.0)]), clock=lambda: float(len(trained)))
    with LocalGrid(app(trained), 2) as local:
        grid = SteppedGrid(local, 2, MidRound(coverage), poll_s=0.005)
        strategy = Layered(FedAvg(fraction_evaluate=0.0), Covered(coverage))
        strategy.start(grid, start_model(), 1, 60.0, ConfigRecord(dict(CONFIG)))
        dropped = [(event.node_id, event.decision) for event in grid.events if event.decision == "drop"]
    assert dropped == [(1001, "drop")]
    assert sum(node == 1 for node, _, _ in trained) < 8


def test_a_strategy_that_tells_no_server_round_can_have_a_substitute_in_every_round() -> None:
    coverage = Coverage(world(["a", "b"], [STAYS, {0.0: "a", 3.0: "b", 20.0: "a", 23.0: "b"}, STAYS]))
    with LocalGrid(app(), 3) as local:
        grid = SteppedGrid(clock(local, [1.0] * 3), 2, MidRound(coverage), reachable=coverage.reachable)
        for edge in (1, 2):
            announce(grid, train_round(1, edge, "a"))
            coverage(grid, train_round(1, edge, "a"))
            list(grid.send_and_receive([order(1000 + i, 0) for i in range(2)]))
            find(grid, VirtualClock).wait_until(20.0)  # type: ignore[union-attr]
        heirs = [event.other_id for event in grid.events if event.decision == "replace"]
    assert heirs == [1002, 1002]


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


def test_a_period_goes_around_the_policy_and_not_inside_it() -> None:
    coverage = Coverage(ByFunction(["a"], 2, lambda time_s: ["a", "a"]))
    with pytest.raises(NestingError, match=r"write UntilPeriodEnds\(period_s, then=MidRound"):
        MidRound(coverage, then=UntilPeriodEnds(5.0))
