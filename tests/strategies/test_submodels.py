"""`SubModels`: narrow models out, one whole model in, for any strategy of weighted means."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedMedian,
    FedProx,
    FedYogi,
    QFedAvg,
    Strategy,
)
from submodel_toy import GROUPS, SIZES, app, data_of, numbers, run, whole
from toy import initial_model, same_model, toy_app

from flower_edge.clients.codec import codec_mod
from flower_edge.codecs.half import Half
from flower_edge.codecs.identity import Identity
from flower_edge.errors import ConfigError, NestingError, ResumeError
from flower_edge.filtering.norm import Norm
from flower_edge.models import NumpyMLP, train
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store.run_folder import RunFolder
from flower_edge.store.tree import tree_from_bytes, tree_to_bytes
from flower_edge.strategies import Admitted, Compressed, Hierarchical, Layered, Metered, blocks
from flower_edge.strategies.filtering.filtered import Filtered
from flower_edge.strategies.provision.assigning import rate_by_property
from flower_edge.strategies.provision.sub_models import SubModels
from flower_edge.submodels.choices import prefix, rolling
from flower_edge.submodels.groups import index_of
from flower_edge.submodels.mlp import mlp_groups
from flower_edge.submodels.order import SUBMODEL_RECORD
from flower_edge.submodels.sizes import Size
from flower_edge.updates.places import brackets

RATES = {"0": 1.0, "1": 0.5, "2": 0.25, "3": 0.5}
MEANS: dict[str, Callable[[], Strategy]] = {
    "FedAvg": lambda: FedAvg(fraction_train=0.75, fraction_evaluate=0.5),
    "FedProx": lambda: FedProx(proximal_mu=0.1),
    "FedAvgM": lambda: FedAvgM(server_learning_rate=0.9, server_momentum=0.5),
    "FedAdam": lambda: FedAdam(eta=0.05),
    "FedAdagrad": lambda: FedAdagrad(eta=0.05),
    "FedYogi": lambda: FedYogi(eta=0.05),
}


@pytest.mark.parametrize(
    ("name", "how"), [*((name, "heterofl") for name in MEANS), ("FedAvg", "fjord"), ("FedAdam", "fedrolex")]
)
def test_rate_1_for_all_is_the_strategy_alone_bit_for_bit(name: str, how: Any) -> None:
    alone = run(MEANS[name]())
    around = run(SubModels(MEANS[name](), GROUPS, assign=1.0, how=how, rates=(1.0,)))
    assert same_model(alone.arrays, around.arrays)
    assert repr(alone.train_metrics_clientapp) == repr(around.train_metrics_clientapp)


def _oracle(how: str, rounds: int) -> dict[str, Any]:
    """The same by hand: every node's part in a dense array of NaN, and a weighted mean of what is there."""
    model = numbers(whole())
    for number in range(1, rounds + 1):
        sums = {name: np.zeros(a.shape) for name, a in model.items()}
        counts = {name: np.zeros(a.shape) for name, a in model.items()}
        for key, rate in RATES.items():
            index = index_of(GROUPS, rolling(GROUPS, rate, number) if how == "fedrolex" else prefix(GROUPS, rate))
            width = {1.0: 8, 0.5: 4, 0.25: 2}[rate]
            small = NumpyMLP((SIZES[0], width, SIZES[-1]))
            small.load({name: a[brackets(a.shape, index[name])] for name, a in model.items()})
            x, y = data_of(int(key))
            train(small, x, y, steps=4, batch_size=8, lr=0.1, seed=10 * number + int(key))
            for name, end in small.arrays().items():
                where = brackets(model[name].shape, index[name])
                sums[name][where] += len(x) * end.astype(np.float64)
                counts[name][where] += len(x)
        model = {
            name: np.where(counts[name] > 0, sums[name] / np.maximum(counts[name], 1), a).astype(np.float32)
            for name, a in model.items()
        }
    return model


@pytest.mark.parametrize("how", ["heterofl", "fedrolex"])
def test_nested_widths_are_the_dense_mean_by_coordinate(how: Any) -> None:
    found = numbers(run(SubModels(FedAvg(), GROUPS, assign=RATES, how=how)).arrays)
    for name, wanted in _oracle(how, 3).items():
        np.testing.assert_allclose(found[name], wanted, rtol=1e-5, atol=1e-6)


def test_what_nobody_holds_stays_bit_for_bit() -> None:
    result, begun = run(SubModels(FedAvg(), GROUPS, assign=0.5)), numbers(whole())
    found = numbers(result.arrays)
    assert np.array_equal(found["linear0.weight"][4:], begun["linear0.weight"][4:])
    assert np.array_equal(found["linear1.weight"][:, 4:], begun["linear1.weight"][:, 4:])
    assert not np.array_equal(found["linear0.weight"][:4], begun["linear0.weight"][:4])


@pytest.mark.parametrize("how", ["heterofl", "fjord", "fedrolex"])
def test_slices_that_come_back_as_they_went_leave_the_model_bit_for_bit(how: Any) -> None:
    client = ClientApp()

    @client.train()
    def echo(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": 3 + int(context.node_config["partition-id"])})
        return Message(RecordDict({"arrays": message.content["arrays"], "metrics": metrics}), reply_to=message)

    strategy = SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=RATES, how=how)
    assert same_model(run(strategy, client=client).arrays, whole())


def test_metrics_are_those_of_every_reply_by_the_rule_of_the_strategy_inside() -> None:
    count: list[int] = []

    def rule(contents: Any, key: str) -> Any:
        count.append(len(contents))
        return next(iter(contents[0].metric_records.values()))

    run(SubModels(FedAvg(train_metrics_aggr_fn=rule), GROUPS, assign=RATES), rounds=1)
    assert 4 in count
    mixed = run(SubModels(FedAvg(), GROUPS, assign=RATES), rounds=1).train_metrics_clientapp[1]
    assert set(mixed) == {"loss"}


def test_each_node_is_sent_its_slice_and_told_its_rate() -> None:
    seen: dict[tuple[int, int], Message] = {}
    run(SubModels(FedAvg(), GROUPS, assign=RATES, scaler=False, static_norm=False), rounds=1, client=app(seen))
    begun = numbers(whole())["linear0.weight"]
    for number, width in enumerate((8, 4, 2, 4)):
        content = seen[1, number].content
        assert np.array_equal(content.array_records["arrays"]["linear0.weight"].numpy(), begun[:width])
        told = dict(content.config_records[SUBMODEL_RECORD].items())
        assert told == {
            "rate": RATES[str(number)], "how": "heterofl", "round": 1, "depth": 0, "scaler": False, "static-norm": False
        }  # fmt: skip


def test_fjord_draws_a_rate_for_each_node_and_round_up_to_its_own_and_repeats() -> None:
    seen: dict[tuple[int, int], Message] = {}
    strategy = SubModels(FedAvg(), GROUPS, assign={**RATES, "2": 0.5}, how="fjord", rates=(1.0, 0.5, 0.25), seed=2)
    one = run(strategy, rounds=6, client=app(seen))
    drawn = {k: float(m.content.config_records[SUBMODEL_RECORD]["rate"]) for k, m in seen.items()}  # type: ignore[arg-type]
    assert {rate for (_, number), rate in drawn.items() if number == 0} == {1.0, 0.5, 0.25}
    assert {rate for (_, number), rate in drawn.items() if number > 0} == {0.5, 0.25}
    again = SubModels(FedAvg(), GROUPS, assign={**RATES, "2": 0.5}, how="fjord", rates=(1.0, 0.5, 0.25), seed=2)
    assert same_model(one.arrays, run(again, rounds=6).arrays)


def test_nodes_evaluate_what_they_can_hold_or_the_whole_model() -> None:
    own = run(SubModels(FedAvg(), GROUPS, assign=0.25), rounds=1).evaluate_metrics_clientapp[1]
    all_of_it = run(SubModels(FedAvg(), GROUPS, assign=0.25, evaluate="whole"), rounds=1).evaluate_metrics_clientapp[1]
    assert own["width"] == 2
    assert all_of_it["width"] == 8


def test_a_reply_of_another_shape_is_left_out_by_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="flwr.edge"):
        strategy = SubModels(FedAvg(), GROUPS, assign=RATES)
        result = run(strategy, rounds=1, client=app(broken=1))
    assert "node 1: its reply is left out: array 'linear0.weight' has shape (8, 6), expected (4, 6)" in caplog.text
    told = [event for event in strategy.events() if event.what == "refused"]
    assert [(event.node, event.values["code"]) for event in told] == [("1", "shape")]
    without = run(SubModels(FedAvg(), GROUPS, assign=RATES), rounds=1)
    assert not same_model(result.arrays, without.arrays)
    assert strategy.events() == []


def test_a_reply_with_two_records_of_metrics_is_left_out_and_the_round_goes_on() -> None:
    def twice(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        if context.node_config["partition-id"] == 0:
            reply.content["more"] = MetricRecord({"num-examples": 1})
        return reply

    strategy = SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=RATES)
    result = run(strategy, rounds=1, client=app(mods=[twice]))
    told = [event.text for event in strategy.events() if event.what == "refused"]
    assert told == ["a reply of 0: 2 records of metrics came back; expected one"]
    assert same_model(result.arrays, whole()) is False


def test_a_change_of_width_is_an_event() -> None:
    strategy = SubModels(FedAvg(), GROUPS, assign=lambda number, key, row: 0.5 if number > 1 and key == "2" else 1.0)
    run(strategy, rounds=3)
    told = [event.text for event in strategy.events() if event.node == "2"]
    assert told == ["2 trains at rate 1", "2 trains at rate 0.5, before at rate 1"]
    assert strategy.assigned() == {"0": Size(1.0), "1": Size(1.0), "2": Size(0.5), "3": Size(1.0)}


def test_a_property_assigns() -> None:
    seen: dict[tuple[int, int], Message] = {}
    assign = rate_by_property("partition-id", {0: 1.0, 1: 0.25}, default=0.5)
    run(SubModels(FedAvg(), GROUPS, assign=assign), rounds=1, client=app(seen))
    widths = [seen[1, n].content.array_records["arrays"]["linear0.bias"].shape[0] for n in range(4)]
    assert widths == [8, 2, 4, 4]
    with pytest.raises(ConfigError, match="node 2 tells partition-id = 2"):
        run(SubModels(FedAvg(), GROUPS, assign=rate_by_property("partition-id", {0: 1.0, 1: 0.25})), rounds=1)


@pytest.mark.parametrize("name", ["FedAdam", "FedAvgM"])
def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(name: str, tmp_path: Any) -> None:
    def strategy() -> Strategy:
        return Layered(SubModels(MEANS[name](), GROUPS, assign=RATES, how="fedrolex"))

    through = run(strategy(), rounds=4)
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        run(strategy(), rounds=2, run=folder)
        resumed = run(strategy(), rounds=4, run=folder, resume=True)
    assert same_model(through.arrays, resumed.arrays)


def test_its_state_is_plain_and_of_the_same_widths() -> None:
    strategy = SubModels(FedAdam(), GROUPS, assign=RATES)
    run(strategy)
    saved = tree_from_bytes(tree_to_bytes(strategy.state_dict()))
    other = SubModels(FedAdam(), GROUPS, assign=RATES)
    other.load_state_dict(saved)
    assert other.assigned() == strategy.assigned()
    with pytest.raises(ResumeError, match="sizes"):
        SubModels(FedAdam(), mlp_groups([6, 9, 3]), assign=1.0).load_state_dict(saved)


def test_inside_edges_every_cell_merges_its_own_widths() -> None:
    def tiers(wrap: Callable[[Strategy], Strategy]) -> Strategy:
        return Hierarchical(edge=lambda cell: wrap(FedAvg()), cells=blocks(2), edge_rounds=2)

    alone = run(tiers(lambda inner: inner), rounds=2)
    around = run(tiers(lambda inner: SubModels(inner, GROUPS, assign=1.0)), rounds=2)
    assert same_model(alone.arrays, around.arrays)
    mixed = numbers(run(tiers(lambda inner: SubModels(inner, GROUPS, assign=RATES)), rounds=2).arrays)
    assert all(np.isfinite(array).all() for array in mixed.values())
    with pytest.raises(NestingError, match="where terminals are asked"):
        run(Hierarchical(lambda cell: FedAvg(), cells=blocks(2), centre=SubModels(FedAvg(), GROUPS, assign=0.5)))


def test_gates_filters_and_meters_know_what_a_narrow_node_sends_back() -> None:
    strategy = SubModels(FedAvg(), GROUPS, assign=RATES)
    plain = run(SubModels(FedAvg(), GROUPS, assign=RATES))
    gate = Admitted(manifest=strategy.manifest_of, seed=0)
    assert same_model(run(Layered(strategy, gate, Metered())).arrays, plain.arrays)
    filtered = SubModels(FedAvg(), GROUPS, assign=RATES)
    assert same_model(run(Layered(filtered, Filtered(Norm(), manifest=filtered.manifest_of))).arrays, plain.arrays)


@pytest.mark.parametrize(
    "inner", [FedMedian, QFedAvg, lambda: DifferentialPrivacyServerSideFixedClipping(FedAvg(), 0.1, 1.0, 4)]
)
def test_strategies_that_look_at_single_replies_are_refused(inner: Any) -> None:
    if inner is QFedAvg:
        inner = lambda: QFedAvg(client_learning_rate=0.1, train_loss_key="loss")  # noqa: E731
    with pytest.raises(NestingError, match="looks at single replies of one shape"):
        SubModels(inner(), GROUPS, assign=1.0)


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ({"assign": 0.0}, "assign = 0.0"),
        ({"assign": 1.0, "how": "rolex"}, "how = 'rolex': expected one of 'heterofl'"),
        ({"assign": 1.0, "evaluate": "no"}, "evaluate = 'no'"),
        ({"assign": 1.0, "rates": ()}, "rates is empty"),
        ({"assign": 1.0, "rates": (2.0,)}, "rates = 2.0"),
        ({"assign": 1.0, "seed": -1}, "seed = -1"),
    ],
)
def test_arguments_that_are_none_are_refused(how: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted):
        SubModels(FedAvg(), GROUPS, **how)


def test_another_model_than_that_of_the_groups_and_a_node_without_a_rate_are_refused() -> None:
    with LocalGrid(toy_app(), 2) as grid, pytest.raises(ConfigError, match="the groups were made of one with"):
        SubModels(FedAvg(), GROUPS, assign=1.0).configure_train(1, initial_model(), ConfigRecord(), grid)
    with pytest.raises(ConfigError, match="no rate for node 3"):
        run(SubModels(FedAvg(), GROUPS, assign={"0": 1.0, "1": 1.0, "2": 1.0}))


def test_codecs_that_remember_nothing_carry_narrow_models() -> None:
    client = app(mods=[codec_mod])
    plain = run(SubModels(FedAvg(), GROUPS, assign=RATES))
    coded = run(Layered(SubModels(FedAvg(), GROUPS, assign=RATES), Compressed(Identity())), client=client)
    assert same_model(plain.arrays, coded.arrays)
    halved = run(Layered(SubModels(FedAvg(), GROUPS, assign=RATES), Compressed(Half())), client=client)
    for name, array in numbers(plain.arrays).items():
        np.testing.assert_allclose(numbers(halved.arrays)[name], array, atol=2e-3)
