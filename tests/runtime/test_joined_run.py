"""A real `flwr run` in which the server is a worker and Ray's workers leave letters for one another and for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flower_edge.runtime.launching.launcher import launch

APP = Path(__file__).parents[1] / "apps" / "joined_app"


def expected(rounds: int) -> list[list[float]]:
    """The same gossip in one process: everybody hears everybody."""
    models = [np.full(4, float(node)) for node in range(3)]
    for round_ in range(1, rounds + 1):
        heard = [[models[i] for i in range(3) if i != node and round_ > 1] for node in range(3)]
        models = [np.mean([models[node], *heard[node]], axis=0) + (node + 1) / 8 for node in range(3)]
    return [model.tolist() for model in models]


@pytest.mark.slow
@pytest.mark.flwr
@pytest.mark.ray
def test_gossip_with_a_server_that_works_gives_the_same_models_through_each_mailbox(tmp_path: Path) -> None:
    lines: list[str] = []
    result = launch(APP, runs=tmp_path / "runs", on_line=lines.append, timeout_s=240)
    assert (result.status, result.details) == ("completed", ""), "\n".join(lines)
    (told,) = [json.loads(line.removeprefix("told=")) for line in lines if line.startswith("told=")]
    assert told["shared"]["models"] == told["relayed"]["models"] == expected(4)
    assert told["shared"]["heard"] == told["relayed"]["heard"] == 3 * 3 * 2
    assert told["shared"]["processes"] >= 2, "the server's own process and at least one of Ray's"
