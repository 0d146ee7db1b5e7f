"""Global generators are kept, given back and seeded; seeds are the same everywhere."""

from __future__ import annotations

import random
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.runtime.generators import derive_seed, generator_state, restore_generators, seeded_call
from flower_edge.store import tree_from_bytes, tree_to_bytes

PARTS = st.lists(st.integers() | st.text(max_size=5), max_size=4)


def draws() -> list[float]:
    drawn = [random.random(), random.gauss(0, 1), float(np.random.random()), float(np.random.normal())]
    if torch := sys.modules.get("torch"):
        drawn.append(float(torch.rand(())))
    return drawn


@given(PARTS)
def test_a_derived_seed_fits_every_generator(parts: list[int | str]) -> None:
    seed = derive_seed(*parts)
    assert 0 <= seed < 2**63
    assert derive_seed(*parts) == seed


def test_a_derived_seed_is_the_same_on_every_machine() -> None:
    assert derive_seed(7, "node-3", 1) == 15_232_007_813_496_832


@given(PARTS, PARTS)
def test_other_parts_give_another_seed_also_where_they_read_the_same(
    one: list[int | str], other: list[int | str]
) -> None:
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)
    assert derive_seed(1) != derive_seed("1")
    assert derive_seed("a", "b") != derive_seed("ab")


def test_streams_go_on_from_a_state_that_went_through_a_checkpoint_file() -> None:
    random.gauss(0, 1)
    np.random.normal()  # both keep the second of two draws: it is part of the state
    saved = tree_from_bytes(tree_to_bytes(generator_state()))
    expected = draws()
    draws()
    restore_generators(saved)
    assert draws() == expected


def test_seeded_calls_nest_and_an_exception_gives_the_streams_back() -> None:
    random.seed(1)
    np.random.seed(1)
    before = generator_state()
    undisturbed = draws()
    restore_generators(before)

    def nested_and_broken() -> None:
        with seeded_call(5):
            first = draws()
            with seeded_call(5):
                assert draws() == first
            assert draws() != first
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        nested_and_broken()
    assert draws() == undisturbed
