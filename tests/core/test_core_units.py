"""Units: what people write becomes SI and bits, and back for people."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.units import (
    bytes_to_bits,
    db_to_ratio,
    human_bits,
    human_s,
    mb_to_bits,
    mbps_to_bps,
    ms_to_s,
    ratio_to_db,
)


@given(st.floats(-200, 200))
def test_decibels_and_back_are_the_same_decibels(value_db: float) -> None:
    assert ratio_to_db(db_to_ratio(value_db)) == pytest.approx(value_db, abs=1e-9)


@given(st.floats(-100, 100), st.floats(-100, 100))
def test_adding_decibels_multiplies_ratios(one_db: float, other_db: float) -> None:
    assert db_to_ratio(one_db + other_db) == pytest.approx(db_to_ratio(one_db) * db_to_ratio(other_db))


def test_a_ratio_of_zero_has_no_decibels() -> None:
    with pytest.raises(ValueError, match=r"math domain|positive"):
        ratio_to_db(0.0)


def test_the_numbers_everybody_knows() -> None:
    assert (db_to_ratio(0), db_to_ratio(10), db_to_ratio(-30)) == (1.0, 10.0, 0.001)
    assert (ms_to_s(1), mbps_to_bps(1), mb_to_bits(1), bytes_to_bits(1)) == (0.001, 1e6, 8_000_000, 8)


@given(st.integers(0, 10**9))
def test_megabytes_of_whole_bytes_lose_no_bit(count_bytes: int) -> None:
    assert mb_to_bits(count_bytes / 1e6) == bytes_to_bits(count_bytes)


@pytest.mark.parametrize(
    ("value_bits", "text"),
    [
        (0, "0 B"),
        (7992, "999 B"),
        (8000, "1.0 kB"),
        (8 * 999_900, "999.9 kB"),
        (8e6, "1.0 MB"),
        (8e9, "1.0 GB"),
        (8e12, "1.0 TB"),
        (8e16, "10000.0 TB"),
        (8 * 999.9, "1.0 kB"),
        (8 * 999_990, "1.0 MB"),
    ],
)
def test_bits_read_as_bytes_with_the_prefix_that_fits(value_bits: float, text: str) -> None:
    assert human_bits(value_bits) == text


@given(st.floats(0, 1e18))
def test_a_number_of_bytes_below_a_million_terabytes_has_at_most_three_digits_before_its_prefix(
    value_bits: float,
) -> None:
    number, prefix = human_bits(value_bits).split()
    assert float(number) < 1000 or prefix == "TB"


@pytest.mark.parametrize(
    ("value_s", "text"),
    [
        (0, "0 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (1, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (60, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_seconds_read_with_the_unit_that_fits(value_s: float, text: str) -> None:
    assert human_s(value_s) == text


@given(st.floats(0, 1e7))
def test_no_duration_is_shown_with_sixty_of_anything(value_s: float) -> None:
    shown = human_s(value_s)
    assert not re.search(r"\b60(\.0)? (s|min)\b|\b1000 ms", shown)
    assert math.isfinite(float(shown.split()[0]))
