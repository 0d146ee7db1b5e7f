"""The hierarchy benchmark compares on equal terms and prints what it promises; the figures are no test's business."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from benchmarks import hierarchy, hierarchy_data, hierarchy_mobility
from benchmarks.harness.figures import mean_and_error, ratio_and_error
from benchmarks.harness.workers import run_jobs
from benchmarks.hierarchy import FIGURES, PARTS, verdicts
from benchmarks.hierarchy_data import data_folder, images
from benchmarks.hierarchy_mobility import Course, MobilitySetting, mobility_figures, mobility_settings, run_arm
from benchmarks.hierarchy_planning import (
    CHOSEN_PER_CELL,
    RULE,
    SIZES,
    Planner,
    Registered,
    measure_planning,
    plan_rounds,
)
from benchmarks.hierarchy_tiers import (
    Layout,
    Outcome,
    Setting,
    deal,
    edges_of,
    run_setting,
    tier_figures,
    tier_settings,
)
from flower_edge.errors import DataError
from flower_edge.rounds import Round
from flower_edge.rules import Rule
from flower_edge.runtime.flower_private import drop_identity, ensure_identity
from flower_edge.runtime.narrowed_grid import NarrowedGrid


def has_data() -> bool:
    try:
        data_folder()
    except DataError:
        return False
    return True


needs_data = pytest.mark.skipif(not has_data(), reason="MNIST's test files are not here")


# -- what is printed


@pytest.mark.parametrize("arguments", [["--quik"], ["--only", "everything"], ["--only"], ["tiers"]])
def test_a_mistake_in_the_command_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        hierarchy.main(arguments)
    assert left.value.code == 2
    assert "usage: python -m benchmarks.hierarchy" in capsys.readouterr().err


def test_the_figures_and_their_targets_are_those_promised() -> None:
    targets = {figure.key: figure.target for figure in FIGURES}
    assert targets == {
        "weighted_minus_equal_points": "at least 15",
        "cloud_round_ratio_iid": "at least 3.5",
        "cloud_round_ratio_noniid": "",
        "best_selection_time_ratio": "at most 0.6",
        "homogeneous_worst_time_ratio": "at most 1.05",
        "handover_gap_points": "at most 1",
        "no_handover_gap_points": "",
        "plan_100k_s": "at most 1",
        "plan_100k_cpu_s": "",
        "plan_100k_rss_mb": "at most 1000",
    }
    assert {figure.part for figure in FIGURES} == set(PARTS)
    assert SIZES[-1] == 100_000


def test_a_verdict_says_plainly_whether_a_target_was_reached() -> None:
    found = {"weighted_minus_equal_points": 14.99, "weighted_minus_equal_points_se": 0.5, "plan_100k_s": 0.5}
    lines = dict(zip((figure.key for figure in FIGURES), verdicts(found), strict=True))
    assert lines["weighted_minus_equal_points"].endswith("target at least 15): MISSED")
    assert "14.99 ± 0.50" in lines["weighted_minus_equal_points"]
    assert lines["plan_100k_s"].endswith("target at most 1): reached")
    assert lines["handover_gap_points"] == "handover_gap_points: not measured (part mobility)"
    assert verdicts({"cloud_round_ratio_noniid": 2.0})[2].endswith("edge-non-IID)")


def test_one_part_alone_is_one_json_object_with_its_own_keys(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hierarchy, "measure_planning", partial(measure_planning, (200, 400), rounds=2))
    assert hierarchy.main(["--only", "planning", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found = json.loads(out)
    assert found["parts"] == ["planning"]
    assert found["plan_100k_s"] > 0
    assert found["plan_100k_cpu_s"] > 0
    assert found["plan_100k_rss_mb"] > 10
    assert list(found["plan_growth"]) == ["200", "400", "exponent"]
    assert found["targets"]["plan_100k_s"] == 1.0
    assert found["quick"] is False
    assert "handover_gap_points" not in found


def test_without_the_data_it_exits_with_1_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hierarchy_data, "data_folder", lambda: tmp_path)
    images.cache_clear()
    assert hierarchy.main(["--only", "tiers", "--quick"]) == 1
    assert "error:" in capsys.readouterr().err


# -- tiers


@pytest.mark.parametrize("layout", ["edge-iid", "edge-noniid", "unequal"])
def test_every_terminal_belongs_to_one_edge(layout: Layout) -> None:
    edges = edges_of(layout)
    assert sorted(node for edge in edges for node in edge) == list(range(50))
    classes = [{node // 5 for node in edge} for edge in edges]
    if layout == "edge-iid":
        assert classes == [set(range(10))] * 5
    elif layout == "edge-noniid":
        assert [len(of) for of in classes] == [2] * 5
    else:
        assert classes[0] == set(range(8))
        assert set().union(*classes[1:]) == {8, 9}
        assert sorted(len(edge) for edge in edges[1:]) == [2, 2, 3, 3]


def test_all_settings_make_1200_steps_and_fedavg_goes_on() -> None:
    quick, full = tier_settings(quick=True), tier_settings(quick=False)
    assert len(set(quick)) == len(quick) == 15
    assert len(set(full)) == len(full) == 30
    assert set(quick) < set(full)
    for setting in full:
        assert setting.steps == (1800 if setting.kappa2 == 1 else 1200)
        assert setting.cloud_rounds * setting.kappa1 * setting.kappa2 == setting.steps
        assert setting.kappa1 * setting.kappa2 == 60


def test_the_figures_of_the_tiers_are_taken_from_the_right_settings() -> None:
    def outcome(setting: Setting) -> Outcome:
        if setting.layout == "unequal":
            final = 0.5 if setting.equal else 0.7 + setting.seed / 100
            return Outcome([final], final=final)
        after = {(60, 1): 12, (6, 10): 3 if setting.layout == "edge-iid" else 6}[setting.kappa1, setting.kappa2]
        return Outcome([0.5] * (after - 1) + [0.9], final=0.9)

    found = tier_figures({setting: outcome(setting) for setting in tier_settings(quick=True)})
    assert found["weighted_minus_equal_points"] == pytest.approx(21.0)
    assert found["weighted_minus_equal_points_se"] == pytest.approx(1 / math.sqrt(3))
    assert (found["cloud_round_ratio_iid"], found["cloud_round_ratio_noniid"]) == (4.0, 2.0)
    assert found["cloud_round_ratio_iid_se"] == 0.0
    assert found["tiers"]["edge-iid (60,1)"]["cloud_rounds_to_85"] == [12, 12, 12]


@needs_data
def test_images_are_dealt_once_and_tested_on_nobody_s() -> None:
    shares, (x, y) = deal(seed=1)
    assert [set(share_y.tolist()) for _, share_y in shares] == [{node // 5} for node in range(50)]
    assert {len(share_y) for _, share_y in shares} == {160}
    assert np.bincount(y).tolist() == [90] * 10
    trained = {row.tobytes() for share_x, _ in shares for row in share_x}
    assert len(trained) == 8000
    assert not trained & {row.tobytes() for row in x}


@needs_data
def test_with_one_edge_round_per_cloud_round_it_does_not_matter_who_is_at_which_edge() -> None:
    one, other = (run_setting(Setting(layout, 12, 1, seed=0, steps=24)) for layout in ("edge-iid", "edge-noniid"))
    assert list(one.accuracy) == pytest.approx(list(other.accuracy), abs=0.003)
    assert max(one.divergence) < min(other.divergence)


@needs_data
def test_equal_weights_change_nothing_where_edges_are_equal_and_much_where_not() -> None:
    def accuracy(layout: Layout, equal: bool) -> list[float]:
        return list(run_setting(Setting(layout, 6, 2, seed=0, equal=equal, steps=24)).accuracy)

    assert accuracy("edge-iid", True) == pytest.approx(accuracy("edge-iid", False), abs=0.003)
    assert accuracy("unequal", True)[-1] < accuracy("unequal", False)[-1] - 0.1


# -- mobility


def test_accuracy_around_a_time_is_a_mean_over_time_not_over_rounds() -> None:
    course = Course([0.0, 90.0, 95.0, 120.0], [0.1, 0.5, 0.9, 1.0], {})
    assert course.around(100.0, window=0.1) == pytest.approx((0.5 * 5 + 0.9 * 5) / 10)
    assert course.around(100.0, window=1.0) == pytest.approx((0.1 * 90 + 0.5 * 5 + 0.9 * 5) / 100)
    assert course.around(120.0, window=0.1) == pytest.approx(0.9)


def test_a_gap_is_static_less_moving_in_points_and_paired_by_seed() -> None:
    def course(level: float) -> Course:
        return Course([0.0, 10.0], [level, level], {"exited": 3})

    found = {
        MobilitySetting(seed, 1): {
            "static": course(0.8 + seed / 10),
            "handover": course(0.79 + seed / 10),
            "no-handover": course(0.7 + seed / 10),
        }
        for seed in (0, 1)
    }
    figures = mobility_figures(found)
    assert figures["handover_gap_points"] == pytest.approx(1.0)
    assert figures["handover_gap_points_se"] == pytest.approx(0.0, abs=1e-9)
    assert figures["no_handover_gap_points"] == pytest.approx(10.0)
    assert figures["mobility"]["handover"]["happened"] == [{"exited": 3}] * 2
    assert [setting.seed for setting in mobility_settings(quick=True)] == [0, 1, 2, 3, 4]


@needs_data
def test_the_three_runs_differ_in_nothing_but_who_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = MobilitySetting(seed=3, cloud_rounds=2)
    static = run_arm("static", setting)
    assert len(static.accuracy) == 3
    monkeypatch.setattr(hierarchy_mobility, "SHARE", 0.0)
    for arm in ("handover", "no-handover"):
        still = run_arm(arm, setting, end_s=static.time_s[-1], round_s=1.0)
        assert (still.accuracy, still.time_s) == (static.accuracy, static.time_s)


@needs_data
def test_terminals_that_move_are_handed_over_or_leave_and_work_is_interrupted() -> None:
    setting = MobilitySetting(seed=3, cloud_rounds=2)
    with_it, without = (run_arm(arm, setting, round_s=0.5) for arm in ("handover", "no-handover"))
    assert with_it.happened["handed-over"] > 20
    assert "handed-over" not in without.happened
    assert without.happened["left"] == without.happened["entered"] > 20
    assert with_it.happened["exited"] > 0
    assert without.happened["exited"] > 0
    assert with_it.steps_lost < without.steps_lost < without.steps
    # What is collected through the next edge counts beside the substitute's.
    assert with_it.happened["merged"] > without.happened["merged"]


# -- planning


@pytest.fixture
def planner() -> Iterator[Planner]:
    given = ensure_identity(1)
    yield Planner(1000)
    if given:
        drop_identity()


def test_planning_chooses_in_every_cell_and_moves_what_is_known_of_terminals() -> None:
    plan = plan_rounds(1000, rounds=2)
    assert plan.cells == 10
    assert 50 < plan.chosen <= 100
    assert plan.moved > 5
    assert plan.round_s == pytest.approx(sum(plan.rounds_s) / 2)
    assert min(plan.cells_s, plan.edges_s, plan.cpu_s, plan.delivered_s, plan.first_s) > 0


def test_planning_goes_through_the_centre_s_own_edges(planner: Planner) -> None:
    assert planner.tier.cells(planner.grid, Round(1)).keys() == planner.edges.keys()
    for cell, edge in planner.edges.items():
        below = edge.layered.inner
        assert isinstance(below, NarrowedGrid)
        assert list(below.get_node_ids()) == planner.coverage.members(cell)


def test_a_planned_edge_shows_its_strategy_only_members_that_satisfy_the_rule(planner: Planner) -> None:
    planner.plan()
    for cell, edge in planner.edges.items():
        shown, told = list(edge.layered.get_node_ids()), edge.layered.states[1].told
        assert len(shown) == CHOSEN_PER_CELL
        assert set(shown) <= set(planner.coverage.members(cell))
        table = told.of(np.array(shown, np.uint64))
        assert Rule(RULE).mask(table.columns, len(shown)).all()


def test_every_planned_round_looks_again_and_what_is_known_goes_along(planner: Planner) -> None:
    before = {cell: set(planner.coverage.members(cell)) for cell in planner.edges}
    moved = sum(planner.plan()[3] for _ in range(3))
    after = {cell: set(planner.coverage.members(cell)) for cell in planner.edges}
    assert moved >= sum(len(after[cell] - before[cell]) for cell in after) > 0
    for cell, edge in planner.edges.items():
        known = edge.layered.states[1].learned
        assert all("loss" in known.row(node) for node in after[cell])


@pytest.mark.parametrize("nodes", [200, 1000])
def test_a_planned_round_lists_the_nodes_three_times_however_many_edges_there_are(
    nodes: int, planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[int] = []
    listing = Registered.get_node_ids

    def counted(grid: Registered) -> Iterable[int]:
        listed.append(len(grid.nodes))
        return listing(grid)

    monkeypatch.setattr(Registered, "get_node_ids", counted)
    crowd = Planner(nodes) if nodes != 1000 else planner
    listed.clear()
    crowd.plan()
    assert listed == [nodes] * 3


def test_an_edge_that_is_sent_its_order_plans_as_one_that_is_asked(planner: Planner) -> None:
    asked = Planner(1000)
    chosen = asked.plan()[4]
    assert planner.deliver() > 0
    for cell, edge in planner.edges.items():
        assert edge.strategy.shown == list(asked.edges[cell].layered.get_node_ids())
    assert sum(len(edge.strategy.shown) for edge in planner.edges.values()) == chosen


def test_planning_sends_nothing(planner: Planner) -> None:
    assert list(planner.grid.send_and_receive([])) == []
    with pytest.raises(AssertionError, match="sends nothing"):
        planner.grid.send_and_receive([Message(RecordDict(), 1, "train")])


def test_registered_nodes_have_ids_of_their_own_in_the_order_of_the_terminals() -> None:
    grid = Registered(1000)
    assert len(set(grid.nodes)) == 1000
    assert min(grid.nodes) > 1000
    assert 2**63 < max(grid.nodes) < 2**64  # as Flower's
    assert [grid.partition_of[node] for node in grid.get_node_ids()] == list(range(1000))


# -- the harness


def test_the_error_of_a_ratio_is_that_of_leaving_one_seed_out() -> None:
    above, below = [12.0, 10.0, 14.0], [3.0, 2.0, 4.0]
    left_out = [24 / 6, 26 / 7, 22 / 5]
    spread = sum((one - sum(left_out) / 3) ** 2 for one in left_out)
    assert ratio_and_error(above, below) == pytest.approx((4.0, math.sqrt(2 / 3 * spread)))
    assert ratio_and_error([8.0], [2.0]) == (4.0, 0.0)
    assert mean_and_error([5.0]) == (5.0, 0.0)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_jobs(workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_jobs(math.sqrt, [9.0, 4.0, 1.0], workers=workers) == [3.0, 2.0, 1.0]
    assert "3 of 3" in capsys.readouterr().err


def test_what_a_job_raises_in_another_process_is_raised_here() -> None:
    with pytest.raises(ValueError, match="math domain"):
        run_jobs(math.sqrt, [4.0, -1.0], workers=2)


def test_sigterm_ends_the_workers_and_says_which_signal_it_was() -> None:
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    begin_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt) as interrupt:
        run_jobs(time.sleep, [60.0, 60.0], workers=2)
    timer.join()
    assert interrupt.value.args == (signal.SIGTERM,)
    assert time.monotonic() - begin_s < 30
    # Where the pool's own thread has reaped a worker, its `Process` still calls itself started.
    assert [child.pid for child in multiprocessing.active_children() if _lives(child.pid)] == []


def _lives(pid: int | None) -> bool:
    try:
        os.kill(pid or 0, 0)
    except ProcessLookupError:
        return False
    return True
