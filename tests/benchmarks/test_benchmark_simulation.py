"""The simulation benchmark measures both sides, by the keys it promises; how fast they are is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from benchmarks.apps.noop_federation.fe_noop_federation.client_app import app
from benchmarks.apps.noop_federation.fe_noop_federation.rounds import measure_sizes, model_of
from benchmarks.simulation import FULL_ONLY, QUICK, RATIOS, ratios, verdicts
from benchmarks.simulation_sides import Case, Figures, measure_local
from flower_edge.runtime import LocalGrid
from flower_edge.wire import arrays_of

ROOT = Path(__file__).resolve().parents[2]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.simulation", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def figures(message_s: float = 1.0, round_s: float = 1.0, peak_bytes: int = 1) -> Figures:
    return Figures(message_s, round_s, peak_bytes, 1.0, [message_s], [round_s])


def test_an_unknown_option_exits_with_2() -> None:
    done = benchmark("--quik")
    assert done.returncode == 2
    assert "--quik" in done.stderr


@pytest.mark.parametrize("text", ["10", "10x60", "0x60k", "1x60k", "10x0M", "60kx10"])
def test_a_case_that_cannot_be_read_exits_with_2_and_shows_one_that_can(text: str) -> None:
    done = benchmark("--only", text)
    assert done.returncode == 2
    assert "such as 10x60k" in done.stderr


def test_every_ratio_has_its_case_and_the_quick_form_has_the_first_two() -> None:
    quick, full = {case.name for case in QUICK}, {case.name for case in (*QUICK, *FULL_ONLY)}
    assert [ratio.case in quick for ratio in RATIOS] == [True, True, False]
    assert all(ratio.case in full for ratio in RATIOS)


def test_a_ratio_is_rays_figure_over_ours() -> None:
    local = {"100x60k": figures(message_s=0.02), "10x10M": figures(round_s=0.25), "100x10M": figures(peak_bytes=400)}
    ray = {"100x60k": figures(message_s=0.8), "10x10M": figures(round_s=1.0), "100x10M": figures(peak_bytes=8000)}
    found = ratios(local, ray)
    assert found == {
        "message_overhead_ratio_100": pytest.approx(40.0),
        "round_ratio_10m_10": pytest.approx(4.0),
        "memory_ratio_10m_100": pytest.approx(20.0),
    }
    assert [line.rsplit(" ", 1)[1] for line in verdicts(found)] == ["reached", "MISSED", "reached"]


def test_a_ratio_whose_case_was_not_measured_is_left_out() -> None:
    assert ratios({"10x60k": figures()}, {"10x60k": figures()}) == {}


def test_a_model_has_the_parameters_asked_for_and_no_two_equal_arrays() -> None:
    arrays = list(arrays_of(model_of(60_000)).values())
    assert sum(array.size for array in arrays) == 60_000
    assert not any(np.array_equal(one, other) for i, one in enumerate(arrays) for other in arrays[:i])


def test_the_client_gives_back_the_very_bytes_it_got() -> None:
    arrays = model_of(60_000)
    with LocalGrid(app, nodes=2) as grid:
        message = Message(RecordDict({"arrays": arrays}), next(iter(grid.get_node_ids())), "train")
        (reply,) = grid.send_and_receive([message])
    echoed = reply.content.array_records["arrays"]
    assert {name: array.data for name, array in echoed.items()} == {name: array.data for name, array in arrays.items()}


def test_rounds_are_measured_per_size_without_the_first() -> None:
    with LocalGrid(app, nodes=3) as grid:
        small, large = measure_sizes(grid, 3, [(1000, 2), (4000, 4)])
    assert [len(small[key]) for key in ("message_rounds_s", "fedavg_rounds_s")] == [2, 2]
    assert [len(large[key]) for key in ("message_rounds_s", "fedavg_rounds_s")] == [4, 4]
    assert small["begin_s"] < small["end_s"] <= large["begin_s"] < large["end_s"]


def test_a_client_that_fails_is_no_fast_round() -> None:
    broken = ClientApp()

    @broken.train()
    def train(message: Message, context: Context) -> Message:
        raise RuntimeError("out of order")

    with LocalGrid(broken, nodes=3) as grid, pytest.raises(RuntimeError, match="3 of them errors"):
        measure_sizes(grid, 3, [(1000, 1)])


def test_the_side_in_process_is_measured_in_a_process_of_its_own(tmp_path: Path) -> None:
    measured = measure_local(Case(2, 4_000_000, rounds=2), cpus=1, folder=tmp_path, timeout_s=120)
    assert len(measured.message_rounds_s) == len(measured.fedavg_rounds_s) == 2
    assert 0 < measured.message_s < measured.round_s
    assert measured.peak_bytes > 16_000_000
    assert 0 < measured.start_s < 120


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
@pytest.mark.full
def test_both_sides_are_measured_end_to_end_by_the_promised_keys() -> None:
    done = benchmark("--only", "10x60k", "--only", "10x4M", "--rounds", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    result: dict[str, Any] = json.loads(done.stdout)
    for side in ("local", "ray"):
        assert list(result[side]) == ["10x60k", "10x4M"]
        for figures_of_case in result[side].values():
            assert all(figures_of_case[key] > 0 for key in ("message_s", "round_s", "peak_bytes", "start_s"))
            assert all(len(figures_of_case[key]) == 3 for key in ("message_rounds_s", "fedavg_rounds_s"))
        assert result["start_s"][side] > 0
        # Ten times 16 MB travel, so the larger model must show: each window has a peak of its own.
        assert result[side]["10x4M"]["peak_bytes"] > result[side]["10x60k"]["peak_bytes"]
    assert result["took_s"] > 0
    assert result["quick"] is False
    assert result["cpus"] in (1, 2)
    assert set(result["versions"]) == {"python", "system", "flower-edge", "flwr", "ray", "numpy"}
    # The cases of the ratios were not asked for, so there is nothing to say about them.
    assert not any(
        key in result for key in ("message_overhead_ratio_100", "round_ratio_10m_10", "memory_ratio_10m_100")
    )
