"""`Eden`: 1 to 4 bits per number after a random rotation, with a scale that makes the mean right.

    signs flipped at random, Hadamard's transform  ->  near normal numbers, whatever they were
    each as the nearest of 2^bits levels that are best for normal numbers (Lloyd-Max)
    one scale per 4,096 numbers, 16 bits

What the rotation costs in time it gains in error: 0.571 of the vector's energy at one bit, 0.133 at two, 0.036 at
three, 0.0096 at four, for any vector. The scale S = |x|^2 / <R x, levels> is right on average over uniform rotations;
the one here is only nearly uniform: see docs/codecs_quantise.md for vectors of which few numbers are not zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import CodecError
from .draws import key_of
from .kernels import kernels
from .layout import Floats, Layout, refuse_non_finite
from .moment import Moment
from .nested import check_number
from .scales import nearest, read_scales, rounded_at_random, to_float
from .sparse import Sparse, Update
from .vector_codec import State, VectorCodec

__all__ = ["Eden"]

#: Magnitudes of the levels that are best for normal numbers (Lloyd-Max), to float32; iterated with 30 digits.
_LEVELS = {
    1: (0.797884560803,),
    2: (0.452780034636, 1.5104176085),
    3: (0.245094178944, 0.756005281206, 1.3439092785, 2.15194570454),
    4: (
        *(0.128395029851, 0.38804829949, 0.656759118532, 0.942340456487),
        *(1.25623119735, 1.61804638602, 2.06901722653, 2.732589571),
    ),
}
_ROWS, _LANES, _FEWEST = 4096, 16, 64
#: The few numbers of a padded piece, each in sixteen rows of its own if there are no more than four, and so on.
_APART = (16, 4)
#: Below this share of all places, places and values are less to hold than the whole vector.
_SPARSE = 1 / 3


class _Piece(NamedTuple):
    """Equal tiles of a vector, see `reference.hadamard`; the last piece is longer than what it carries."""

    begin: int
    tiles: int
    rows: int
    lanes: int

    @property
    def size(self) -> int:
        return self.tiles * self.rows * self.lanes


def _pieces(size: int) -> list[_Piece]:
    """Full tiles, then one with fewer lanes, then single lanes of fewer rows, powers of two down to 64.

    >>> [(p.tiles, p.rows, p.lanes) for p in _pieces(65536 + 2 * 4096 + 130)]
    [(1, 4096, 16), (1, 4096, 2), (1, 128, 1), (1, 64, 1)]
    """
    full, lanes = size // (_ROWS * _LANES), size // _ROWS % _LANES
    pieces = [_Piece(0, full, _ROWS, _LANES), _Piece(full * _ROWS * _LANES, 1, _ROWS, lanes)]
    begin, rows = size // _ROWS * _ROWS, _ROWS // 2
    while begin < size:
        if size - begin >= rows or rows == _FEWEST:
            pieces.append(_Piece(begin, 1, rows, 1))
            begin += rows
        else:
            rows //= 2
    return [piece for piece in pieces if piece.size]


@dataclass(frozen=True)
class Eden(VectorCodec):
    """Few bits per number, unbiased and stateless.

    Attributes:
        bits: per number, 1 to 4.
        fraction: of the numbers that are coded, above 0, at most 1: one at random of each run of 1 / fraction, drawn by
            seed, round and node, and multiplied by the length of its run. Below a third what is decoded is sparse.
        seed: of signs and places, with round and node.
        contractive: the scale with the least error instead of the one that is right on average: for `ErrorFeedback`.

    Source: Vargaftik et al., DRIVE, NeurIPS 2021, and EDEN, ICML 2022; in blocks, to waste no padding.

    >>> codec, layout, at = Eden(bits=1), Layout.flat(8192), Moment()
    >>> v = np.random.default_rng(0).normal(size=8192).astype(np.float32)
    >>> data, _ = codec.pack(v, layout, {}, at)
    >>> error = codec.unpack(memoryview(data), layout, {}, at)[0] - v
    >>> len(data), round(float(error @ error / (v @ v)), 2)  # pi / 2 - 1
    (1028, 0.58)
    """

    kind: ClassVar[str] = "eden"

    bits: int = 1
    fraction: float = 1.0
    seed: int = 0
    contractive: bool = False

    def __post_init__(self) -> None:
        """Refuse what there are no levels for."""
        check_number(self.bits, "bits", 1, 4, whole=True)
        check_number(self.fraction, "fraction", 0.0, 1.0)
        if not self.fraction > 0:
            raise CodecError(f"fraction = {self.fraction!r}: expected more than 0, such as 0.25 for one in four")
        check_number(self.seed, "seed", 0, 2**63 - 1, whole=True)
        if not isinstance(self.contractive, bool):
            raise CodecError(f"contractive = {self.contractive!r}: expected True or False")

    @property
    def unbiased(self) -> bool:
        """With the scale that is right on average."""
        return not self.contractive

    def contraction(self, size: int) -> float | None:
        """4 k / (1 + k)^2 / rows, k the largest level over the smallest; for what is coded whole, with the least error.

        What is left is (1 - cos^2) |z|^2, cos between z and its levels. Levels rise with |z|, so by Chebyshev
        cos^2 >= (sum |z|)^2 (sum level)^2 / (rows^2 |z|^2 |level|^2); the first factor is at least |z|^2, and
        (sum level)^2 / (rows |level|^2) at least 4 k / (1 + k)^2 (Pólya and Szegő). For normal z, 0.64 at one bit.
        """
        if not self.contractive or self.fraction < 1:
            return None
        k = _LEVELS[self.bits][-1] / _LEVELS[self.bits][0]
        rows = max((piece.rows for piece in _pieces(size)), default=_FEWEST)
        return (1 - 2.0**-16) * 4 * k / (1 + k) ** 2 / rows

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """Scales (16 bits each), then words of codes."""
        places = self._places(v.size, at)
        if places is not None:
            refuse_non_finite(v, layout)
            v = v[places[0]]
        room, levels = kernels("hadamard"), self._levels()
        cuts = (levels[1:] + levels[:-1]) / 2
        key = key_of(at.seeds(self.seed))
        pieces = _pieces(v.size)
        lanes = sum(piece.tiles * piece.lanes for piece in pieces)
        data = np.empty(lanes + sum(piece.size for piece in pieces) * self.bits // 16, np.uint16)
        scales, words = np.empty(lanes, np.float32), data[lanes:]
        lane = 0
        for piece in pieces:
            x = v[piece.begin : piece.begin + piece.size]
            if x.size < piece.size:
                x = np.concatenate([x, np.zeros(piece.size - x.size, np.float32)]).reshape(_APART).T
            x = x.reshape(piece.tiles, piece.rows, piece.lanes)
            sums = np.empty((piece.tiles, 4, piece.lanes), np.float32)
            if not room.code(x, levels, cuts, key, piece.begin // 16, self._words(words, piece), sums):
                refuse_non_finite(v, layout)
            count = piece.tiles * piece.lanes
            scales[lane : lane + count] = self._scale(sums, piece.rows).reshape(-1)
            lane += count
        if self.contractive:
            data[:lanes] = nearest(scales, most=self._largest_scale())
        else:
            drawn = kernels("dither").uniform16(key_of(at.seeds(self.seed, 2)), lanes)
            data[:lanes] = rounded_at_random(scales, drawn, most=self._largest_scale())
        return data.astype("<u2", copy=False).tobytes(), state

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Update, State]:
        """float32; sparse if less than a third was coded."""
        places = self._places(layout.size, at)
        size = layout.size if places is None else len(places[0])
        pieces = _pieces(size)
        lanes = sum(piece.tiles * piece.lanes for piece in pieces)
        expected = 2 * lanes + sum(piece.size * self.bits // 8 for piece in pieces)
        if len(data) != expected:
            raise CodecError(
                f"{len(data)} bytes for {size} values of {self.bits} bits after rotation, expected {expected}"
            )
        scales = to_float(read_scales(data, lanes, most=self._largest_scale()))
        words = np.frombuffer(data, "<u2", offset=2 * lanes).astype(np.uint16, copy=False)
        out = np.empty(size, np.float32)
        room, levels, key = kernels("hadamard"), self._levels(), key_of(at.seeds(self.seed))
        lane = 0
        for piece in pieces:
            to = out[piece.begin : piece.begin + piece.size]
            whole = to if to.size == piece.size else np.empty(piece.size, np.float32)
            count, shape = piece.tiles * piece.lanes, (piece.tiles, piece.rows, piece.lanes)
            some = scales[lane : lane + count].reshape(piece.tiles, piece.lanes)
            room.decode(self._words(words, piece), levels, some, key, piece.begin // 16, whole.reshape(shape))
            if whole is not to:
                to[:] = whole.reshape(_APART[::-1]).T.reshape(-1)[: to.size]
            lane += count
        if places is None:
            return out, state
        return self._spread(out, places, layout.size), state

    def _words(self, words: npt.NDArray[np.uint16], piece: _Piece) -> npt.NDArray[np.uint16]:
        """Those of a piece."""
        begin = piece.begin * self.bits // 16
        some = words[begin : begin + piece.size * self.bits // 16]
        return some.reshape(piece.tiles, self.bits, piece.rows // 16, piece.lanes)

    def _levels(self) -> Floats:
        """In units that make the only magnitude of one bit 1, so that its transform is exact."""
        return np.array((1.0,) if self.bits == 1 else _LEVELS[self.bits], np.float32)

    def _scale(self, sums: Floats, rows: int) -> Floats:
        """What levels are multiplied by after the inverse transform, which is H itself without its 1 / rows."""
        squares, dot, norm, unit = (sums[:, i] for i in range(4))
        over, under = (dot, norm * np.float32(rows)) if self.contractive else (squares, dot)
        with np.errstate(over="ignore"):
            return np.divide(over, under, out=np.zeros_like(over), where=dot > 0) * unit

    def _largest_scale(self) -> int:
        """The code of the largest scale that no word makes infinite: 4,096 levels sum up to at most 2^12, or 2^14."""
        return ((243 if self.bits == 1 else 241) << 8) - 1

    def _places(self, size: int, at: Moment) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
        """Which numbers are coded, and how many each stands for; `None` for all."""
        if self.fraction == 1 or not size:
            return None
        count = min(size, max(1, round(self.fraction * size)))
        found: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] = kernels("select").strata(
            key_of(at.seeds(self.seed, 1)), count, size
        )
        return found

    def _spread(self, values: Floats, places: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], size: int) -> Update:
        where, lengths = places
        if not self.contractive:
            with np.errstate(over="ignore"):
                values *= lengths.astype(np.float32)
            limit = np.finfo(np.float32).max
            np.clip(values, -limit, limit, out=values)
        sparse = Sparse(where, values, size)
        return sparse if self.fraction < _SPARSE else sparse.dense()
