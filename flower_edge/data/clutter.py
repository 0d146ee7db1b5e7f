"""Clutter: the handwritten digits again, each somewhere among pieces of others, under noise.

A picture of 32x32 holds one digit, 13 to 19 pixels a side, at any place, and five pieces of other digits, a little
darker; what overlaps is merged by the maximum. Train, validation and test part are drawn from digits of their own, so
no stroke of one part is in another. Hard enough for a small residual network to be wrong once in twenty: what a model
loses by being compressed can be seen. It stands for no camera.

    digits  60 / 20 / 20 of the 1,797, by class
    digit   8x8 -> 13 .. 19 pixels, bilinearly                       size and place uniform
    piece   8x8 -> 16x16, bilinearly; the 7x7 in its middle, x 0.8   5 of them, place uniform
    x       (max of all + N(0, 0.12) - 0.2) / 0.3

The middle of 16x16 has no pixel of its own: a piece is rows and columns 4 .. 10 of 0 .. 15. Pieces come from any class.

Measured with seed 0: a residual network of 174,970 parameters, trained as benchmarks/fringe_base.py does, tells 94.1 %
of the test part right.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .dataset import CLASSIFICATION, Dataset
from .digits import enlarge
from .extras import missing_extra

__all__ = ["PARTS", "SIDE", "ClutterParts", "clutter", "scenes"]

#: Pictures in the train, validation and test part.
PARTS = (6_000, 1_000, 2_000)
#: Pixels along one side.
SIDE = 32
SMALLEST, LARGEST = 13, 19
PIECES = 5
PIECE_FROM = 16
PIECE_SIDE = 7
PIECE_LIGHT = 0.8
NOISE = 0.12
MEAN, DEVIATION = 0.2, 0.3
#: Digits that are for validation and for testing: a fifth each.
VALIDATION_DIGITS, TEST_DIGITS = 359, 360


class ClutterParts(NamedTuple):
    """The parts. In each, `groups` is the number of the digit in scikit-learn's set that a picture shows."""

    train: Dataset
    validation: Dataset
    test: Dataset


def clutter(seed: int = 0, *, pictures: tuple[int, int, int] = PARTS) -> ClutterParts:
    """All three parts. The same arguments give the same arrays, and a part does not depend on the size of another.

    Args:
        seed: which digits belong to which part, and all that is drawn of them.
        pictures: how many in the train, validation and test part.

    Returns:
        Three data sets: x float32 [pictures, 1, 32, 32], about -1 .. 4; y int64 0..9.

    Raises:
        ConfigError: a negative seed, a part without pictures, or scikit-learn is not installed.
    """
    if seed < 0 or len(pictures) != 3 or min(pictures) < 1:
        raise ConfigError(f"seed = {seed}, pictures = {pictures}; use a seed from 0 and three parts of 1 or more")
    try:
        from sklearn import datasets, model_selection
    except ImportError as error:
        raise missing_extra("data set 'clutter'", "scikit-learn", "data") from error

    raw = datasets.load_digits()
    digits = (np.asarray(raw.images) / 16.0).astype(np.float32)
    labels = np.asarray(raw.target, dtype=np.int64)

    def apart(numbers: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
        found: list[NDArray[np.int64]] = model_selection.train_test_split(
            numbers, test_size=count, stratify=labels[numbers], random_state=seed
        )
        return found

    rest, for_test = apart(np.arange(len(labels)), TEST_DIGITS)
    for_train, for_validation = apart(rest, VALIDATION_DIGITS)
    parts = []
    for number, (own, count) in enumerate(zip((for_train, for_validation, for_test), pictures, strict=True)):
        rng = np.random.default_rng([seed, number])
        # No other part's digits are handed on: what is drawn below cannot leak.
        light, shown = scenes(digits[own], count, rng)
        light += rng.standard_normal(light.shape, dtype=np.float32) * np.float32(NOISE)
        x = (light - np.float32(MEAN)) / np.float32(DEVIATION)
        source = own[shown]
        parts.append(Dataset("clutter", x[:, None], labels[source], 10, CLASSIFICATION, groups=source))
    return ClutterParts(*parts)


def scenes(
    digits: NDArray[np.float32], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Pictures before the noise, and which digit each shows.

    Args:
        digits: float32 [digits, 8, 8] in [0, 1], two or more.
        count: pictures.
        rng: draws everything.

    Returns:
        float32 [count, 32, 32] in [0, 1], and int64 [count], positions in `digits`.

    Raises:
        DataError: fewer than two digits, or of another shape: pieces are those of other digits.
    """
    if digits.ndim != 3 or digits.shape[1:] != (8, 8) or len(digits) < 2:
        raise DataError(f"digits of shape {digits.shape}; give [digits, 8, 8], two or more")
    shown = rng.integers(len(digits), size=count)
    sizes = rng.integers(SMALLEST, LARGEST + 1, size=count)
    # Uniform over the places where the whole digit is on the canvas.
    corners = rng.integers(0, (SIDE - sizes + 1)[:, None], size=(count, 2))
    # One of the others: what is at or behind the shown digit moves up by one.
    others = rng.integers(len(digits) - 1, size=(PIECES, count))
    others += others >= shown
    piece_corners = rng.integers(SIDE - PIECE_SIDE + 1, size=(PIECES, count, 2))

    canvas = np.zeros((count, SIDE, SIDE), np.float32)
    for size in range(SMALLEST, LARGEST + 1):
        rows = np.flatnonzero(sizes == size)
        canvas[_places(rows, corners[rows], size)] = _enlarged(digits, shown[rows], size)
    first = (PIECE_FROM - PIECE_SIDE) // 2
    middle = slice(first, first + PIECE_SIDE)
    pieces = _enlarged(digits, others, PIECE_FROM)[..., middle, middle] * np.float32(PIECE_LIGHT)
    everyone = np.arange(count)
    for piece, corner in zip(pieces, piece_corners, strict=True):
        places = _places(everyone, corner, PIECE_SIDE)
        canvas[places] = np.maximum(canvas[places], piece)
    return canvas, shown


def _enlarged(digits: NDArray[np.float32], chosen: NDArray[np.int64], size: int) -> NDArray[np.float32]:
    """The chosen digits with `size` pixels a side, [*chosen, size, size]; each is enlarged once."""
    used, at = np.unique(chosen, return_inverse=True)
    found: NDArray[np.float32] = enlarge(digits[used][:, None], size)[at.reshape(chosen.shape), 0]
    return found


def _places(
    rows: NDArray[np.int64], corners: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Index of a square of `size` in each of the pictures `rows`, [rows, size, size]."""
    along = np.arange(size)
    down = corners[:, 0, None, None] + along[:, None]
    right = corners[:, 1, None, None] + along
    return rows[:, None, None], down, right
