"""What DCENT comes to in the experiment of [1]: links left, and f beside the least possible."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from flower_edge.control.baselines import Equal
from flower_edge.control.dcent import Dcent
from flower_edge.control.simulate import Trace, simulate
from flower_edge.topology.set_ups import set_up


@cache
def traces(controller: Dcent | Equal, name: str, seeds: int) -> list[Trace]:
    return [simulate(controller, set_up(name, seed), 150) for seed in range(seeds)]


@pytest.mark.parametrize("step_cap", [0.03, pytest.param(0.05, marks=pytest.mark.full)])
def test_the_literal_reading_leaves_as_many_links_as_in_the_document(step_cap: float) -> None:
    left = np.mean([trace.links[-1] for trace in traces(Dcent.literal(step_cap=step_cap), "nlos", 4)])
    assert abs(left - 109) <= 15


@pytest.mark.parametrize("seeds", [3, pytest.param(8, marks=pytest.mark.full)])
def test_f_comes_near_its_optimum_with_all_links_kept(seeds: int) -> None:
    runs = traces(Dcent(), "nlos", seeds)
    assert all(trace.links[-1] == 210 for trace in runs)
    assert np.mean([trace.f_over_opt() for trace in runs]) <= 1.75
    # Every seed, not only their mean, is far better off than with equal shares.
    for trace, equal in zip(runs, traces(Equal(), "nlos", seeds), strict=True):
        assert trace.regret_s < 0.35 * equal.regret_s


def test_pruning_shortens_the_true_time_of_a_round() -> None:
    pruned = traces(Dcent(step_cap=0.03, prune_below=0.06), "nlos", 3)
    for trace, dense in zip(pruned, traces(Dcent(), "nlos", 3), strict=True):
        assert trace.true_s[-50:].mean() < 0.5 * dense.true_s[-50:].mean()
        assert trace.links[-1] < 130
