"""Histories and budgets: state in, state out, and what the next round is estimated from."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.errors import SplitError
from flower_edge.splitting.budgets import Budgets, History, QuantileBudgets
from flower_edge.splitting.capacity import Capacity
from flower_edge.store import tree_to_bytes

RATES = st.lists(st.floats(1.0, 1e12), min_size=1, max_size=30)


@given(RATES, st.floats(0.01, 1.0))
def test_an_estimate_lies_between_the_least_and_the_most_measured(rates: list[float], weight: float) -> None:
    history = History()
    for rate in rates:
        history = history.add(keep=50, flops_per_s=rate)
    found = history.capacity(weight=weight).flops_per_s
    assert min(rates) * (1 - 1e-9) <= found <= max(rates) * (1 + 1e-9)


@given(RATES)
def test_with_weight_one_the_newest_counts_alone(rates: list[float]) -> None:
    assert History(flops_per_s=tuple(rates)).capacity(weight=1.0).flops_per_s == pytest.approx(rates[-1])


def test_the_oldest_is_forgotten_and_nothing_is_changed_in_place() -> None:
    first = History().add(keep=2, compute_s=1.0)
    second = first.add(keep=2, compute_s=2.0).add(keep=2, compute_s=3.0)
    assert first.compute_s == (1.0,)
    assert second.compute_s == (2.0, 3.0)


def test_what_was_not_measured_is_left_out() -> None:
    history = History().add(flops_per_s=None, up_bps=math.inf, delay_s=math.nan, compute_s=0.5)
    assert history == History(compute_s=(0.5,))
    assert history.capacity(otherwise=Capacity(7.0, up_bps=3.0)) == Capacity(7.0, up_bps=3.0)
    with pytest.raises(SplitError, match="otherwise=Capacity"):
        history.capacity()
    with pytest.raises(SplitError, match="keeps no 'speed'"):
        history.add(speed=1.0)
    with pytest.raises(SplitError, match=r"weight = 0\.0"):
        history.capacity(weight=0.0)


def test_measured_quantities_stand_beside_those_that_were_not() -> None:
    history = History().add(flops_per_s=5.0, delay_s=0.1)
    assert history.capacity(otherwise=Capacity(7.0, up_bps=3.0), memory_bytes=9) == Capacity(5.0, 3.0, math.inf, 0.1, 9)


def test_a_history_goes_through_a_checkpoint() -> None:
    history = History().add(flops_per_s=1e9, kept=0.8).add(transfer_s=0.1)
    assert History.from_state(history.state_dict()) == history
    assert tree_to_bytes(history.state_dict())


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=20), st.floats(0.0, 1.0))
def test_so_many_past_steps_kept_the_budget(times_s: list[float], quantile: float) -> None:
    history = History(compute_s=tuple(times_s), transfer_s=tuple(times_s))
    budgets = QuantileBudgets(quantile).now([history])
    assert budgets is not None
    assert budgets.train_s == budgets.transfer_s
    kept = sum(one <= budgets.train_s * (1 + 1e-9) for one in times_s)
    assert kept >= math.floor(quantile * (len(times_s) - 1)) + 1


def test_only_the_newest_count_and_devices_that_sent_nothing_do_not() -> None:
    past = [History(compute_s=(9.0, 1.0, 2.0), transfer_s=(0.0, 0.0)), History(compute_s=(1.0,), transfer_s=(3.0,))]
    assert QuantileBudgets(quantile=1.0, last=2).now(past) == Budgets(2.0, 3.0)
    assert QuantileBudgets().now([History(compute_s=(1.0,))]) is None
    assert Budgets(1.0, 2.0).now(past) == Budgets(1.0, 2.0)


def test_budgets_that_cannot_be_are_refused() -> None:
    with pytest.raises(SplitError, match=r"transfer_s = 0\.0"):
        Budgets(1.0, 0.0)
    with pytest.raises(SplitError, match=r"quantile = 1\.5"):
        QuantileBudgets(1.5)
    with pytest.raises(SplitError, match="last = 0"):
        QuantileBudgets(last=0)
