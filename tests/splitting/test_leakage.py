"""Distance correlation: 0 for what is independent, 1 for a turned copy; the same by NumPy and torch; noise repeats."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_models import Counting
from torch import nn

from flower_edge.errors import DataError
from flower_edge.splitting import leakage_torch
from flower_edge.splitting.cutting_torch import CutModel
from flower_edge.splitting.leakage import cut_noise, distance_correlation, gauge


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def by_definition(x: np.ndarray, z: np.ndarray) -> float:
    """Sum by sum, as in the paper."""
    n = len(x)
    a, b = (np.array([[np.linalg.norm(v[i] - v[j]) for j in range(n)] for i in range(n)]) for v in (x, z))
    A, B = (
        np.array([[d[i, j] - d[i].mean() - d[:, j].mean() + d.mean() for j in range(n)] for i in range(n)])
        for d in (a, b)
    )
    return float(np.sqrt((A * B).mean() / np.sqrt((A * A).mean() * (B * B).mean())))


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 99))
def test_it_is_what_the_definition_says(samples: int, width: int, seed: int) -> None:
    x, noise = drawn(samples, 3, seed=seed), drawn(samples, width, seed=seed + 1)
    z = noise + x[:, :1]
    assert distance_correlation(x, z) == pytest.approx(by_definition(x, z), abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 30), st.integers(0, 99), st.booleans())
def test_shift_scale_turn_and_order_of_samples_make_no_difference(samples: int, seed: int, corrected: bool) -> None:
    x = drawn(samples, 4, seed=seed)
    z = np.tanh(x[:, :3]) + 0.3 * drawn(samples, 3, seed=seed + 1)
    expected = distance_correlation(x, z, corrected=corrected)
    turn, _ = np.linalg.qr(drawn(3, 3, seed=seed))
    order = np.random.default_rng(seed).permutation(samples)
    for moved_x, moved_z in ((x, 1e4 * z), (1e-4 * x + 3, z), (x, z @ turn - 5), (x[order], z[order]), (z, x)):
        assert distance_correlation(moved_x, moved_z, corrected=corrected) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("corrected", [False, True])
def test_a_turned_copy_is_one_and_everything_lies_between(corrected: bool) -> None:
    x = drawn(40, 5)
    turn, _ = np.linalg.qr(drawn(5, 5))
    assert distance_correlation(x, 3 * x @ turn + 1, corrected=corrected) == pytest.approx(1.0, abs=1e-6)
    for seed in range(20):
        assert 0 <= distance_correlation(drawn(7, 9, seed=seed), drawn(7, 30, seed=seed), corrected=corrected) <= 1


def test_of_few_samples_with_many_numbers_only_the_corrected_one_tells_independent_ones() -> None:
    plain = [distance_correlation(drawn(20, 500, seed=s), drawn(20, 400, seed=s + 100)) for s in range(10)]
    corrected = [
        distance_correlation(drawn(20, 500, seed=s), drawn(20, 400, seed=s + 100), corrected=True) for s in range(10)
    ]
    assert min(plain) > 0.9
    assert np.mean(corrected) < 0.2


def test_a_dependence_without_correlation_is_seen() -> None:
    x = drawn(300, 1)
    assert abs(np.corrcoef(x[:, 0], np.square(x[:, 0]))[0, 1]) < 0.2
    assert distance_correlation(x, np.square(x), corrected=True) > 0.4


def test_several_tensors_are_as_one_beside_the_other() -> None:
    x, z = drawn(20, 3), drawn(20, 6)
    one, other = z[:, :2].reshape(20, 2, 1), z[:, 2:].reshape(20, 2, 2)
    assert distance_correlation(x, [one, other]) == pytest.approx(distance_correlation(x, z), abs=1e-9)


def test_where_all_samples_are_the_same_nothing_depends_on_anything() -> None:
    for same in (np.zeros((9, 2)), np.full((9, 2), 0.1), np.full((9, 2), 1e30)):
        assert distance_correlation(drawn(9, 2), same) == 0.0
        assert distance_correlation(same, same, corrected=True) == 0.0


def test_the_gauge_is_the_distance_correlation_at_each_cut() -> None:
    x, cuts = drawn(9, 4), {1: [drawn(9, 3)], 3: [drawn(9, 2), drawn(9, 1)]}
    assert gauge(x, cuts) == {cut: distance_correlation(x, z, corrected=True) for cut, z in cuts.items()}


def test_samples_that_cannot_be_compared_are_refused() -> None:
    for x, z in ((drawn(3, 2), drawn(3, 2)), (drawn(9, 2), drawn(8, 2))):
        with pytest.raises(DataError, match="expected the same, at least 4"):
            distance_correlation(x, z, corrected=True)
        with pytest.raises(DataError, match=r"cut 2: .*expected the same, at least 4"):
            gauge(x, {2: [z]})
    with pytest.raises(DataError, match="not finite"):
        distance_correlation(drawn(9, 2), np.full((9, 2), np.nan))


# -- torch -----------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 20), st.integers(0, 99))
def test_torch_finds_what_numpy_finds(samples: int, seed: int) -> None:
    x = drawn(samples, 2, 3, seed=seed)
    z = np.tanh(x[:, 0]) + 0.5 * drawn(samples, 3, seed=seed + 1)
    found = leakage_torch.distance_correlation(torch.tensor(x), torch.tensor(z))
    assert float(found) == pytest.approx(distance_correlation(x, z), abs=1e-6)


def test_its_gradient_is_that_of_differences() -> None:
    x, z = torch.tensor(drawn(6, 3)), torch.tensor(drawn(6, 2, seed=1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda tensor: leakage_torch.distance_correlation(x, tensor), (z,))


@pytest.mark.parametrize("equal", ["two", "all", "inputs"])
def test_equal_samples_give_gradients_that_are_finite(equal: str) -> None:
    x, z = torch.tensor(drawn(6, 3), dtype=torch.float32), torch.tensor(drawn(6, 2), dtype=torch.float32)
    if equal == "two":
        z[1] = z[0]
    elif equal == "all":
        z[:] = z[0].clone()
    else:
        x[:] = x[0].clone()
    z.requires_grad_()
    found = leakage_torch.distance_correlation(x, z)
    found.backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()
    assert (float(found.detach()) == 0) == (equal != "two")


def test_steps_against_it_make_the_tensor_less_dependent() -> None:
    x = torch.tensor(drawn(40, 5), dtype=torch.float32)
    layer = nn.Linear(5, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(drawn(4, 5)))
    layer.bias.requires_grad_(False)
    optimiser = torch.optim.SGD([layer.weight], lr=0.5)
    found = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = leakage_torch.distance_correlation(x, layer(x) + torch.tensor(drawn(40, 4), dtype=torch.float32))
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        found.append(float(loss.detach()))
    assert found[-1] < found[0] - 0.05


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


def test_a_model_is_measured_at_every_cut_in_evaluation_mode_and_left_in_its_own() -> None:
    model, x = net(), drawn(30, 6).astype(np.float32)
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cut_model = CutModel.of(model, torch.tensor(x[:2]))
    found = leakage_torch.measure(cut_model, x)
    assert list(found) == list(range(len(cut_model.units) + 1))
    assert found[0] == pytest.approx(1.0, abs=1e-6)
    assert found[len(cut_model.units)] < found[1]
    assert (
        found == leakage_torch.measure(cut_model, torch.tensor(x)) == leakage_torch.measure(cut_model, x.astype("f8"))
    )
    assert model.training
    assert not model[1].training
    assert model[3].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    whole = net().eval()
    with torch.no_grad():
        last = whole(torch.tensor(x)).numpy()
    assert found[len(cut_model.units)] == pytest.approx(distance_correlation(x, last, corrected=True), abs=1e-6)


def test_what_a_model_counts_while_it_is_measured_does_not_stay() -> None:
    model = Counting()
    leakage_torch.measure(CutModel.of(model, torch.zeros(2, 5)), drawn(10, 5))
    assert float(model.seen.sum()) == 0.0


# -- noise -----------------------------------------------------------------------------------------------------------


def test_noise_is_the_same_again_and_another_for_each_seed_step_device_and_tensor() -> None:
    zeros = (np.zeros((5, 4), np.float32), np.zeros((5, 4), np.float32))
    one, other = cut_noise(zeros, 1.0, seed=1, step=2, number=3)
    again, _ = cut_noise(zeros, 1.0, seed=1, step=2, number=3)
    np.testing.assert_array_equal(one, again)
    different = [other] + [
        cut_noise(zeros, 1.0, **{"seed": 1, "step": 2, "number": 3, **change})[0]
        for change in ({"seed": 2}, {"step": 3}, {"number": 4})
    ]
    assert all((one != noisy).all() for noisy in different)


def test_noise_has_the_spread_that_was_asked_for_and_leaves_whole_numbers_and_what_is_handed_in() -> None:
    x, tokens = np.ones((200, 50), np.float32), np.arange(6).reshape(2, 3)
    noisy, same = cut_noise((x, tokens), 0.25, seed=0, step=0, number=0)
    assert noisy.dtype == np.float32
    assert abs((noisy - x).std() - 0.25) < 0.01
    assert abs((noisy - x).mean()) < 0.01
    assert (x == 1).all()
    np.testing.assert_array_equal(same, tokens)
    assert cut_noise((x,), 0.0, seed=0, step=0, number=0)[0].tobytes() == x.tobytes()
