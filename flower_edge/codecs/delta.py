"""`Delta`: what a model has changed by since it was told last, for whoever keeps a replica of its sender.

A sender that tells the same to all its neighbours keeps what they believe of it, its replica, and encodes the
difference to that. What a lossy codec leaves out stays in the difference and is told later: nothing is lost for good,
and an error feedback of its own would count it twice.

    flag: 0 plain, 1 change (u8)   sequence (u32)   CRC-32 of the replica after it (u32)   body

    plain    the whole model by `first`;            x^ <- decoded
    change   what is no float as it is, then the rest by `inner`;   x^ <- x^ + step decoded(x - x^)

x^ is rounded to what the model's dtypes can hold (float16), so that a plain packet can tell it to who comes late.

Whoever missed a packet finds it out: by the sequence number, and by the check sum of the replica, which also tells a
sender that began anew from the one that was there before. It is told as `CodecGap`; one plain packet puts it right.
Nothing here asks for that packet, mixes or sends.

Source: Koloskova, Stich, Jaggi, "Decentralized stochastic optimization and gossip algorithms with compressed
communication", ICML 2019, Algorithm 2 (there: q = decoded, gamma = mixing). `step` is ours.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from ..errors import CodecError, CodecGap
from .codec import Codec, State
from .identity import Identity
from .layout import Floats, Layout, refuse_non_finite
from .model_form import Arrays, check_form, form_of, gather, layout_of, read_rest, rest_bytes, round_as_held, scatter
from .moment import NO_MOMENT, Moment
from .sparse import Sparse, Update
from .vector_codec import VectorCodec

__all__ = ["Delta", "kinds_in"]

#: Flag, sequence, check sum of the replica.
_HEADER: Final = struct.Struct("<BII")
_PLAIN, _CHANGE = 0, 1
_LAST: Final = (1 << 32) - 1


@dataclass(frozen=True)
class Delta:
    """Changes against a replica that both ends hold. One state for each sender; a sender's own is its encoder's.

    Args:
        inner: codes changes; without an error feedback.
        first: codes whole models.
        step: the part of a decoded change that both ends apply, from 0 to 1. An unbiased codec whose squared error is w
            times the square of what it encodes wants 1 / (1 + w), or its replica may run away: 0.64 for `Eden(1)`, 0.25
            for `RandomK(0.25)`, 0.16 for `Eden(1, 0.25)`.
        mixing: the part of a neighbour's weight with which gossip mixes replicas, gamma of the source, from 0 to 1. The
            less of a change is told at once, the smaller: 1 for 1 bit of everything, 0.3 for the largest 5 %, 0.1 for
            1 %.

    Raises:
        CodecError: an `inner` that is no codec of vectors or remembers errors itself, or a number out of range.

    >>> codec, model = Delta(Identity()), {"w": np.array([1.0, 2.0], np.float32)}
    >>> payload, sender = codec.encode(model, codec.init(model))
    >>> told, receiver = codec.decode(payload, codec.init(model))
    >>> payload, sender = codec.encode({"w": np.array([1.0, 4.0], np.float32)}, sender)
    >>> told, receiver = codec.decode(payload, receiver)
    >>> told["w"], len(payload), receiver["sequence"]
    (array([1., 4.], dtype=float32), 17, 2)
    >>> codec.decode(payload, codec.init(model))
    Traceback (most recent call last):
    ...
    flower_edge.errors.CodecGap: change 2 of a sender of whom nothing is known; ask it for a plain packet
    """

    inner: VectorCodec
    first: Codec = field(default_factory=Identity)
    step: float = 1.0
    mixing: float = 1.0

    kind: ClassVar[str] = "delta"
    version: ClassVar[int] = 1
    exact: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.inner, VectorCodec):
            raise CodecError(f"Delta of {self.inner!r}: expected a codec of vectors, say Delta(Sign())")
        if not callable(getattr(self.first, "encode", None)) or isinstance(self.first, Delta):
            raise CodecError(f"Delta with first = {self.first!r}: expected a codec of whole models, say Half()")
        if found := {"error_feedback", "delta"} & set(kinds_in(self.inner.config())):
            raise CodecError(
                f"Delta of {self.inner!r}: what is left out stays in the difference to the replica, and {found.pop()} "
                "would send it twice and diverge; take what is inside it, as in Delta(TopK(0.05))"
            )
        for name, value in (("step", self.step), ("mixing", self.mixing)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value <= 1.0:
                raise CodecError(f"{name} = {value!r} of Delta: expected a number above 0, at most 1")

    def init(self, like: Arrays) -> State:
        """Nothing is known of the sender: its first packet must be a plain one."""
        form = form_of(like)
        return {**form, "first": self.first.init(like), **self._at(None, 0, layout_of(form))}

    def begin(self, x: Arrays) -> State:
        """Both ends hold this model already: even the first packet is a change.

        Raises:
            CodecError: a dtype this codec cannot carry, or a value that is not finite; the array is named.
        """
        state = self.init(x)
        layout = layout_of(state)
        replica = gather(x, layout)
        refuse_non_finite(replica, layout)
        return {**state, **self._at(replica, 0, layout)}

    def afresh(self, state: State) -> State:
        """The same sender, whose next packet tells the whole model."""
        return {**state, "replica": None}

    def published(self, x: Arrays, state: State) -> dict[str, npt.NDArray[Any]]:
        """What all others believe `x` is, after `encode` has returned this state. The arrays are read-only."""
        return scatter(_locked(state["replica"]), x, state, layout_of(state))

    def encode(self, x: Arrays, state: State, at: Moment = NO_MOMENT) -> tuple[bytes, State]:
        """The change since the last call, or the whole model where there was none.

        Raises:
            CodecError: not the arrays of the model, or a value that is not finite.
        """
        check_form(x, state)
        layout = layout_of(state)
        v = gather(x, layout)
        refuse_non_finite(v, layout)
        replica = state["replica"]
        if replica is None or state["sequence"] == _LAST:
            body, _ = self.first.encode(x, state["first"], at)
            told, _ = self.first.decode(body, state["first"], at)
            number = 0 if state["sequence"] == _LAST else state["sequence"] + 1
            replica = gather(told, layout)
            refuse_non_finite(replica, layout)
            after = self._at(replica, number, layout)
            return _HEADER.pack(_PLAIN, number, after["digest"]) + body, {**state, **after}
        with np.errstate(over="ignore"):  # an infinite difference is refused by whoever packs it
            np.subtract(v, replica, out=v)
        data, writer = self.inner.pack(v, layout, state["writer"], at)
        update, reader = self.inner.unpack(memoryview(data), layout, state["reader"], at)
        after = self._after(state, update, reader, layout)
        head = _HEADER.pack(_CHANGE, after["sequence"], after["digest"])
        return head + rest_bytes(x, state) + data, {**state, **after, "writer": writer}

    def decode(self, payload: bytes, state: State, at: Moment = NO_MOMENT) -> tuple[dict[str, npt.NDArray[Any]], State]:
        """The sender's replica after this packet. The packet that came last may come again. The arrays are read-only.

        Raises:
            CodecGap: a packet before it is missing: nothing can be said until a plain one comes.
            CodecError: these are not bytes of this codec for this model.
        """
        if len(payload) < _HEADER.size or payload[0] > _CHANGE:
            raise CodecError(
                f"payload of {len(payload)} bytes that begins with {payload[:1].hex() or 'nothing'}: expected a packet "
                "of Delta; build it with the same options on both sides"
            )
        flag, number, digest = _HEADER.unpack_from(payload)
        layout, body = layout_of(state), memoryview(payload)[_HEADER.size :]
        if flag == _PLAIN:
            model, _ = self.first.decode(bytes(body), state["first"], at)
            replica = gather(model, layout)
            refuse_non_finite(replica, layout)
            after = self._at(replica, number, layout)
            if after["digest"] != digest:
                raise CodecError("a plain packet whose check sum is another model's; the payload was altered")
            return scatter(_locked(replica), model, state, layout), {**state, **after}
        if state["replica"] is None:
            raise CodecGap(f"change {number} of a sender of whom nothing is known; ask it for a plain packet")
        rest, data = read_rest(body, state)
        if (number, digest) == (state["sequence"], state["digest"]):
            return scatter(_locked(state["replica"]), rest, state, layout), state
        if number != state["sequence"] + 1:
            raise CodecGap(f"change {number} where {state['sequence'] + 1} is next; ask its sender for a plain packet")
        update, reader = self.inner.unpack(data, layout, state["reader"], at)
        after = self._after(state, update, reader, layout)
        if after["digest"] != digest:
            raise CodecGap(f"change {number} of another replica than the one held; ask its sender for a plain packet")
        return scatter(_locked(after["replica"]), rest, state, layout), {**state, **after}

    def config(self) -> dict[str, Any]:
        """Kind, version and options, those of the codecs within."""
        return {
            "kind": self.kind,
            "version": self.version,
            "inner": self.inner.config(),
            "first": self.first.config(),
            "step": float(self.step),
            "mixing": float(self.mixing),
        }

    def _at(self, replica: Floats | None, number: int, layout: Layout) -> State:
        """The part of a state that a plain packet sets."""
        start = self.inner.start(layout)
        digest = 0 if replica is None else _digest(replica)
        return {"replica": replica, "sequence": number, "digest": digest, "writer": start, "reader": start}

    def _after(self, state: State, update: Update, reader: State, layout: Layout) -> State:
        """The part of a state that a change sets, the same at both ends."""
        with np.errstate(over="ignore", invalid="ignore"):  # told by name just below
            if isinstance(update, Sparse):
                replica = state["replica"].copy()
                replica[update.indices] += self._part(update.values)
            else:
                replica = state["replica"] + self._part(update)
            round_as_held(replica, state, layout)
        refuse_non_finite(replica, layout)
        return {
            "replica": replica,
            "sequence": state["sequence"] + 1,
            "digest": _digest(replica),
            "reader": reader,
        }

    def _part(self, values: Floats) -> Floats:
        return values if self.step == 1.0 else values * np.float32(self.step)


def kinds_in(config: object) -> Iterator[str]:
    """The kinds of all codecs in a config, nested ones within.

    >>> list(kinds_in(Delta(Identity()).config()))
    ['delta', 'identity', 'identity']
    """
    if isinstance(config, Mapping):
        if isinstance(kind := config.get("kind"), str):
            yield kind
        for value in config.values():
            yield from kinds_in(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from kinds_in(value)


def _digest(replica: Floats) -> int:
    return zlib.crc32(replica.astype("<f4", copy=False).data)


def _locked(replica: Floats) -> Floats:
    """The same numbers, read-only: models handed out are views of what the state holds."""
    view = replica.view()
    view.flags.writeable = False
    return view
