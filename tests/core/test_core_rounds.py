"""`Round` says which round it is, and is a value."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from flower_edge.rounds import Round


@pytest.mark.parametrize(
    ("round", "text"),
    [
        (Round(0), "round 0, train"),
        (Round(4, kind="evaluate"), "round 4, evaluate"),
        (Round(3, edge=2, cell="edge-1"), "round 3.2, cell edge-1, train"),
        (Round(1, cell="a", kind="query"), "round 1, cell a, query"),
    ],
)
def test_a_round_reads_as_a_person_would_say_it(round: Round, text: str) -> None:
    assert str(round) == text


def test_equal_rounds_are_one_key_and_no_round_can_be_changed() -> None:
    assert {Round(1, 2, "a"): "x"}[Round(1, 2, "a")] == "x"
    assert Round(1, 2, "a") != Round(1, 2, "b")
    with pytest.raises(FrozenInstanceError):
        Round(1).cloud = 2  # type: ignore[misc]
