"""`RateControlled`: each group of arrays gets the codec that pays best there, within a budget of bytes or of error.

Every few rounds all candidates code each group, their bytes and errors are measured on that very vector, and a dynamic
programme (`allocate`) chooses. The choice rides in the payload; the receiver needs nothing. Nothing here codes numbers.

    payload: 1 byte per group, its candidate; the groups' bytes, each but the last with its length (varint)

Source: as `allocate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..errors import CodecError
from .allocate import least_bytes, least_error
from .energy import energy, squared_error
from .grouped import Group, combine
from .layout import Floats, Layout, refuse_non_finite
from .moment import Moment
from .nested import check_codec, check_number
from .sections import join, split, varint
from .sparse import Update
from .vector_codec import State, VectorCodec

__all__ = ["RateControlled"]

#: Arrays with fewer numbers share a group: a choice and a length of their own would cost more than they save.
_SMALL = 1024


@dataclass(frozen=True)
class RateControlled(VectorCodec):
    """Several codecs that remember nothing, and a budget. Put error feedback around it, not into it.

    Attributes:
        candidates: what a group may get.
        budget_bytes: of a vector's payload; never exceeded, as little error as possible. This or `budget_error`.
        budget_error: squared error over the vector's squared norm, when it is decided; as few bytes as possible.
        every: rounds from one decision to the next. A payload over the budget of bytes is decided anew at once.
        groups: what is decided on: each "array", or each "layer" (all arrays whose names agree up to the last dot).
    """

    kind: ClassVar[str] = "rate_controlled"

    candidates: tuple[VectorCodec, ...]
    budget_bytes: int | None = None
    budget_error: float | None = None
    every: int = 5
    groups: Literal["array", "layer"] = "array"

    def __post_init__(self) -> None:
        if not isinstance(self.candidates, list | tuple) or not 0 < len(self.candidates) < 256:
            raise CodecError(f"candidates = {str(self.candidates)[:80]}: expected 1 to 255 codecs")
        for i, codec in enumerate(self.candidates):
            check_codec(codec, f"candidates[{i}]")
            if codec.start(Layout.flat(8)):
                raise CodecError(
                    f"candidates[{i}] = {codec!r} remembers something from call to call: expected one that does not; "
                    "put error feedback around the whole: ErrorFeedback(RateControlled(...))"
                )
        object.__setattr__(self, "candidates", tuple(self.candidates))
        if (self.budget_bytes is None) == (self.budget_error is None):
            raise CodecError(
                f"budget_bytes = {self.budget_bytes}, budget_error = {self.budget_error}: expected one of the two"
            )
        if self.budget_bytes is not None:
            check_number(self.budget_bytes, "budget_bytes", 0, 2**62, whole=True)
        else:
            check_number(self.budget_error, "budget_error", 0.0, 1.0)
        check_number(self.every, "every", 1, 2**31, whole=True)
        if self.groups not in ("array", "layer"):
            raise CodecError(f"groups = {str(self.groups)[:80]!r}: expected 'array' or 'layer'")

    def start(self, layout: Layout) -> State:
        """`choice`: candidate of each group, of the sender; `decided`: the round it was made in."""
        return {"choice": [], "decided": -1}

    def pack(self, v: Floats, layout: Layout, state: State, at: Moment) -> tuple[bytes, State]:
        """With the choice there is, or with a new one.

        Raises:
            CodecError: no choice keeps the budget; it says what is the least possible.
        """
        refuse_non_finite(v, layout)
        groups = self._groups(layout)
        if len(state["choice"]) == len(groups) and 0 <= at.round - state["decided"] < self.every:
            parts = [
                _packed(self.candidates[choice], group, v, layout, at)
                for group, choice in zip(groups, state["choice"], strict=True)
            ]
            data = bytes(state["choice"]) + join(parts)
            if self.budget_bytes is None or len(data) <= self.budget_bytes:
                return data, state
        choices, parts = self._decide(v, layout, groups, at)
        return bytes(choices) + join(parts), {"choice": choices, "decided": at.round}

    def unpack(self, data: memoryview, layout: Layout, state: State, at: Moment) -> tuple[Update, State]:
        """Each group by the candidate that the payload names."""
        groups = self._groups(layout)
        if len(data) < len(groups):
            raise CodecError(f"{len(data)} bytes for {len(groups)} groups; the payload was altered")
        choices = bytes(data[: len(groups)])
        if max(choices, default=0) >= len(self.candidates):
            raise CodecError(f"candidate {max(choices)} of {len(self.candidates)}; the payload was altered")
        updates = []
        for choice, group, part in zip(choices, groups, split(data[len(groups) :], len(groups)), strict=True):
            within, moment = group.within(layout, at)
            updates.append(self.candidates[choice].unpack(part, within, {}, moment)[0])
        return combine(updates, groups, layout), state

    def _decide(self, v: Floats, layout: Layout, groups: list[Group], at: Moment) -> tuple[list[int], list[bytes]]:
        """A candidate for each group, and the bytes it makes."""
        if not groups:
            return [], []
        parts: list[list[bytes]] = []
        errors = np.empty((len(groups), len(self.candidates)))
        for i, group in enumerate(groups):
            own, (within, moment) = group.take(v, layout), group.within(layout, at)
            parts.append([])
            for j, codec in enumerate(self.candidates):
                data = _packed(codec, group, v, layout, at)
                update, _ = codec.unpack(memoryview(data), within, {}, moment)
                parts[-1].append(data)
                errors[i, j] = squared_error(own, update)
        sizes = np.array([[len(varint(len(data))) + len(data) for data in row] for row in parts], np.int64)
        sizes[-1] = [len(data) for data in parts[-1]]  # the last has no length
        if self.budget_bytes is not None:
            # One byte per group says what it got.
            choices = least_error(sizes + 1, errors, budget_bytes=self.budget_bytes)
        else:
            flushed = v.size * float(np.finfo(np.float32).tiny) ** 2  # what is smaller, codecs may take for zero
            allowed = float(self.budget_error or 0.0) * energy(v) + flushed
            choices = least_bytes(sizes + 1, errors, budget_error=allowed)
        return choices, [row[choice] for row, choice in zip(parts, choices, strict=True)]

    def _groups(self, layout: Layout) -> list[Group]:
        """What is decided on; small ones together, last."""
        names: dict[str, list[int]] = {}
        for i, name in enumerate(layout.names):
            key = name if self.groups == "array" else name.rpartition(".")[0] or name
            names.setdefault(key, []).append(i)
        small = [arrays for arrays in names.values() if sum(layout.sizes[i] for i in arrays) < _SMALL]
        large = [arrays for arrays in names.values() if sum(layout.sizes[i] for i in arrays) >= _SMALL]
        pooled = [sorted(i for arrays in small for i in arrays)] if small else []
        return [Group(0, tuple(arrays)) for arrays in [*large, *pooled]]


def _packed(codec: VectorCodec, group: Group, v: Floats, layout: Layout, at: Moment) -> bytes:
    """A group's bytes by a codec that remembers nothing."""
    within, moment = group.within(layout, at)
    return codec.pack(group.take(v, layout), within, {}, moment)[0]
