"""`Action`: one thing that may be done at a connection next; `candidates` lists them, with what frames would cost.

    step of s octaves: what is sent shrinks to about 2^-s of what it was

    quantisation   fewer bits per number: 16, 8, 4 or 2
    pruning        fewer channels
    distillation   an encoder and a decoder within a budget of bytes

What a frame costs follows from shapes and forms, so it is known before anything is tried. How far a step goes is kept
in a `StepBook`: a step that failed is halved, and one that can be halved no more closes its method at its connection.
Nothing here compresses or chooses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from ..errors import FringeError
from .links import Link
from .pair_shapes import PairShape, least_shape, pair_shapes
from .wire import TensorSpec, Wire

__all__ = ["METHODS", "Action", "Candidate", "StepBook", "candidates", "checked_methods", "pair_of"]

METHODS: Final = ("quantisation", "pruning", "distillation")
#: Octaves of the first step; of quantisation 32 to 8 bits.
_FIRST: Final = {"quantisation": 2.0, "pruning": 1.0, "distillation": 4.0}
#: A pair that shrinks less than this is not worth its training.
_LEAST_PAIR: Final = 0.5
#: What is done to a connection, as plain values; see `operations_torch`.
Operation = dict[str, Any]


@dataclass(frozen=True)
class Action:
    """What to do where.

    Attributes:
        method: one of `METHODS`.
        connection: its number.
        amount: bits per number, channels that stay, or bytes that an inference may cost there.
        octaves: the step that led to it.
    """

    method: str
    connection: int
    amount: int
    octaves: float

    def __str__(self) -> str:
        unit = {"quantisation": "bits", "pruning": "channels", "distillation": "bytes"}[self.method]
        return f"{self.method} to {self.amount} {unit} at connection {self.connection}"


@dataclass(frozen=True)
class Candidate:
    """An action, and what is known of it before it is tried.

    Attributes:
        action: see there.
        before_bytes, after_bytes: of an inference at its connection.
        link_s: of the same connection now.
        saved_s: by which its link would be faster.
        bits: per number now.
        channels: that cross now, of the tensor that would be pruned.
        fraction: of what crossed before any compression that would be left.
        smallest: whether no smaller step of this method is left.
    """

    action: Action
    before_bytes: int
    after_bytes: int
    link_s: float
    saved_s: float
    bits: int
    channels: int
    fraction: float
    smallest: bool

    def row(self) -> dict[str, Any]:
        """Plain values."""
        told = asdict(self)
        return {**told.pop("action"), **told}


@dataclass(frozen=True)
class StepBook:
    """How far the next step of each method goes at each connection, and which of them are closed.

    Attributes:
        octaves: by "connection/method"; what is not there is at its first step.
        closed: the same keys, with why.
        failed: by the same keys, what a frame had and what was tried last without success.
    """

    octaves: Mapping[str, float]
    closed: Mapping[str, str]
    failed: Mapping[str, tuple[int, int]]

    @classmethod
    def new(cls) -> StepBook:
        """With first steps everywhere."""
        return cls({}, {}, {})

    @staticmethod
    def key(connection: int, method: str) -> str:
        """Under which a method at a connection is kept."""
        return f"{connection}/{method}"

    def step(self, connection: int, method: str) -> float:
        """Octaves."""
        return self.octaves.get(self.key(connection, method), _FIRST[method])

    def halved(self, candidate: Candidate, why: str) -> StepBook:
        """After a step that failed: half of it next time; closed if there is no smaller one."""
        key = self.key(candidate.action.connection, candidate.action.method)
        if candidate.smallest:
            return self.shut(candidate.action, why)
        # Of what was kept, not of a multiple that a policy chose: else twice the step could fail for ever.
        tried = min(candidate.action.octaves, self.step(candidate.action.connection, candidate.action.method))
        failed = {**self.failed, key: (candidate.before_bytes, candidate.action.amount)}
        return replace(self, octaves={**self.octaves, key: tried / 2}, failed=failed)

    def shut(self, action: Action, why: str) -> StepBook:
        """With this method closed at this connection."""
        return replace(self, closed={**self.closed, self.key(action.connection, action.method): why})

    def paired(self, connection: int) -> StepBook:
        """After a pair was put in: budgets go down by one octave each, and bits have a first step again."""
        mine, bits = self.key(connection, "distillation"), self.key(connection, "quantisation")
        octaves = {key: value for key, value in self.octaves.items() if key != bits}
        closed = {key: why for key, why in self.closed.items() if key != bits}
        return StepBook({**octaves, mine: min(1.0, self.step(connection, "distillation"))}, closed, self.failed)

    def state(self) -> dict[str, Any]:
        """Plain values; `StepBook(**state)` is its inverse."""
        return {"octaves": dict(self.octaves), "closed": dict(self.closed), "failed": dict(self.failed)}


def checked_methods(methods: Sequence[str]) -> tuple[str, ...]:
    """The methods, if they are some.

    Raises:
        FringeError: none, or one that there is not.
    """
    unknown = [method for method in methods if method not in METHODS]
    if isinstance(methods, str) or unknown or not methods:
        raise FringeError(f"methods = {methods!r}: expected some of {', '.join(METHODS)}, such as ('quantisation',)")
    return tuple(dict.fromkeys(methods))


def pair_of(operations: Sequence[Operation], connection: int) -> PairShape | None:
    """Code of the pair at a connection, where there is one."""
    found = [one for one in operations if one["kind"] == "pair" and one["connection"] == connection]
    return PairShape.from_config(found[-1]["shape"]) if found else None


def candidates(
    wires: Sequence[Wire],
    operations: Sequence[Operation],
    whole_bytes: Sequence[int],
    links: Sequence[Link],
    book: StepBook,
    *,
    methods: Sequence[str] = METHODS,
    bits: Sequence[int] = (16, 8, 4, 2),
    multiples: Sequence[float] = (1.0,),
) -> tuple[Candidate, ...]:
    """What may be tried next, at all connections; none twice.

    Args:
        wires: of the pipeline as it is.
        operations: that were done to it.
        whole_bytes: of an inference at each connection before compression.
        links: of the same.
        book: of steps.
        methods: that may be used.
        bits: that numbers may have.
        multiples: of the book's steps; more than one gives a policy a choice.
    """
    found: list[Candidate] = []
    for number, (wire, link) in enumerate(zip(wires, links, strict=True)):
        pair = pair_of(operations, number)
        for method in methods:
            if StepBook.key(number, method) in book.closed:
                continue
            seen: set[int] = set()
            for multiple in multiples:
                octaves = book.step(number, method) * multiple
                before = wire.size_bytes()
                told = _MAKERS[method](wire, pair, octaves, bits)
                # Half a step may round to the same as the whole one; there is no use in trying that again.
                while told and not told[2] and book.failed.get(StepBook.key(number, method)) == (before, told[0]):
                    octaves /= 2
                    told = _MAKERS[method](wire, pair, octaves, bits)
                if told is None or told[0] in seen:
                    continue
                if book.failed.get(StepBook.key(number, method)) == (before, told[0]):
                    continue  # the smallest step leads to no more than the one that failed
                amount, after, smallest = told
                seen.add(amount)
                if after >= before:
                    continue
                found.append(
                    Candidate(
                        Action(method, number, amount, octaves),
                        before,
                        after,
                        link.seconds(before),
                        link.seconds(before) - link.seconds(after),
                        _bits(wire),
                        _channels(wire)[1] or 0,
                        after / whole_bytes[number],
                        smallest,
                    )
                )
    return tuple(found)


#: What a step would lead to (bits, channels or bytes), what a frame costs then, and whether no smaller step is left.
_Told = tuple[int, int, bool] | None


def _bits(wire: Wire) -> int:
    return max(
        (form.bits for spec, form in zip(wire.specs, wire.forms, strict=True) if spec.dtype == "float32"), default=0
    )


def prunable(wire: Wire) -> tuple[int, int]:
    """Which tensor of a connection is pruned, the largest, and along which axis with the batch first; (-1, 0): none."""
    sizes = [math.prod(spec.shape) if spec.dtype == "float32" and spec.shape else 0 for spec in wire.specs]
    tensor = max(range(len(sizes)), key=sizes.__getitem__)
    if not sizes[tensor]:
        return -1, 0
    return tensor, 2 if len(wire.specs[tensor].shape) == 2 else 1


def _channels(wire: Wire) -> tuple[int, int]:
    tensor, axis = prunable(wire)
    return tensor, 0 if tensor < 0 else wire.specs[tensor].shape[axis - 1]


def _fewer_bits(wire: Wire, pair: PairShape | None, octaves: float, bits: Sequence[int]) -> _Told:
    del pair  # codes of a pair have bits as well
    now = _bits(wire)
    lower = sorted((one for one in bits if one < now), reverse=True)
    if not lower:
        return None
    # From 32 to 8 bits hardly ever costs anything, so the first step is a large one; from there they cost.
    octaves = octaves if now > 8 else octaves / 2
    wanted = [one for one in lower if one <= now / 2**octaves] or lower[-1:]
    amount = wanted[0] if now / 2**octaves <= lower[0] else lower[0]
    forms = [
        replace(form, bits=min(amount, form.bits)) if spec.dtype == "float32" else form for spec, form in _both(wire)
    ]
    return amount, wire.formed(forms).size_bytes(), amount == lower[0]


def _fewer_channels(wire: Wire, pair: PairShape | None, octaves: float, bits: Sequence[int]) -> _Told:
    del bits
    tensor, now = _channels(wire)
    if pair is not None or now < 2 or wire.forms[tensor].keep is not None:
        return None
    _, axis = prunable(wire)
    amount = max(1, min(now - 1, math.floor(now / 2**octaves)))
    shape = list(wire.specs[tensor].shape)
    shape[axis - 1] = amount
    specs = list(wire.specs)
    specs[tensor] = TensorSpec(specs[tensor].name, tuple(shape), specs[tensor].dtype)
    return amount, Wire.plain(specs, wire.connection).formed(wire.forms).size_bytes(), amount == now - 1


def _smaller_pair(wire: Wire, pair: PairShape | None, octaves: float, bits: Sequence[int]) -> _Told:
    del bits  # which bits a code has is part of its shape
    if any(spec.dtype != "float32" for spec in wire.specs):
        return None
    tensors = tuple(spec.shape for spec in wire.specs) if pair is None else pair.tensors
    try:
        amount = max(least_shape(tensors).size_bytes, math.floor(wire.size_bytes() / 2**octaves))
        return amount, pair_shapes(tensors, amount)[0].size_bytes, octaves / 2 < _LEAST_PAIR
    except FringeError:  # tensors that no pair takes
        return None


def _both(wire: Wire) -> list[tuple[TensorSpec, Any]]:
    return list(zip(wire.specs, wire.forms, strict=True))


_MAKERS: Final = {"quantisation": _fewer_bits, "pruning": _fewer_channels, "distillation": _smaller_pair}
