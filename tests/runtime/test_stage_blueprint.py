"""A part as data: built again without its model's code it computes the same bits, and can say nothing else."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from split_cases import CASES
from stage_cases import pipeline, samples
from torch import fx, nn

from flower_edge.errors import EdgeError, FringeError
from flower_edge.fringe import Pipeline, distribute, fringe, without
from flower_edge.fringe.pair_parts_torch import placed
from flower_edge.fringe.pair_shapes import PairShape
from flower_edge.fringe.pair_torch import Pair
from flower_edge.fringe.pipeline_torch import Part
from flower_edge.fringe.pruning_pipeline_torch import prune, rank
from flower_edge.runtime.fringe.blueprint_torch import Blueprint, blueprint_of, built
from flower_edge.splitting.order import ArchitectureSpec
from flower_edge.store import tree_from_bytes, tree_to_bytes


def rebuilt(given: Pipeline, architecture: ArchitectureSpec | None = None, **models: Any) -> Pipeline:
    """With parts that went through bytes."""
    parts = []
    for part in given.parts:
        data = tree_to_bytes(blueprint_of(part, architecture).tree())
        parts.append(built(Blueprint.from_tree(tree_from_bytes(data)), part.machine, models))
        assert blueprint_of(parts[-1], architecture).digest == blueprint_of(part, architecture).digest
    assert sum(len(part.module.state_dict()) for part in parts) == sum(len(p.module.state_dict()) for p in given.parts)
    return Pipeline(tuple(parts), given.wires, given.example)


@pytest.mark.parametrize("name", list(CASES))
def test_parts_that_went_through_bytes_give_the_same_bits(name: str) -> None:
    cut_model = CASES[name].cut_model()
    middle = len(cut_model.units) // 2
    made = distribute(cut_model, cut_model.example, ["a", "b"], [middle])
    assert torch.equal(rebuilt(made).run(made.example), made.run(made.example))


def test_a_part_that_is_built_in_many_short_turns_is_the_same_part() -> None:
    given = pipeline()
    paused: list[int] = []
    for part in given.parts:
        blueprint = blueprint_of(part)
        again = built(blueprint, part.machine, pause=lambda: paused.append(1))
        steps = len(list(part.module.graph.nodes))
        assert len(paused) >= steps + len(blueprint.arrays)
        assert (
            blueprint_of(again, pause=lambda: paused.append(1)).digested(lambda: paused.append(1)) == blueprint.digest
        )
        assert len(paused) >= 2 * steps + 2 * len(blueprint.arrays)
        paused.clear()


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(3, 6, batch_first=True)
        self.second = nn.GRU(6, 4, batch_first=True, bidirectional=True)
        self.last = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, _ = self.first(x)
        x, _ = self.second(x)
        out: torch.Tensor = self.last(x[:, -1])
        return out


def test_recurrent_parts_and_those_with_attention_are_told_too() -> None:
    x = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    made = distribute(Recurrent().eval(), x, ["a", "b"], ["first"])
    assert torch.equal(rebuilt(made).run(x), made.run(x))


def test_whatever_compression_did_to_a_part_is_in_its_blueprint() -> None:
    cut_model = CASES["resnet"].cut_model()
    x = cut_model.example
    whole = distribute(cut_model, x, ["camera", "gateway", "cloud"], ["block1", "block2"])
    ranking = rank(whole, 0, x, fringe(whole, 1))
    pruned = prune(whole, 0, ranking.keep(4), ranking.map(ranking.keep(4)), fringe=fringe(whole, 1))
    selected = prune(pruned, 1, [0, 2], fringe=fringe(pruned, 1))
    shape = PairShape(tuple(spec.shape for spec in pruned.wires[1].specs), channels=2, stride=1, bits=4)
    for made in (pruned, selected, placed(pruned, {1: Pair(shape, hidden=5).eval()})):
        assert torch.equal(rebuilt(made).run(x), made.run(x))


def test_a_layer_that_was_left_out_is_not_in_the_blueprint() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    made = without(distribute(model, torch.zeros(2, 6), ["a", "b"], ["3"]), "a", "2")
    assert "2" not in blueprint_of(made.parts[0]).config["layers"]
    assert torch.equal(rebuilt(made).run(samples(4)), made.run(samples(4)))


class Own(nn.Module):
    """Cannot be traced: what it does depends on the numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(x)
        return out if out.sum() > 0 else -out


def with_own(input_shape: Any, num_classes: int) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(Own(), nn.Linear(*input_shape, num_classes))


def test_a_module_that_cannot_be_traced_is_made_from_its_architecture_and_refused_without() -> None:
    made = distribute(with_own((6,), 3), torch.ones(2, 6), ["a", "b"], ["0"], blocks=["0", "1"])
    with pytest.raises(FringeError, match=r"'0' of 'a' is a Own.*architecture="):
        blueprint_of(made.parts[0])
    spec = ArchitectureSpec(name="own", input_shape=(6,), num_classes=3, blocks=("0", "1"))
    assert torch.equal(rebuilt(made, spec, own=with_own).run(samples(4)), made.run(samples(4)))


def test_a_weight_with_two_names_is_sent_once_and_stays_one() -> None:
    model = small_tied()
    made = distribute(model, torch.zeros(2, 6), ["a", "b"], ["2"])
    sent = blueprint_of(made.parts[0])
    assert sent.config["same"] == {"1.weight": "0.weight"}
    assert "1.weight" not in sent.arrays
    module = built(sent, "a").module
    assert module.get_submodule("0").weight is module.get_submodule("1").weight


def small_tied() -> nn.Module:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    model[1].weight = model[0].weight
    return model


def changed(**config: Any) -> Blueprint:
    """Of a small part, with something else in it."""
    whole = blueprint_of(pipeline().parts[0])
    return Blueprint({**copy.deepcopy(whole.config), **config}, whole.arrays)


def step(op: str, target: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"op": op, "target": target, "args": list(args), "kwargs": kwargs}


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (step("call_function", "os.system", "true"), "function of torch on tensors"),
        (step("call_function", "torch.load", "file"), "function of torch on tensors"),
        (step("call_function", "ours.getattr", {"step": 0}, "__class__"), "getattr of"),
        (step("call_method", "__reduce__", {"step": 0}), "method"),
        (step("call_method", "apply_", {"step": 0}, "print"), "method"),
        (step("call_method", "relu);print(1", {"step": 0}), "method"),
        (step("call_module", "0);print(1", {"step": 0}), "letters, digits"),
        (step("get_attr", "0.nothing"), "cannot be built"),
        (step("placeholder", "x=print(1)"), "letters, digits"),
        (step("call_function", "torch.relu", {"step": 9}), "argument"),
        (step("call_function", "torch.relu", **{"x=1": 1}), "letters, digits"),
        (step("call_function", "torch.relu", {"device": "meta"}), "argument"),
        (step("nothing", "x"), "one of torch.fx"),
    ],
)
def test_a_graph_from_the_network_can_name_nothing_but_arithmetic(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(FringeError, match=words):
        built(changed(steps=[step("placeholder", "x"), bad]), "a")


@pytest.mark.parametrize("layer", ["Module", "Sequential", "DataParallel", "Own", "__class__"])
def test_only_layers_that_are_listed_are_made(layer: str) -> None:
    with pytest.raises(FringeError, match=r"expected one of torch\.nn"):
        built(changed(layers={"0": {"layer": layer, "options": {}}, "1": {"layer": "Tanh", "options": {}}}), "a")


def test_arrays_of_another_shape_or_that_are_not_finite_are_refused_by_name() -> None:
    whole = blueprint_of(pipeline().parts[0])
    weights = whole.arrays["0.weight"]
    for weight, words in ((weights[:2], "expected .5, 6."), (weights * float("nan"), "finite")):
        with pytest.raises(FringeError, match=f"'0.weight'.*{words}"):
            built(Blueprint(whole.config, {**whole.arrays, "0.weight": weight}), "a")


def test_a_function_of_the_users_own_is_refused_before_anything_is_sent() -> None:
    graph = fx.Graph()
    graph.output((graph.call_function(json.dumps, (graph.placeholder("x"),)),))
    with pytest.raises(FringeError, match=r"json.dumps.*blocks="):
        blueprint_of(Part("a", fx.GraphModule({}, graph), ()))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["steps", "layers", "parameters", "passing", "same", "architecture"]), VALUES, VALUES)
def test_whatever_a_message_says_it_is_built_or_refused(key: str, value: Any, inside: Any) -> None:
    config = blueprint_of(pipeline().parts[0]).config
    steps = [step("placeholder", "x"), {"op": "call_function", "target": "torch.relu", "args": [inside], "kwargs": {}}]
    refused = 0
    for one in (changed(**{key: value}), changed(steps=[*steps, config["steps"][-1]])):
        try:
            built(Blueprint.from_tree(one.tree()), "a")
        except EdgeError:
            refused += 1
    assert refused  # none of these is the part it was
