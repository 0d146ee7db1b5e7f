"""An optimiser's state follows a terminal to a model of another size where shapes match, and only there."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from flower_edge.errors import ModelMismatch
from flower_edge.submodels.carried import carried
from flower_edge.submodels.carried_torch import optimiser_state, resume_optimiser

ADAM = {"a::step": np.float32(3), "a::exp_avg": np.ones((4, 2)), "a::exp_avg_sq": np.ones((4, 2))}


def test_what_fits_is_the_same_arrays_and_what_does_not_is_told_with_the_shapes() -> None:
    state = {"a::momentum_buffer": np.ones((4, 2)), "b::momentum_buffer": np.ones(4), "c::momentum_buffer": np.ones(1)}
    after = carried(state, {"a": (4, 2), "b": [2]})
    assert list(after.state) == ["a::momentum_buffer"]
    assert after.state["a::momentum_buffer"] is state["a::momentum_buffer"]
    assert after.dropped == {
        "b": "momentum_buffer is (4,), the parameter is (2,) now",
        "c": "the model has no such parameter now",
    }


def test_a_parameter_keeps_all_of_its_state_or_none() -> None:
    assert list(carried(ADAM, {"a": (4, 2)}).state) == list(ADAM)
    for odd in ({**ADAM, "a::exp_avg": np.ones((2, 2))}, {**ADAM, "a::exp_avg_sq": np.ones((2, 2))}):
        assert carried(odd, {"a": (4, 2)}).state == {}


def test_state_that_was_never_kept_is_no_state_and_no_complaint() -> None:
    after = carried(None, {"a": (1,)})
    assert (after.state, after.dropped) == ({}, {})


def test_a_name_that_is_no_state_is_refused() -> None:
    with pytest.raises(ModelMismatch, match="<parameter>::<key>"):
        carried({"a": np.ones(2)}, {"a": (2,)})


def net(hidden: int) -> torch.nn.Module:
    torch.manual_seed(5)
    return torch.nn.Sequential(torch.nn.Linear(3, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 2))


def optimiser_of(kind: str, model: torch.nn.Module) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return torch.optim.Adam(model.parameters(), lr=0.1)


def step(model: torch.nn.Module, optimiser: torch.optim.Optimizer, number: int) -> None:
    x = torch.from_numpy(np.random.default_rng(number).standard_normal((4, 3), dtype=np.float32))
    optimiser.zero_grad()
    model(x).square().sum().backward()
    optimiser.step()


def values(model: torch.nn.Module) -> list[list[float]]:
    return [parameter.detach().flatten().tolist() for parameter in model.parameters()]


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_training_goes_on_bit_for_bit_where_the_model_is_the_same(kind: str) -> None:
    whole = net(4)
    optimiser = optimiser_of(kind, whole)
    for number in range(6):
        step(whole, optimiser, number)

    cut = net(4)
    kept = None
    for part in (range(3), range(3, 6)):
        optimiser = optimiser_of(kind, cut)
        assert resume_optimiser(optimiser, cut, kept).dropped == {}
        for number in part:
            step(cut, optimiser, number)
        kept = optimiser_state(optimiser, cut)
    assert values(cut) == values(whole)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_smaller_model_keeps_the_state_of_what_is_as_it_was_and_the_rest_begins_at_rest(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    large, small = net(4), net(2)
    optimiser = optimiser_of(kind, large)
    step(large, optimiser, 0)
    state = optimiser_state(optimiser, large)
    fresh = optimiser_of(kind, small)
    with caplog.at_level(logging.INFO):
        after = resume_optimiser(fresh, small, state)
    assert set(after.dropped) == {"0.weight", "0.bias", "2.weight"}
    assert caplog.text.count("begins at rest") == 3
    parameters = dict(small.named_parameters())
    assert [name for name, parameter in parameters.items() if parameter in fresh.state] == ["2.bias"]
    found = optimiser_state(fresh, small)
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in state.items() if name.startswith("2.bias::")
    }
    step(small, fresh, 1)  # the optimiser takes what it was given


def test_state_of_another_kind_of_optimiser_is_refused() -> None:
    model = net(2)
    optimiser = optimiser_of("adam", model)
    step(model, optimiser, 0)
    with pytest.raises(ModelMismatch, match="made by the same optimiser"):
        resume_optimiser(optimiser_of("sgd", model), model, optimiser_state(optimiser, model))
