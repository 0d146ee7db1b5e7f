"""`FrameCoder`: a frame to bytes and back, by what both ends know of a device's round. Nothing here sends or computes.

    40 bytes    form, kind, tensors, axes of the labels, samples, step, round, device's number, loss
    labels      lengths of their further axes, then the labels: whole numbers in as few bytes as the classes need
    per tensor  what it holds and how it is stored, the length of its payload, the payload

Tensors on their way forward (ACTIVATIONS, OUTPUTS) are coded by `WorkOrder.up`, gradients by `WorkOrder.down`, each
tensor by itself; whole numbers travel as they are, in as few bytes as their range needs. What a codec rounds away only
the receiver misses: the sender's own graph keeps the exact values and takes the gradient as if nothing had been rounded
(straight through). Random rounding follows from seed, step, kind, device and tensor, so a frame has the same bytes each
time, and no two frames round alike.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..codecs.codec import from_config
from ..codecs.layout import Layout, refuse_non_finite
from ..codecs.moment import Moment
from ..codecs.sparse import dense
from ..codecs.vector_codec import VectorCodec
from ..errors import CodecError, SplitError
from .frame import Frame, Kind
from .frame_labels import LabelForm
from .frame_reader import Reader
from .order import WorkOrder
from .profile import ModelProfile

__all__ = ["HEADER_BYTES", "FrameCoder", "stateless_codec"]

Array = npt.NDArray[Any]

_HEADER: Final = struct.Struct("<BBBBIQQQd")
#: What a frame has before labels and tensors.
HEADER_BYTES: Final = _HEADER.size
_FORM: Final = 0xF1
#: What a tensor can hold, and how whole numbers can be stored; a place in here is the code.
_DTYPES: Final = tuple(np.dtype(text) for text in ("<f4", "?", "u1", "i1", "<u2", "<i2", "<u4", "<i4", "<i8"))
_FORWARD: Final = (Kind.ACTIVATIONS, Kind.OUTPUTS)


def stateless_codec(config: Mapping[str, Any] | None, layouts: Iterable[Layout] = ()) -> VectorCodec | None:
    """The codec of a config; None of None. `layouts`: of the tensors it is for, as some remember only certain ones.

    Raises:
        CodecError: no codec, one that takes whole models only, or one that remembers earlier vectors: the samples of a
            batch are others in the next, so there is nothing of theirs to remember.
    """
    if config is None:
        return None
    codec = from_config(config)
    if not isinstance(codec, VectorCodec):
        raise CodecError(
            f"codec {config['kind']!r} takes whole models; at a cut take one of vectors, such as Affine(4)"
        )
    if any(map(codec.start, (Layout.flat(1), *layouts))):
        raise CodecError(
            f"codec {config['kind']!r} remembers what came before, but each batch has other samples; "
            "at a cut take one that does not, such as Affine(4) or Block(8)"
        )
    return codec


class FrameCoder:
    """Turns the frames of one device's round into bytes, and such bytes into frames. Both ends make the same one.

    `decode` believes nothing: every length is checked against the model's profile before anything is made of it, what
    it makes is bounded by the order's batch, and whatever bytes come in it answers with a frame or a `ProtocolError`.

    Args:
        order: of the device's round; `up` and `down` are the codecs.
        profile: of the model that the order names.

    Raises:
        SplitError: a cut or a tail that this model does not have.
        CodecError: a codec that cannot be used at a cut, see `stateless_codec`.
    """

    def __init__(self, order: WorkOrder, profile: ModelProfile) -> None:
        last = profile.last
        if not order.cut + order.tail <= last:
            raise SplitError(
                f"cut = {order.cut} and tail = {order.tail} of a model of {last} units; expected no more together"
            )
        if order.tail and order.labels == "cloud":
            raise SplitError(f"tail = {order.tail} while the cloud has the labels; set labels='device', or tail=0")
        self.order = order
        ends = {True: profile.cuts[order.cut], False: profile.cuts[last - order.tail]}
        self._shapes: dict[Kind, tuple[tuple[int, ...], ...]] = {}
        self._gradient: dict[Kind, tuple[bool, ...]] = {}
        for kind in Kind:
            end = ends[kind in (Kind.ACTIVATIONS, Kind.GRADIENT)]
            forward = kind in _FORWARD
            kept = [i for i, back in enumerate(end.differentiable) if forward or back]
            self._shapes[kind] = tuple(end.shapes[i] for i in kept)
            self._gradient[kind] = tuple(end.differentiable[i] for i in kept)
        self._codecs = {
            forward: stateless_codec(
                order.up if forward else order.down,
                (
                    _layout(kind, index, (order.batch_size, *shape))
                    for kind, shapes in self._shapes.items()
                    for index, shape in enumerate(shapes)
                    if (kind in _FORWARD) == forward
                ),
            )
            for forward in (True, False)
        }
        self._labels = LabelForm(order, most_values=profile.cuts[last].values)

    def encode(self, frame: Frame) -> bytes:
        """The bytes of a frame.

        Raises:
            SplitError: a frame that is not of this round: its tensors, labels or loss are not those it should have.
            CodecError: a value that is not finite.
        """
        shapes, batch = self._shapes[frame.kind], self._batch(frame)
        if len(frame.tensors) != len(shapes):
            raise SplitError(f"{frame.kind.name} of {len(frame.tensors)} tensors, expected {len(shapes)}")
        labels, axes = b"", 0
        if self._with_labels(frame.kind):
            labels, axes = self._labels.encode(frame.labels, batch)
        elif frame.labels is not None:
            raise SplitError(f"{frame.kind.name} with labels, which stay where they are; expected labels = None")
        loss = frame.loss if self._with_loss(frame.kind) else math.nan
        if self._with_loss(frame.kind) and not math.isfinite(loss):
            raise SplitError(
                f"step {frame.step}: loss = {loss}, expected a finite one; "
                "if the training has diverged, lower the learning rate"
            )
        head = (_FORM, frame.kind, len(shapes), axes, batch, frame.step, self.order.round, self.order.number, loss)
        parts = [_HEADER.pack(*head), labels]
        for index, tensor in enumerate(frame.tensors):
            code, payload = self._pack(np.asarray(tensor), frame.kind, frame.step, index, batch)
            parts += [struct.pack("<BI", code, len(payload)), payload]
        return b"".join(parts)

    def decode(self, data: bytes, expect: Kind, step: int, *, batch: int | None = None) -> Frame:
        """The frame in some bytes; its arrays are new and can be written to.

        Args:
            data: as received.
            expect: what the other end has to say now.
            step: number of the batch it has to say it of.
            batch: how many samples it must have; None allows up to `WorkOrder.batch_size`.

        Raises:
            ProtocolError: anything else than that frame. Never another error.
        """
        sender = f"a frame of device {self.order.number} in round {self.order.round}"
        reader = Reader(data, f"{sender}, expected {expect.name} of step {step}")
        form, kind, tensors, axes, size, at, round, number, loss = reader.unpack(_HEADER, "its head")
        reader.same("form", form, _FORM, hint="install the same flower-edge version on both sides")
        reader.same("kind", kind, int(expect))
        reader.same("step", at, step)
        reader.same("round", round, self.order.round)
        reader.same("number", number, self.order.number)
        reader.same("tensors", tensors, len(self._shapes[expect]))
        if not tensors:  # gradients of tensors none of which has one, such as the input itself
            reader.same("samples", size, 0)
        elif not 1 <= size <= self.order.batch_size or size != (size if batch is None else batch):
            wanted = f"1 to {self.order.batch_size}" if batch is None else str(batch)
            raise reader.error(f"{size} samples, expected {wanted}")
        labels = None
        if self._with_labels(expect):
            labels = self._labels.decode(reader, axes, size)
        else:
            reader.same("axes of labels", axes, 0)
        if self._with_loss(expect) and not math.isfinite(loss):
            raise reader.error(f"loss = {loss}, expected a finite one; has the training diverged?")
        if not self._with_loss(expect) and not math.isnan(loss):
            raise reader.error(f"loss = {loss}, expected none in {expect.name}")
        found = tuple(self._unpack(reader, expect, step, index, size) for index in range(tensors))
        reader.end()
        return Frame(expect, step, found, labels, loss)

    def heard(self, frame: Frame) -> Frame:
        """What the other end makes of a frame: by the very codec that carries it, for evaluation as for training."""
        return self.decode(self.encode(frame), frame.kind, frame.step)

    def most_bytes(self, kind: Kind) -> int:
        """A receiver need not take in more for a frame of this kind: four times what plain float32 would be."""
        values = sum(math.prod(shape) for shape in self._shapes[kind]) * self.order.batch_size
        labels = self._labels.most_bytes() if self._with_labels(kind) else 0
        return HEADER_BYTES + labels + 256 * len(self._shapes[kind]) + 16 * values

    # -- one tensor --------------------------------------------------------------------------------------------------

    def _pack(self, x: Array, kind: Kind, step: int, index: int, batch: int) -> tuple[int, bytes]:
        expected = (batch, *self._shapes[kind][index])
        if x.shape != expected:
            raise SplitError(f"{kind.name}, tensor {index}: shape {x.shape}, expected {expected}")
        if x.dtype.kind in "biu" and not self._gradient[kind][index]:
            return _pack_whole(x, f"{kind.name}, tensor {index}")
        if x.dtype != np.float32:
            raise SplitError(f"{kind.name}, tensor {index}: {x.dtype}, expected float32; cast it before it is sent")
        flat, layout = np.ascontiguousarray(x).reshape(-1), _layout(kind, index, expected)
        codec = self._codecs[kind in _FORWARD]
        if codec is None:
            refuse_non_finite(flat, layout)
            return 0, flat.astype("<f4", copy=False).tobytes()
        return 0, codec.pack(flat, layout, {}, self._moment(kind, step, index))[0]

    def _unpack(self, reader: Reader, kind: Kind, step: int, index: int, batch: int) -> Array:
        code, length = reader.unpack(_TENSOR, f"the head of tensor {index}")
        expected = (batch, *self._shapes[kind][index])
        payload = reader.take(length, f"tensor {index}")
        if code:
            if self._gradient[kind][index]:
                raise reader.error(f"tensor {index} holds values of code {code:#x}, expected float32")
            return _unpack_whole(payload, code, expected, reader, index)
        layout, codec = _layout(kind, index, expected), self._codecs[kind in _FORWARD]
        try:
            if codec is None:
                if length != 4 * layout.size:
                    raise CodecError(f"{length} bytes for {layout.size} float32, expected {4 * layout.size}")
                flat = np.frombuffer(payload, "<f4").astype(np.float32)
            else:
                flat = dense(codec.unpack(payload, layout, {}, self._moment(kind, step, index))[0])
            refuse_non_finite(flat, layout)
        except CodecError as error:
            raise reader.error(f"tensor {index}: {error}") from error
        return (flat if flat.flags.writeable else flat.copy()).reshape(expected)

    def _moment(self, kind: Kind, step: int, index: int) -> Moment:
        # A codec draws by (its seed, round, node). The run's seed, the kind and the tensor must matter as well, and
        # neighbours must not: a hash of all of them stands in for the round.
        drawn = hashlib.blake2b(struct.pack("<QQBI", self.order.seed, step, kind, index), digest_size=7)
        return Moment(int.from_bytes(drawn.digest(), "little"), self.order.number)

    # -- what belongs to which kind ----------------------------------------------------------------------------------

    def _batch(self, frame: Frame) -> int:
        if not self._shapes[frame.kind]:
            return 0
        batch = len(frame.tensors[0]) if frame.tensors and np.ndim(frame.tensors[0]) else 0
        if not 1 <= batch <= self.order.batch_size:
            raise SplitError(f"{frame.kind.name} of {batch} samples, expected 1 to {self.order.batch_size}")
        return batch

    def _with_labels(self, kind: Kind) -> bool:
        return kind is Kind.ACTIVATIONS and self.order.labels == "cloud"

    def _with_loss(self, kind: Kind) -> bool:
        return kind is (Kind.GRADIENT if self.order.labels == "cloud" else Kind.OUTPUT_GRADIENT)


_TENSOR: Final = struct.Struct("<BI")


def _layout(kind: Kind, index: int, shape: tuple[int, ...]) -> Layout:
    return Layout((f"{kind.name.lower()} {index}",), (shape,))


def _pack_whole(x: Array, what: str) -> tuple[int, bytes]:
    """Code and bytes of whole numbers: as few bytes per number as the smallest and the largest need."""
    held = np.dtype(x.dtype).newbyteorder("<") if x.dtype.itemsize > 1 else x.dtype
    if held not in _DTYPES:
        raise SplitError(f"{what}: {x.dtype}, expected float32 or whole numbers of at most 64 bits with a sign")
    low, high = (int(x.min()), int(x.max())) if x.size else (0, 0)
    stored = next(
        place
        for place, dtype in enumerate(_DTYPES)
        if dtype.kind in "iu" and np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max and _fits(dtype, held)
    )
    return _DTYPES.index(held) << 4 | stored, x.astype(_DTYPES[stored]).tobytes()


def _fits(stored: np.dtype[Any], held: np.dtype[Any]) -> bool:
    return stored == np.dtype("u1") if held.kind == "b" else bool(np.can_cast(stored, held))


def _unpack_whole(data: memoryview, code: int, shape: tuple[int, ...], reader: Reader, index: int) -> Array:
    held, stored = code >> 4, code & 15
    known = 0 < held < len(_DTYPES) and 1 < stored < len(_DTYPES) and _fits(_DTYPES[stored], _DTYPES[held])
    if not known:
        raise reader.error(f"tensor {index} holds values of code {code:#x}, which there is not")
    if len(data) != math.prod(shape) * _DTYPES[stored].itemsize:
        expected = math.prod(shape) * _DTYPES[stored].itemsize
        raise reader.error(f"tensor {index} of {len(data)} bytes, expected {expected} for shape {shape}")
    found = np.frombuffer(data, _DTYPES[stored])
    if _DTYPES[held].kind == "b" and found.size and int(found.max()) > 1:
        raise reader.error(f"tensor {index} holds {int(found.max())}, expected 0 or 1")
    return found.astype(_DTYPES[held].newbyteorder("=")).reshape(shape)
