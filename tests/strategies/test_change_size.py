"""`ChangeSize` and requests at a round's end: another model in mid-training, and no sample lost or counted twice."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from change_toy import BATCH, LADDER, SLICE, STEPS, Made, app, by_hand, run
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAdam, FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st
from submodel_toy import GROUPS, numbers, whole
from toy import same_model

from flower_edge.errors import ConfigError
from flower_edge.filtering.norm import Norm
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import Change, Continue, Decision, Progress, Replace, Stop
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.steps.messages import RENEWED_RECORD, Request
from flower_edge.runtime.steps.period import UntilPeriodEnds
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import Admitted, Hierarchical, Layered, blocks
from flower_edge.strategies.filtering.filtered import Filtered
from flower_edge.strategies.provision.changing import ByPace, ChangeSize, Wish
from flower_edge.strategies.provision.sub_models import SubModels
from flower_edge.submodels.sizes import Size

RATES = {0: 1.0, 1: 0.5, 2: 1.0}
ASSIGN = {str(node): rate for node, rate in RATES.items()}


class Weighing(FedAvg):
    """Keeps what the replies of a round weigh together."""

    def __init__(self) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.weights: list[float] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        came = list(replies)
        assert not any(reply.has_error() for reply in came)
        self.weights.append(sum(float(reply.content["metrics"]["num-examples"]) for reply in came))  # type: ignore[index, call-overload, arg-type]
        return super().aggregate_train(server_round, came)


def sub_models(inner: FedAvg | None = None, **how: Any) -> SubModels:
    inner = FedAvg(fraction_evaluate=0.0) if inner is None else inner
    return SubModels(inner, GROUPS, **{"assign": ASSIGN, "sizes": LADDER, "scaler": False, **how})


words = st.sampled_from(["smaller-model", "larger-model", "smaller-model", "other-word"])
wishes_of = st.dictionaries(
    st.tuples(st.integers(0, 2), st.just(1), st.integers(0, STEPS - 1)), words, min_size=1, max_size=8
)


@settings(max_examples=10, deadline=None)
@given(wishes=wishes_of)
def test_whatever_is_asked_every_step_counts_once_and_each_part_is_merged_where_it_lies(wishes: Any) -> None:
    inner, made = Weighing(), Made()
    strategy = sub_models(inner)
    found = numbers(run(strategy, ChangeSize(strategy), client=app(wishes, made)).arrays)
    assert sorted((node, step) for node, _, step, _ in made) == [(n, s) for n in range(3) for s in range(STEPS)]
    assert inner.weights == [3 * STEPS * BATCH]
    for name, wanted in by_hand(whole(), RATES, wishes).items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("inner", [FedAvg, lambda **how: FedAdam(eta=0.05, **how)])
def test_where_nobody_asks_it_is_bit_for_bit_the_run_without(inner: Any) -> None:
    strategy = sub_models(inner(fraction_evaluate=0.0))
    changed = run(strategy, ChangeSize(strategy, rule=ByPace(1e9)), rounds=2)
    plain = run(sub_models(inner(fraction_evaluate=0.0), sizes=None), rounds=2, stepped=False)
    assert same_model(changed.arrays, plain.arrays)


def test_a_change_holds_from_its_step_on_and_for_later_rounds_until_one_back() -> None:
    wishes = {(0, 1, 4): "smaller-model", (0, 2, 1): "smaller-model", (0, 3, 5): "larger-model"}
    made, strategy = Made(), sub_models()
    run(strategy, ChangeSize(strategy), client=app(wishes, made), rounds=4)
    widths = {(round_, step): width for node, round_, step, width in made if node == 0}
    assert [widths[1, step] for step in range(STEPS)] == [8] * 5 + [4] * 4
    assert [widths[2, step] for step in range(STEPS)] == [4] * 2 + [2] * 7
    assert [widths[3, step] for step in range(STEPS)] == [2] * 6 + [4] * 3
    assert {widths[4, step] for step in range(STEPS)} == {4}
    assert strategy.assigned()["0"] == Size(0.5)


def test_every_change_is_told_with_its_step_and_its_reason() -> None:
    strategy = sub_models()
    run(strategy, ChangeSize(strategy), client=app({(0, 1, 4): "smaller-model"}))
    event = next(event for event in strategy.events() if event.node == "0" and "reason" in event.values)
    assert event.what == "sub-model"
    assert event.text == "0 trains at rate 0.5 from step 5, before at rate 1 (terminal asks: load 0.97)"
    assert event.values == {
        "from": "rate 1", "to": "rate 0.5", "reason": "terminal asks: load 0.97", "rate": 0.5, "depth": 0, "step": 5
    }  # fmt: skip


def test_nobody_gets_more_than_it_is_assigned_nor_less_than_the_ladder_has() -> None:
    wishes = {(1, 1, 1): "larger-model", (1, 1, 4): "smaller-model", (1, 1, 6): "smaller-model"}
    made, strategy = Made(), sub_models()
    run(strategy, ChangeSize(strategy), client=app(wishes, made))
    assert {width for node, _, _, width in made if node == 1} == {4, 2}
    kept = [event.text for event in strategy.events() if event.what == "sub-model-kept"]
    assert kept == [
        "1 keeps rate 0.5 (terminal asks: load 0.97)",
        "1 keeps rate 0.25 (terminal asks: load 0.97)",
    ]


def test_an_assignment_that_shrinks_later_is_the_ceiling_and_one_that_grows_leaves_the_change() -> None:
    widths = {1: 1.0, 2: 0.25, 3: 1.0}
    made = Made()
    strategy = sub_models(assign=lambda number, key, row: widths[number])
    run(strategy, ChangeSize(strategy), client=app({(0, 1, 4): "smaller-model"}, made), rounds=3)
    assert [{w for n, r, s, w in made if n == 0 and r == number and s == 8} for number in (1, 2, 3)] == [{4}, {2}, {4}]


def test_without_slices_a_request_holds_from_the_next_round_on() -> None:
    wishes = {(0, 1, STEPS - 1): "smaller-model", (0, 3, STEPS - 1): "larger-model"}
    made, strategy = Made(), sub_models()
    run(strategy, client=app(wishes, made), rounds=4, stepped=False)
    widths = [{width for node, r, _, width in made if node == 0 and r == number} for number in (1, 2, 3, 4)]
    assert widths == [{8}, {4}, {4}, {8}]
    told = [event.text for event in strategy.events() if event.node == "0"]
    assert told[1] == "0 trains at rate 0.5 from the next round, before at rate 1 (terminal asks: load 0.97)"


@pytest.mark.parametrize("slice_", [SLICE, STEPS])
def test_a_request_with_the_last_slice_or_in_one_piece_holds_from_the_next_round_on(slice_: int) -> None:
    made, strategy = Made(), sub_models()
    with LocalGrid(app({(0, 1, STEPS - 1): "smaller-model"}, made), 3) as local:
        grid = SteppedGrid(local, slice_, ChangeSize(strategy), poll_s=0.002)
        strategy.start(grid, whole(), num_rounds=2, train_config=ConfigRecord({"local-steps": STEPS}))
    assert [{w for n, r, _, w in made if (n, r) == (0, number)} for number in (1, 2)] == [{8}, {4}]


def test_what_a_substitute_asks_for_at_its_end_does_not_shrink_who_it_stands_for() -> None:
    def hands_on(progress: Progress) -> Decision:
        return Replace(1002) if progress.node_id == 1000 else Continue()

    inner = Weighing()
    strategy = sub_models(inner, assign=1.0)
    run(strategy, ChangeSize(strategy, then=hands_on), client=app({(2, 1, STEPS - 1): "smaller-model"}))
    assert strategy.assigned() == {"0": Size(1.0), "1": Size(1.0), "2": Size(0.5)}


def test_without_a_ladder_a_request_is_told_and_changes_nothing() -> None:
    made, strategy = Made(), sub_models(sizes=None)
    asking = run(strategy, ChangeSize(strategy), client=app({(0, 1, 2): "smaller-model"}, made), rounds=2)
    assert same_model(asking.arrays, run(sub_models(sizes=None), rounds=2).arrays)
    (kept,) = (event.text for event in strategy.events() if event.what == "sub-model-kept")
    assert "sizes=(1.0, 0.5, 0.25)" in kept


def test_a_slow_node_is_given_less_by_the_edges_own_rule() -> None:
    made, strategy = Made(), sub_models()
    with LocalGrid(app(None, made), 3) as local:
        clock = VirtualClock(local, [Device(step_s=1.0), Device(step_s=6.0), Device(step_s=1.0)], [Link()] * 3)
        grid = SteppedGrid(clock, SLICE, ChangeSize(strategy, rule=ByPace(2.0)))
        strategy.start(grid, whole(), num_rounds=1, train_config=ConfigRecord({"local-steps": STEPS}))
    assert [width for node, _, _, width in made if node == 1] == [4] * 3 + [2] * 6
    reasons = [event.values["reason"] for event in strategy.events() if "reason" in event.values]
    assert reasons == ["edge: 6 times the median step"]


def test_a_rule_of_ones_own_gives_a_size_once_in_a_task() -> None:
    asked: list[int] = []

    def rule(progress: Progress) -> Size | None:
        asked.append(progress.steps_done)
        return Size(0.25) if progress.round == 1 else None

    made, strategy = Made(), sub_models(assign=1.0)
    run(strategy, ChangeSize(strategy, rule=rule), client=app(None, made), nodes=2)
    assert [width for node, _, _, width in made if node == 1] == [8] * 3 + [2] * 6
    assert asked == [3, 3]


def test_what_another_policy_decides_goes_before_and_the_size_holds_from_the_next_round() -> None:
    def stops(progress: Progress) -> Decision:
        return Stop() if progress.round == 1 and progress.request else Continue()

    made, strategy = Made(), sub_models()
    run(strategy, ChangeSize(strategy, then=stops), client=app({(0, 1, 4): "smaller-model"}, made), rounds=2)
    assert [step for node, r, step, _ in made if (node, r) == (0, 1)] == [0, 1, 2, 3, 4]
    assert {width for node, r, _, width in made if (node, r) == (0, 2)} == {4}


def test_inside_a_policy_that_ends_the_round_no_part_is_taken_for_another() -> None:
    wishes = {(0, 1, 2): "smaller-model", (0, 1, 4): "smaller-model"}
    inner, made = Weighing(), Made()
    strategy = sub_models(inner, assign=1.0)
    with LocalGrid(app(wishes, made), 2) as local:
        clock = VirtualClock(local, [Device(step_s=1.0)] * 2, [Link()] * 2)
        grid = SteppedGrid(clock, SLICE, UntilPeriodEnds(5.0, then=ChangeSize(strategy)))
        strategy.start(grid, whole(), num_rounds=1, train_config=ConfigRecord({"local-steps": 999}))
    assert sorted(step for node, _, step, _ in made if node == 0) == list(range(5))
    assert inner.weights == [len(made) * BATCH]
    assert [event for event in strategy.events() if event.what == "refused"] == []


def test_a_substitute_for_a_node_that_was_changed_goes_on_with_its_size() -> None:
    def hands_on(progress: Progress) -> Decision:
        return Replace(1002) if progress.node_id == 1000 and progress.steps_done >= 6 else Continue()

    inner, made = Weighing(), Made()
    inner.min_train_nodes = 1
    strategy = sub_models(inner)
    run(strategy, ChangeSize(strategy, then=hands_on), client=app({(0, 1, 2): "smaller-model"}, made))
    kept = [(node, step, width) for node, _, step, width in made if node != 1]
    # Its own task of nine steps, and what node 0 has not handed in: steps 3 .. 8 at half the width.
    assert [(s, w) for n, s, w in kept if n == 2] == [(s, 8) for s in range(9)] + [(s, 4) for s in range(3, 9)]
    assert inner.weights == [(9 + 9 + 3 + 6) * BATCH]
    assert [event for event in strategy.events() if event.what == "refused"] == []


@pytest.mark.parametrize("stepped", [True, False])
def test_a_run_goes_on_from_a_checkpoint_with_the_sizes_it_had(stepped: bool, tmp_path: Any) -> None:
    last = STEPS - 1
    wishes = {(0, 1, 4 if stepped else last): "smaller-model", (2, 2, 1 if stepped else last): "smaller-model"}

    def go(rounds: int, **how: Any) -> Any:
        strategy = sub_models()
        decide = ChangeSize(strategy) if stepped else None
        return run(Layered(strategy), decide, client=app(wishes), rounds=rounds, stepped=stepped, **how)

    through = go(3)
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        go(2, run=folder)
        resumed = go(3, run=folder, resume=True)
    assert same_model(through.arrays, resumed.arrays)


@pytest.mark.parametrize("layer", ["admitted", "filtered"])
def test_gates_and_filters_let_both_parts_through_and_no_third(layer: str, caplog: pytest.LogCaptureFixture) -> None:
    wishes = {(0, 1, 2): "smaller-model", (0, 1, 5): "smaller-model", (2, 1, 1): "smaller-model"}
    plain = sub_models()
    wanted = run(plain, ChangeSize(plain), client=app(wishes), rounds=2).arrays
    inner = Weighing()
    strategy = sub_models(inner)
    gate: Any = Admitted(manifest=strategy.manifest_of, seed=0)
    if layer == "filtered":
        gate = Filtered(Norm(1e9), manifest=strategy.manifest_of)
    with caplog.at_level(logging.WARNING, logger="flwr.edge"):
        found = run(Layered(strategy, gate), ChangeSize(strategy), client=app(wishes), rounds=2).arrays
    assert same_model(wanted, found)
    assert inner.weights == [3 * STEPS * BATCH] * 2
    assert not [record for record in caplog.records if record.name == "flwr.edge"]


def test_at_edges_every_cell_changes_its_own() -> None:
    inner = {cell: Weighing() for cell in ("edge-0", "edge-1")}
    edges = {cell: sub_models(own, assign=1.0) for cell, own in inner.items()}
    made = Made()
    strategy = Hierarchical(
        edge=lambda cell: Layered(edges[cell], Admitted(manifest=edges[cell].manifest_of)), cells=blocks(2)
    )
    run(strategy, ChangeSize(edges), client=app({(1, 1, 4): "smaller-model"}, made), nodes=4)
    widths: defaultdict[int, list[int]] = defaultdict(list)
    for node, _, _, width in made:
        widths[node].append(width)
    assert dict(widths) == {0: [8] * 9, 1: [8] * 5 + [4] * 4, 2: [8] * 9, 3: [8] * 9}
    assert [own.weights for own in inner.values()] == [[2 * STEPS * BATCH]] * 2
    assert {cell: one.assigned()["1"] for cell, one in edges.items() if "1" in one.assigned()} == {"edge-0": Size(0.5)}


def test_a_cell_that_is_not_named_and_what_is_no_sub_models_are_refused() -> None:
    strategy = sub_models()
    with pytest.raises(ConfigError, match="a task of cell 'b', and ChangeSize knows 'a'"):
        ChangeSize({"a": strategy})(Progress(1000, 3, 9, request=Request("smaller-model"), cell="b"))
    with pytest.raises(ConfigError, match="what is inside"):
        ChangeSize(Layered(strategy))  # type: ignore[arg-type]


def test_a_second_part_that_nobody_was_sent_is_left_out() -> None:
    def forges(message: Message, context: Any, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        reply.content[RENEWED_RECORD] = ConfigRecord({"index": 1, "first-step": 5})
        return reply

    strategy = sub_models(assign=1.0)
    with LocalGrid(app(mods=(forges,)), 2) as grid:
        arrays = strategy.start(grid, whole(), num_rounds=1, train_config=ConfigRecord({"local-steps": 2})).arrays
    assert len(arrays) == 0 or same_model(arrays, whole())
    assert [event.values["code"] for event in strategy.events() if event.what == "refused"] == ["unasked"] * 2


def test_config_of_a_change_before_holds_after_it() -> None:
    def slows(progress: Progress) -> Decision:
        return Change({"lr": 0.01}) if progress.steps_done == SLICE else Continue()

    inner = Weighing()
    strategy = sub_models(inner)
    run(strategy, ChangeSize(strategy, then=slows), client=app({(0, 1, 4): "smaller-model"}))
    assert inner.weights == [3 * STEPS * BATCH]


def test_a_pace_that_is_not_slow_or_not_known_is_no_wish() -> None:
    rule = ByPace(slower=2.0, faster=0.4)
    assert rule(Progress(1, 3, 9)) is None
    assert rule(Progress(1, 3, 9, step_s=2.0, median_step_s=1.0)) is None
    assert rule(Progress(1, 3, 9, step_s=0.3, median_step_s=1.0)) == Wish("larger", "edge: 0.3 times the median step")
    with pytest.raises(ConfigError, match="slower"):
        ByPace(slower=1.0)
    with pytest.raises(ConfigError, match="faster"):
        ByPace(faster=1.0)
