"""Laws of data that arrive over time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.data import Arrivals
from flower_edge.errors import ConfigError, DataError


@st.composite
def streams(draw: st.DrawFn, origin: str = "car-1") -> Arrivals:
    indices = draw(st.lists(st.integers(0, 500), max_size=30, unique=True))
    rate_per_s, seed = draw(st.floats(0.01, 100.0)), draw(st.integers(0, 2**32 - 1))
    return Arrivals.poisson(indices, rate_per_s, seed=seed, origin=origin, start_s=draw(st.floats(0, 100)))


times = st.floats(0, 500)


def same(one: Arrivals, other: Arrivals) -> bool:
    columns = ("index", "time_s", "origin", "uses")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in columns)


@given(streams(), times, times)
def test_what_is_available_only_grows(stream: Arrivals, one_s: float, other_s: float) -> None:
    early, late = sorted((one_s, other_s))
    before, after = stream.available(early), stream.available(late)
    np.testing.assert_array_equal(after[: len(before)], before)
    np.testing.assert_array_equal(np.concatenate([before, stream.since(early, late)]), after)


@given(streams(), times)
def test_ages_are_those_of_the_available_samples_and_never_negative(stream: Arrivals, now_s: float) -> None:
    ages_s = stream.age_s(now_s)
    assert len(ages_s) == len(stream.available(now_s))
    assert (ages_s >= 0).all()
    assert (np.diff(ages_s) <= 0).all()


@given(streams(), st.integers(0, 40))
def test_enough_data_has_arrived_exactly_from_enough_at_s_on(stream: Arrivals, count: int) -> None:
    moment_s = stream.enough_at_s(count)
    assert stream.enough(count, moment_s) == (moment_s < math.inf)
    assert not stream.enough(count, np.nextafter(moment_s, -math.inf)) or moment_s == -math.inf


def test_poisson_arrivals_come_at_their_rate() -> None:
    stream = Arrivals.poisson(np.arange(10_000), 4.0, seed=0, origin="car-1", start_s=100.0)
    gaps_s = np.diff(stream.time_s, prepend=100.0)
    # Mean and deviation of an exponential law are both 1 / rate; 10,000 draws are within 3 %.
    assert gaps_s.mean() == pytest.approx(0.25, rel=0.03)
    assert gaps_s.std() == pytest.approx(0.25, rel=0.03)
    np.testing.assert_array_equal(np.sort(stream.index), np.arange(10_000))


def test_one_seed_gives_one_stream_and_another_seed_another() -> None:
    first, again, other = (Arrivals.poisson(np.arange(50), 1.0, seed=s, origin="a") for s in (3, 3, 4))
    assert same(first, again)
    assert not np.array_equal(first.time_s, other.time_s)
    assert not np.array_equal(first.index, other.index)


@given(streams(), st.data())
def test_using_counts_every_use_and_changes_nothing_else(stream: Arrivals, data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(stream.index.tolist()))) if len(stream) else []
    after = stream.used(chosen).used(chosen)
    assert after.uses.sum() == 2 * len(chosen)
    assert (stream.uses == 0).all()
    for index, count in zip(after.index, after.uses, strict=True):
        assert count == 2 * chosen.count(index)
    np.testing.assert_array_equal(after.time_s, stream.time_s)


@given(streams("car-1"), streams("bus 22"), times)
def test_sharing_keeps_the_origin_and_twice_is_once(mine: Arrivals, yours: Arrivals, at_s: float) -> None:
    given_over = yours.available(at_s)
    after = mine.used(mine.index).shared_from(yours, given_over, at_s)
    assert set(after.index) == set(mine.index) | set(given_over)
    assert same(after, after.shared_from(yours, given_over, at_s + 1.0))
    for index, origin, time_s, uses in zip(after.index, after.origin, after.time_s, after.uses, strict=True):
        if index in mine.index:
            assert (origin, uses) == ("car-1", 1)
        else:
            assert (origin, time_s, uses) == ("bus 22", at_s, 0)


def test_a_sample_passed_on_keeps_the_node_that_collected_it() -> None:
    first = Arrivals.all_at([5], time_s=1.0, origin="car-1")
    second = Arrivals.all_at([], origin="car-2").shared_from(first, [5], at_s=2.0)
    third = Arrivals.all_at([9], time_s=0.0, origin="a-much-longer-name").shared_from(second, [5], at_s=4.0)
    assert dict(zip(third.index.tolist(), third.origin.tolist(), strict=True)) == {9: "a-much-longer-name", 5: "car-1"}
    np.testing.assert_array_equal(third.age_s(4.0), [4.0, 0.0])


@given(streams("größer"), streams("bus"), times)
def test_arrays_and_back_is_the_same_stream(mine: Arrivals, yours: Arrivals, at_s: float) -> None:
    stream = mine.used(mine.index[:3]).shared_from(yours, yours.available(at_s), at_s)
    arrays = stream.to_arrays()
    assert all(array.dtype.kind in "iuf" for array in arrays.values())
    assert same(Arrivals.from_arrays(arrays), stream)


def test_samples_that_are_not_there_cannot_be_used_or_shared() -> None:
    stream = Arrivals.all_at([1, 2], time_s=[0.0, 8.0], origin="car-1")
    with pytest.raises(DataError, match="sample 3 is not in this stream"):
        stream.used([1, 3])
    with pytest.raises(DataError, match=r"sample 2 is shared at 5.0 s but comes at 8.0 s"):
        Arrivals.all_at([], origin="car-2").shared_from(stream, [2], at_s=5.0)


def test_impossible_streams_are_refused() -> None:
    with pytest.raises(DataError, match="sample 4 arrives twice"):
        Arrivals.all_at([4, 4], origin="car-1")
    with pytest.raises(DataError, match="not ascending"):
        Arrivals.all_at([4], time_s=math.nan, origin="car-1")
    with pytest.raises(ConfigError, match="rate_per_s = 0"):
        Arrivals.poisson([4], 0.0, seed=0, origin="car-1")
    with pytest.raises(ConfigError, match="seed = -2"):
        Arrivals.poisson([4], 1.0, seed=-2, origin="car-1")


def test_damaged_state_is_refused_by_what_is_wrong_with_it() -> None:
    arrays = Arrivals.all_at([1, 2], origin="car-1").to_arrays()
    with pytest.raises(DataError, match="origin_names"):
        Arrivals.from_arrays({name: array for name, array in arrays.items() if name != "origin_names"})
    with pytest.raises(DataError, match="cannot be read"):
        Arrivals.from_arrays({**arrays, "origin_names": arrays["origin_names"][:-1]})
    with pytest.raises(DataError, match="cannot be read"):
        Arrivals.from_arrays({**arrays, "origin": np.array([0, 7])})
    with pytest.raises(DataError, match="negative number of times"):
        Arrivals.from_arrays({**arrays, "uses": np.array([0, -1])})
    with pytest.raises(DataError, match="columns"):
        Arrivals.from_arrays({**arrays, "uses": np.array([0])})
