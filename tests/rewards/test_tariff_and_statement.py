"""Money: amounts by the tariff, exactly rounded, and statements whose lines add up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.rewards.statement import owed, statement, statements
from flower_edge.rewards.tariff import Rounding, Tariff
from flower_edge.store.reward_rows import Entry

MICRO = st.integers(-(2**63), 2**63 - 1)
PRICES = st.decimals("0", "1e6", places=8)


@settings(max_examples=100)
@given(MICRO, PRICES, st.integers(0, 12))
def test_amounts_are_exact_but_for_the_one_rounding_asked_for(micro: int, price: Decimal, places: int) -> None:
    exact = Fraction(micro, 10**6) * Fraction(price)
    step = Fraction(1, 10**places)
    down = Fraction(Tariff("EUR", price, "down", places).amount(micro))
    assert abs(down) <= abs(exact) < abs(down) + step
    for rounding in ("half-even", "half-up"):
        assert abs(Fraction(Tariff("EUR", price, rounding, places).amount(micro)) - exact) <= step / 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rounding", "amounts"),
    [
        ("down", ["0.00", "0.01", "-0.00"]),
        ("half-even", ["0.00", "0.02", "-0.00"]),
        ("half-up", ["0.01", "0.02", "-0.01"]),
    ],
)
def test_half_a_cent_goes_where_the_tariff_says(rounding: Rounding, amounts: list[str]) -> None:
    tariff = Tariff("EUR", "0.01", rounding)
    assert [str(tariff.amount(micro)) for micro in (500_000, 1_500_000, -500_000)] == amounts


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"price_per_credit": 0.05}, "0.05.: expected a text such as '0.05'; a float is not exact"),
        ({"price_per_credit": "-1"}, "expected a price, 0 or more"),
        ({"price_per_credit": "NaN"}, "expected a price"),
        ({"price_per_credit": "1e99"}, "expected a price"),
        ({"price_per_credit": "dear"}, "expected a number"),
        ({"currency": "euro"}, "currency='euro'"),
        ({"rounding": "up"}, "one of down, half-even, half-up"),
        ({"places": 13}, "places=13"),
        ({"places": math.inf}, "places=inf"),
    ],
)
def test_a_tariff_says_what_is_wrong_with_it(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Tariff(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["EUR", "0.05 EUR", "EUR 0.05 each", ""])
def test_a_tariff_written_otherwise_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Tariff.parse(text)


def row(seq: int, node: str, micro: int, booked_at: str = "2026-01-01T00:00:00Z") -> Entry:
    """As a book tells it."""
    return Entry(seq, "run", seq, 0, "", "edge-0", node, "training", micro, None, "{}", booked_at, "")


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", ""]), st.integers(-(10**9), 10**9)), max_size=12), st.randoms())
def test_statements_add_up_and_do_not_depend_on_the_order_of_rows(told: list[tuple[str, int]], random: object) -> None:
    tariff = Tariff("EUR", "0.37")
    rows = [row(seq, node, micro) for seq, (node, micro) in enumerate(told, 1)]
    made = statements(rows, tariff)
    random.shuffle(rows)  # type: ignore[attr-defined]
    assert statements(rows, tariff) == made
    assert [each.node for each in made] == sorted({node for node, _ in told if node})
    for each in made:
        assert each.micro == sum(micro for node, micro in told if node == each.node)
        assert each.amount == tariff.amount(each.micro)
        assert [line["seq"] for line in each.rows()] == sorted(line["seq"] for line in each.rows())
    assert owed(each.amount for each in made) == sum((each.amount for each in made), Decimal(0))


def test_the_total_is_rounded_and_not_the_rows() -> None:
    # Three rows of a third of a cent: each alone is worth nothing, together they are a cent.
    rows = [row(seq, "a", 333_334) for seq in (1, 2, 3)]
    assert statement("a", rows, Tariff("EUR", "0.01")).amount == Decimal("0.01")


def test_a_statement_tells_its_period_lines_and_amount() -> None:
    rows = [row(2, "a", 5_000_000, "2026-02-01T00:00:00Z"), row(1, "a", -1_000_000), row(3, "b", 7)]
    told = statement("a", rows, Tariff("CHF", "2.50")).document()
    lines = told.pop("rows")
    assert told == {
        "node": "a",
        "since": "2026-01-01T00:00:00Z",
        "until": "2026-02-01T00:00:00Z",
        "lines": 2,
        "micro": 4_000_000,
        "price_per_credit": "2.50",
        "rounding": "down",
        "amount": "10.00",
        "currency": "CHF",
    }
    assert [(line["seq"], line["micro"]) for line in lines] == [(1, -1_000_000), (2, 5_000_000)]


def test_a_node_without_rows_is_owed_nothing() -> None:
    empty = statement("nobody", [], Tariff())
    assert (empty.micro, str(empty.amount), empty.period, empty.rows()) == (0, "0.00", ("", ""), [])


@dataclass(frozen=True)
class _Line:
    """A row that is not the book's own: a statement reads any that tells as much."""

    seq: int = 1
    run: str = "r"
    round: int = 1
    edge_round: int = 0
    payer: str = "server"
    node: str = "a"
    kind: str = "training"
    micro: int = 1_000_000
    booked_at: str = "2026-01-01T00:00:00Z"


def test_rows_of_anybody_s_book_will_do() -> None:
    assert statement("a", [_Line()], Tariff()).amount == Decimal("1.00")
