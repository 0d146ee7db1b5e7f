"""Optimisers whose state follows a layer, losses, and the units of one machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from split_cases import ADAM, CASES, SGD, assert_same, assert_same_whole, make_order, pick, split, start_of
from torch import nn
from torch.nn import functional

from flower_edge.errors import ConfigError, DataError, ModelMismatch, SplitError
from flower_edge.splitting.cutting_torch import CutModel
from flower_edge.splitting.halves_torch import Half, let_go
from flower_edge.splitting.losses_torch import backward, mean_loss
from flower_edge.splitting.optimiser_state import parameter_of, state_of
from flower_edge.splitting.optimiser_torch import load_optimiser_arrays, make_optimiser, optimiser_arrays
from flower_edge.splitting.order import OptimiserSpec
from flower_edge.splitting.tensors_torch import enter, leave

SPECS = {
    "plain": OptimiserSpec(lr=0.1),
    "sgd": SGD,
    "dampened": OptimiserSpec(lr=0.1, options={"momentum": 0.5, "dampening": 0.2}),
    "adam": ADAM,
    "amsgrad": OptimiserSpec(name="adam", lr=0.01, options={"betas": [0.8, 0.9], "eps": 1e-6, "amsgrad": True}),
    "adamw": OptimiserSpec(name="adamw", lr=0.01, options={"weight_decay": 0.1}),
}


def parameters(seed: int = 0) -> dict[str, nn.Parameter]:
    draw = np.random.default_rng(seed)
    return {
        name: nn.Parameter(torch.tensor(draw.normal(size=shape), dtype=torch.float32))
        for name, shape in {"a.weight": (3, 2), "a.bias": (3,), "b.weight": ()}.items()
    }


def push(optimiser: torch.optim.Optimizer, held: dict[str, nn.Parameter], steps: range) -> None:
    for step in steps:
        for number, parameter in enumerate(held.values()):
            draw = np.random.default_rng([step, number])
            parameter.grad = torch.tensor(draw.normal(size=tuple(parameter.shape)), dtype=torch.float32)
        optimiser.step()


@pytest.mark.parametrize("name", SPECS)
def test_an_optimiser_goes_on_exactly_where_its_arrays_were_taken(name: str) -> None:
    spec, whole, cut = SPECS[name], parameters(), parameters()
    optimiser = make_optimiser(spec, whole)
    push(optimiser, whole, range(5))

    first = make_optimiser(spec, cut)
    push(first, cut, range(2))
    state = optimiser_arrays(first, cut)
    fresh = {n: nn.Parameter(p.detach().clone()) for n, p in cut.items()}
    second = make_optimiser(spec, fresh)
    load_optimiser_arrays(second, fresh, state)
    push(second, fresh, range(2, 5))
    assert all(torch.equal(fresh[n], whole[n]) for n in whole)
    assert_same(optimiser_arrays(second, fresh), optimiser_arrays(optimiser, whole))
    assert {parameter_of(key) for key in state} == (set() if name == "plain" else set(whole))


@pytest.mark.parametrize("name", SPECS)
def test_it_moves_parameters_as_torch_s_own_with_its_defaults(name: str) -> None:
    spec, ours, theirs = SPECS[name], parameters(), parameters()
    kind: Any = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.name]
    push(make_optimiser(spec, ours), ours, range(4))
    push(kind(theirs.values(), lr=spec.lr, **spec.options), theirs, range(4))
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)


def test_a_parameter_moves_the_same_whichever_others_are_on_its_machine() -> None:
    for spec in SPECS.values():
        together, parts = parameters(), parameters()
        push(make_optimiser(spec, together), together, range(3))
        for number, (name, parameter) in enumerate(parts.items()):
            optimiser = make_optimiser(spec, {name: parameter})
            for step in range(3):
                draw = np.random.default_rng([step, number])
                parameter.grad = torch.tensor(draw.normal(size=tuple(parameter.shape)), dtype=torch.float32)
                optimiser.step()
            assert torch.equal(parameter, together[name])


def test_a_machine_without_parameters_has_an_optimiser_that_does_nothing() -> None:
    optimiser = make_optimiser(SGD, {})
    optimiser.step()
    assert optimiser_arrays(optimiser, {}) == {}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"options": {"betas": [0.9, 0.99]}}, "has momentum, dampening, nesterov, weight_decay"),
        ({"options": {"foreach": True}}, "with option 'foreach'"),
        ({"name": "adam", "options": {"capturable": True}}, "with option 'capturable'"),
        ({"options": {"momentum": "0.9"}}, "momentum = '0.9'; use a number"),
        ({"options": {"momentum": float("nan")}}, "momentum = nan; use a number"),
        ({"options": {"nesterov": 1}}, "nesterov = 1; use true or false"),
        ({"options": {"nesterov": True}}, "Nesterov momentum requires"),
        ({"options": {"weight_decay": -1.0}}, "Invalid weight_decay"),
        ({"name": "adam", "options": {"betas": [0.9]}}, r"betas = \[0.9\]; use two numbers"),
        ({"name": "adam", "options": {"betas": [0.9, 1.0]}}, "Invalid beta parameter"),
    ],
)
def test_options_that_cannot_be_used_are_refused(spec: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        make_optimiser(OptimiserSpec(**spec), parameters())


@pytest.mark.parametrize(
    ("spec", "arrays", "why"),
    [
        (SGD, {"c.weight::momentum_buffer": np.zeros(3, np.float32)}, "no place here"),
        (SGD, {"a.bias::exp_avg": np.zeros(3, np.float32)}, "no place here.*expected momentum_buffer"),
        (SPECS["plain"], {"a.bias::momentum_buffer": np.zeros(3, np.float32)}, "expected none for 3 parameters"),
        (SGD, {"a.bias::momentum_buffer": np.zeros(4, np.float32)}, r"is float32 \(4,\), expected .* \(3,\)"),
        (SGD, {"a.bias::momentum_buffer": np.zeros(3, np.int64)}, r"is int64 \(3,\), expected floating point"),
        (ADAM, {"a.bias::exp_avg": np.zeros(3, np.float32)}, r"without a\.bias::step, a\.bias::exp_avg_sq"),
    ],
)
def test_state_that_does_not_fit_is_refused(spec: OptimiserSpec, arrays: dict[str, Any], why: str) -> None:
    held = parameters()
    with pytest.raises(ModelMismatch, match=why):
        load_optimiser_arrays(make_optimiser(spec, held), held, arrays)


def test_what_is_not_a_name_of_state_is_refused() -> None:
    for name in ("weight", "::step", "weight::"):
        with pytest.raises(ModelMismatch, match="is not the name of an optimiser's state"):
            state_of({name: np.zeros(1)}, ["weight"])


# -- losses -----------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(0, 4), st.integers(2, 6), st.integers(0, 99))
def test_cross_entropy_is_the_mean_over_all_targets(batch: int, context: int, classes: int, seed: int) -> None:
    shape = (batch, context) if context else (batch,)
    draw = np.random.default_rng(seed)
    scores = torch.tensor(draw.normal(size=(*shape, classes)))
    targets = draw.integers(0, classes, shape)
    logs = functional.log_softmax(scores, -1).numpy()
    by_hand = -np.take_along_axis(logs, targets[..., None], -1).mean()
    assert float(mean_loss("cross-entropy", scores, torch.tensor(targets))) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("name", "outputs", "targets", "why"),
    [
        ("cross-entropy", (4, 3), torch.zeros(5, dtype=torch.int64), "scores 4 targets, 5 came"),
        ("cross-entropy", (4, 3), torch.zeros(4), "targets of dtype torch.float32 for cross entropy"),
        (
            "cross-entropy",
            (4, 3),
            torch.tensor([0, 1, 3, 2]),
            "target 3, and the model scores 3 classes; expected 0 to 2",
        ),
        ("cross-entropy", (1, 2, 3), torch.tensor([[0, -100]]), "target -100"),
        ("mse", (4, 3), torch.zeros(4), "gives 12 numbers .* for 4 targets"),
    ],
)
def test_outputs_and_targets_that_do_not_belong_together_are_refused(
    name: Any, outputs: tuple[int, ...], targets: torch.Tensor, why: str
) -> None:
    with pytest.raises(DataError, match=why):
        mean_loss(name, torch.zeros(outputs), targets)


# -- units of one machine ---------------------------------------------------------------------------------------------


def test_arrays_that_leave_are_contiguous_and_nobody_else_s() -> None:
    source = np.arange(6, dtype=np.float32).reshape(2, 3)
    source.flags.writeable = False
    (leaf,) = enter((source,), (True,), torch.float32, torch.device("cpu"))
    (back,) = leave([leaf.T])
    assert leaf.requires_grad
    assert back.flags["C_CONTIGUOUS"]
    back[:] = 0
    assert source.sum() == leaf.sum() == 15
    (number,) = enter((np.arange(3),), (True,), torch.float32, torch.device("cpu"))
    assert number.dtype == torch.int64
    assert not number.requires_grad


def test_a_half_shares_nothing_with_the_model_it_was_cut_from() -> None:
    case = CASES["resnet"]
    model, start = case.cut_model(), start_of(case)
    other = {name: array + 1 for name, array in pick(model, start, (0, 9)).arrays.items()}
    half = Half(model, [(0, 9)], SGD, other)
    x = case.data()[0][:4]
    passed = half.forward(0, 9, (x,), seed=0, step=0)
    passed.back(tuple(np.ones_like(t) for t in passed.sent()))
    half.move()
    moved = half.arrays()
    assert all(not np.array_equal(moved[name], other[name]) for name in ("conv.weight", "norm.running_mean"))
    assert_same({name: t.numpy() for name, t in model.model.state_dict().items()}, start.arrays)
    assert all(parameter.grad is None for parameter in model.model.parameters())


@pytest.mark.parametrize("name", ["resnet", "fan", "tied", "char-transformer"])
def test_a_model_that_was_let_go_holds_no_arrays_and_halves_of_it_train_as_before(name: str) -> None:
    case = CASES[name]
    start, (x, y), order = start_of(case), case.data(), make_order(3)
    expected, loss = split(order, case.cut_model(), x, y, start)
    model = case.cut_model()
    profile = model.profile()
    let_go(model)
    tensors = model.model.state_dict().values()
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) <= 8 * len(tensors)
    got, again = split(order, model, x, y, start)
    assert_same_whole(got, expected)
    assert again == loss
    assert model.profile() == profile


def test_a_model_whose_parameters_were_replaced_after_it_was_cut_is_refused() -> None:
    model = CASES["resnet"].cut_model()
    model.stage(0, 2)
    model.model[0] = nn.Conv2d(1, 8, 3, padding=1, bias=False)  # type: ignore[index, operator]
    half = Half(model, [(0, 2)], SGD, pick(model, start_of(CASES["resnet"]), (0, 2)).arrays)
    with pytest.raises(SplitError, match=r"conv\.weight.*cut it again"):
        half.forward(0, 2, (CASES["resnet"].data()[0][:4],), seed=0, step=0)


def test_counters_that_were_averaged_are_counters_again() -> None:
    case = CASES["fan"]
    model = case.cut_model()
    arrays = pick(model, start_of(case), (0, 4)).arrays
    half = Half(model, [(0, 4)], SGD, {**arrays, "norm.num_batches_tracked": np.float64(6.6)})  # type: ignore[dict-item]
    counter = half.arrays()["norm.num_batches_tracked"]
    assert counter == 7
    assert counter.dtype == np.int64


def test_tied_weights_are_one_parameter_with_one_state() -> None:
    case = CASES["tied"]
    model = case.cut_model()
    last = len(model.units)
    half = Half(model, [(0, last)], SGD, start_of(case).arrays)
    passed = half.forward(0, last, (case.data()[0][:4],), seed=0, step=0)
    passed.back((np.ones((4, 4), np.float32),))
    half.move()
    arrays = half.arrays()
    np.testing.assert_array_equal(arrays["inner.weight"], arrays["again.weight"])
    assert "inner.weight::momentum_buffer" in half.state()
    assert "again.weight::momentum_buffer" not in half.state()


def test_frozen_parameters_stay_and_have_no_state() -> None:
    frozen = CASES["fan"].model()
    frozen.first.requires_grad_(False)
    x, y = CASES["fan"].data()
    model = CutModel.of(frozen, torch.tensor(x[:4]))
    start = start_of(CASES["fan"])
    last = len(model.units)
    half = Half(model, [(0, last)], OptimiserSpec(lr=0.1, options={"weight_decay": 0.1, "momentum": 0.9}), start.arrays)
    passed = half.forward(0, last, (x[:4],), seed=0, step=0)
    loss = functional.cross_entropy(passed.outputs[0], torch.tensor(y[:4]))
    loss.backward()  # type: ignore[no-untyped-call]
    half.move()
    np.testing.assert_array_equal(half.arrays()["first.weight"], start.arrays["first.weight"])
    assert not np.array_equal(half.arrays()["last.weight"], start.arrays["last.weight"])
    assert "first.weight::momentum_buffer" not in half.state()


def test_a_model_in_which_nothing_is_trained_has_no_gradients() -> None:
    with pytest.raises(SplitError, match="nothing in this model is trained"):
        backward(mean_loss("mse", torch.zeros(2, 1), torch.ones(2)))


def test_units_that_fail_on_what_came_say_on_what() -> None:
    model = CASES["resnet"].cut_model()
    half = Half(model, [(0, 2)], SGD, pick(model, start_of(CASES["resnet"]), (0, 2)).arrays)
    with pytest.raises(
        SplitError, match=r"units 0 to 2 fail on tensors of shapes \[\(1, 3, 8, 8\)\] and torch.float32: "
    ):
        half.forward(0, 2, (np.zeros((1, 3, 8, 8), np.float32),), seed=0, step=0)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_units_that_cannot_be_copied_are_refused() -> None:
    x = torch.zeros(2, 3)
    model = CutModel.of(nn.Sequential(nn.utils.weight_norm(nn.Linear(3, 2))), x)
    arrays = {name: tensor.numpy() for name, tensor in model.model.state_dict().items()}
    with pytest.raises(SplitError, match=r"cannot be copied, .*take the one in torch\.nn\.utils\.parametrizations"):
        Half(model, [(0, 1)], SGD, arrays).forward(0, 1, (x.numpy(),), seed=0, step=0)


def test_units_that_are_not_held_cannot_be_run() -> None:
    model = CASES["fan"].cut_model()
    half = Half(model, [(0, 4)], SGD, pick(model, start_of(CASES["fan"]), (0, 4)).arrays)
    with pytest.raises(SplitError, match="units 2 to 5 on a machine that holds 0 to 4"):
        half.forward(2, 5, (), seed=0, step=0)
    with pytest.raises(SplitError, match="units 3 to 99 of a model of 13"):
        Half(model, [(3, 99)], SGD, {})
