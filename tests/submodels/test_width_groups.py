"""Groups of channels: found in models as people write them, and refused by name where they cannot be."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from submodel_cases import Branching, Dense, Headed, Mobile, Numbered, Recurrent, Shared, images, plain_cnn
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from toy_models import TOYS

from flower_edge.errors import ConfigError, SplitError
from flower_edge.models import make_model
from flower_edge.store.tree import tree_from_bytes, tree_to_bytes
from flower_edge.submodels.channels_torch import spec_of, width_groups
from flower_edge.submodels.choices import drawn_rate, prefix, rolling
from flower_edge.submodels.groups import Segment, WidthGroups, index_of, manifest_of, values_of
from flower_edge.submodels.mlp import mlp_groups


def places(groups: WidthGroups, name: str) -> list[Any]:
    return [None if axis is None else [(s.group, s.channels, s.repeats) for s in axis] for axis in groups.axes[name]]


def test_flattened_pictures_repeat_their_channel() -> None:
    groups = width_groups(plain_cnn(), images())
    assert groups.sizes == {"0": 8, "3": 12, "7": 16}
    assert places(groups, "7.weight") == [[("7", 16, 1)], [("3", 12, 4)]]
    assert places(groups, "4.weight") == [[("3", 12, 1)]]
    assert "9.bias" not in groups.axes  # the classes


def test_a_residual_sum_couples_what_it_adds_and_input_and_classes_are_whole() -> None:
    model = make_model("resnet", input_shape=(1, 16, 16), num_classes=10, seed=0)
    groups = width_groups(model, images(16))
    assert places(groups, "conv.weight") == [[("block1.conv2", 8, 1)], None, None, None]
    assert places(groups, "block2.shortcut.0.weight")[0] == places(groups, "block2.conv2.weight")[0]
    assert places(groups, "linear.weight") == [None, [("block3.conv2", 32, 1)]]
    assert places(groups, "norm.running_var") == [[("block1.conv2", 8, 1)]]
    assert "norm.num_batches_tracked" not in groups.axes


def test_depthwise_channels_are_those_before_them() -> None:
    groups = width_groups(Mobile(), images())
    assert groups.sizes == {"stem": 8, "point": 12}
    assert places(groups, "deep.weight") == [[("stem", 8, 2)], None, None, None]
    assert places(groups, "point.weight")[1] == [("stem", 8, 2)]


def test_concatenated_channels_lie_behind_each_other_and_a_gate_is_that_of_its_picture() -> None:
    groups = width_groups(Dense(), images(4))
    gate = places(groups, "two.weight")[0][0][0]
    assert sorted(groups.sizes.values()) == [4, 6, 6, 8]
    assert places(groups, "two.weight")[1] == [(None, 1, 1), ("one", 4, 1)]
    assert places(groups, "three.weight")[1] == [("one", 4, 1), (gate, 8, 1)]
    assert places(groups, "excite.weight")[0] == [(gate, 8, 1)]
    assert groups.units[gate] == 2  # 4 groups of 2 that are normalised together
    assert places(groups, "scale") == [None, places(groups, "three.bias")[0], None, None]


def test_a_layer_that_is_used_twice_and_a_tied_weight_are_one() -> None:
    groups = width_groups(Shared(), torch.randn(2, 6))
    assert len(groups.sizes) == 2
    assert places(groups, "twice.weight") == [places(groups, "first.bias")[0]] * 2
    assert places(groups, "up.weight") == places(groups, "last.weight")


def test_the_model_and_torchs_random_state_are_left_as_they_were() -> None:
    model = Mobile().eval()
    before, drawn = {n: t.clone() for n, t in model.state_dict().items()}, torch.get_rng_state()
    width_groups(model, images())
    assert not model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(drawn, torch.get_rng_state())


@pytest.mark.parametrize(
    ("model", "example", "wanted"),
    [
        (Recurrent, torch.randn(2, 3, 4), r"layer 'memory' \(GRU\).*fixed=\['read'\]"),
        (Numbered, images(4), r"`view` in Numbered: it asks for 64 numbers.*fixed=\['conv'\]"),
        (
            lambda: nn.Sequential(nn.Linear(4, 6), nn.Softmax(1), nn.Linear(6, 2)),
            torch.randn(2, 4),
            "layer '1' .Softmax",
        ),
        (lambda: nn.Sequential(nn.Linear(4, 6), nn.GLU(), nn.Linear(3, 2)), torch.randn(2, 4), "layer '1' .GLU"),
        (lambda: nn.Sequential(nn.Linear(4, 6), weight_norm(nn.Linear(6, 2))), torch.randn(2, 4), "layer '1' .Param"),
        (lambda: nn.Sequential(nn.Linear(4, 6), nn.GRU(6, 2)), torch.randn(2, 4), "which is not one tensor; wrap it"),
        (Headed, torch.randn(2, 4), r"^Headed gives \(one, other\).*one tensor as its output"),
    ],
)
def test_a_layer_that_cannot_be_sliced_is_named_with_what_to_write(
    model: Callable[[], nn.Module], example: torch.Tensor, wanted: str
) -> None:
    with pytest.raises(SplitError, match=wanted):
        width_groups(model(), example)


def test_what_is_fixed_is_whole_and_the_rest_is_sliced() -> None:
    assert width_groups(Recurrent(), torch.randn(2, 3, 4), fixed=["read"]).sizes == {}
    model = make_model("char-transformer", input_shape=(8,), num_classes=11, seed=0)
    symbols = torch.zeros(2, 8, dtype=torch.long)
    with pytest.raises(SplitError, match=r"block1.query_key_value.*block2.query_key_value.*embed.symbol"):
        width_groups(model, symbols)
    fixed = ["embed", "block1.query_key_value", "block2.query_key_value"]
    assert width_groups(model, symbols, fixed=fixed).sizes == {"block1.widen": 256, "block2.widen": 256}
    with pytest.raises(SplitError, match=r"no layer or array 'block1.narow'; near it: block1.narrow"):
        width_groups(model, symbols, fixed=["block1.narow"])
    with pytest.raises(SplitError, match="a list of names"):
        width_groups(model, symbols, fixed="embed")


def test_a_model_that_cannot_be_traced_can_be_said_to_be_a_chain() -> None:
    with pytest.raises(SplitError, match=r"cannot trace Branching.*blocks=\['one', 'two'\]"):
        width_groups(Branching(), torch.randn(2, 4))
    assert width_groups(Branching(), torch.randn(2, 4), blocks=["one", "two"]).sizes == {"one": 8}


def test_an_example_that_the_model_cannot_take_is_refused() -> None:
    with pytest.raises(SplitError, match="cannot take an example"):
        width_groups(plain_cnn(), torch.zeros(2, 3))


@pytest.mark.parametrize("name", TOYS)
def test_groups_survive_a_file(name: str) -> None:
    model, example = TOYS[name]()
    groups = width_groups(model, example)
    again = WidthGroups.from_tree(tree_from_bytes(tree_to_bytes(groups.to_tree())))
    assert again.to_tree() == groups.to_tree()
    assert dict(groups.spec) == dict(spec_of(model))


def test_the_formula_of_the_mlp_is_what_tracing_finds() -> None:
    model = make_model("mlp", input_shape=(1, 4, 4), num_classes=3, seed=0, hidden=(9, 7))
    found, known = width_groups(model, images(4)), mlp_groups([16, 9, 7, 3])
    assert found.sizes == known.sizes
    assert {n: a for n, a in found.axes.items() if any(a)} == {n: a for n, a in known.axes.items() if any(a)}


def test_a_smaller_rate_is_part_of_a_larger_and_rate_1_is_everything() -> None:
    groups = width_groups(*TOYS["mobile"]())
    kept = [prefix(groups, rate) for rate in (0.125, 0.25, 0.5)]
    for smaller, larger in pairwise(kept):
        assert all(set(smaller[group]) <= set(larger[group]) for group in groups.sizes)
    assert prefix(groups, 1.0) == {}
    assert manifest_of(groups, {}).is_whole
    assert prefix(groups, 1e-9)["stem"].tolist() == [0]


def test_a_rolling_window_takes_every_channel_equally_often() -> None:
    groups = mlp_groups([4, 6, 2])
    count = np.zeros(6)
    for number in range(1, 7):
        count[rolling(groups, 0.5, number)["linear0"]] += 1
    assert count.tolist() == [3.0] * 6


def test_units_are_kept_or_left_out_together() -> None:
    groups = WidthGroups({"b": ((8,), "float32")}, {"g": 8}, {"g": 4}, {"b": ((Segment("g", 8),),)})
    assert rolling(groups, 0.3, 2)["g"].tolist() == [4, 5, 6, 7]
    with pytest.raises(ConfigError, match="go by 4"):
        index_of(groups, {"g": np.array([1, 2, 3, 4])})


def test_drawn_rates_are_those_allowed_each_as_often() -> None:
    drawn = [drawn_rate(0.5, (1.0, 0.5, 0.25), 0, number, "7") for number in range(400)]
    assert set(drawn) == {0.5, 0.25}
    assert 150 < drawn.count(0.25) < 250
    assert drawn == [drawn_rate(0.5, (1.0, 0.5, 0.25), 0, number, "7") for number in range(400)]
    assert drawn_rate(0.1, (1.0, 0.5), 0, 1, "7") == 0.1


@pytest.mark.parametrize("kept", [[], [1, 1], [2, 1], [-1], [9]])
def test_channels_that_are_none_are_refused(kept: list[int]) -> None:
    with pytest.raises(ConfigError, match="channels of 'linear0'"):
        index_of(mlp_groups([4, 6, 2]), {"linear0": np.array(kept, np.intp)})


def test_a_group_or_a_rate_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="no group 'linear9'; the model has linear0"):
        index_of(mlp_groups([4, 6, 2]), {"linear9": np.array([0])})
    for rate in (0.0, 1.5, float("nan"), True):
        with pytest.raises(ConfigError, match="above 0 and up to 1"):
            prefix(mlp_groups([4, 6, 2]), rate)


def test_axes_that_are_not_the_arrays_are_refused() -> None:
    with pytest.raises(ConfigError, match="make the groups anew"):
        WidthGroups({"b": ((7,), "float32")}, {"g": 8}, {"g": 1}, {"b": ((Segment("g", 8),),)})


def test_half_the_width_has_a_quarter_of_the_numbers_between_two_groups() -> None:
    groups = mlp_groups([4, 8, 8, 2])
    assert values_of(manifest_of(groups, prefix(groups, 0.5)), ["linear1.weight"]) == 16
