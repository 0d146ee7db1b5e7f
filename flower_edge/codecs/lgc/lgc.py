"""`Lgc`: learned gradient compression: an autoencoder codes the values at a leader's places, while it pays.

    round < full            everything, dense
    round < full + taught   values at the leader's places in bfloat16, and the innovation: the server learns
    after that              codebook in force: what the autoencoder makes of those values, and the innovation
                            otherwise: one scalar coder for those values, as in `SharedSupport`
    its turn to lead        own largest places in bfloat16: next round's places, and what the gate measures by

    server   decoded = out(D(E(common)), detail)   common: the previous aggregate; the node sends its detail only
    ring     decoded = D(E(own values))            codes of all nodes may be averaged and decoded once: `average`

First arrays dense, last ones by their own largest values, as published. Meant inside error feedback.
`teacher()` trains and decides (teaching.py); coding is NumPy. docs/codecs_shared.md says what of the paper is
recalled and what was changed.
Decoding on two kinds of machines agrees to about 1e-6, not to the bit: matrix products differ there.

Source: Abrahamyan et al., "Learned gradient compression for distributed deep learning", IEEE TNNLS 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...errors import CodecError
from ..half import Half
from ..layout import Floats, Layout, refuse_non_finite
from ..leader import Places, leader_places, leads
from ..moment import Moment
from ..nested import check_number
from ..once import packed, unpacked
from ..sections import join, split
from ..shared_support import SharedSupport, beside
from ..sign import Sign
from ..sparse import Sparse, Update, dense
from ..top_k import TopK
from ..vector_codec import State, VectorCodec
from .code import Code, Learned
from .model import CHANNELS, Shape

if TYPE_CHECKING:
    from .teaching import LgcTeacher

__all__ = ["Lgc"]

#: First byte of a payload.
_DENSE, _TAUGHT, _SCALAR, _LEARNED = 0, 1, 2, 3


@dataclass(frozen=True)
class Lgc(VectorCodec):
    """Values at shared places through an autoencoder that the server trains, behind a gate.

    Attributes:
        fraction: of the vector, how many places a leader publishes.
        innovation: of the vector, how many places each node adds outside them.
        detail: of the values at the leader's places, how many each node sends beside the common code; server only.
        variant: `server` (parameter server) or `ring` (encodings that can be averaged).
        latent: what the ring's code travels as: `int8`, `fp16` or `fp32`.
        channels: of the encoder's five layers. The published ones make a codebook of 433 kB, (8, 16, 32, 8, 4) of 8 kB.
        first: arrays at the beginning that are sent dense; `last`: at the end, by their own largest values. A model
            without more arrays than those has neither.
        scalar: codes values where no autoencoder does.
        full: rounds in which everything is sent; `taught`: rounds after them in which the server learns.
        turn: rounds between two turns of one node to lead, see `LaggedLeader`.
        gated: whether the autoencoder has to beat scalar coders; `False`: it codes as soon as it is taught, for tables.
        seed: of the autoencoder's first weights and of its training.
    """

    kind: ClassVar[str] = "lgc"

    fraction: float = 0.01
    innovation: float = 0.001
    detail: float = 0.01
    variant: str = "server"
    latent: str = "int8"
    channels: tuple[int, ...] = CHANNELS
    first: int = 1
    last: int = 2
    scalar: VectorCodec = field(default_factory=Sign)
    full: int = 0
    taught: int = 6
    turn: int = 8
    gated: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.variant not in ("server", "ring"):
            raise CodecError(f"variant = {self.variant!r}: expected 'server' or 'ring'")
        check_number(self.innovation, "innovation", 0.0, 1.0)
        for name in ("first", "last", "full", "taught"):
            check_number(getattr(self, name), name, 0, math.inf, whole=True)
        object.__setattr__(self, "channels", tuple(self.channels))
        _ = self.code, self.plain, self._outside

    @property
    def code(self) -> Code:
        """How values at places travel through the autoencoder."""
        ring = self.variant == "ring"
        return Code(Shape(self.channels, innovation=not ring), ring=ring, latent=self.latent, detail=self.detail)

    @property
    def plain(self) -> SharedSupport:
        """What codes where no autoencoder does."""
        fallback = TopK(self.fraction, self.scalar)
        return SharedSupport(self.fraction, self.innovation, self.scalar, self.scalar, fallback, self.turn)

    @property
    def teaching(self) -> SharedSupport:
        """What codes while the server learns, and whoever leads: values in bfloat16."""
        half = Half("bf16")
        return SharedSupport(self.fraction, self.innovation, half, half, TopK(self.fraction, half), self.turn)

    @property
    def public_rounds(self) -> int:
        """The newest aggregate is the common part; places are coded in the context of four."""
        return 4

    def teacher(self) -> LgcTeacher:
        """Lagged leader, training and gate. It needs torch where it trains: the server."""
        from .teaching import LgcTeacher

        return LgcTeacher(self)

    def middle(self, layout: Layout) -> tuple[int, int]:
        """From which array to which other the autoencoder codes.

        >>> Lgc().middle(Layout(("a", "b", "c", "d"), ((1,), (2,), (3,), (4,)))), Lgc().middle(Layout.flat(9))
        ((1, 2), (0, 1))
        """
        arrays = len(layout.names)
        return (self.first, arrays - self.last) if arrays > self.first + self.last else (0, arrays)

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """First byte: by which of the ways above the middle was coded."""
        refuse_non_finite(v, layout)
        if at.round < self.full:
            return bytes([_DENSE]) + packed(Half("bf16"), v, layout, at), state
        mode, sections = _TAUGHT, []
        for codec, arrays in self._ends(layout):
            part, begin = layout.select(arrays), _begin(layout, arrays)
            moment = at.select(layout, arrays)
            vector = v[begin : begin + part.size]
            if codec is not None:
                sections.append(packed(codec, vector, part, moment))
                continue
            if at.round < self.full + self.taught or leads(at.node, at.round, self.turn):
                sections.append(packed(self.teaching, vector, part, moment))
            elif (learned := self._learned(part, moment)) is not None:
                mode = _LEARNED
                sections.append(self._pack_learned(learned, vector, part, moment))
            else:
                mode = _SCALAR
                sections.append(packed(self.plain, vector, part, moment))
        return bytes([mode]) + join(sections), state

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Update, State]:
        """Sparse, unless everything was sent."""
        if len(data) and data[0] == _DENSE:
            return unpacked(Half("bf16"), data[1:], layout, at), state
        found = []
        for codec, part, begin, moment, section, mode in self._sections(data, layout, at):
            if codec is not None:
                found.append((begin, unpacked(codec, section, part, moment)))
            elif mode == _LEARNED:
                found.append((begin, self._unpack_learned([section], part, moment)))
            else:
                coder = self.teaching if mode == _TAUGHT else self.plain
                found.append((begin, unpacked(coder, section, part, moment)))
        return _placed(found, layout.size), state

    def average(self, payloads: Sequence[bytes | memoryview], layout: Layout, at: Sequence[Moment]) -> Floats:
        """The mean of what nodes sent in one round; codes of the ring are averaged and decoded once: D(mean_k z_k).

        Args:
            at: the moment of each payload.

        Returns:
            float32 [params]. Without learned payloads, or of the server variant, the mean of what `unpack` gives.

        Raises:
            CodecError: a payload is none of this codec for this layout.
        """
        total, together = np.zeros(layout.size, np.float64), []
        for payload, moment in zip(payloads, at, strict=True):
            data = memoryview(payload)
            if not (self.variant == "ring" and len(data) and data[0] == _LEARNED):
                total += dense(self.unpack(data, layout, {}, moment)[0])
                continue
            for codec, part, begin, inner, section, _ in self._sections(data, layout, moment):
                if codec is None:
                    together.append((begin, part, inner, section))
                else:
                    total[begin : begin + part.size] += dense(unpacked(codec, section, part, inner))
        if together:
            begin, part, inner, _ = together[0]
            mean = self._unpack_learned([section for *_, section in together], part, inner)
            total[begin : begin + part.size] += len(together) * dense(mean).astype(np.float64)
        return (total / max(len(payloads), 1)).astype(np.float32)

    @property
    def _outside(self) -> TopK:
        return TopK(self.innovation, self.scalar)

    def _ends(self, layout: Layout) -> list[tuple[VectorCodec | None, range]]:
        """Runs of arrays, and what codes them; `None`: the autoencoder."""
        begin, end = self.middle(layout)
        half = Half("bf16")
        runs: list[tuple[VectorCodec | None, range]] = [
            (half, range(begin)),
            (None, range(begin, end)),
            (TopK(self.fraction, half), range(end, len(layout.names))),
        ]
        return [(codec, arrays) for codec, arrays in runs if len(arrays) or codec is None]

    def _sections(
        self, data: memoryview, layout: Layout, at: Moment
    ) -> list[tuple[VectorCodec | None, Layout, int, Moment, memoryview, int]]:
        if not len(data) or not _TAUGHT <= data[0] <= _LEARNED:
            raise CodecError(f"LGC payload of kind {data[0] if len(data) else None}: expected 0 to 3")
        ends = self._ends(layout)
        return [
            (codec, layout.select(arrays), _begin(layout, arrays), at.select(layout, arrays), section, data[0])
            for (codec, arrays), section in zip(ends, split(data[1:], len(ends)), strict=True)
        ]

    def _learned(self, layout: Layout, at: Moment) -> tuple[Places, Learned] | None:
        """The places and the autoencoder in force; `None` where one of them, or a common part, is missing."""
        places, book = leader_places(at, layout), at.public.codebook
        if places is None or not book or (self.variant == "server" and not at.public.aggregates):
            return None
        return places, self.code.learned(book)

    def _pack_learned(self, learned: tuple[Places, Learned], v: Floats, layout: Layout, at: Moment) -> bytes:
        places, coder = learned
        inside = coder.pack(v[places], places, layout, _common(at, places))
        rest = v.copy()
        rest[places] = 0.0
        return join([inside, packed(self._outside, rest, layout, at)])

    def _unpack_learned(self, sections: Sequence[memoryview], layout: Layout, at: Moment) -> Update:
        learned = self._learned(layout, at)
        if learned is None:
            raise CodecError(
                "coded by an autoencoder whose codebook or places are not known here; ask for a plain resend"
            )
        places, coder = learned
        parts = [split(section, 2) for section in sections]
        values = coder.unpack([inside for inside, _ in parts], places, layout, _common(at, places))
        shared = Sparse(places, values, layout.size)
        if len(parts) == 1:
            return beside(shared, unpacked(self._outside, parts[0][1], layout, at))
        total = np.zeros(layout.size, np.float32)
        for _, outside in parts:
            total += dense(unpacked(self._outside, outside, layout, at)) / np.float32(len(parts))
        total[places] = values
        return total


def _common(at: Moment, places: Places) -> Floats | None:
    return at.public.aggregates[0][places] if at.public.aggregates else None


def _begin(layout: Layout, arrays: range) -> int:
    return sum(layout.sizes[: arrays.start])


def _placed(found: Sequence[tuple[int, Update]], size: int) -> Update:
    """Updates of parts of a vector, as one of the whole: sparse, with every place of a part that is dense."""
    indices, values = [], []
    for begin, update in found:
        sparse = update if isinstance(update, Sparse) else Sparse(np.arange(update.size), update, update.size)
        indices.append(sparse.indices + begin)
        values.append(sparse.values)
    return Sparse(np.concatenate(indices), np.concatenate(values), size)
