"""Step-bounded training through a real `flwr run`: Ray, sockets and Flower's own FedAvg."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flower_edge.runtime.launching.launcher import launch

APP = Path(__file__).parents[1] / "apps" / "steps_app"


def point_after(node: int, steps: int) -> float:
    """Where a node gets to from 0 in so many steps; every number in it is exact in binary."""
    speed = place = 0.0
    for step in range(steps):
        speed = speed / 2 + (node + 1) * (step + 1) / 8
        place += speed
    return place


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_slices_through_flwr_run_give_the_same_model_and_a_request_takes_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWER_EDGE_STATE", str(tmp_path / "state"))
    lines: list[str] = []
    result = launch(APP, runs=tmp_path / "runs", on_line=lines.append, timeout_s=240)
    assert (result.status, result.details) == ("completed", ""), "\n".join(lines)
    (told,) = [json.loads(line.removeprefix("told=")) for line in lines if line.startswith("told=")]

    a_round = (point_after(0, 8) + point_after(1, 8)) / 2
    assert told["whole"] == told["sliced"] == [2 * a_round] * 3
    assert told["decided"] == 2 * 2 * 2, "three slices are two decisions, for each of two nodes in each of two rounds"

    a_round = (8 * point_after(0, 8) + 4 * point_after(1, 4)) / 12
    assert told["stopped"] == pytest.approx([2 * a_round] * 3)
    stops = [event for event in told["events"] if event[3] == "stop"]
    assert stops == [[1, 4, "overload (load=0.9)", "stop"], [2, 4, "overload (load=0.9)", "stop"]]
