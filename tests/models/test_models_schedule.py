"""Laws of the sequence of batches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.errors import ConfigError, DataError
from flower_edge.models import Schedule
from flower_edge.models.schedule import make_schedule

counts = st.integers(1, 40)
seeds = st.integers(0, 2**32)


@given(counts, st.integers(1, 50), seeds, st.lists(st.integers(0, 12), max_size=5))
def test_a_sequence_cut_anywhere_is_the_same_sequence(n: int, batch_size: int, seed: int, cuts: list[int]) -> None:
    whole = list(Schedule(n, batch_size, seed, steps=sum(cuts)))
    pieces: list[tuple[int, np.ndarray]] = []
    for steps in cuts:
        pieces += Schedule(n, batch_size, seed, steps, first_step=len(pieces))
    assert [step for step, _ in pieces] == [step for step, _ in whole] == list(range(sum(cuts)))
    for (_, one), (_, other) in zip(pieces, whole, strict=True):
        np.testing.assert_array_equal(one, other)


@given(counts, st.integers(1, 50), seeds, st.integers(0, 3))
def test_every_epoch_sees_every_sample_once(n: int, batch_size: int, seed: int, epoch: int) -> None:
    per_epoch = Schedule(n, batch_size, seed, 0).steps_per_epoch
    batches = [batch for _, batch in Schedule(n, batch_size, seed, per_epoch, first_step=epoch * per_epoch)]
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(n))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, second = (batch for _, batch in Schedule(100, 100, 0, 2))
    ((_, other),) = Schedule(100, 100, 1, 1)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"steps": None, "epochs": None}, "give one of the two"),
        ({"steps": 1, "epochs": 1}, "give one of the two"),
        ({"steps": -1}, "steps = -1"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"first_step": -1}, "first_step = -1"),
    ],
)
def test_bad_numbers_are_refused_by_name(how: dict[str, int | None], message: str) -> None:
    arguments = {"steps": 1, "epochs": None, "batch_size": 2, "seed": 0, "first_step": 0, **how}
    with pytest.raises(ConfigError, match=message):
        make_schedule(np.zeros((4, 1)), np.zeros(4, np.int64), **arguments)  # type: ignore[arg-type]


def test_no_samples_or_unequal_lengths_are_refused() -> None:
    nothing, one = np.zeros((0, 1)), np.zeros((1, 1))
    rest = {"steps": 1, "epochs": None, "batch_size": 2, "seed": 0, "first_step": 0}
    with pytest.raises(DataError, match="no samples to train on"):
        make_schedule(nothing, np.zeros(0, np.int64), **rest)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="1 samples but 2 targets"):
        make_schedule(one, np.zeros(2, np.int64), **rest)  # type: ignore[arg-type]
