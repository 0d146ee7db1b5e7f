"""Groups train beside each other as if each were alone; who belongs where is asked again in every round."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, Krum, Strategy
from hypothesis import given
from hypothesis import strategies as st
from laws.layer_laws import LayerLaws
from toy import initial_model, same_model, toy_app

from flower_edge.errors import ConfigError, NestingError, ResumeError, RoundFailed
from flower_edge.grouping import by_levels, by_value
from flower_edge.rounds import Round
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.narrowed_grid import NarrowedGrid
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import Hierarchical, Layer, Layered, Metered, blocks
from flower_edge.strategies.groups.grouped import Grouped, GroupedResult, joined, parted
from flower_edge.strategies.groups.grouped_by import GroupedByModels, grouped_by
from flower_edge.strategies.groups.limits import AtMost, GroupLimits, WithConfig
from flower_edge.strategies.start_only import StartOnly
from flower_edge.strategies.stop_when import StopWhen
from flower_edge.termination import Limits, Score
from flower_edge.wire import arrays_of, record_of

NODES = 6


def halves(grid: Grid, round: Round) -> Mapping[str, list[int]]:
    nodes = list(grid.get_node_ids())
    return {"low": nodes[:2], "high": nodes[2:]}


def run(strategy: Strategy, rounds: int = 3, *, app: ClientApp | None = None, **options: Any) -> Any:
    random.seed(1)
    with LocalGrid(app or toy_app(), NODES) as grid:
        return strategy.start(grid, options.pop("model", initial_model()), num_rounds=rounds, **options)


class TestAtMost(LayerLaws):
    def make(self) -> Layer[Any]:
        return AtMost(3, seed=5)


class TestWithConfig(LayerLaws):
    def make(self) -> Layer[Any]:
        return WithConfig({"lr": 0.5})


# -- models and strategies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [FedAvg, FedAdam, lambda: Krum(num_malicious_nodes=0)], ids=["FedAvg", "Adam", "Krum"])
def test_one_group_of_all_nodes_is_the_strategy_itself_bit_for_bit(make: Callable[[], Strategy]) -> None:
    # In float64: a group's model keeps its dtypes, and FedAdam alone turns float32 into float64.
    alone = run(make(), model=initial_model(np.float64))
    everybody = Grouped(lambda grid, round: {"all": list(grid.get_node_ids())}, lambda group: make())
    grouped = run(everybody, model=initial_model(np.float64))
    assert isinstance(grouped, GroupedResult)
    assert same_model(grouped.groups["all"].arrays, alone.arrays)
    assert same_model(grouped.arrays, joined({"all": alone.arrays}))
    assert grouped.groups["all"].evaluate_metrics_clientapp[3]["loss"] == alone.evaluate_metrics_clientapp[3]["loss"]


def test_every_group_ends_as_if_it_had_been_alone() -> None:
    def strategy(group: str) -> Strategy:
        return FedMedian() if group == "high" else FedAdam()

    def alone(nodes: slice, strategy: Strategy) -> ArrayRecord:
        with LocalGrid(toy_app(), NODES) as grid:
            narrowed = NarrowedGrid(grid, list(grid.get_node_ids())[nodes])
            return strategy.start(narrowed, initial_model(np.float64), num_rounds=3).arrays

    grouped = run(Grouped(halves, strategy), model=initial_model(np.float64))
    assert same_model(grouped.groups["low"].arrays, alone(slice(0, 2), FedAdam()))
    assert same_model(grouped.groups["high"].arrays, alone(slice(2, None), FedMedian()))
    assert not same_model(grouped.groups["low"].arrays, grouped.groups["high"].arrays)


def sized_app() -> ClientApp:
    """Trains a vector of any length towards the `target` of the config, by its `rate`."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        config = message.content["config"]
        w = arrays_of(message.content["arrays"])["w"]  # type: ignore[arg-type]
        w = w + float(config.get("rate", 0.5)) * (1.0 - w)  # type: ignore[arg-type, union-attr]
        metrics = MetricRecord({"num-examples": 1, "rate": float(config.get("rate", 0.5))})  # type: ignore[arg-type, union-attr]
        return Message(RecordDict({"arrays": record_of({"w": w}), "metrics": metrics}), reply_to=message)

    return app


def quiet(**options: Any) -> FedAvg:
    return FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1, **options)


def test_groups_train_models_of_different_sizes_under_limits_of_their_own() -> None:
    sizes = {"low": 2, "high": 8}
    sent: dict[str, list[int]] = {"low": [], "high": []}

    class Sent(Layer[None]):
        def outbound(self, state: None, round: Round, messages: list[Message]) -> tuple[list[Message], None]:
            if round.kind == "train":
                sent[round.cell].append(len(messages))
            return messages, None

    grouped = Grouped(
        halves,
        lambda group: Layered(quiet(), Sent()),
        model=lambda group: record_of({"w": np.zeros(sizes[group])}),
        limits={"low": GroupLimits(rounds=2, config={"rate": 0.25}), "high": GroupLimits(nodes=3)},
    )
    result = run(grouped, rounds=3, app=sized_app(), model=ArrayRecord())
    assert sent == {"low": [2, 2], "high": [3, 3, 3]}
    np.testing.assert_allclose(result.groups["low"].arrays["w"].numpy(), np.full(2, 1 - 0.75**2))
    np.testing.assert_allclose(result.groups["high"].arrays["w"].numpy(), np.full(8, 1 - 0.5**3))
    assert sorted(result.groups["low"].train_metrics_clientapp) == [1, 2]


def test_limits_go_behind_the_layers_of_the_strategy_and_before_its_meter() -> None:
    around = GroupLimits(nodes=2, config={"rate": 1.0}).around(Layered(FedAvg(), Metered()))
    assert isinstance(around, Layered)
    assert [type(layer).__name__ for layer in around.layers] == ["AtMost", "WithConfig", "Metered"]
    plain = FedAvg()
    assert GroupLimits().around(plain) is plain


def test_who_trains_under_a_limit_changes_from_round_to_round_and_not_from_run_to_run() -> None:
    layer, nodes = AtMost(3, seed=1), list(range(1000, 1010))
    with LocalGrid(toy_app(), 1) as grid:
        chosen = [layer.narrow(None, Round(k), grid, nodes)[0] for k in range(1, 30)]
        assert chosen == [layer.narrow(None, Round(k), grid, nodes)[0] for k in range(1, 30)]
    assert all(len(set(some)) == 3 and some == sorted(some) for some in chosen)
    assert {node for some in chosen for node in some} == set(nodes)


# -- who belongs where -----------------------------------------------------------------------------------------------


def loaded_app(load: Callable[[int, int], float]) -> ClientApp:
    """As `sized_app`, telling a load by partition and by how often it was asked."""
    app, inner, asked = ClientApp(), sized_app(), [0] * NODES

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return inner(message, context)

    @app.query("conditions")
    def conditions(message: Message, context: Context) -> Message:
        node = int(context.node_config["partition-id"])
        asked[node] += 1
        record = ConfigRecord({"load": load(node, asked[node])})
        return Message(RecordDict({"conditions": record}), reply_to=message)

    return app


def test_groups_by_load_are_made_anew_in_every_round_and_an_empty_one_keeps_its_model() -> None:
    groups = grouped_by(by_levels("load", [0.5], ["free", "busy"]), ask=True)
    seen: list[dict[str, int]] = []

    def watched(grid: Grid, round: Round) -> Mapping[str, list[int]]:
        members = groups(grid, round)
        seen.append({name: len(nodes) for name, nodes in members.items()})
        return members

    # Everybody is busy in the second round.
    app = loaded_app(lambda node, nth: 0.9 if node == 0 or nth == 2 else 0.1)
    result = run(Grouped(watched, lambda group: quiet()), app=app, model=record_of({"w": np.zeros(2)}))
    assert seen == [{"busy": 1, "free": 5}, {"busy": 6}, {"busy": 1, "free": 5}]
    assert sorted(result.groups["free"].train_metrics_clientapp) == [1, 3]
    np.testing.assert_allclose(result.groups["free"].arrays["w"].numpy(), 1 - 0.5**2)
    np.testing.assert_allclose(result.groups["busy"].arrays["w"].numpy(), 1 - 0.5**3)


def test_nodes_that_tell_nothing_are_a_group_of_their_own_and_what_is_static_need_not_be_asked() -> None:
    nodes = [{"partition-id": k, "num-partitions": 3, **({"site": "hall"} if k else {})} for k in range(3)]
    with LocalGrid(toy_app(), nodes) as grid:
        assert grouped_by(by_value("site"))(grid, Round(1)) == {"hall": [1001, 1002], "unknown": [1000]}
        assert grouped_by(by_value("load"), ask=True)(grid, Round(1)) == {"unknown": [1000, 1001, 1002]}


def test_a_grouping_of_ones_own_must_name_every_node() -> None:
    with LocalGrid(toy_app(), 3) as grid:
        assert grouped_by(lambda columns, nodes: ["a", "b", "a"])(grid, Round(1)) == {"a": [1000, 1002], "b": [1001]}
        with pytest.raises(ConfigError, match="one text per node"):
            grouped_by(lambda columns, nodes: ["a"])(grid, Round(1))


def pulled_app(broken: list[int]) -> ClientApp:
    """Two kinds of terminals whose training pulls the model in opposite directions."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        node = int(context.node_config["partition-id"])
        if node in broken:
            raise RuntimeError("not today")
        w = arrays_of(message.content["arrays"])["w"]  # type: ignore[arg-type]
        goal = np.array([1.0, 2.0, 3.0]) * (1 if node % 2 else -1)
        w = w + (0.1 + 0.1 * node) * (goal - w) + np.random.default_rng(node).normal(0, 0.01, 3)
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": record_of({"w": w}), "metrics": metrics}), reply_to=message)

    return app


def test_groups_by_their_models_separate_two_kinds_and_take_in_who_comes_later() -> None:
    start, broken = record_of({"w": np.zeros(3)}), [4]
    with LocalGrid(pulled_app(broken), NODES) as grid:
        groups = GroupedByModels(start, 2)
        assert groups(NarrowedGrid(grid, [1000, 1001, 1002]), Round(1)) == {"group-0": [1000, 1002], "group-1": [1001]}
        assert groups(grid, Round(2)) == {"group-0": [1000, 1002], "group-1": [1001, 1003, 1005]}
        broken.clear()
        again = GroupedByModels(start, 2)
        again.load_state_dict(groups.state_dict())
        pushed = grid.state_dict()["pushed"]
        assert again(grid, Round(3)) == {"group-0": [1000, 1002, 1004], "group-1": [1001, 1003, 1005]}
        assert grid.state_dict()["pushed"] == pushed + 1, "only the one that had not answered is asked again"


def test_two_kinds_that_share_one_model_learn_nothing_and_in_groups_both_do() -> None:
    start = record_of({"w": np.zeros(3)})
    shared = run(quiet(), app=pulled_app([]), model=start, rounds=10)
    grouped = run(Grouped(GroupedByModels(start, 2), lambda group: quiet()), app=pulled_app([]), model=start, rounds=10)
    goal = np.array([1.0, 2.0, 3.0])
    assert np.abs(shared.arrays["w"].numpy()).max() < 1.5
    np.testing.assert_allclose(grouped.groups["group-0"].arrays["w"].numpy(), -goal, atol=0.3)
    np.testing.assert_allclose(grouped.groups["group-1"].arrays["w"].numpy(), goal, atol=0.3)


def test_groups_are_cells_of_a_hierarchy_where_all_share_one_model() -> None:
    groups = grouped_by(by_levels("partition-id", [2], ["low", "high"]))
    result = run(Hierarchical(edge=lambda group: GroupLimits(nodes=2).around(FedAvg()), cells=groups))
    assert list(result.arrays) == ["weight", "bias"]
    everybody = run(Hierarchical(edge=lambda group: FedAvg(), cells=groups)).arrays
    flat = run(FedAvg()).arrays
    assert not same_model(result.arrays, everybody)
    for name in flat:
        np.testing.assert_allclose(everybody[name].numpy(), flat[name].numpy(), rtol=1e-5)


# -- time, records, checkpoints --------------------------------------------------------------------------------------


def test_on_a_virtual_clock_the_groups_train_at_the_same_time() -> None:
    with LocalGrid(toy_app(), NODES) as local:
        clock = VirtualClock(local, [Device(fixed_s=1.0)] * 2 + [Device(fixed_s=5.0)] * 4, [Link()] * NODES)
        Grouped(halves, lambda group: FedAvg(fraction_evaluate=0.0)).start(clock, initial_model(), num_rounds=2)
        assert clock.now_s == pytest.approx(10.0, abs=0.1)


def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
    return MetricRecord({"accuracy": float(arrays["bias"].numpy()[0]), "round": number})


def test_one_run_folder_tells_of_every_group(tmp_path: Path) -> None:
    with RunFolder.create("run", config={}, seed=1, root=tmp_path) as folder:
        grouped = Grouped(halves, lambda group: Layered(FedAvg(), Metered()), limits={"low": GroupLimits(rounds=1)})
        result = run(grouped, 2, run=folder, evaluate_fn=evaluate)
        rows = folder.rows()
        assert same_model(record_of(folder.load_model()), result.arrays)
    assert {(row.kind, row.cell) for row in rows if row.round == 1} >= {
        ("train", ""),
        ("train", "low"),
        ("train", "high"),
        ("evaluate", "low"),
        ("traffic", "high"),
        ("nodes", ""),
        ("central", ""),
    }
    events = [(row.round, row.cell, row.values["what"]) for row in rows if row.kind == "event"]
    assert events == [(1, "low", "group-finished")]
    low, high = (result.groups[name].evaluate_metrics_serverapp[2]["accuracy"] for name in ("low", "high"))
    central = next(row.values for row in rows if row.kind == "central" and row.round == 2)
    assert (central["low/accuracy"], central["high/accuracy"]) == (low, high)
    assert central["accuracy"] == pytest.approx((low + high) / 2)  # type: ignore[operator]


def test_every_group_can_be_evaluated_on_what_is_its_own() -> None:
    def of(group: str) -> Any:
        return lambda number, arrays: MetricRecord({"letters": len(group)})

    result = run(Grouped(halves, lambda group: FedAvg(), evaluate=of), 1)
    assert result.groups["high"].evaluate_metrics_serverapp[1]["letters"] == 4
    assert result.evaluate_metrics_serverapp[1]["letters"] == 3.5


def test_layers_around_the_groups_are_about_all_of_them() -> None:
    stop = StopWhen(Limits(score=Score("round", 2)))
    result = run(Layered(Grouped(halves, lambda group: FedAvg()), stop, Metered()), 5, evaluate_fn=evaluate)
    assert sorted(result.train_metrics_clientapp) == [1, 2]
    with pytest.raises(NestingError, match=r"Grouped\(groups, strategy=lambda group: Layered\(FedAvg\(\), AtMost"):
        run(Layered(Grouped(halves, lambda group: FedAvg()), AtMost(2)))


def test_a_killed_and_resumed_run_ends_with_the_models_of_the_uninterrupted_one(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def growing(grid: Grid, round: Round) -> Mapping[str, list[int]]:
        members = dict(halves(grid, round))
        return members if round.cloud > 1 else {"high": members["high"]}

    def start(folder: RunFolder, *, resume: bool = False, kill: bool = False) -> GroupedResult:
        def groups(grid: Grid, round: Round) -> Mapping[str, list[int]]:
            if kill and round.cloud == 3:
                raise Killed
            return growing(grid, round)

        def strategy(group: str) -> Strategy:
            options: dict[str, Any] = {"fraction_train": 0.5, "min_train_nodes": 1, "min_available_nodes": 1}
            return Layered(FedAdam(**options) if group == "low" else FedAvg(**options), Metered())

        grouped = Grouped(groups, strategy, limits={"high": GroupLimits(nodes=3, rounds=3)})
        with LocalGrid(toy_app(), NODES) as grid:
            return grouped.start(grid, initial_model(), num_rounds=4, run=folder, resume=resume)

    random.seed(3)
    with RunFolder.create("whole", config={}, seed=1, root=tmp_path) as first:
        whole = start(first)
    random.seed(3)
    with pytest.raises(Killed), RunFolder.create("killed", config={}, seed=1, root=tmp_path) as killed:
        start(killed, kill=True)
    random.seed(99)
    with RunFolder.create("resumed", config={}, seed=1, root=tmp_path) as again:
        again.continue_from(RunFolder.open(killed.path))
        resumed = start(again, resume=True)
        assert same_model(whole.arrays, resumed.arrays)
        for group, result in whole.groups.items():
            assert same_model(result.arrays, resumed.groups[group].arrays)
            assert result.train_metrics_clientapp == resumed.groups[group].train_metrics_clientapp
        other = Grouped(growing, lambda group: FedAvg(), model=lambda group: record_of({"w": np.zeros(2)}))
        with LocalGrid(toy_app(), NODES) as grid, pytest.raises(ResumeError, match="group 'high' before"):
            other.start(grid, ArrayRecord(), num_rounds=4, run=again, resume=True)


# -- trouble ---------------------------------------------------------------------------------------------------------


def test_a_group_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    with RunFolder.create("run", config={}, seed=1, root=tmp_path) as folder:
        with LocalGrid(toy_app(), NODES, script=[Fault(node=k, kind="raise") for k in (0, 1)]) as grid:
            result = Grouped(halves, lambda group: FedAvg()).start(grid, initial_model(), num_rounds=1, run=folder)
        events = [(row.cell, row.values["what"]) for row in folder.rows("event")]
    assert ("low", "cell-skipped") in events
    assert same_model(result.groups["low"].arrays, initial_model())
    assert not same_model(result.groups["high"].arrays, initial_model())


def test_a_round_in_which_no_group_contributes_fails_with_each_reason() -> None:
    needy = Grouped(halves, lambda group: FedAvg(min_train_nodes=5, min_available_nodes=5))
    with pytest.raises(RoundFailed, match=r"low: 2 of the 5 .*high: 4 of the 5"):
        run(needy)


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)


@given(st.dictionaries(NAMES, st.lists(NAMES, unique=True, min_size=1, max_size=3), max_size=5))
def test_models_can_be_joined_and_parted_again_whatever_the_groups_are_called(names: dict[str, list[str]]) -> None:
    models = {
        group: record_of({name: np.array([float(k)]) for k, name in enumerate(arrays)})
        for group, arrays in names.items()
    }
    again = parted(joined(models), models)
    assert list(again) == list(models)
    assert all(same_model(again[group], models[group]) for group in models)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Grouped(blocks(2), FedAvg()), "strategy is a FedAvg; pass a factory"),
        (lambda: GroupLimits(nodes=0), "nodes=0"),
        (lambda: GroupLimits(rounds=0), "rounds=0"),
        (lambda: AtMost(0), "at least 1"),
        (lambda: GroupedByModels(initial_model(), 0), "at least 1"),
    ],
)
def test_what_cannot_work_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make()


def test_wrappers_around_it_are_refused_with_the_right_order() -> None:
    assert issubclass(Grouped, StartOnly)
    with LocalGrid(toy_app(), 2) as grid, pytest.raises(NestingError, match=r"strategy=lambda group: Wrapper"):
        Grouped(halves, lambda group: FedAvg()).configure_train(1, initial_model(), ConfigRecord(), grid)
