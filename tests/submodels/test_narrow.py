"""A narrower module is the whole one without some channels."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from submodel_cases import Mobile, images, plain_cnn, with_other_channels_zero
from torch import nn
from toy_models import TOYS

from flower_edge.errors import DataError, ModelMismatch
from flower_edge.models import NumpyMLP, get_arrays, make_model, set_arrays, train
from flower_edge.submodels.channels_torch import width_groups
from flower_edge.submodels.choices import prefix, rolling
from flower_edge.submodels.groups import bytes_of, index_of, manifest_of, values_of
from flower_edge.submodels.mlp import mlp_groups, narrow_mlp
from flower_edge.submodels.narrow_torch import narrow, narrow_to, scale_narrowed, static_norm
from flower_edge.submodels.narrowed import narrowed
from flower_edge.submodels.order import SubmodelOrder
from flower_edge.submodels.statistics_torch import batch_statistics
from flower_edge.submodels.variants_torch import width_variants
from flower_edge.updates.places import brackets


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("window", [1, 3])
def test_it_holds_these_places_of_each_array_under_the_same_names(name: str, window: int) -> None:
    model, example = TOYS[name]()
    index = index_of(groups := width_groups(model, example), rolling(groups, 0.5, window))
    small = narrow(model, index).state_dict()
    assert list(small) == list(model.state_dict())
    assert sum(t.numel() for t in small.values()) < sum(t.numel() for t in model.state_dict().values())
    for key, tensor in model.state_dict().items():
        assert np.array_equal(small[key].numpy(), tensor.numpy()[brackets(tuple(tensor.shape), index[key])])


@pytest.mark.parametrize("name", TOYS)
def test_it_trains_and_all_its_parameters_get_a_gradient(name: str) -> None:
    model, example = TOYS[name]()
    small = narrow(model, index_of(groups := width_groups(model, example), prefix(groups, 0.25)))
    small(example).square().sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    assert len(list(small.parameters())) == len(list(model.parameters()))  # tied weights stay tied


@pytest.mark.parametrize("name", ["plain", "picture", "lenet5", "cnn"])
@pytest.mark.parametrize("window", [1, 4])
def test_without_normalisation_it_is_the_whole_one_with_the_other_channels_zero(name: str, window: int) -> None:
    model, example = TOYS[name]()
    model, example = model.double().eval(), example.double()
    index = index_of(groups := width_groups(model, example), rolling(groups, 0.4, window))
    small, zeroed = narrow(model, index), copy.deepcopy(model)
    with_other_channels_zero(zeroed, index)
    torch.testing.assert_close(small(example), zeroed(example), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["mobile", "resnet"])
def test_in_evaluation_batchnorm_too_leaves_zero_channels_zero(name: str) -> None:
    model, example = TOYS[name]()
    model, example = model.double(), example.double()
    for _ in range(3):
        model(example)  # running statistics that are not those of the beginning
    model.eval()
    index = index_of(groups := width_groups(model, example), prefix(groups, 0.5))
    small, zeroed = narrow(model, index), copy.deepcopy(model)
    with_other_channels_zero(zeroed, index)
    torch.testing.assert_close(small(example), zeroed(example), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", TOYS)
def test_shapes_alone_say_which_module_it_is(name: str) -> None:
    model, example = TOYS[name]()
    small = narrow(model, index_of(groups := width_groups(model, example), rolling(groups, 0.5, 2)))
    again = narrow_to(model, {key: tuple(t.shape) for key, t in small.state_dict().items()})
    set_arrays(again, get_arrays(small))
    torch.manual_seed(0)
    one = small(example)
    torch.manual_seed(0)
    assert torch.equal(one, again(example))


def test_whole_it_is_a_copy() -> None:
    model, example = TOYS["resnet"]()
    index = index_of(width_groups(model, example), {})
    assert torch.equal(narrow(model, index).eval()(example), model.eval()(example))


def test_arrays_of_another_model_are_refused_by_name() -> None:
    model = plain_cnn()
    shapes = {key: tuple(t.shape) for key, t in model.state_dict().items()}
    with pytest.raises(ModelMismatch, match=r"'0.weight' is \(9, 1, 3, 3\), the whole one \(8, 1, 3, 3\)"):
        narrow_to(model, {**shapes, "0.weight": (9, 1, 3, 3)})
    with pytest.raises(ModelMismatch, match=r"'9.bias' is missing; 'x' is unknown"):
        narrow_to(model, {"x": (1,), **{k: s for k, s in shapes.items() if k != "9.bias"}})
    with pytest.raises(ModelMismatch, match="not in Sequential"):
        narrow(model, {"nothing": None})


def test_the_scaler_divides_what_narrow_layers_give_while_they_train() -> None:
    whole = nn.Sequential(nn.Linear(3, 8, bias=False), nn.Linear(8, 2, bias=False))
    small = narrow(whole, index_of(groups := width_groups(whole, torch.randn(2, 3)), prefix(groups, 0.25)))
    plain, x = copy.deepcopy(small), torch.randn(4, 3)
    assert scale_narrowed(small, whole, 0.25) == 1  # the last gives all it gave
    torch.testing.assert_close(small.train()(x), 4 * plain(x))
    assert torch.equal(small.eval()(x), plain(x))
    assert list(small.state_dict()) == list(plain.state_dict())


def test_static_norm_trains_by_the_batch_and_leaves_running_statistics_bit_for_bit() -> None:
    one, two, x = Mobile(), Mobile(), images()
    one(x)
    two.load_state_dict(one.state_dict())
    before = one.norm.running_mean.clone(), one.norm.running_var.clone()  # type: ignore[union-attr]
    assert static_norm(one) == 1
    assert torch.equal(one(x), two(x))
    assert torch.equal(one.norm.running_mean, before[0])
    assert torch.equal(one.norm.running_var, before[1])
    assert not torch.equal(two.norm.running_mean, before[0])  # type: ignore[arg-type]


def test_statistics_are_the_mean_over_the_batches() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2))
    x = np.random.default_rng(0).normal(2.0, 3.0, size=(9, 2)).astype(np.float32)
    found = batch_statistics(model, x, batch_size=4)  # the last sample is alone, and left out
    assert np.allclose(found["0.running_mean"], [x[:8, i].mean() for i in range(2)], atol=1e-5)
    variance = [(x[:4, i].var(ddof=1) + x[4:8, i].var(ddof=1)) / 2 for i in range(2)]
    assert np.allclose(found["0.running_var"], variance, rtol=1e-5)
    assert model[0].running_mean.tolist() == [0.0, 0.0]  # type: ignore[union-attr, operator]
    assert batch_statistics(plain_cnn(), np.zeros((2, 1, 8, 8), np.float32)) == {}
    with pytest.raises(DataError, match="2 or more"):
        batch_statistics(model, x[:1])


def test_a_numpy_mlp_and_the_torch_mlp_of_one_slice_are_the_same_model() -> None:
    groups = mlp_groups([16, 8, 3])
    whole = NumpyMLP([16, 8, 3], seed=1)
    index = index_of(groups, rolling(groups, 0.5, 3))
    arrays = {n: a[brackets(a.shape, index[n])] for n, a in whole.arrays().items()}
    small = narrowed(whole, arrays)
    assert small.sizes == (16, 4, 3)
    torch_model = make_model("mlp", input_shape=(16,), num_classes=3, seed=0, hidden=(8,))
    x = np.random.default_rng(0).normal(size=(5, 16)).astype(np.float32)
    given = narrowed(torch_model, arrays)(torch.tensor(x))  # type: ignore[operator]
    assert np.allclose(small.scores(x), given.detach().numpy(), atol=1e-5)
    y = np.array([0, 1, 2, 0, 1])
    train(small, x, y, steps=2, batch_size=5, lr=0.1)
    assert {n: a.shape for n, a in small.arrays().items()} == {n: a.shape for n, a in arrays.items()}
    with pytest.raises(ModelMismatch, match="narrower hidden layers"):
        narrow_mlp(whole, {"linear0.weight": (4, 16)})


def test_an_order_puts_on_what_it_says() -> None:
    model, example = TOYS["mobile"]()
    small = narrow(model, index_of(groups := width_groups(model, example), prefix(groups, 0.5)))
    got = narrowed(model, get_arrays(small), SubmodelOrder(0.5, scaler=True, static_norm=True))
    assert got.norm.momentum == 0.0  # type: ignore[attr-defined, union-attr]
    assert len(got.stem._forward_hooks) == 1  # type: ignore[attr-defined, union-attr]
    assert narrowed(model, get_arrays(small)).norm.momentum == 0.1  # type: ignore[union-attr]


def test_variants_count_what_the_narrow_model_has() -> None:
    model, example = TOYS["cnn"]()
    groups = width_groups(model, example)
    variants = width_variants(model, groups, (1.0, 0.5, 0.25), example)
    for variant in variants:
        small = narrow(model, index_of(groups, prefix(groups, variant.rate)))
        assert variant.parameters == sum(p.numel() for p in small.parameters())
        assert variant.state_bytes == bytes_of(manifest_of(groups, prefix(groups, variant.rate)))
        assert values_of(manifest_of(groups, prefix(groups, variant.rate))) == variant.parameters
    flops = [variant.train_flops for variant in variants]
    assert flops == sorted(flops, reverse=True)
    assert variants[0].forward_flops < flops[0]
