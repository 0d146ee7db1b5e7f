"""The topology-control benchmark measures what it says, on equal terms; the figures are no test's business."""

from __future__ import annotations

import json
import math
from functools import partial

import numpy as np
import pytest

from benchmarks import topology_control, topology_control_speed
from benchmarks.harness.targets import Figure, targets_of, verdicts
from benchmarks.topology_control import FIGURES, PARTS
from benchmarks.topology_control_candidates import CANDIDATES, DOUBLY_STOCHASTIC, LITERAL, LITERAL_CAPS, ONE_PEER
from benchmarks.topology_control_costs import SEEDS, CostJob, Tuning, cost_jobs, joint_bias, run_cost, tune_ogd
from benchmarks.topology_control_learning import (
    COMPARED,
    LENET_CONTROLLERS,
    LearningJob,
    Lesson,
    digits_figures,
    equal_jobs,
    lenet_figures,
    lenet_jobs,
    other_jobs,
    run_lesson,
)
from benchmarks.topology_control_networkx import networkx_round, walked_round
from benchmarks.topology_control_speed import SpeedMismatch, big_world, measure_network, measure_speed
from flower_edge.cli.gossip_learning import TASKS, learn
from flower_edge.control.baselines import Equal, equal_control
from flower_edge.control.controller import Control
from flower_edge.control.dcent import Dcent
from flower_edge.control.ogd import Ogd
from flower_edge.control.schedules import BaseKPlus1, OnePeerExponential
from flower_edge.control.simulate import simulate
from flower_edge.control.true_time import Sparse, TimeOptimal
from flower_edge.topology.connectivity import connected
from flower_edge.topology.mixing import consensus_bias
from flower_edge.topology.set_ups import SET_UPS, set_up
from flower_edge.topology.topology import Topology

# -- what is printed


@pytest.mark.parametrize("arguments", [["--quik"], ["--only", "everything"], ["--only"], ["costs"], ["--mnist"]])
def test_a_mistake_in_the_command_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        topology_control.main(arguments)
    assert left.value.code == 2
    assert "usage: python -m benchmarks.topology_control" in capsys.readouterr().err


def test_the_figures_and_their_targets_are_those_promised() -> None:
    assert {figure.key: figure.target for figure in FIGURES} == {
        "dcent_f_over_opt_nlos": "at most 1.75",
        "dcent_regret_over_ogd_row": "at most 0.85",
        "literal_links_left": "94 to 124",
        "best_f_over_opt_nlos": "at most 1.55",
        "best_f_over_opt_per_device": "at most 1.3",
        "best_true_time_over_floor": "at most 1.12",
        "best_true_time_over_floor_sigma80": "at most 1.2",
        "time_to_90_speedup_nlos": "at least 12",
        "time_to_90_speedup_macro": "at least 1.1",
        "auto_min_speedup": "at least 0.97",
        "consensus_bias": "at most 1e-06",
        "control_ms_10k": "at most 8",
        "networkx_ratio_10k": "at least 150",
        "control_ms_100k": "at most 120",
        "lenet_time_to_90_speedup_nlos": "at least 15",
    }
    assert {figure.part for figure in FIGURES} == set(PARTS)
    assert tuple(range(8)) == SEEDS


def test_a_verdict_says_plainly_whether_a_target_was_reached() -> None:
    figures = (Figure("links", "costs", "", 94, 124), Figure("s", "costs", "", most=1.0), Figure("shown", "costs", ""))
    told = verdicts(figures, {"links": 125.0, "s": 1.0, "s_se": 0.25})
    assert [row[-1] for row in told] == ["MISSED", "reached", ""]
    assert [row[1] for row in told] == ["125.00", "1.00 ± 0.25", "not measured"]
    assert targets_of(figures) == {"links": [94, 124], "s": 1.0}


def test_a_tiny_form_is_one_json_object_with_the_keys_of_its_parts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topology_control, "WORKERS", 1)
    monkeypatch.setattr(topology_control, "tune_ogd", partial(tune_ogd, rounds=4))
    monkeypatch.setattr(topology_control, "cost_jobs", partial(cost_jobs, rounds=14))
    monkeypatch.setattr(topology_control, "equal_jobs", partial(equal_jobs, rounds=1))
    monkeypatch.setattr(topology_control, "SET_UPS", ("nlos", "macro"))
    monkeypatch.setattr(topology_control, "QUICK_SIZES", (500, 1000))
    monkeypatch.setattr(topology_control, "measure_speed", partial(measure_speed, networkx_at=1000, rounds=3))
    plan_less = {"time optimal": partial(TimeOptimal, tries=40), "auto": Sparse}
    plan_less["sigma2 <= 0.8"] = partial(TimeOptimal, bound=0.8, tries=40)
    plan_less["one peer, exponential"] = partial(OnePeerExponential, trials=100)
    plan_less["one peer, base 2"] = partial(BaseKPlus1, trials=100)
    for name, controller in plan_less.items():
        monkeypatch.setitem(CANDIDATES, name, controller)  # type: ignore[index]
    assert topology_control.main(["--quick", "--json", "--seeds", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    found = json.loads(out)
    assert found["parts"] == ["costs", "learning", "speed"]
    wanted = {figure.key.replace("_10k", "_1k") for figure in FIGURES} - {
        "control_ms_100k",
        "lenet_time_to_90_speedup_nlos",
    }
    wanted |= {f"time_to_90_speedup_{where}_barrier" for where in ("nlos", "macro")}
    errors = {f"{key}_se" for key in wanted} - {"consensus_bias_se"}  # a largest value has none
    rest = {"costs", "learning", "speed", "targets", "parts", "took_s", "cpus", "quick", "versions"}
    assert found.keys() == wanted | errors | rest
    assert found["consensus_bias"] < 1e-6
    assert found["networkx_ratio_1k"] > 1.0
    assert found["costs"]["set_ups"]["nlos"].keys() == {*CANDIDATES, "OGD row, tuned"}


def test_without_the_data_it_exits_with_1_and_says_so(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    assert topology_control.main(["--only", "lenet", "--mnist", str(tmp_path_factory.mktemp("nothing"))]) == 1
    assert "error:" in capsys.readouterr().err


# -- costs


def test_what_is_compared_meets_the_same_worlds() -> None:
    jobs = cost_jobs(Tuning(0.003, 3e-5, ()))
    in_nlos = {name: [job.seed for job in jobs if job.name == name and job.set_up == "nlos"] for name in CANDIDATES}
    assert set(map(tuple, in_nlos.values())) == {SEEDS}
    assert {job.rounds for job in jobs} == {150}
    tuned = next(job for job in jobs if job.steps is not None).controller()
    assert tuned == Ogd("row", weight_step=0.003, band_step=3e-5)
    assert {*DOUBLY_STOCHASTIC, *ONE_PEER, *LITERAL, *COMPARED, *LENET_CONTROLLERS} <= CANDIDATES.keys()
    assert [CANDIDATES[name]() for name in LITERAL] == [Dcent.literal(cap) for cap in LITERAL_CAPS]


def test_steps_are_tuned_on_nine_pairs_and_the_least_regret_wins() -> None:
    tuning = tune_ogd(rounds=6)
    assert len(tuning.regret_s) == 9
    assert (0.003, 1e-5) in {row[:2] for row in tuning.regret_s}
    assert (tuning.weight_step, tuning.band_step) == min(tuning.regret_s, key=lambda row: row[2])[:2]


def test_a_cost_is_that_of_the_simulated_controller() -> None:
    cost = run_cost(CostJob("EQUAL", "nlos", 3, rounds=12))
    trace = simulate(Equal(), set_up("nlos", 3), 12)
    assert cost.regret_s == trace.regret_s
    assert cost.true_s == pytest.approx(trace.true_s.mean())
    assert (cost.links, cost.bias, cost.column_error) == (210, pytest.approx(0.0), pytest.approx(0.0))


def test_the_optimum_that_knows_the_round_is_at_its_own_bound() -> None:
    cost = run_cost(CostJob("Dynamic OPT", "nlos", 3, rounds=12))
    assert cost.f_over_opt == pytest.approx(1.0)
    assert cost.column_error > 0.5  # and it listens to some far more than to others


def test_the_bias_of_equal_rounds_is_that_of_one() -> None:
    topology = Topology.complete(3)
    control = Control(np.array([0.5, 0.2, 0.1, 0.1, 0.3, 0.3]), np.array([0.3, 0.8, 0.4]), np.ones(6))
    of_one = consensus_bias(topology, control.weights, control.self_weights)
    assert joint_bias(topology, [control] * 40) == pytest.approx(of_one) != 0.0
    fair = equal_control(topology, np.ones(3))
    # A fair round before an unfair one does not make up for it.
    assert joint_bias(topology, [fair, *[control] * 40]) == pytest.approx(0.0)
    assert joint_bias(topology, [control] * 40 + [fair]) == pytest.approx(of_one)


# -- learning


def lesson(time_s: float, equal_s: dict[str, float] | None = None) -> Lesson:
    there = equal_s or {}
    return Lesson(10.0, time_s, 5.0, time_s / 2, 20, 0.9, 0.8, 1.0, there, {where: s / 2 for where, s in there.items()})


def test_a_speed_up_is_equal_s_time_in_that_set_up_over_the_other_s() -> None:
    equal = {seed: lesson(0.0, {"nlos": 100.0 * (seed + 1), "macro": 11.0}) for seed in (0, 1)}
    results = {LearningJob("EQUAL", "nlos", seed): told for seed, told in equal.items()}
    results |= {LearningJob("auto", "nlos", seed): lesson(10.0) for seed in (0, 1)}
    results |= {LearningJob("auto", "macro", seed): lesson(10.0) for seed in (0, 1)}
    for where in ("nlos", "macro"):
        results |= {LearningJob("auto", where, seed, staleness=1): lesson(5.0) for seed in (0, 1)}
    found = digits_figures(results)
    assert found["time_to_90_speedup_nlos_barrier"] == pytest.approx(15.0)
    assert found["time_to_90_speedup_nlos"] == pytest.approx(30.0)
    assert found["time_to_90_speedup_macro"] == pytest.approx(2.2)
    assert found["time_to_90_speedup_macro_barrier"] == found["auto_min_speedup"] == pytest.approx(1.1)
    assert found["auto_min_speedup_se"] == pytest.approx(0.0)
    assert found["learning"]["auto_min_at"] == "macro"
    assert found["learning"]["set_ups"]["nlos"]["auto"]["speedup_by_seed"] == pytest.approx([10.0, 20.0])


def test_who_never_gets_there_has_no_speed_up_and_is_told_as_json() -> None:
    results = {LearningJob("EQUAL", "nlos", 0): lesson(0.0, {"nlos": 100.0})}
    results[LearningJob("auto", "nlos", 0)] = lesson(math.inf)
    results[LearningJob("auto", "nlos", 0, staleness=1)] = lesson(math.inf)
    found = digits_figures(results)
    assert found["time_to_90_speedup_nlos"] == found["auto_min_speedup"] == 0.0
    assert found["learning"]["set_ups"]["nlos"]["auto"]["time_s"] is None
    json.dumps(found, allow_nan=False)


def test_lenet_s_speed_up_is_that_of_auto_without_a_barrier() -> None:
    jobs = lenet_jobs("somewhere", seeds=(0,), rounds=9)
    assert {(job.task, job.rounds, job.longer, job.path) for job in jobs} == {("mnist", 9, False, "somewhere")}
    results = {
        job: lesson(10.0 if job.label == "auto, stale 1" else 80.0, {"nlos": 160.0} if job.name == "EQUAL" else None)
        for job in jobs
    }
    found = lenet_figures(results)
    assert found["lenet_time_to_90_speedup_nlos"] == pytest.approx(16.0)
    assert found["lenet"].keys() == {*LENET_CONTROLLERS, "auto, stale 1"}
    assert found["lenet_time_to_90_speedup_nlos_barrier"] == pytest.approx(2.0)


def test_equal_learns_the_same_in_every_set_up_and_is_timed_in_each() -> None:
    one, other = (learn(Equal(), set_up(where, 0), 3, seed=0, task=TASKS["digits"]) for where in ("nlos", "macro"))
    np.testing.assert_array_equal(one.mean, other.mean)
    assert one.virtual_s[-1] > 2 * other.virtual_s[-1]
    for where, learned in (("nlos", one), ("macro", other)):
        trace = simulate(Equal(), set_up(where, 0), 3)
        assert learned.virtual_s[-1] == pytest.approx(trace.true_s.sum())


def test_a_run_that_is_not_good_enough_goes_on_for_twice_as_long() -> None:
    short = run_lesson(LearningJob("sparse 4", "macro", 0, rounds=3))
    assert (short.rounds_run, short.time_s) == (6, math.inf)
    assert run_lesson(LearningJob("sparse 4", "macro", 0, rounds=3, longer=False)).rounds_run == 3


def test_auto_is_trained_in_every_set_up_with_every_seed() -> None:
    equal = {seed: lesson(0.0) for seed in (0, 1)}
    jobs = other_jobs(equal, compare=("DCENT",))
    assert {(job.set_up, job.seed) for job in jobs if job.name == "auto"} == {(w, s) for w in SET_UPS for s in (0, 1)}
    assert {job.set_up for job in jobs if job.name == "DCENT"} == {"nlos", "macro"}
    assert {job.rounds for job in jobs if not job.staleness} == {12}
    tolerant = {(job.name, job.set_up, job.seed) for job in jobs if job.staleness}
    assert tolerant == {("auto", where, seed) for where in ("nlos", "macro") for seed in (0, 1)}


def test_the_short_form_saves_seeds_only_where_no_figure_is_told() -> None:
    jobs = other_jobs({seed: lesson(0.0) for seed in range(4)}, elsewhere=2)
    seeds = {where: [job.seed for job in jobs if job.set_up == where and not job.staleness] for where in SET_UPS}
    assert {where for where, told in seeds.items() if told == [0, 1, 2, 3]} == {"nlos", "macro"}
    assert {tuple(told) for told in seeds.values()} == {(0, 1, 2, 3), (0, 1)}


# -- speed


def test_networkx_comes_to_the_same_numbers_in_both_its_forms() -> None:
    speed = measure_network(60, with_networkx=True, rounds=2)
    assert min(speed.networkx_ms, speed.walked_ms, speed.twin_ms, speed.round_ms) > 0.0


def test_other_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, form in (("networkx_round", networkx_round), ("walked_round", walked_round)):
        with monkeypatch.context() as patched:
            patched.setattr(topology_control_speed, name, partial(form, cap=0.02))
            patched.setattr(topology_control_speed, "_TWIN", Dcent(self_entry="fixed", smoothing=1.0, theta=0.5))
            with pytest.raises(SpeedMismatch, match="different weights"):
                measure_network(40, with_networkx=True, rounds=1)


@pytest.mark.parametrize("nodes", [30, 400])
def test_a_big_world_is_connected_symmetric_and_sparse(nodes: int) -> None:
    topology = big_world(nodes).topology
    assert connected(topology)
    assert (topology.reverse_link >= 0).all()
    assert topology.links < 30 * nodes
