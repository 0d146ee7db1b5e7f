"""Laws of the ledger."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.ledger import Ledger

COUNTS = ("down_bits", "up_bits", "peer_bits", "down_messages", "up_messages", "failed_messages")
# Multiples of 1/8, so that adding is exact and the laws can be tested with ==.
SECONDS = st.integers(0, 2**40).map(lambda eighths: eighths / 8)
ledgers = st.builds(Ledger, **{name: st.integers(0, 2**60) for name in COUNTS}, wall_s=SECONDS, virtual_s=SECONDS)


@given(ledgers, ledgers, ledgers)
def test_adding_is_associative(a: Ledger, b: Ledger, c: Ledger) -> None:
    assert (a + b) + c == a + (b + c)


@given(ledgers, ledgers)
def test_adding_is_commutative(a: Ledger, b: Ledger) -> None:
    assert a + b == b + a


@given(ledgers)
def test_the_empty_ledger_is_neutral(a: Ledger) -> None:
    assert a + Ledger() == Ledger() + a == a


@given(st.lists(ledgers, max_size=5))
def test_a_total_is_the_sum_of_every_entry_by_itself(parts: list[Ledger]) -> None:
    total = Ledger.total(parts)
    for field in fields(Ledger):
        assert getattr(total, field.name) == sum(getattr(part, field.name) for part in parts)


@given(ledgers)
def test_wall_and_virtual_seconds_never_meet(a: Ledger) -> None:
    assert (a + Ledger(wall_s=1.0)).virtual_s == a.virtual_s
    assert (a + Ledger(virtual_s=1.0)).wall_s == a.wall_s
    assert {name for name in dir(Ledger) if name.endswith("_s")} == {"wall_s", "virtual_s"}


@pytest.mark.parametrize("name", [field.name for field in fields(Ledger)])
@pytest.mark.parametrize("amount", [-1, -0.5, float("nan"), float("inf")])
def test_an_amount_that_nobody_can_have_measured_is_refused_by_name(name: str, amount: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} = "):
        Ledger(**{name: amount})
    with pytest.raises(ConfigError, match=f"{name} = "):
        replace(Ledger(), **{name: amount})


@pytest.mark.parametrize("other", [0, 1.5, None, (1, 2), {"up_bits": 1}])
def test_only_a_ledger_can_be_added_to_a_ledger(other: Any) -> None:
    with pytest.raises(TypeError):
        Ledger() + other


@given(ledgers)
def test_a_ledger_comes_back_from_its_own_plain_numbers(a: Ledger) -> None:
    assert Ledger(**a.as_dict()) == a  # type: ignore[arg-type]
    assert set(a.as_dict()) == {*COUNTS, "wall_s", "virtual_s"}


def test_a_ledger_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Ledger().up_bits = 5  # type: ignore[misc]
