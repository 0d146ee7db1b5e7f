"""`PairShape`: how small a code a pair makes of the tensors at a connection, fixed before any training.

    pictures [C, H, W]  ->  code [channels, H / stride, W / stride]
    sequences [T, F]    ->  code [T, channels]
    vectors [F]         ->  code [channels]

A budget of bytes comes first; `pair_shapes` lists the codes that keep it, header of the frame included, so that a pair
built by one of them cannot miss it. Nothing here trains, and nothing here needs torch.

Source: Matsubara et al., "SC2 benchmark: supervised compression for split computing", TMLR 2023; Eshratifar et al.,
"BottleNet", ISLPED 2019 (there: channels and stride of a bottleneck, to which bits are added here).
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, SupportsIndex

from ..errors import FringeError
from .links import Link
from .wire import HEADER_BYTES, TensorSpec, Wire
from .wire_forms import TensorWire, WireForm

__all__ = ["CODE_BITS", "PairShape", "least_shape", "pair_shapes", "transfer_budget_bytes"]

#: Bits per number of a code that are tried where nothing else is asked for.
CODE_BITS: Final = (8, 4, 2)
_STRIDES: Final = (1, 2, 4, 8)


@dataclass(frozen=True)
class PairShape:
    """The code of a pair, and how it is sent.

    Attributes:
        tensors: shapes of one sample of the tensors at the connection, in order; see `joined`.
        channels: of the code, at least 1 and at most as many as would hold every number of the tensors.
        stride: of pictures, by which both sides of the code are shorter; divides them. Else 1.
        bits: per number of the code: 32, 16, 8, 4 or 2.
        per: whether each channel of the code has a range of its own, or all share one; see `WireForm`.

    Raises:
        FringeError: tensors that no pair takes, or a code that cannot be made of them.

    >>> shape = PairShape(((16, 32, 32),), channels=4, stride=2, bits=4)
    >>> shape.code, shape.size_bytes
    ((4, 16, 16), 552)
    """

    tensors: tuple[tuple[int, ...], ...]
    channels: int
    stride: int = 1
    bits: int = 4
    per: Literal["channel", "tensor"] = "channel"

    def __post_init__(self) -> None:
        for name in ("channels", "stride"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, SupportsIndex):
                raise FringeError(f"{name} = {value!r}: expected a whole number, 1 or more")
            object.__setattr__(self, name, operator.index(value))
        try:
            shapes = tuple(tuple(operator.index(n) for n in shape) for shape in self.tensors)
        except TypeError as error:
            raise FringeError(f"tensors = {self.tensors!r:.120}: expected shapes, such as ((16, 8, 8),)") from error
        object.__setattr__(self, "tensors", shapes)
        joined = self.joined
        _ = self.form  # refuses bits and per
        if len(joined) != 3 and self.stride != 1:
            raise FringeError(f"stride = {self.stride} of samples {joined}; expected 1: only pictures have a stride")
        if self.stride < 1 or any(side % self.stride for side in joined[1:] if len(joined) == 3):
            raise FringeError(f"stride = {self.stride} of pictures {joined}; expected one that divides both sides")
        if not 1 <= self.channels <= self.most_channels:
            raise FringeError(
                f"channels = {self.channels} of a code for samples {joined}; expected 1 to {self.most_channels}, which "
                "hold every number"
            )

    @property
    def joined(self) -> tuple[int, ...]:
        """Shape of one sample of all tensors as one, side by side along their channels.

        Raises:
            FringeError: none, or tensors that do not lie side by side.

        >>> PairShape(((16, 8, 8), (8, 8, 8)), channels=4).joined
        (24, 8, 8)
        """
        axis = self.axis
        rests = {shape[:axis] + shape[axis:][1:] for shape in self.tensors}
        if len(rests) > 1 or len({len(shape) for shape in self.tensors}) > 1:
            raise FringeError(
                f"tensors {', '.join(map(str, self.tensors))} at one connection; a pair takes those that differ in "
                "their channels only: cut the model where the others have ended"
            )
        first = self.tensors[0]
        return (*first[:axis], sum(shape[axis] for shape in self.tensors), *first[axis + 1 :])

    @property
    def axis(self) -> int:
        """Of one sample, along which its channels lie: the last of sequences, the first of all others.

        Raises:
            FringeError: none, or samples of no or more than three axes.
        """
        if (
            not self.tensors
            or not 1 <= len(self.tensors[0]) <= 3
            or any(min(shape, default=0) < 1 for shape in self.tensors)
        ):
            raise FringeError(
                f"tensors {self.tensors!r} at a connection; a pair takes samples [features], [time, features] or "
                "[channels, height, width]"
            )
        return 1 if len(self.tensors[0]) == 2 else 0

    @property
    def code(self) -> tuple[int, ...]:
        """Shape of the code of one sample."""
        joined = self.joined
        if len(joined) == 3:
            return (self.channels, joined[1] // self.stride, joined[2] // self.stride)
        return (joined[0], self.channels) if len(joined) == 2 else (self.channels,)

    @property
    def most_channels(self) -> int:
        """So many hold as many numbers as the tensors have."""
        return self.joined[self.axis] * (self.stride**2 if len(self.joined) == 3 else 1)

    @property
    def form(self) -> WireForm:
        """How the code is sent."""
        return WireForm(bits=self.bits, per=self.per, axis=self.axis)

    @property
    def code_wire(self) -> TensorWire:
        """The code's bytes and values: evaluation, training and what is sent all use this one."""
        return TensorWire(self.form, self.code)

    def wire(self, connection: int = 0) -> Wire:
        """Frames of the code, once the pair is in place."""
        return Wire((TensorSpec("code", self.code),), (self.form,), connection)

    @property
    def size_bytes(self) -> int:
        """Of the frame of one inference, header and all: exactly what `wire().encode` gives."""
        return HEADER_BYTES + self.code_wire.size_bytes

    @property
    def plain_bytes(self) -> int:
        """What the tensors cost as float32, header and all."""
        return HEADER_BYTES + 4 * sum(math.prod(shape) for shape in self.tensors)

    @property
    def capacity_bits(self) -> int:
        """Of the codes alone, without their ranges: what a pair can say at most."""
        return math.prod(self.code) * self.bits

    def config(self) -> dict[str, Any]:
        """Plain values; `from_config` is its inverse."""
        return {**asdict(self), "tensors": [list(shape) for shape in self.tensors]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> PairShape:
        """Inverse of `config`.

        Raises:
            FringeError: no shape.
        """
        try:
            tensors = tuple(tuple(int(n) for n in shape) for shape in config["tensors"])
            numbers = {name: int(config[name]) for name in ("channels", "stride", "bits")}
            return cls(tensors, per=config["per"], **numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise FringeError(f"the shape of a pair {config!r:.120}: {error}; expected what config() gives") from error


def pair_shapes(
    tensors: Sequence[int] | Sequence[Sequence[int]],
    budget_bytes: int,
    *,
    bits: Sequence[int] = CODE_BITS,
    strides: Sequence[int] = _STRIDES,
    per: Literal["channel", "tensor"] = "channel",
) -> tuple[PairShape, ...]:
    """The codes that fit into a budget, those that can say most first; of equal ones those of 4 bits.

    For each stride and number of bits there is one: that of the most channels that fit.

    Args:
        tensors: shapes of one sample of the tensors at the connection; or one shape.
        budget_bytes: of the frame of one inference, its header of 24 bytes included.
        bits: to try, per number of the code.
        strides: to try where samples are pictures; those that do not divide both sides are left out.
        per: what shares a range.

    Raises:
        FringeError: nothing fits; the least that would is named. Or tensors that no pair takes.

    >>> [(s.channels, s.stride, s.bits, s.size_bytes) for s in pair_shapes((16, 32, 32), 552, strides=(2,))]
    [(4, 2, 4, 552), (2, 2, 8, 544), (7, 2, 2, 500)]
    """
    shapes = _shapes(tensors)
    found = []
    for stride, width in _choices(shapes, bits, strides):
        one = PairShape(shapes, 1, stride, width, per)
        # Bytes never fall as channels grow, so the most that fit are found by halving.
        low, high = 0, one.most_channels
        while low < high:
            middle = (low + high + 1) // 2
            fits = PairShape(shapes, middle, stride, width, per).size_bytes <= budget_bytes
            low, high = (middle, high) if fits else (low, middle - 1)
        if low:
            found.append(PairShape(shapes, low, stride, width, per))
    if not found:
        least = least_shape(shapes, bits=bits, strides=strides, per=per)
        raise FringeError(
            f"budget of {budget_bytes} bytes for tensors {', '.join(map(str, shapes))}; the least attainable is "
            f"{least.size_bytes} bytes ({least.channels} channel, stride {least.stride}, {least.bits} bits, header of "
            f"{HEADER_BYTES} included): allow that, more strides or fewer bits, or cut the model elsewhere"
        )
    # Of those that can say as much, 4 bits in many channels came out best: see docs/fringe_distillation.md.
    return tuple(sorted(found, key=lambda one: (-one.capacity_bits, abs(math.log2(one.bits) - 2), -one.channels)))


def least_shape(
    tensors: Sequence[int] | Sequence[Sequence[int]],
    *,
    bits: Sequence[int] = CODE_BITS,
    strides: Sequence[int] = _STRIDES,
    per: Literal["channel", "tensor"] = "channel",
) -> PairShape:
    """The code of the fewest bytes that there is; arguments as of `pair_shapes`.

    >>> least_shape([(16, 32, 32)]).size_bytes
    32
    """
    shapes = _shapes(tensors)
    every = [PairShape(shapes, 1, stride, width, per) for stride, width in _choices(shapes, bits, strides)]
    return min(every, key=lambda shape: shape.size_bytes)


def transfer_budget_bytes(latency_s: float, link: Link, compute_s: float = 0.0) -> int:
    """Bytes that a link carries within a latency: (latency - delay - compute) goodput / 8.

    Args:
        latency_s: from the producer's first number to the consumer's last.
        link: its goodput and delay, as measured.
        compute_s: of encoder and decoder, which the link has to make up for.

    Raises:
        FringeError: nothing is left to send in.

    >>> transfer_budget_bytes(0.011, Link(10e6, 0.010))
    1250
    """
    if not (math.isfinite(latency_s) and 0 <= compute_s < math.inf):
        raise FringeError(f"latency_s = {latency_s} and compute_s = {compute_s}; expected seconds, 0 or more")
    delay_s, spare_s = link.delay_s, latency_s - link.delay_s - compute_s
    # A rounding error of the subtraction is no byte less; a link without end carries more than any frame has.
    budget = math.floor(min(max(spare_s, 0.0) * link.goodput_bps / 8 + 1e-6, 2.0**40)) if spare_s > 0 else 0
    if budget < 1:
        raise FringeError(
            f"latency_s = {latency_s} over a link of {delay_s} s delay and {compute_s} s of computing; expected more "
            f"than {delay_s + compute_s} s, which no compression can shorten"
        )
    return budget


def _shapes(tensors: Sequence[int] | Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    single = [one for one in tensors if isinstance(one, int)]
    several = [tuple(int(n) for n in one) for one in tensors if not isinstance(one, int)]
    return tuple(several) if several else (tuple(single),)


def _choices(
    shapes: tuple[tuple[int, ...], ...], bits: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    joined = PairShape(shapes, 1).joined
    fitting = [s for s in strides if s >= 1 and not any(side % s for side in joined[1:])] if len(joined) == 3 else [1]
    found = tuple((stride, width) for stride in fitting for width in bits)
    if not found:
        raise FringeError(
            f"strides {tuple(strides)} and bits {tuple(bits)} for samples {joined}; expected one that fits"
        )
    return found
