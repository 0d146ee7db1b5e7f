"""The clutter pictures are what they are said to be, and no part knows another's digits."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import pytest

from flower_edge.data import load_dataset
from flower_edge.data.clutter import (
    DEVIATION,
    MEAN,
    NOISE,
    PIECE_LIGHT,
    SIDE,
    ClutterParts,
    clutter,
    scenes,
)
from flower_edge.errors import ConfigError, DataError

SMALL = (60, 20, 30)


@cache
def whole() -> ClutterParts:
    return clutter(seed=0)


def test_the_parts_have_the_sizes_that_were_agreed_on() -> None:
    parts = whole()
    assert [len(part) for part in parts] == [6_000, 1_000, 2_000]
    for part in parts:
        assert part.input_shape == (1, 32, 32)
        assert part.x.dtype == np.float32
        assert part.num_classes == 10
        np.testing.assert_array_equal(np.unique(part.y), np.arange(10))


def test_no_digit_is_shown_in_two_parts_and_nearly_all_are_shown() -> None:
    shown = [set(part.groups.tolist()) for part in whole() if part.groups is not None]
    assert len(shown) == 3
    assert not shown[0] & shown[1]
    assert not shown[0] & shown[2]
    assert not shown[1] & shown[2]
    # 1,078, 359 and 360 digits; few are never drawn.
    assert len(shown[0]) > 1_060
    assert len(shown[1]) > 330
    assert len(shown[2]) > 350


def test_labels_are_those_of_the_digits_shown() -> None:
    from sklearn.datasets import load_digits

    target = load_digits().target
    for part in whole():
        np.testing.assert_array_equal(part.y, target[part.groups])


def test_digits_are_divided_by_class() -> None:
    from sklearn.datasets import load_digits

    target = load_digits().target
    everywhere = np.bincount(target) / len(target)
    for part in whole():
        digits = np.unique(part.groups)
        assert np.abs(np.bincount(target[digits]) / len(digits) - everywhere).max() < 0.01


def test_other_digits_change_nothing_in_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what is shown nor the pieces beside it come from another part's digits."""
    from sklearn import datasets

    before = clutter(seed=0, pictures=SMALL)
    raw = datasets.load_digits()
    for own, part in enumerate(before):
        # Digits that the large parts show are known to be theirs; those of the two other parts become negatives.
        elsewhere = [p.groups for at, p in enumerate(whole()) if at != own and p.groups is not None]
        images = raw.images.copy()
        images[np.concatenate(elsewhere)] = 16.0 - raw.images[np.concatenate(elsewhere)]
        altered = type(raw)(**{**raw, "images": images})
        monkeypatch.setattr(datasets, "load_digits", lambda altered=altered: altered)
        after = clutter(seed=0, pictures=SMALL)
        monkeypatch.undo()
        np.testing.assert_array_equal(after[own].x, part.x)
        assert not np.array_equal(after[(own + 1) % 3].x, before[(own + 1) % 3].x)


def test_one_seed_gives_one_set_and_a_part_does_not_depend_on_the_others_sizes() -> None:
    first, again, other = clutter(5, pictures=SMALL), clutter(5, pictures=(7, 20, 1)), clutter(6, pictures=SMALL)
    np.testing.assert_array_equal(first.validation.x, again.validation.x)
    np.testing.assert_array_equal(first.validation.y, again.validation.y)
    assert not np.array_equal(first.validation.x, other.validation.x)
    assert not np.array_equal(first.train.x[:20], first.validation.x)


def test_what_the_figures_were_measured_on_is_what_is_drawn_today() -> None:
    """Labels and digits exactly; pixels up to rounding, as another SciPy may sum in another order."""
    test = whole().test
    assert test.groups is not None
    assert hashlib.sha256(test.groups.astype("<i8").tobytes()).hexdigest()[:16] == "d3e4f5db81fa0a81"
    assert float(test.x.mean()) == pytest.approx(-0.151803, abs=1e-5)
    assert float(test.x.std()) == pytest.approx(0.972258, abs=1e-5)


# -- what is in a picture --------------------------------------------------------------------------------------------


def test_a_picture_holds_one_square_digit_of_13_to_19_pixels_and_darker_pieces() -> None:
    white = np.ones((4, 8, 8), np.float32)
    canvas, shown = scenes(white, 300, np.random.default_rng(0))
    assert canvas.shape == (300, SIDE, SIDE)
    assert set(np.unique(shown)) == set(range(4))
    assert set(np.unique(canvas)) == {np.float32(0), np.float32(PIECE_LIGHT), np.float32(1)}
    sides = []
    for picture in canvas:
        rows, columns = np.nonzero(picture == 1.0)
        side = int(np.ptp(rows)) + 1
        assert np.ptp(columns) + 1 == side
        assert len(rows) == side * side  # nothing in the digit's square is darker
        sides.append(side)
    assert set(sides) == set(range(13, 20))


def test_five_pieces_of_7_pixels_come_from_other_digits_only() -> None:
    # One white digit among black ones: where it is shown there is no piece, elsewhere no more than five.
    digits = np.zeros((2, 8, 8), np.float32)
    digits[0] = 1.0
    canvas, shown = scenes(digits, 400, np.random.default_rng(1))
    assert (canvas[shown == 0] != np.float32(PIECE_LIGHT)).all()
    areas = (canvas[shown == 1] == np.float32(PIECE_LIGHT)).sum(axis=(1, 2))
    assert areas.max() == 5 * 49  # five that do not touch
    assert areas.min() >= 49
    assert (canvas[shown == 1] < 1.0).all()


def test_digit_and_pieces_lie_anywhere_on_the_canvas_alike() -> None:
    digits = np.zeros((2, 8, 8), np.float32)
    digits[0] = 1.0
    canvas, shown = scenes(digits, 6_000, np.random.default_rng(2))
    for mine, light in ((0, 1.0), (1, PIECE_LIGHT)):
        share = (canvas[shown == mine] == np.float32(light)).mean(axis=0)
        # The same in a mirror and on its side, up to chance; corners are rarest, and seen.
        for other in (share[::-1], share[:, ::-1], share.T):
            assert np.abs(share - other).max() < 0.06
        assert 0 < share[0, 0] < share[16, 16]


def test_noise_and_scaling_are_on_top() -> None:
    part = clutter(2, pictures=(400, 1, 1)).train
    light = part.x[:, 0] * DEVIATION + MEAN
    # Most places are empty: there is nothing but noise, around 0.
    empty = light[light < 0]
    assert np.sqrt(np.mean(empty**2)) == pytest.approx(NOISE, rel=0.02)
    assert 1.0 < light.max() < 1.0 + 6 * NOISE


def test_a_piece_is_the_middle_of_another_digit() -> None:
    # A digit whose left half is light: enlarged to 16, columns 0..6 are, 7 and 8 are on the edge; a piece is 4..10.
    digits = np.zeros((2, 8, 8), np.float32)
    digits[0, :, :4] = 1.0
    canvas, shown = scenes(digits, 200, np.random.default_rng(3))
    alone = [one for one in canvas[shown == 1] if np.isclose(one.max(), PIECE_LIGHT) and (one > 0).sum() == 5 * 35]
    assert alone  # five pieces that do not touch: 7 rows of 3 full, one of 3/4, one of 1/4
    levels, counts = np.unique(alone[0].round(4), return_counts=True)
    np.testing.assert_allclose(levels, [0.0, 0.2, 0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(counts, [SIDE * SIDE - 175, 35, 35, 105])


# -- by name, and refused --------------------------------------------------------------------------------------------


def test_it_goes_by_name_as_train_and_test() -> None:
    train, test = load_dataset("clutter", seed=0, size=32)
    np.testing.assert_array_equal(train.x, whole().train.x)
    np.testing.assert_array_equal(test.y, whole().test.y)


def test_bad_arguments_are_refused_with_what_to_use() -> None:
    with pytest.raises(ConfigError, match="clutter of size 28; use 32"):
        load_dataset("clutter", size=28)
    with pytest.raises(ConfigError, match="three parts of 1 or more"):
        clutter(0, pictures=(10, 0, 10))
    with pytest.raises(ConfigError, match="use a seed from 0"):
        clutter(-1)
    with pytest.raises(DataError, match=r"\(1, 8, 8\); give \[digits, 8, 8\], two or more"):
        scenes(np.zeros((1, 8, 8), np.float32), 1, np.random.default_rng(0))
