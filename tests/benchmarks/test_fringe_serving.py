"""The figures of a served pipeline count what they say, and come out of real processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.fringe_base import Base, network, on_machines
from benchmarks.fringe_serving import FIGURES, Answers, _Plan, measure
from benchmarks.fringe_serving_child import main as child
from benchmarks.fringe_serving_models import BEFORE, COMPRESSED, HEALED, Served, other_pairs
from benchmarks.fringe_serving_swaps import Windows, p99_ratio, paired
from flower_edge.fringe import Link, Pair, PairShape, WireForm
from flower_edge.fringe.pair_parts_torch import placed
from flower_edge.fringe.pipeline_torch import Pipeline


@pytest.fixture(scope="module")
def whole() -> Pipeline:
    torch.set_num_threads(1)
    return on_machines(network(0).eval())


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 1, 32, 32)).astype(np.float32)


def test_an_answer_of_another_version_is_mixed_and_one_that_did_not_come_is_lost(whole: Pipeline) -> None:
    x = pictures(2)
    answers = Answers(x)
    answers.serves(1, whole)
    answers.serves(2, whole.formed({0: WireForm(2), 1: WireForm(2)}))
    right = whole.run(torch.from_numpy(x[1:])).numpy().tolist()
    answers.check([{"sample": 1, "version": 1, "output": right}])
    assert (answers.asked, answers.lost, answers.mixed) == (1, 0, 0)
    answers.check([{"sample": 1, "version": 2, "output": right}, {"sample": 0, "version": 1, "output": right}])
    assert answers.mixed == 2
    answers.check([{"sample": 1, "version": 9, "output": right}, {"sample": 0, "lost": "late"}])
    assert (answers.asked, answers.lost, answers.mixed) == (5, 1, 3)


def test_only_requests_under_way_during_a_swap_are_compared_and_with_themselves() -> None:
    swaps = [{"sent_s": at, "seconds_s": 0.5} for at in (0.0, 0.8, 2.0, 3.0)]
    steady = [{"sent_s": 10 + at, "seconds_s": 0.1 * (number + 1)} for number, at in enumerate((0.0, 0.8, 2.0, 3.0))]
    found = paired(swaps, steady, [(1.0, 2.1)])
    assert found.during_s.tolist() == [0.5, 0.5]
    assert found.steady_s.tolist() == pytest.approx([0.2, 0.3])
    assert len(paired([{"sent_s": 1.5, "lost": "late"}], steady[:1], [(1.0, 2.0)]).during_s) == 0


def test_the_ratio_is_that_of_all_windows_together() -> None:
    rng = np.random.default_rng(0)
    steady = rng.exponential(1.0, 2000)
    assert p99_ratio([(2 * steady[:500], steady[:500]), (2 * steady[500:], steady[500:])]) == pytest.approx(2.0)


def test_another_version_costs_the_same_and_gives_something_else() -> None:
    pairs = {0: Pair(PairShape(((16, 32, 32),), 2, 4, 4)).eval()}
    twin = other_pairs(pairs)[0]
    assert twin.shape == pairs[0].shape
    assert any(
        not np.array_equal(a, b) for a, b in zip(twin.arrays().values(), pairs[0].arrays().values(), strict=True)
    )


def test_a_child_that_is_told_to_be_neither_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert child(["stage"]) == 2
    assert "links, traffic" in capsys.readouterr().err


@pytest.mark.slow
def test_a_short_measurement_has_all_figures_and_loses_and_mixes_nothing(whole: Pipeline) -> None:
    shapes = {0: PairShape(((16, 32, 32),), 3, 2, 4), 1: PairShape(((32, 16, 16),), 6, 2, 4)}
    pairs = {at: Pair(shape).eval() for at, shape in shapes.items()}
    bits = {f"{one} bits": whole.formed({0: WireForm(one), 1: WireForm(one)}) for one in (16, 4)}
    pipelines = {BEFORE: whole, **bits, COMPRESSED: placed(whole, pairs), HEALED: placed(whole, other_pairs(pairs))}
    base = Base(network(0), 10.0, 10.0, "untrained", False)
    plan = _Plan(2, 3, Windows(pairs=2, seconds_s=1.5, rate_per_s=10.0))
    links = (Link(20e6, 0.004), Link(40e6, 0.002))
    found = measure(True, served=Served(base, pipelines, (10.0, 10.0)), links=links, plan=plan, told=lambda _: None)
    assert {figure.key for figure in FIGURES} <= set(found)
    assert found["swap_lost"] == found["swap_mixed"] == 0
    assert found["serving"]["swaps"]["swaps"] >= 2
    # 26 and 7 ms on the links, which no machine can make up for.
    table = found["serving"]["latency"]["versions"]
    assert table[BEFORE]["p50_ms"] > 32
    assert table[COMPRESSED]["p50_ms"] > 6
    assert found["pipeline_speedup_both_ways"] < found["pipeline_speedup_limit"]
