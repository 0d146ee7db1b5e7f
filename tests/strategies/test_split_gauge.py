"""`Split(gauge=True)`: what the first batch of a round gives away, by device and round."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from split_toy import BATCH, MERGE, device_app, fedavg, initial, samples, split, start
from toy import same_model

from flower_edge.errors import ConfigError
from flower_edge.models.schedule import make_schedule
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.splitting.service import Patience
from flower_edge.splitting.leakage import distance_correlation
from flower_edge.splitting.planner import FixedCut, Scheduled
from flower_edge.strategies.splitting.split import Split
from flower_edge.strategies.splitting.stream_plane import StreamPlane
from flower_edge.transport.credentials import Insecure


def run(strategy: Split, rounds: int = 1) -> Any:
    with LocalGrid(device_app(), 3) as grid:
        return strategy.start(grid, start(), rounds)


def leaks(strategy: Split) -> list[float]:
    """In the order of rounds and devices."""
    return [float(row["leak"]) for row in strategy.history]


def test_it_is_that_of_the_first_batch_with_what_leaves_at_the_cut_and_its_greatest_is_a_metric() -> None:
    strategy = split(planner=FixedCut(1), gauge=True)
    result = run(strategy)
    expected = []
    for number in range(3):
        x, y = samples(number)
        _, batch = next(iter(make_schedule(x, y, steps=1, epochs=None, batch_size=BATCH, seed=number, first_step=0)))
        with torch.no_grad():
            sent = initial()[0](torch.tensor(x[batch])).numpy()
        expected.append(distance_correlation(x[batch], sent, corrected=True))
    assert leaks(strategy) == pytest.approx(expected, rel=1e-5)
    assert result.train_metrics_clientapp[1]["leak_max"] == max(leaks(strategy))


@pytest.mark.parametrize("standardise", [None, "z-score"])
def test_inputs_that_leave_as_the_model_sees_them_are_all_given_away(standardise: Any) -> None:
    strategy = split(planner=FixedCut(0), gauge=True, standardise=standardise)
    run(strategy)
    assert leaks(strategy) == pytest.approx([1.0] * 3, abs=1e-6)


def test_who_sends_nothing_has_none_and_the_model_is_the_same() -> None:
    strategy = split(planner=Scheduled(((1, 3, 6), (4, 2, 5))), gauge=True)
    found = run(strategy, MERGE).arrays
    # Device 2 has the whole model in round 1; device 1's batch in the middle of its ten samples has two of them.
    assert [math.isnan(leak) for leak in leaks(strategy)] == [False, False, True, False, True, False]
    assert same_model(found, fedavg(1))


def test_over_a_channel_it_is_the_same() -> None:
    plane = StreamPlane(credentials=Insecure(), patience=Patience(silence_s=20.0, dial_s=20.0))
    ways = [split(planner=FixedCut(2), gauge=True, plane=way) for way in (None, plane)]
    for strategy in ways:
        run(strategy)
    assert leaks(ways[0]) == leaks(ways[1])
    assert all(0.0 <= leak <= 1.0 for leak in leaks(ways[0]))


def test_not_asked_for_it_is_not_measured() -> None:
    strategy = split(planner=FixedCut(2))
    result = run(strategy)
    assert all(map(math.isnan, leaks(strategy)))
    assert "leak_max" not in result.train_metrics_clientapp[1]
    with pytest.raises(ConfigError, match="gauge = 'yes': expected True or False"):
        split(gauge="yes")
