"""The benchmark of agents measures what it says: its arithmetic, and that a small form of it runs."""

from __future__ import annotations

import json

import pytest

from benchmarks import peers

pytestmark = pytest.mark.slow


def test_a_second_may_lie_anywhere() -> None:
    steady = [(0.01 * i, 1e4) for i in range(400)]
    assert peers.over_any_second(steady, 1e6) == pytest.approx(0.01, abs=0.011)
    burst = [*steady, *((4.0 + 1e-4 * i, 1e4) for i in range(50))]
    assert peers.over_any_second(burst, 1e6) == pytest.approx(0.5, abs=0.02)


def test_a_small_form_runs_and_has_its_keys(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "_PACED", ((20.0, 0.2),))
    assert peers.main(["--quick", "--json", "--only", "pacing"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["parts"] == ["pacing"]
    assert {"pacing_over", "pacing_under"} <= found.keys()
    assert found["targets"] == {
        "peer_over_plain_grpc_40mb": 0.8,
        "peer_rss_over_payload_mb": 64.0,
        "pacing_over": 0.02,
        "pacing_under": 0.02,
        "detect_dead_s": 0.5,
        "detect_hung_s": 8.0,
        "detect_cut_s": 8.0,
    }
