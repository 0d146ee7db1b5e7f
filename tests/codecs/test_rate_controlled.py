"""Rate control: the best choice there is, within the budget, and the receiver needs nothing."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.vector_codec_laws import VectorCodecLaws, vectors

from flower_edge.codecs.allocate import least_bytes, least_error
from flower_edge.codecs.error_feedback import ErrorFeedback, stc
from flower_edge.codecs.half import Half
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.low_rank import LowRank
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.rate_controlled import RateControlled
from flower_edge.codecs.sign import Sign
from flower_edge.codecs.sparse import Sparse, dense
from flower_edge.codecs.top_k import TopK
from flower_edge.codecs.vector_codec import VectorCodec
from flower_edge.errors import CodecError

CANDIDATES = (TopK(0.02), Sign(), Half("bf16"))
LAYOUT = Layout(("a.w", "a.b", "c.w", "c.b", "d.w"), ((40, 50), (50,), (30, 60), (30,), (50, 30)))


class TestRateControlledByError(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return RateControlled(CANDIDATES, budget_error=0.5, every=2)


class TestRateControlledByBytes(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return RateControlled(CANDIDATES, budget_bytes=10**6, groups="layer")


class TestRateControlledWithErrorFeedback(VectorCodecLaws):
    def make(self) -> VectorCodec:
        return ErrorFeedback(RateControlled((TopK(0.1), Half("bf16")), budget_error=0.3))


# -- the dynamic programme -------------------------------------------------------------------------------------------

tables = st.integers(1, 5).flatmap(
    lambda groups: st.integers(1, 4).flatmap(
        lambda choices: st.tuples(
            *(
                st.lists(st.lists(numbers, min_size=choices, max_size=choices), min_size=groups, max_size=groups).map(
                    np.array
                )
                for numbers in (st.integers(0, 40), st.integers(0, 30).map(float))
            )
        )
    )
)


def totals(sizes: np.ndarray, errors: np.ndarray) -> list[tuple[int, float]]:
    """Bytes and error of every choice there is."""
    groups, choices = sizes.shape
    rows = range(groups)
    every = product(range(choices), repeat=groups)
    return [(int(sizes[rows, list(c)].sum()), float(errors[rows, list(c)].sum())) for c in every]


def total(sizes: np.ndarray, errors: np.ndarray, chosen: list[int]) -> tuple[int, float]:
    rows = range(len(chosen))
    return int(sizes[rows, chosen].sum()), float(errors[rows, chosen].sum())


@settings(max_examples=150)
@given(tables, st.integers(0, 200))
def test_no_choice_within_the_bytes_has_less_error_and_none_as_good_has_fewer_bytes(
    table: tuple[np.ndarray, np.ndarray], budget: int
) -> None:
    sizes, errors = table
    every = totals(sizes, errors)
    possible = [(error, size) for size, error in every if size <= budget]
    if possible:
        size, error = total(sizes, errors, least_error(sizes, errors, budget_bytes=budget))
        assert (error, size) == min(possible)
    else:
        with pytest.raises(CodecError, match=f"need at least {min(every)[0]};"):
            least_error(sizes, errors, budget_bytes=budget)


@settings(max_examples=150)
@given(tables, st.integers(0, 100))
def test_no_choice_within_the_error_has_fewer_bytes(table: tuple[np.ndarray, np.ndarray], budget: int) -> None:
    sizes, errors = table
    every = totals(sizes, errors)
    possible = [size for size, error in every if error <= budget]
    if possible:
        size, error = total(sizes, errors, least_bytes(sizes, errors, budget_error=budget))
        assert size == min(possible)
        assert error <= budget
    else:
        least = min(error for _, error in every)
        with pytest.raises(CodecError, match=f"leave at least {least:.6g};"):
            least_bytes(sizes, errors, budget_error=budget)


@settings(max_examples=100)
@given(tables, st.integers(0, 200), st.integers(1, 9))
def test_few_levels_keep_the_budget_and_lose_at_most_a_step_per_group(
    table: tuple[np.ndarray, np.ndarray], budget: int, levels: int
) -> None:
    sizes, errors = table
    least = int(sizes.min(axis=1).sum())
    if least > budget:
        return
    step = -(-(budget - least) // levels)
    size, error = total(sizes, errors, least_error(sizes, errors, budget_bytes=budget, levels=levels))
    assert size <= budget
    if least <= (tight := budget - (len(sizes) + 1) * step):
        assert error <= total(sizes, errors, least_error(sizes, errors, budget_bytes=tight))[1]


def test_a_hundred_and_sixty_layers_and_a_megabyte_budget_are_decided_at_once() -> None:
    rng = np.random.default_rng(0)
    sizes = np.sort(rng.integers(1, 400_000, (160, 6)), axis=1)
    errors = np.sort(rng.random((160, 6)), axis=1)[:, ::-1].copy()
    budget = int(sizes.sum(axis=0)[2])
    size, error = total(sizes, errors, least_error(sizes, errors, budget_bytes=budget))
    assert 0.98 * budget < size <= budget
    assert error < 0.8 * errors[:, 2].sum()  # against the same codec everywhere, of as many bytes


# -- the codec -------------------------------------------------------------------------------------------------------


def uneven(seed: int = 0) -> Floats:
    """Layers of very different sizes of change."""
    v = next(vectors(LAYOUT.size)).copy()
    for i, part in enumerate(LAYOUT.slices()):
        v[part] *= np.float32([1.0, 0.1, 0.01, 1.0, 0.1][i])
    return np.roll(v, seed)


def run(codec: VectorCodec, given: list[Floats]) -> tuple[list[bytes], list[float]]:
    """Payloads, and squared error over squared norm."""
    own = other = codec.start(LAYOUT)
    payloads, lost = [], []
    for round_, v in enumerate(given):
        data, own = codec.pack(v, LAYOUT, own, Moment(round_))
        update, other = codec.unpack(memoryview(data), LAYOUT, other, Moment(round_))
        payloads.append(data)
        lost.append(float(np.sum((dense(update) - v) ** 2) / np.sum(v**2)))
    return payloads, lost


@pytest.mark.parametrize("groups", ["array", "layer"])
@pytest.mark.parametrize("budget", [600, 1500, 4000, 12000])
def test_the_budget_of_bytes_is_never_exceeded(groups: str, budget: int) -> None:
    codec = RateControlled(CANDIDATES, budget_bytes=budget, every=4, groups=groups)  # type: ignore[arg-type]
    payloads, _ = run(codec, [uneven(seed) for seed in range(9)])
    assert max(map(len, payloads)) <= budget


def test_a_budget_that_a_payload_misses_by_a_byte_or_a_few_is_kept_too() -> None:
    (payload,), _ = run(RateControlled(CANDIDATES, budget_bytes=10**6), [uneven()])
    for budget in range(len(payload) - 4, len(payload) + 1):
        (found,), _ = run(RateControlled(CANDIDATES, budget_bytes=budget), [uneven()])
        assert len(found) <= budget


def test_more_bytes_never_mean_more_error() -> None:
    lost = [run(RateControlled(CANDIDATES, budget_bytes=budget), [uneven()])[1][0] for budget in range(300, 12000, 300)]
    assert all(after <= before for before, after in pairwise(lost))
    assert lost[-1] < 1e-5 < 0.1 < lost[0]


@pytest.mark.parametrize("budget", [1.0, 0.5, 0.1, 1e-3])
def test_the_budget_of_error_is_kept_where_it_is_decided(budget: float) -> None:
    _, lost = run(RateControlled(CANDIDATES, budget_error=budget, every=1), [uneven(seed) for seed in range(3)])
    assert max(lost) <= budget * (1 + 1e-6)


def test_at_the_same_bytes_it_loses_less_than_one_codec_for_all_groups() -> None:
    for codec in (Sign(), TopK(0.1), Half("bf16")):
        payloads, lost = run(RateControlled((codec,), budget_bytes=10**6), [uneven()])
        several = RateControlled((*CANDIDATES, TopK(0.1), TopK(0.3), Half()), budget_bytes=len(payloads[0]))
        _, chosen = run(several, [uneven()])
        assert chosen[0] < 0.9 * lost[0]


def test_it_decides_every_so_many_rounds_and_the_choice_is_in_the_payload() -> None:
    codec = RateControlled((TopK(0.02), Half()), budget_error=0.2, every=3)
    state, choices = codec.start(LAYOUT), []
    for round_ in range(7):
        v = uneven() if round_ in (0, 6) else np.roll(uneven(), 1900)  # another layer moves
        data, state = codec.pack(v, LAYOUT, state, Moment(round_))
        choices.append(tuple(data[:4]))
    assert choices[0] == choices[1] == choices[2] != choices[3] == choices[4] == choices[5] != choices[6] == choices[0]


def test_a_payload_over_the_budget_is_decided_anew_at_once() -> None:
    codec = RateControlled((TopK(0.02), Sparsity(), Half()), budget_bytes=2500, every=100)
    state = codec.start(LAYOUT)
    few = np.zeros(LAYOUT.size, np.float32)
    few[:400] = 1
    data, state = codec.pack(few, LAYOUT, state, Moment(0))
    before = state["decided"]
    data, state = codec.pack(uneven(), LAYOUT, state, Moment(1))
    assert (before, state["decided"]) == (0, 1)
    assert len(data) <= 2500


class Sparsity(Half):
    """As many bytes as there are numbers that are not zero: four each."""

    def pack(self, v, layout, state, at):  # type: ignore[no-untyped-def]
        return v[v != 0].tobytes(), state

    def unpack(self, data, layout, state, at):  # type: ignore[no-untyped-def]
        out = np.zeros(layout.size, np.float32)
        out[: len(data) // 4] = np.frombuffer(data, np.float32)
        return out, state


def test_small_arrays_are_decided_on_together() -> None:
    payloads, _ = run(RateControlled(CANDIDATES, budget_error=0.3), [uneven()])
    by_layer, _ = run(RateControlled(CANDIDATES, budget_error=0.3, groups="layer"), [uneven()])
    one = Layout(("a.w", "c.w", "d.w", "small"), ((40, 50), (30, 60), (50, 30), (80,)))
    assert max(payloads[0][:4]) < 3
    codec = RateControlled(CANDIDATES, budget_error=0.3)
    v = uneven()
    part = LAYOUT.slices()
    moved = np.concatenate([v[part[i]] for i in (0, 2, 4, 1, 3)])
    assert codec.pack(moved, one, codec.start(one), Moment())[0] == payloads[0]
    assert len(by_layer[0]) != len(payloads[0])


def test_groups_that_are_all_sparse_stay_sparse() -> None:
    codec = RateControlled((TopK(0.1),), budget_bytes=10**5)
    data, _ = codec.pack(uneven(), LAYOUT, codec.start(LAYOUT), Moment())
    assert isinstance(codec.unpack(memoryview(data), LAYOUT, codec.start(LAYOUT), Moment())[0], Sparse)


def test_a_budget_that_no_choice_keeps_is_refused_with_the_least_possible() -> None:
    codec = RateControlled((Half(), Identity()), budget_bytes=5000)
    with pytest.raises(CodecError, match=r"a budget of 5000 bytes, but these candidates need at least 10\d\d\d;"):
        codec.pack(uneven(), LAYOUT, codec.start(LAYOUT), Moment())
    codec = RateControlled((Sign(),), budget_error=0.01)
    with pytest.raises(CodecError, match="but these candidates leave at least"):
        codec.pack(uneven(), LAYOUT, codec.start(LAYOUT), Moment())


def test_a_candidate_that_is_none_is_refused() -> None:
    codec = RateControlled(CANDIDATES, budget_error=0.3)
    data, _ = codec.pack(uneven(), LAYOUT, codec.start(LAYOUT), Moment())
    for bad, message in ((b"\0\0\3\0" + data[4:], "candidate 3 of 3"), (data[:3], "3 bytes for 4 groups")):
        with pytest.raises(CodecError, match=message):
            codec.unpack(memoryview(bad), LAYOUT, codec.start(LAYOUT), Moment())


def test_options_that_make_no_sense_are_refused() -> None:
    for candidates in ((), Half(), "half", None):
        with pytest.raises(CodecError, match=r"candidates = .*expected 1 to 255 codecs"):
            RateControlled(candidates, budget_bytes=9)  # type: ignore[arg-type]
    for stateful in (stc(0.1), LowRank()):
        with pytest.raises(CodecError, match=r"candidates\[1\] = .*remembers something.*around the whole"):
            RateControlled((Half(), stateful), budget_bytes=9)
    for budgets in ({}, {"budget_bytes": 9, "budget_error": 0.1}):
        with pytest.raises(CodecError, match="expected one of the two"):
            RateControlled(CANDIDATES, **budgets)  # type: ignore[arg-type]
    for wrong in ({"budget_bytes": 1.5}, {"budget_bytes": -1}, {"budget_error": 2.0}, {"budget_error": "0.1"}):
        with pytest.raises(CodecError, match=r"budget_.* = .*expected a"):
            RateControlled(CANDIDATES, **wrong)  # type: ignore[arg-type]
    with pytest.raises(CodecError, match="groups = 'name': expected 'array' or 'layer'"):
        RateControlled(CANDIDATES, budget_bytes=9, groups="name")  # type: ignore[arg-type]
    with pytest.raises(CodecError, match="every = 0"):
        RateControlled(CANDIDATES, budget_bytes=9, every=0)
