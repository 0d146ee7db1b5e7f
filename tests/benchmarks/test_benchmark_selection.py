"""The comparison of selectors is on equal terms, and says where each loses; its figures are no test's business."""

from __future__ import annotations

import pytest

from benchmarks import hierarchy, hierarchy_selection
from benchmarks.hierarchy_data import data_folder
from benchmarks.hierarchy_selection import DEFAULTS, SELECTORS, measure_selection, run_once, terminals_of
from flower_edge.errors import DataError
from flower_edge.selection import Pipeline, RandomScore


def has_data() -> bool:
    try:
        data_folder()
    except DataError:
        return False
    return True


needs_data = pytest.mark.skipif(not has_data(), reason="MNIST's test files are not here")


def test_every_default_is_measured_beside_the_control() -> None:
    assert set(DEFAULTS) < set(SELECTORS)
    assert "random" in SELECTORS
    assert all(make().count == 10 for make in SELECTORS.values())


def test_the_selectors_of_the_headline_ask_ten_and_not_by_lot() -> None:
    assert set(DEFAULTS) == {"oort", "power-of-choice", "fedcs", "round-robin"}
    for make in DEFAULTS.values():
        assert make().over_select == 1.0
        assert not isinstance(make().score, RandomScore)


def test_homogeneous_terminals_are_all_alike_and_at_the_median() -> None:
    devices, links = terminals_of("homogeneous", 3)
    uneven, _ = terminals_of("heterogeneous", 3)
    assert (len(set(devices)), len(set(links))) == (1, 1)
    assert len(set(uneven)) == len(uneven) == 100
    assert sum(device.flops_per_s < devices[0].flops_per_s for device in uneven) in range(30, 71)


@needs_data
def test_selectors_that_choose_the_same_are_the_same_run() -> None:
    by_lot, in_turn = (
        run_once(Pipeline(100, score=SELECTORS[name]().score), "heterogeneous", 1, rounds=1)
        for name in ("random", "round-robin")
    )
    assert by_lot == in_turn
    assert by_lot.asked == 100
    assert by_lot.time_s > 0


@needs_data
def test_the_keys_and_the_losses_are_there_and_can_be_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hierarchy_selection, "TARGET_ACCURACY", 0.3)
    monkeypatch.setattr(hierarchy_selection, "LATE_ROUNDS", 2)
    some = {name: SELECTORS[name] for name in ("random", "round-robin", "fedcs", "random-over-selected")}
    told: list[str] = []
    found = measure_selection(True, told.append, some)
    for key in ("best_selection_time_ratio", "homogeneous_worst_time_ratio"):
        assert found[key] > 0
        assert found[f"{key}_se"] >= 0
    detail = found["selection"]
    assert set(detail["heterogeneous"]) == set(detail["homogeneous"]) == set(detail["late_accuracy"]) == set(some)
    best = min(detail["heterogeneous"][name]["time_ratio"] for name in ("round-robin", "fedcs"))
    assert found["best_selection_time_ratio"] == best == detail["heterogeneous"][detail["best"]]["time_ratio"]
    worst = max(detail["homogeneous"][name]["time_ratio"] for name in ("round-robin", "fedcs"))
    assert found["homogeneous_worst_time_ratio"] == worst
    assert detail["homogeneous"][detail["homogeneous_worst"]]["time_ratio"] == worst
    behind = {name for name, figures in detail["heterogeneous"].items() if figures["time_ratio"] > 1}
    said = {text.split(":")[0] for text in detail["loses"] if "random's time where terminals are heterog" in text}
    assert said == behind
    assert len(told) == 3 * len(some)
    hierarchy._print_selection(detail)
    printed = capsys.readouterr().out
    assert all(name in printed for name in some)
