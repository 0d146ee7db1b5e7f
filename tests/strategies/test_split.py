"""`Split`: what it must equal, whatever the cuts, and what it hands to the strategy that merges."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, FedMedian, Strategy
from split_toy import BATCH, MERGE, MODELS, SPEC, STEPS, averaged, device_app, fedavg, initial, samples, split, start
from toy import same_model

from flower_edge.errors import ConfigError, ResumeError
from flower_edge.models.schedule import make_schedule
from flower_edge.runtime import GridProxy, LocalGrid
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.splitting.budgets import QuantileBudgets
from flower_edge.splitting.capacity import Capacity
from flower_edge.splitting.dynamic import Dynamic
from flower_edge.splitting.order import OptimiserSpec
from flower_edge.splitting.planner import FixedCut, Planner, Scheduled, WholeModel
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import Hierarchical, Layered, Metered
from flower_edge.strategies.hierarchy.cells import blocks
from flower_edge.strategies.splitting.split import Split
from flower_edge.units import human_s
from flower_edge.wire import record_of

#: Cuts that differ by device and by round; 6 is the whole model.
MOVING = Scheduled(((1, 3, 6), (4, 2, 5), (2, 6, 1)))


def run(strategy: Split, rounds: int, *, serialise: bool = False, **options: Any) -> ArrayRecord:
    """What it ends with on three devices."""
    with LocalGrid(device_app(**options), 3, serialise=serialise) as grid:
        found = strategy.start(grid, start(), rounds).arrays
    assert found is not None
    return found


@pytest.mark.parametrize("planner", [MOVING, FixedCut(0), WholeModel()], ids=["moving", "nothing", "whole"])
def test_whatever_the_cuts_it_equals_plain_fedavg_bit_for_bit(planner: Planner) -> None:
    assert same_model(run(split(planner=planner), 2 * MERGE, serialise=planner is MOVING), fedavg(2))


@pytest.mark.parametrize("tail", [0, 1])
def test_with_labels_on_the_device_it_equals_plain_fedavg_too(tail: int) -> None:
    moving = Scheduled(((1, 3, 6), (4, 2, 5 - tail)))
    assert same_model(run(split(planner=moving, labels="device", tail=tail), MERGE), fedavg(1))


@pytest.mark.parametrize("make", [lambda: FedMedian(), lambda: FedAdam(eta=0.05), lambda: FedAvgM(server_momentum=0.9)])
def test_any_of_flowers_strategies_merges_as_it_would_merge_whole_models(make: Any) -> None:
    merging: Strategy = make()
    assert same_model(run(split(planner=MOVING, strategy=merging), 2 * MERGE), fedavg(2, make()))


def test_the_last_round_merges_what_is_there() -> None:
    strategy = split(planner=MOVING, merge_every=10)
    assert same_model(run(strategy, MERGE), fedavg(1))


def test_between_merges_the_model_stays_and_metrics_say_so() -> None:
    with LocalGrid(device_app(), 3) as grid:
        result = split(planner=MOVING).start(grid, start(), 2 * MERGE)
    merged = {round: metrics["merged"] for round, metrics in result.train_metrics_clientapp.items()}
    assert merged == {1: 0, 2: 1, 3: 0, 4: 1}
    assert sorted(result.evaluate_metrics_clientapp) == [2, 4]


def test_who_is_told_nothing_merges_after_every_five_rounds() -> None:
    strategy = Split(SPEC, planner=FixedCut(2), steps_per_round=1, batch_size=BATCH, models=MODELS)
    with LocalGrid(device_app(), 3) as grid:
        result = strategy.start(grid, start(), 11)
    assert [n for n, metrics in result.train_metrics_clientapp.items() if metrics["merged"]] == [5, 10, 11]


def test_a_kept_optimiser_goes_on_over_a_merge_and_a_new_one_begins_at_rest() -> None:
    kept, fresh = (split(planner=MOVING, keep_optimiser=keep) for keep in (True, False))
    assert not same_model(run(kept, 2 * MERGE), run(fresh, 2 * MERGE))
    assert all(copy.optimiser for copy in kept._federation.copies.of.values())  # type: ignore[union-attr]


def test_adam_follows_its_layers() -> None:
    adam = OptimiserSpec(name="adam", lr=0.01)
    moving, whole = (run(split(planner=planner, optimiser=adam), MERGE) for planner in (MOVING, WholeModel()))
    assert same_model(moving, whole)


def test_a_plan_from_capacities_says_where_it_cuts_and_why() -> None:
    strategy = split(planner=Dynamic())
    assert same_model(run(strategy, MERGE), fedavg(1))
    assert len(strategy.history) == 3 * MERGE
    row = strategy.history[0]
    assert (row["round"], row["device"], row["steps"], row["lost"]) == (1, 0, STEPS, "")
    assert isinstance(row["reason"], str) and row["reason"]  # noqa: PT018
    assert float(row["planned_compute_s"]) > 0


def test_from_the_second_round_on_delays_are_set_by_what_devices_told_of_the_first() -> None:
    strategy = split(planner=Dynamic(budgets=QuantileBudgets(quantile=1.0), whole=False, fallback=False))
    assert same_model(run(strategy, MERGE), fedavg(1))
    first, second = ([row for row in strategy.history if row["round"] == round] for round in (1, 2))
    assert all("common step time" in str(row["reason"]) for row in first)
    slowest_s = max(float(row["compute_s"]) for row in first)
    assert all(f" {human_s(slowest_s)} computing and " in str(row["reason"]) for row in second)


def test_on_a_modelled_device_times_are_those_of_its_capacity() -> None:
    slow = Capacity(1e3, up_bps=1e5, down_bps=1e5, delay_s=0.5)
    strategy = split(planner=FixedCut(1))
    run(strategy, 1, capacity=lambda context, round: slow)
    row = strategy.history[0]
    assert float(row["compute_s"]) == pytest.approx(float(row["planned_compute_s"]), rel=0.3)
    bits = int(row["up_bits"]) + int(row["down_bits"])
    assert float(row["transfer_s"]) == pytest.approx(2 * 0.5 + bits / STEPS / 1e5)


def test_planned_from_reports_no_device_is_asked_again() -> None:
    strategy = split(planner=MOVING, measure="reports")
    assert same_model(run(strategy, MERGE), fedavg(1))
    history = strategy._federation.records.history(0)
    assert history.flops_per_s == (1e6,) * MERGE


def test_variant_2_has_one_cloud_half_and_cuts_that_stay_between_merges() -> None:
    strategy = split(planner=MOVING, variant="v2")
    found = run(strategy, MERGE)
    cuts = {(row["round"], row["device"]): row["cut"] for row in strategy.history}
    assert [cuts[1, n] for n in range(3)] == [cuts[2, n] for n in range(3)] == [1, 3, 6]
    assert {row["lost"] for row in strategy.history} == {""}
    assert not same_model(found, fedavg(1))


def test_variant_2_equals_one_process_that_takes_batches_in_turn() -> None:
    cut = 3
    found = run(split(planner=FixedCut(cut), variant="v2"), MERGE)
    assert same_model(found, turns(cut))


def test_who_missed_a_round_takes_its_turns_of_variant_2_among_the_others_in_the_next() -> None:
    strategy = split(planner=FixedCut(3), variant="v2")
    # Asked whether it has data, to build the model, what it has left; then to train.
    fault = Fault(node=1, kind="raise", at=4)
    with LocalGrid(device_app(), 3, script=[fault]) as grid:
        found = strategy.start(grid, start(), MERGE).arrays
    assert [(row["round"], row["device"]) for row in strategy.history if row["lost"]] == [(1, 1)]
    assert found is not None
    assert same_model(found, turns(3, missed={(0, 1)}))


def turns(cut: int, missed: Collection[tuple[int, int]] = ()) -> ArrayRecord:
    """SplitFed v2 in one process: a head per device, one rest, plain torch. `missed`: round from 0 on, and device."""
    heads, rest = [initial()[:cut].train() for _ in range(3)], initial()[cut:].train()
    sgd = [torch.optim.SGD(part.parameters(), lr=0.1, momentum=0.9) for part in (*heads, rest)]
    plans = [
        iter(make_schedule(*samples(n), steps=MERGE * STEPS, epochs=None, batch_size=BATCH, seed=n, first_step=0))
        for n in range(3)
    ]
    for round in range(MERGE):
        for n in [n for _ in range(STEPS) for n in range(3) if (round, n) not in missed]:
            _, batch = next(plans[n])
            x, y = (torch.tensor(part[batch]) for part in samples(n))
            for one in (sgd[n], sgd[3]):
                one.zero_grad()
            torch.nn.functional.cross_entropy(rest(heads[n](x)), y).backward()  # type: ignore[no-untyped-call]
            for one in (sgd[n], sgd[3]):
                one.step()
    models = []
    for n in range(3):
        whole = initial()
        for i in range(len(whole)):
            whole[i] = copy.deepcopy(heads[n][i] if i < cut else rest[i - cut])
        arrays = record_of({name: tensor.detach().numpy() for name, tensor in whole.state_dict().items()})
        models.append(arrays)
    return averaged(models)


# -- on the round loop -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped", [1, 2])
def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path: Any, stopped: int) -> None:
    options: dict[str, Any] = {"planner": MOVING, "keep_optimiser": True, "strategy": FedAvgM(server_momentum=0.5)}
    whole = run(split(**options), 2 * MERGE)
    options["strategy"] = FedAvgM(server_momentum=0.5)
    app = device_app()

    def stop(round: int, arrays: ArrayRecord) -> None:
        if round == stopped + 1:
            raise KeyboardInterrupt

    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        with LocalGrid(app, 3) as grid, pytest.raises(KeyboardInterrupt):
            split(**options).start(grid, start(), 2 * MERGE, evaluate_fn=stop, run=folder)
        resumed = split(**{**options, "strategy": FedAvgM(server_momentum=0.5)})
        with LocalGrid(app, 3) as grid:
            result = resumed.start(grid, start(), 2 * MERGE, run=folder, resume=True)
    assert result.arrays is not None
    assert same_model(result.arrays, whole)
    assert len(resumed.history) == 3 * 2 * MERGE


def test_a_checkpoint_of_other_settings_is_refused_by_name() -> None:
    saved = split(batch_size=4).state_dict()
    with pytest.raises(ResumeError, match="batch_size = 4, this run has 8"):
        split(batch_size=8).load_state_dict(saved)


def test_it_runs_inside_layers_and_on_a_virtual_clock() -> None:
    with LocalGrid(device_app(), 3) as local:
        grid = VirtualClock(GridProxy(local), [Device(flops_per_s=1e5)] * 3, [Link(1e6, 1e6)] * 3)
        result = Layered(split(planner=MOVING), Metered()).start(grid, start(), MERGE)
        assert grid.now_s > 0.0
    assert result.arrays is not None
    assert same_model(result.arrays, fedavg(1))


def test_an_edge_may_split_with_its_own_devices() -> None:
    made: list[Split] = []

    def edge(cell: str) -> Split:
        made.append(split(planner=FixedCut(2), strategy=FedAvg(min_train_nodes=1, min_available_nodes=1)))
        return made[-1]

    with LocalGrid(device_app(), 4) as grid:
        found = Hierarchical(edge=edge, cells=blocks(2), edge_rounds=MERGE).start(GridProxy(grid), start(), 1)
    assert found.arrays is not None
    assert len(made) >= 2
    assert not same_model(found.arrays, start())


def test_training_ends_with_the_accuracy_that_was_asked_for_and_goes_on_until_then() -> None:
    def merged(until: float | None) -> dict[int, float]:
        strategy = split(planner=FixedCut(2), until_accuracy=until)
        with LocalGrid(device_app(), 3) as grid:
            result = strategy.start(grid, start(), 4 * MERGE)
        assert (strategy.phase == "done") == (until is not None)
        assert max(result.train_metrics_clientapp) == max(result.evaluate_metrics_clientapp)
        return {round: float(found["accuracy"]) for round, found in result.evaluate_metrics_clientapp.items()}

    whole = merged(None)
    assert sorted(whole) == [MERGE, 2 * MERGE, 3 * MERGE, 4 * MERGE]
    first = whole[MERGE]
    end = next(round for round, accuracy in sorted(whole.items()) if accuracy > first)
    assert merged(whole[end]) == {round: accuracy for round, accuracy in whole.items() if round <= end}


def test_an_accuracy_that_is_no_number_reaches_nothing() -> None:
    strategy = split(planner=FixedCut(2), until_accuracy=0.5)
    with LocalGrid(device_app(), 3) as grid:
        result = strategy.start(
            grid, start(), 2 * MERGE, evaluate_fn=lambda round, arrays: MetricRecord({"accuracy": math.nan})
        )
    assert max(result.train_metrics_clientapp) == 2 * MERGE
    assert strategy.phase == "train"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"steps_per_round": 0}, "steps_per_round = 0"),
        ({"labels": "both"}, "labels = 'both'"),
        ({"tail": 1}, "labels='device'"),
        ({"noise": -1.0}, "noise = -1.0"),
        ({"until_accuracy": 2.0}, "until_accuracy = 2.0"),
        ({"strategy": "inner"}, "merges whole models"),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_name(options: dict[str, Any], why: str) -> None:
    given = {name: split() if value == "inner" else value for name, value in options.items()}
    with pytest.raises(ConfigError, match=why):
        split(**given)
