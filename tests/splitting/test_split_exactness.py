"""A model in two or three parts trains as the whole one does, bit for bit: parameters, buffers, optimiser, loss.

float32 NumPy arrays pass between the parts, as they would over a wire. The whole model is trained by
`flower_edge.models.train` where that can (SGD with momentum), else by the loop at the top of this file.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from split_cases import (
    ADAM,
    CASES,
    SGD,
    Case,
    Whole,
    assert_same,
    assert_same_whole,
    cloud_of,
    device_of,
    joined,
    make_order,
    pick,
    split,
    start_of,
)
from torch import nn
from torch.nn import functional

from flower_edge.models import get_arrays
from flower_edge.models.schedule import make_schedule
from flower_edge.models.train_torch import train
from flower_edge.splitting.conversation_torch import CloudHalf, CloudWork, MiddleWork, converse
from flower_edge.splitting.frame import Frame
from flower_edge.splitting.optimiser_torch import optimiser_arrays
from flower_edge.splitting.order import OptimiserSpec

SPECS = {"sgd": SGD, "adam": ADAM}
#: Without dropout: there a whole model and a split one draw alike only where both draw by unit.
PLAIN = [name for name in CASES if name != "dropout"]


def whole_loop(case: Case, x: Any, y: Any, spec: OptimiserSpec, steps: int) -> tuple[Whole, list[float]]:
    """As anyone would write it."""
    model = case.model().train()
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[spec.name]
    optimiser = kind(model.parameters(), lr=spec.lr, **spec.options)
    losses = []
    for _, batch in make_schedule(x, y, steps=steps, epochs=None, batch_size=4, seed=3, first_step=0):
        optimiser.zero_grad()
        scores = model(torch.tensor(x[batch]))
        loss = functional.cross_entropy(scores.reshape(-1, case.classes), torch.tensor(y[batch]).reshape(-1))
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    return Whole(get_arrays(model), optimiser_arrays(optimiser, dict(model.named_parameters()))), losses


def settings_of(units: int) -> list[dict[str, Any]]:
    """Every cut, with labels on the cloud, and on the device with every tail there is room for, at most 2."""
    found: list[dict[str, Any]] = []
    for cut in range(units + 1):
        found.append({"cut": cut, "labels": "cloud", "tail": 0})
        found += [{"cut": cut, "labels": "device", "tail": tail} for tail in range(min(units - cut, 2) + 1)]
    return found


def check_all(name: str, optimiser: str, every: int) -> None:
    case, spec = CASES[name], SPECS[optimiser]
    model, (x, y), start = case.cut_model(), case.data(), start_of(case)
    expected, losses = whole_loop(case, x, y, spec, steps=3)
    mean = np.average(losses, weights=[4, 4, 2])
    for setting in settings_of(len(model.units))[::every]:
        got, loss = split(make_order(optimiser=spec, **setting), model, x, y, start)
        assert_same_whole(got, expected)
        assert loss == mean, setting


@pytest.mark.parametrize("optimiser", SPECS)
@pytest.mark.parametrize("name", PLAIN)
def test_a_split_model_trains_as_the_whole_one_bit_for_bit(name: str, optimiser: str) -> None:
    check_all(name, optimiser, every={"resnet": 9, "lenet5": 5, "char-transformer": 4}.get(name, 2))


@pytest.mark.full
@pytest.mark.parametrize("optimiser", SPECS)
@pytest.mark.parametrize("name", PLAIN)
def test_every_cut_and_tail_trains_as_the_whole_model_bit_for_bit(name: str, optimiser: str) -> None:
    check_all(name, optimiser, every=1)


@pytest.mark.parametrize("name", ["resnet", "char-transformer"])
def test_it_trains_as_the_library_s_own_trainer_does(name: str) -> None:
    case = CASES[name]
    model, (x, y), start = case.cut_model(), case.data(), start_of(case)
    reference = case.model()
    result = train(reference, x, y, steps=4, batch_size=4, lr=0.05, momentum=0.9, seed=3)
    spec = OptimiserSpec(lr=0.05, options={"momentum": 0.9})
    for cut in (3, len(model.units)):
        got, loss = split(make_order(cut, optimiser=spec, steps=4), model, x, y, start)
        assert_same(got.arrays, get_arrays(reference))
        assert_same({name.partition("::")[0]: array for name, array in got.optimiser.items()}, result.velocity)
        assert loss == result.loss


def test_dropout_draws_alike_wherever_the_model_is_cut() -> None:
    case = CASES["dropout"]
    model, (x, y), start = case.cut_model(), case.data(), start_of(case)
    expected, mean = split(make_order(len(model.units)), model, x, y, start)
    other, _ = split(make_order(len(model.units), seed=4), model, x, y, start)
    assert not np.array_equal(other.arrays["1.weight"], expected.arrays["1.weight"])
    state = torch.get_rng_state()
    for setting in settings_of(len(model.units)):
        got, loss = split(make_order(**setting), model, x, y, start)
        assert_same_whole(got, expected)
        assert loss == mean
    assert torch.equal(torch.get_rng_state(), state)


def test_cuts_that_change_from_round_to_round_change_nothing() -> None:
    case = CASES["resnet"]
    model, (x, y) = case.cut_model(), case.data()
    expected, _ = whole_loop(case, x, y, SGD, steps=10)
    now, made = start_of(case), 0
    rounds: list[dict[str, Any]] = [
        {"cut": 3, "steps": 2},
        {"cut": 12, "steps": 3, "labels": "device", "tail": 2},
        {"cut": 0, "steps": 1},
        {"cut": len(model.units), "steps": 2},
        {"cut": 7, "steps": 2, "labels": "device"},
    ]
    for changes in rounds:
        now, _ = split(make_order(first_step=made, **changes), model, x, y, now)
        made += changes["steps"]
    assert made == 10
    assert_same_whole(now, expected)


@pytest.mark.parametrize("labels", ["cloud", "device"])
@pytest.mark.parametrize("edges", [1, 2])
def test_edges_between_device_and_cloud_change_nothing(labels: str, edges: int) -> None:
    case = CASES["fan"]
    model, (x, y), start = case.cut_model(), case.data(), start_of(case)
    expected, mean = split(make_order(2, labels=labels), model, x, y, start)
    order = make_order(2, labels=labels, tail=1 if labels == "device" else 0)
    stops = [2, 5, 9][: edges + 1]
    cloud = cloud_of(order.model_copy(update={"cut": stops[-1]}), model, start)
    answer, middles = cloud.answer, []
    for begin, end in reversed([*pairwise(stops)]):
        half = pick(model, start, (begin, end))
        middle = MiddleWork(order, model, begin, end, half.arrays, half.optimiser)

        def through(frame: Frame, middle: MiddleWork = middle, onward: Any = answer) -> Frame:
            return middle.answer(frame, onward)

        answer = through
        middles.append(middle)
    device = device_of(order, model, x, y, start)
    said = converse(device, answer)
    assert said == order.steps * (2 if labels == "device" else 1)
    results = [device.result(), *(middle.result() for middle in middles), cloud.result()]
    assert_same_whole(joined(model, *results), expected)
    assert {result.loss for result in results} == {mean}
    assert {(result.steps, result.samples) for result in results} == {(3, 10)}


@pytest.mark.parametrize("labels", ["cloud", "device"])
def test_a_shared_half_trains_as_one_that_sees_every_device_s_batches_in_turn(labels: str) -> None:
    """SplitFed v2, against one process with the devices' own copies of the first layers and one of the last."""
    case, cuts = CASES["fan"], {0: 4, 1: 7}
    model, start = case.cut_model(), start_of(case)
    x, y = case.data()
    data = {number: (x[3 * number :][:6], y[3 * number :][:6]) for number in cuts}
    orders = {number: make_order(cut, number=number, seed=number, labels=labels) for number, cut in cuts.items()}
    last = len(model.units)

    half = pick(model, start, (min(cuts.values()), last))
    shared = CloudHalf(model, min(cuts.values()), last, SGD, half.arrays)
    devices = {n: device_of(orders[n], model, *data[n], start) for n in cuts}
    works = {n: CloudWork(orders[n], model, {}, {}, shared) for n in cuts}
    frames = {n: devices[n].next(None) for n in cuts}
    for _ in range(3):
        for n in cuts:
            frame = frames[n]
            for _ in range(2 if labels == "device" else 1):
                assert frame is not None
                frame = devices[n].next(works[n].answer(frame))
            frames[n] = frame
    assert all(frame is None for frame in frames.values())

    # Each device's units are modules of their own; those behind its cut, the same objects for both.
    whole = case.model()
    common = set(model.names(min(cuts.values()), last))
    optimisers: dict[int, torch.optim.SGD] = {}
    models: dict[int, nn.Module] = {}
    for n, cut in cuts.items():
        models[n] = case.model()
        for name, parameter in whole.named_parameters():
            if name in common and name in model.names(cut, last):
                module, _, leaf = name.rpartition(".")
                setattr(models[n].get_submodule(module), leaf, parameter)
        mine = [p for name, p in models[n].named_parameters() if name in model.names(0, cut)]
        optimisers[n] = torch.optim.SGD(mine, lr=SGD.lr, **SGD.options)
    served = torch.optim.SGD([p for name, p in whole.named_parameters() if name in common], lr=SGD.lr, **SGD.options)
    batches = {
        n: make_schedule(*data[n], steps=3, epochs=None, batch_size=4, seed=n, first_step=0).__iter__() for n in cuts
    }
    for _ in range(3):
        for n in cuts:
            (_, batch), (x, y) = next(batches[n]), data[n]
            for optimiser in (served, optimisers[n]):
                optimiser.zero_grad()
            loss = functional.cross_entropy(models[n](torch.tensor(x[batch])), torch.tensor(y[batch]))
            loss.backward()  # type: ignore[no-untyped-call]
            for optimiser in (served, optimisers[n]):
                optimiser.step()
    for n, cut in cuts.items():
        trained = get_arrays(models[n])
        assert_same(devices[n].result().arrays, {name: trained[name] for name in model.names(0, cut)})
        assert_same(works[n].result().arrays, {name: trained[name] for name in model.names(cut, last)})
    assert_same(shared.arrays(), {name: get_arrays(whole)[name] for name in model.model.state_dict() if name in common})


def test_numbers_are_learned_with_the_mean_squared_difference() -> None:
    case = CASES["fan"]
    model, (x, _), start = case.cut_model(), case.data(), start_of(case)
    y: NDArray[np.float32] = np.random.default_rng(1).normal(size=(len(x), 4)).astype(np.float32)
    reference = case.model().train()
    optimiser = torch.optim.SGD(reference.parameters(), lr=SGD.lr, **SGD.options)
    for _, batch in make_schedule(x, y, steps=3, epochs=None, batch_size=4, seed=3, first_step=0):
        optimiser.zero_grad()
        loss = functional.mse_loss(reference(torch.tensor(x[batch])), torch.tensor(y[batch]))
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    for setting in ({"cut": 4}, {"cut": 4, "labels": "device", "tail": 2}, {"cut": len(model.units)}):
        got, _ = split(make_order(loss="mse", **setting), model, x, y, start)
        assert_same(got.arrays, get_arrays(reference))
