"""Frames that are not due, or do not fit, are refused by name; the right one still works afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from piece_cases import cut_of, joined, works_of
from pydantic import ValidationError
from split_cases import CASES, Whole, assert_same_whole, make_order, pick, start_of

from flower_edge.errors import DataError, ModelMismatch, ProtocolError, SplitError
from flower_edge.pieces import Mode, PieceOrder, PieceWork, piece_orders, run_chain
from flower_edge.splitting.frame import Frame, Kind

CASE = CASES["dropout"]
MODEL = cut_of("dropout")
START = start_of(CASE)
#: Behind the first linear layer, and behind BatchNorm.
CUTS = (2, 6)


def expected(mode: Mode) -> Whole:
    works = works_of(CASE, MODEL, START, CUTS, mode=mode)
    run_chain(works)
    return joined(MODEL, works)


class Nosy:
    """A piece that is handed wrong frames before each right one."""

    def __init__(self, work: PieceWork, bad: Callable[[Frame | None], list[tuple[Frame | None, str]]]) -> None:
        self._work, self._bad = work, bad
        self.order, self.refused = work.order, 0

    @property
    def done(self) -> bool:
        return self._work.done

    def take(self, frame: Frame | None) -> Any:
        for wrong, message in self._bad(frame):
            with pytest.raises(ProtocolError, match=message):
                self._work.take(wrong)
            self.refused += 1
        return self._work.take(frame)


def wrong_frames(frame: Frame | None) -> list[tuple[Frame | None, str]]:
    if frame is None:
        return [(Frame(Kind.ACTIVATIONS, 0, ()), "to place 0, which asked for nothing")]
    other = Kind.GRADIENT if frame.kind is Kind.ACTIVATIONS else Kind.ACTIVATIONS
    found: list[tuple[Frame | None, str]] = [
        (replace(frame, kind=other), f"expected {frame.kind.name} of step {frame.step}"),
        (replace(frame, step=frame.step + 1), f"expected {frame.kind.name} of step {frame.step}"),
        (replace(frame, tensors=frame.tensors * 2), "sent tensors of shapes"),
        (replace(frame, tensors=tuple(one[:, :1] for one in frame.tensors)), r"place \d of chain 0 sent tensors"),
    ]
    if frame.kind is Kind.GRADIENT:
        return [*found, (None, "nothing came where GRADIENT")]
    assert frame.labels is not None
    return [
        *found,
        (None, "has no samples"),
        (replace(frame, labels=None), "sent no labels"),
        (replace(frame, labels=frame.labels[:-1]), "labels with"),
        (replace(frame, tensors=tuple(np.repeat(one, 9, 0) for one in frame.tensors)), "batch of at most 4"),
    ]


@pytest.mark.parametrize("mode", ["exact", "decoupled"])
def test_wrong_frames_are_refused_and_the_right_one_still_works(mode: Mode) -> None:
    works = works_of(CASE, MODEL, START, CUTS, mode=mode)
    nosy = [Nosy(work, wrong_frames) for work in works]
    run_chain(nosy)
    assert all(one.refused >= 3 for one in nosy)
    assert_same_whole(joined(MODEL, works), expected(mode))


@pytest.mark.parametrize("mode", ["exact", "decoupled"])
def test_labels_the_model_has_no_class_for_leave_buffers_as_they_were(mode: Mode) -> None:
    works = works_of(CASE, MODEL, START, (2, 4), mode=mode)

    def impossible(frame: Frame | None) -> list[tuple[Frame | None, str]]:
        assert frame is not None
        assert frame.labels is not None
        return [
            (replace(frame, labels=np.full_like(frame.labels, 7)), "place 1 of chain 0 sent labels that do not fit")
        ]

    last = Nosy(works[2], impossible)
    plain = works_of(CASE, MODEL, START, (2, 4), mode=mode)
    run_chain([works[0], works[1], last])
    run_chain(plain)
    assert last.refused == 3
    assert_same_whole(joined(MODEL, works), joined(MODEL, plain))


def test_nothing_is_taken_after_the_last_step() -> None:
    works = works_of(CASE, MODEL, START, (4,), steps=1)
    (said,) = works[0].take(None)
    (back,) = works[1].take(said.frame)
    assert works[0].take(back.frame) == ()
    assert works[0].take(None) == ()
    with pytest.raises(ProtocolError, match="its round ended with step 0"):
        works[1].take(replace(said.frame, step=1))
    with pytest.raises(ProtocolError, match="asked for nothing"):
        works[0].take(back.frame)


def test_samples_are_for_place_0_and_arrays_for_their_units() -> None:
    x, y = CASE.data()
    first, last = piece_orders(make_order(1), len(MODEL.units), (4,))
    mine, theirs = pick(MODEL, START, (0, 4)).arrays, pick(MODEL, START, (4, len(MODEL.units))).arrays
    with pytest.raises(SplitError, match="place 0 without samples; give x and y to place 0"):
        PieceWork(first, MODEL, mine, {})
    with pytest.raises(SplitError, match="place 1 with x and y"):
        PieceWork(last, MODEL, theirs, {}, x=x, y=y)
    with pytest.raises(ModelMismatch, match="units 0 to 4"):
        PieceWork(first, MODEL, theirs, {}, x=x, y=y)
    with pytest.raises(DataError, match="10 samples but 3 targets"):
        PieceWork(first, MODEL, mine, {}, x=x, y=y[:3])
    with pytest.raises(SplitError, match="the last place, and no other, ends at 10"):
        PieceWork(last, cut_of("mlp"), theirs, {})


def test_targets_of_this_terminal_that_do_not_fit_are_its_data() -> None:
    x, y = CASE.data()
    (order,) = piece_orders(make_order(1), len(MODEL.units), ())
    work = PieceWork(order, MODEL, START.arrays, {}, x=x, y=y + 9)
    with pytest.raises(DataError, match="the model scores 4 classes"):
        work.take(None)
    np.testing.assert_array_equal(work.result().arrays["5.running_mean"], START.arrays["5.running_mean"])


def test_an_order_that_is_no_piece_is_refused() -> None:
    good = piece_orders(make_order(1), 8, (2, 6))[1].model_dump()
    for change, message in (
        ({"stop": 2}, "expected start < stop = cut"),
        ({"place": 3}, "place 3 of 3"),
        ({"place": 0}, "place 0 of 3 that begins at unit 2"),
        ({"work": {**good["work"], "labels": "device"}}, "labels='cloud' and no tail"),
    ):
        with pytest.raises(ValidationError, match=message):
            PieceOrder(**{**good, **change})


def test_works_that_are_no_chain_are_refused() -> None:
    works = works_of(CASE, MODEL, START, CUTS)
    for wrong in ([], works[:2], [works[0], works[2], works[1]]):
        with pytest.raises(SplitError, match="are no chain; give one work for each place"):
            run_chain(wrong)
    other = works_of(CASE, MODEL, START, CUTS, mode="decoupled")
    with pytest.raises(SplitError, match="all of one mode"):
        run_chain([works[0], other[1], works[2]])


def test_a_chain_with_a_place_that_is_ahead_says_so() -> None:
    longer = works_of(CASE, MODEL, START, CUTS, mode="decoupled", steps=4)
    shorter = works_of(CASE, MODEL, START, CUTS, mode="decoupled", steps=3)
    with pytest.raises(SplitError, match=r"places \[1, 2\] have not made all their steps"):
        run_chain([shorter[0], *longer[1:]])


def test_a_cut_model_serves_any_number_of_pieces() -> None:
    before = {name: tensor.clone() for name, tensor in MODEL.model.state_dict().items()}
    works = [works_of(CASE, MODEL, START, CUTS) for _ in range(2)]
    for chain in works:
        run_chain(chain)
    assert_same_whole(joined(MODEL, works[0]), joined(MODEL, works[1]))
    assert all((tensor == before[name]).all() for name, tensor in MODEL.model.state_dict().items())
