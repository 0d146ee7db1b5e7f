"""The model list: what a variant costs is what the model costs, counted or by formula."""

from __future__ import annotations

import copy
import csv
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flower_edge.errors import ConfigError
from flower_edge.models import NumpyMLP, get_arrays, make_model
from flower_edge.store.tree import tree_from_bytes, tree_to_bytes
from flower_edge.submodels.catalogue import Catalogue, mlp_catalogue
from flower_edge.submodels.catalogue_torch import catalogue
from flower_edge.submodels.channels_torch import width_groups
from flower_edge.submodels.sizes import Size
from flower_edge.submodels.variants_torch import width_variants

RATES = {"a": 1.0, "b": 0.5, "c": 0.25}
IMAGES = torch.zeros(4, 1, 28, 28)


def cnn() -> nn.Module:
    model = make_model("cnn", input_shape=(1, 28, 28), num_classes=10, seed=0)
    assert isinstance(model, nn.Module)
    return model


class TwoExits(nn.Module):
    """A model of two depths, as `at_depth` promises: the shallow one holds nothing of the deep part."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.depth = depth
        self.first, self.exit1 = nn.Linear(6, 5), nn.Linear(5, 3)
        if depth == 2:
            self.second, self.exit2 = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.exit2(self.second(x)) if self.depth == 2 else self.exit1(x)

    def at_depth(self, depth: int) -> TwoExits:
        return TwoExits(depth)


def test_a_variant_costs_what_its_arrays_are() -> None:
    model = cnn()
    models = catalogue(model, width_groups(model, IMAGES), RATES, IMAGES)
    whole = models["a"]
    assert whole.shapes == {name: array.shape for name, array in get_arrays(model).items()}
    assert whole.state_bytes == sum(array.nbytes for array in get_arrays(model).values())
    assert whole.parameters == sum(p.numel() for p in model.parameters()) == whole.parameter_bytes // 4
    for large, small in zip(models, list(models)[1:], strict=False):
        for cost in ("parameters", "state_bytes", "forward_flops", "train_flops", "activation_bytes"):
            assert getattr(small, cost) < getattr(large, cost), cost
        assert small.train_bytes(32) < large.train_bytes(32) < large.train_bytes(64)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = cnn().eval()
    before = {name: array.copy() for name, array in get_arrays(model).items()}
    catalogue(model, width_groups(model, IMAGES), RATES, IMAGES)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
    assert all((before[name] == array).all() for name, array in get_arrays(model).items())


def test_by_formula_is_as_counted() -> None:
    model = make_model("mlp", input_shape=(64,), num_classes=10, seed=0, hidden=(32, 16))
    assert isinstance(model, nn.Module)
    x = torch.zeros(4, 64)
    counted = catalogue(model, width_groups(model, x), RATES, x)
    formula = mlp_catalogue([64, 32, 16, 10], RATES)
    for one, other in zip(counted, formula, strict=True):
        assert one.shapes == other.shapes
        assert one.size == other.size
        for cost in ("parameters", "state_bytes", "forward_flops", "train_flops", "parameter_bytes"):
            assert getattr(one, cost) == getattr(other, cost), cost


def test_activations_are_those_that_the_backward_pass_reads() -> None:
    # A linear layer keeps its input, a ReLU its output, and each of them once: 8 and 16 numbers a sample. The input of
    # the second linear layer is the ReLU's output.
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    models = catalogue(model, None, [1.0], torch.zeros(5, 8))
    assert models.variants[0].activation_bytes == 4 * (8 + 16)


def test_width_variants_are_those_of_the_list() -> None:
    model = cnn()
    groups = width_groups(model, IMAGES)
    listed = catalogue(model, groups, RATES, IMAGES)
    for one, other in zip(width_variants(model, groups, list(RATES.values()), IMAGES), listed, strict=True):
        assert (one.rate, one.parameters, one.train_flops) == (other.rate, other.parameters, other.train_flops)


def test_depths_are_listed_where_the_model_has_exits() -> None:
    models = catalogue(TwoExits(), None, {"deep": Size(), "shallow": Size(1.0, 1)}, torch.zeros(2, 6))
    assert "second.weight" in models["deep"].shapes
    assert "second.weight" not in models["shallow"].shapes
    assert models["shallow"].parameters == 6 * 5 + 5 + 5 * 3 + 3
    with pytest.raises(ConfigError, match="has no exits; give it some with depth_model"):
        catalogue(nn.Linear(2, 2), None, [Size(1.0, 1)], torch.zeros(2, 2))
    with pytest.raises(ConfigError, match="give rates"):
        mlp_catalogue([4, 8, 2], [Size(1.0, 1)])
    with pytest.raises(ConfigError, match="give groups=width_groups"):
        catalogue(TwoExits(), None, [0.5], torch.zeros(2, 6))


@settings(max_examples=25, deadline=None)
@given(
    hidden=st.lists(st.integers(1, 40), min_size=0, max_size=3),
    rates=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5, unique=True),
)
def test_the_formula_counts_the_model_that_is_made(hidden: list[int], rates: list[float]) -> None:
    layers = [7, *hidden, 3]
    for one in mlp_catalogue(layers, {f"v{place}": rate for place, rate in enumerate(rates)}):
        widths = [7, *(one.shapes[f"linear{layer}.weight"][0] for layer in range(len(layers) - 1))]
        made = NumpyMLP(widths)
        assert one.parameters == made.num_parameters
        assert one.state_bytes == sum(array.nbytes for array in made.arrays().values())


def test_a_list_goes_to_a_checkpoint_a_message_and_a_file() -> None:
    models = mlp_catalogue([64, 32, 10], RATES)
    for tree in (
        tree_from_bytes(tree_to_bytes({"m": models.to_tree()}))["m"],
        json.loads(json.dumps(models.to_tree())),
    ):
        again = Catalogue.from_tree(tree)
        assert again == models
        assert again["b"].shapes == models["b"].shapes
    assert copy.deepcopy(models) == models
    rows = list(csv.DictReader(models.to_csv().splitlines()))
    assert [row["name"] for row in rows] == ["a", "b", "c"]
    assert int(rows[1]["parameters"]) == models["b"].parameters
    assert [line.split()[0] for line in str(models).splitlines()] == ["name", "a", "b", "c"]


def test_what_cannot_be_a_list_is_refused() -> None:
    with pytest.raises(ConfigError, match="two variants have the size"):
        mlp_catalogue([4, 8, 2], {"a": 0.5, "b": Size(0.5)})
    with pytest.raises(ConfigError, match="no sizes"):
        mlp_catalogue([4, 8, 2], {})
    with pytest.raises(ConfigError, match="expected up to 40 letters"):
        mlp_catalogue([4, 8, 2], {"a model": 0.5})
    with pytest.raises(ConfigError, match="no variant 'z' in the model list; it has a, b, c"):
        mlp_catalogue([4, 8, 2], RATES)["z"]
    with pytest.raises(ConfigError, match="expected 1 to 32"):
        Catalogue(())
    assert mlp_catalogue([4, 8, 2], RATES).of_size(0.75) is None
