"""`SubModels` with depths: shallower models, narrower ones, and both at once, merged over those that hold an array."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from submodel_toy import GROUPS, numbers, run, whole
from test_submodels import MEANS
from toy import same_model

from flower_edge.errors import ConfigError, ResumeError
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies import Admitted, Layered, rate_by_property
from flower_edge.strategies.provision.assigning import size_of
from flower_edge.strategies.provision.sub_models import SubModels
from flower_edge.submodels.choices import prefix
from flower_edge.submodels.groups import index_of
from flower_edge.submodels.order import SUBMODEL_RECORD, SubmodelOrder
from flower_edge.submodels.sizes import Depths, Size
from flower_edge.updates.places import brackets
from flower_edge.wire import arrays_of, record_of

FIRST = ("linear0.weight", "linear0.bias")
DEPTHS = Depths((FIRST, (*FIRST, "linear1.weight", "linear1.bias")))
ASSIGN = {"0": Size(1.0), "1": Size(1.0, 1), "2": Size(0.5, 1), "3": Size(0.5, 2)}


def moved(array: np.ndarray, number: int, round: int) -> np.ndarray:
    """What a node makes of an array: a number of its own more everywhere."""
    return np.asarray(array + np.float32(0.1 * (number + 1) + round), array.dtype)


def app(seen: dict[tuple[int, int], Message] | None = None) -> ClientApp:
    """Clients that send back what they were given, moved."""
    client = ClientApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        round_ = int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]
        if seen is not None:
            seen[round_, number] = message
        arrays = {n: moved(a, number, round_) for n, a in arrays_of(message.content.array_records["arrays"]).items()}
        metrics = MetricRecord({"num-examples": 3 + number})
        return Message(RecordDict({"arrays": record_of(arrays), "metrics": metrics}), reply_to=message)

    return client


@pytest.mark.parametrize("groups", [GROUPS, None])
@pytest.mark.parametrize("name", MEANS)
def test_rate_1_and_all_the_depth_for_all_is_the_strategy_alone_bit_for_bit(name: str, groups: Any) -> None:
    alone = run(MEANS[name](), rounds=2)
    around = run(SubModels(MEANS[name](), groups, assign=Size(1.0, 2), depths=DEPTHS), rounds=2)
    assert same_model(alone.arrays, around.arrays)


def test_a_node_is_sent_the_arrays_of_its_depth_and_of_each_its_width() -> None:
    seen: dict[tuple[int, int], Message] = {}
    run(SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=ASSIGN, depths=DEPTHS), rounds=1, client=app(seen))
    shapes = {
        n: {k: tuple(a.shape) for k, a in m.content.array_records["arrays"].items()} for (_, n), m in seen.items()
    }
    assert shapes[0] == {k: a.shape for k, a in numbers(whole()).items()}
    assert shapes[1] == {"linear0.weight": (8, 6), "linear0.bias": (8,)}
    assert shapes[2] == {"linear0.weight": (4, 6), "linear0.bias": (4,)}
    assert shapes[3] == {"linear0.weight": (4, 6), "linear0.bias": (4,), "linear1.weight": (3, 4), "linear1.bias": (3,)}
    depths = [seen[1, n].content.config_records[SUBMODEL_RECORD]["depth"] for n in range(4)]
    assert depths == [0, 1, 1, 0]  # the last exit's is the whole depth


def test_sizes_are_the_dense_mean_by_coordinate_of_those_that_hold_it() -> None:
    strategy = SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=ASSIGN, depths=DEPTHS)
    found = numbers(run(strategy, rounds=1, client=app()).arrays)
    base = numbers(whole())
    sums = {name: np.zeros(a.shape) for name, a in base.items()}
    counts = {name: np.zeros(a.shape) for name, a in base.items()}
    for number, size in enumerate(ASSIGN.values()):
        index = index_of(GROUPS, prefix(GROUPS, size.rate))
        for name in DEPTHS.names(size.depth):
            where = brackets(base[name].shape, index[name])
            sums[name][where] += (3 + number) * moved(base[name][where], number, 1).astype(np.float64)
            counts[name][where] += 3 + number
    for name, array in base.items():
        wanted = np.where(counts[name] > 0, sums[name] / np.maximum(counts[name], 1), array)
        np.testing.assert_allclose(found[name], wanted, rtol=1e-6, err_msg=name)


def test_what_lies_deeper_than_anybody_has_stays_bit_for_bit() -> None:
    strategy = SubModels(FedAvg(fraction_evaluate=0.0), None, assign=Size(1.0, 1), depths=DEPTHS)
    found, begun = numbers(run(strategy, client=app()).arrays), numbers(whole())
    assert np.array_equal(found["linear1.weight"], begun["linear1.weight"])
    assert np.array_equal(found["linear1.bias"], begun["linear1.bias"])
    assert not np.array_equal(found["linear0.weight"], begun["linear0.weight"])


def test_fjord_draws_a_width_and_leaves_the_depth() -> None:
    seen: dict[tuple[int, int], Message] = {}
    strategy = SubModels(
        FedAvg(fraction_evaluate=0.0), GROUPS, assign=Size(1.0, 1), depths=DEPTHS, how="fjord", rates=(1.0, 0.5)
    )
    run(strategy, rounds=3, client=app(seen))
    orders = [SubmodelOrder.from_values(dict(m.content.config_records[SUBMODEL_RECORD])) for m in seen.values()]
    assert {order.rate for order in orders} == {1.0, 0.5}
    assert {order.depth for order in orders} == {1}


def test_a_gate_knows_what_a_shallow_node_sends_back() -> None:
    plain = run(SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=ASSIGN, depths=DEPTHS), client=app())
    strategy = SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=ASSIGN, depths=DEPTHS)
    gate = Admitted(manifest=strategy.manifest_of, seed=0, replays=False)
    assert same_model(run(Layered(strategy, gate), client=app()).arrays, plain.arrays)
    assert [event for event in strategy.events() if event.what == "refused"] == []


def test_a_shallow_node_that_sends_a_layer_too_many_is_left_out() -> None:
    def more(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        arrays = {**arrays_of(reply.content.array_records["arrays"]), "linear1.bias": np.zeros(3, np.float32)}
        reply.content["arrays"] = record_of(arrays)
        return reply

    client = ClientApp(mods=[more])
    client.train()(lambda message, context: Message(
        RecordDict({"arrays": message.content["arrays"], "m": MetricRecord({"num-examples": 1})}), reply_to=message
    ))  # fmt: skip
    strategy = SubModels(FedAvg(fraction_evaluate=0.0), None, assign=Size(1.0, 1), depths=DEPTHS)
    with LocalGrid(client, 2) as grid:
        strategy.start(grid, whole(), num_rounds=1)
    assert {event.values["code"] for event in strategy.events() if event.what == "refused"} == {"extra-array"}


def test_a_size_is_told_and_kept_in_a_checkpoint_of_the_same_depths() -> None:
    strategy = SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=ASSIGN, depths=DEPTHS)
    run(strategy, rounds=1, client=app())
    assert [event.text for event in strategy.events() if event.node == "2"] == ["2 trains at rate 0.5 and depth 1"]
    other = SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=ASSIGN, depths=DEPTHS)
    other.load_state_dict(strategy.state_dict())
    assert other.assigned() == {**ASSIGN, "3": Size(0.5)}
    with pytest.raises(ResumeError, match="depths = 2"):
        SubModels(FedAvg(), GROUPS, assign=1.0).load_state_dict(strategy.state_dict())


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ({"groups": None}, "without groups and without depths"),
        ({"groups": None, "depths": DEPTHS, "assign": 0.5}, "assign is rate 0.5, and SubModels has no groups"),
        ({"assign": Size(1.0, 1)}, "knows no exits; give depths=model.depths()"),
        ({"depths": DEPTHS, "assign": Size(1.0, 3)}, "the model has 2 exits"),
        ({"depths": Depths((FIRST,))}, "'linear1.bias' is in the groups and not in the depths"),
        ({"depths": ["a"]}, "expected model.depths()"),
        ({"sizes": (0.5, 1.0)}, "rate 1 comes after rate 0.5; give the largest first"),
        ({"sizes": (1.0, Size(0.5, 1))}, "sizes is rate 0.5 and depth 1, and SubModels knows no exits"),
    ],
)
def test_sizes_that_the_model_does_not_have_are_refused(how: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted.replace("(", r"\(").replace(")", r"\)")):
        SubModels(FedAvg(), **{"groups": GROUPS, "assign": 1.0, **how})


def test_a_model_of_other_arrays_than_the_depths_is_refused_by_name() -> None:
    strategy = SubModels(FedAvg(), None, assign=1.0, depths=Depths((("w",), (*DEPTHS.names(0), "w"))))
    with LocalGrid(app(), 2) as grid, pytest.raises(ConfigError, match="'w' is in the depths and not in the model"):
        strategy.configure_train(1, whole(), ConfigRecord(), grid)


def test_a_property_or_a_mapping_may_give_sizes() -> None:
    assign = rate_by_property("class", {"phone": Size(0.25, 1)}, default=1.0)
    assert size_of(assign, 1, "7", {"class": "phone"}) == Size(0.25, 1)
    assert size_of(assign, 1, "7", {}) == Size(1.0)


def test_a_ladder_may_go_down_in_depth_and_then_in_width() -> None:
    ladder = (1.0, Size(1.0, 1), Size(0.5, 1))
    strategy = SubModels(FedAvg(), GROUPS, assign=1.0, depths=DEPTHS, sizes=ladder)
    with LocalGrid(app(), 2) as grid:
        node = next(iter(strategy.configure_train(1, whole(), ConfigRecord(), grid))).metadata.dst_node_id
        found = []
        for step in (2, 4, 6):
            records = strategy.change(node, "smaller", "load", step=step)
            arrays = None if records is None else records["arrays"]
            found.append(None if arrays is None else {name: tuple(array.shape) for name, array in arrays.items()})  # type: ignore[union-attr]
    shallow = {"linear0.weight": (8, 6), "linear0.bias": (8,)}
    assert found == [shallow, {"linear0.weight": (4, 6), "linear0.bias": (4,)}, None]
    assert strategy.change(1, "smaller", "load", step=1) is None  # a node that was sent nothing
