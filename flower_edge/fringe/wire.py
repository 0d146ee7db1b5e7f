"""`Wire`: the tensors of one connection to the bytes of a frame, and back. Nothing here sends.

    24 bytes    form, tensors, connection, version of the parts, samples, request, check of the wire's own config
    per tensor  its samples one after the other, see `wire_forms`

Both ends have the same `Wire`, so a frame names neither shapes nor lengths: all of them follow from it. The version and
the number of the request are carried for who serves; nothing here reads them.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import CodecError, FringeError, ProtocolError
from .wire_forms import PLAIN, TensorWire, WireForm

__all__ = ["HEADER_BYTES", "FrameHead", "TensorSpec", "Wire", "unchecked_head"]

Array = npt.NDArray[Any]

_HEADER: Final = struct.Struct("<BBHIIQI")
#: What a frame has before its tensors.
HEADER_BYTES: Final = _HEADER.size
_FORM: Final = 0xF9
_WHOLE: Final = ("bool", "uint8", "int8", "int16", "int32", "int64")
#: Samples a frame may have unless its reader says otherwise.
_MOST_SAMPLES: Final = 4096


@dataclass(frozen=True)
class TensorSpec:
    """One tensor that crosses a connection.

    Attributes:
        name: of the step that made it.
        shape: of one sample.
        dtype: as NumPy writes it: "float32", or whole numbers, which are sent as they are.

    Raises:
        FringeError: another dtype.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", *_WHOLE):
            raise FringeError(
                f"tensor {self.name!r} of {self.dtype} crosses a connection; expected float32 or whole numbers: "
                "cast the model with model.float()"
            )


class FrameHead(NamedTuple):
    """What a frame says before its tensors."""

    version: int
    request: int
    samples: int


@dataclass(frozen=True)
class Wire:
    """What a connection makes of its tensors; make one with `plain`.

    Attributes:
        specs: of the tensors that cross, in order.
        forms: of the same; of whole numbers `PLAIN`.
        connection: its number, from 0.

    Raises:
        FringeError: forms that do not go with the tensors.

    >>> wire = Wire.plain([TensorSpec("relu", (16, 32, 32))])
    >>> wire.size_bytes(), wire.formed(WireForm(bits=4)).size_bytes()
    (65560, 8280)
    """

    specs: tuple[TensorSpec, ...]
    forms: tuple[WireForm, ...]
    connection: int = 0

    def __post_init__(self) -> None:
        if not 1 <= len(self.specs) <= 255 or not 0 <= self.connection < 2**16:
            raise FringeError(f"{len(self.specs)} tensors at connection {self.connection}; expected 1 to 255, and 0 on")
        if len(self.forms) != len(self.specs):
            raise FringeError(f"{len(self.forms)} forms of {len(self.specs)} tensors; expected one each")
        for spec, form in zip(self.specs, self.forms, strict=True):
            if spec.dtype != "float32" and form != PLAIN:
                raise FringeError(f"{form} of {spec.name!r}, which holds {spec.dtype}; whole numbers take WireForm()")
        _ = self._tensors  # a form that names channels which there are not is refused now

    @classmethod
    def plain(cls, specs: Sequence[TensorSpec], connection: int = 0) -> Wire:
        """float32 and whole numbers as they are."""
        return cls(tuple(specs), (PLAIN,) * len(specs), connection)

    def formed(self, forms: WireForm | Sequence[WireForm]) -> Wire:
        """The same connection with another form; a single one goes to all tensors but whole numbers.

        Raises:
            FringeError: forms that do not go with the tensors.
        """
        if isinstance(forms, WireForm):
            forms = [forms if spec.dtype == "float32" else PLAIN for spec in self.specs]
        if not isinstance(forms, Sequence) or not all(isinstance(form, WireForm) for form in forms):
            raise FringeError(f"forms = {forms!r:.120}; expected a WireForm, such as WireForm(8), or one per tensor")
        return replace(self, forms=tuple(forms))

    def size_bytes(self, samples: int = 1) -> int:
        """Of a frame of so many samples, header and all. Exact: it is what `encode` gives."""
        return HEADER_BYTES + samples * sum(self._sizes)

    def encode(self, tensors: Sequence[Array], *, version: int = 0, request: int = 0) -> bytes:
        """A frame.

        Args:
            tensors: [batch, *shape] each, in order.
            version: of the parts that made them, below 2^32.
            request: its number, below 2^64.

        Raises:
            FringeError: other tensors, or other numbers, than a frame has.
            CodecError: a number that is not finite.
        """
        samples = self._check(tensors)
        if not 0 <= version < 2**32 or not 0 <= request < 2**64:
            raise FringeError(f"version {version} and request {request}; expected less than 2^32 and 2^64, 0 or more")
        head = _HEADER.pack(_FORM, len(self.specs), self.connection, version, samples, request, self._sum)
        parts = [head]
        for spec, wire, tensor in zip(self.specs, self._tensors, tensors, strict=True):
            if spec.dtype == "float32":
                parts.append(wire.encode(np.asarray(tensor)).tobytes())
            else:
                parts.append(np.asarray(tensor).astype(_little(spec.dtype), copy=False).tobytes())
        return b"".join(parts)

    def empty(self, *, version: int = 0, request: int = 0) -> bytes:
        """A frame of no samples: a head alone, which takes the way of a frame and carries nothing.

        >>> len(Wire.plain([TensorSpec("relu", (16, 32, 32))]).empty(version=3, request=7))
        24
        """
        return _HEADER.pack(_FORM, len(self.specs), self.connection, version, 0, request, self._sum)

    def head(self, data: bytes) -> FrameHead:
        """What a frame says before its tensors, checked against this wire.

        Raises:
            ProtocolError: bytes of another connection, another form, or none at all.
        """
        if len(data) < HEADER_BYTES:
            raise self._error(f"{len(data)} bytes, expected {HEADER_BYTES} or more; it was cut")
        form, tensors, connection, version, samples, request, total = _HEADER.unpack_from(data)
        for name, came, expected in (
            ("form", form, _FORM),
            ("tensors", tensors, len(self.specs)),
            ("connection", connection, self.connection),
        ):
            if came != expected:
                raise self._error(f"{name} = {came}, expected {expected}; is it a frame of this connection?")
        if total != self._sum:
            raise self._error(
                f"a wire form of check {total:#010x}, expected {self._sum:#010x}; give both ends the same form"
            )
        return FrameHead(version, request, samples)

    def decode(self, data: bytes, *, most_samples: int = _MOST_SAMPLES) -> tuple[Array, ...]:
        """The tensors of a frame as `heard` gives them; new, contiguous.

        Whatever bytes come in, it answers with tensors or a `ProtocolError`.

        Args:
            data: as received.
            most_samples: that a frame may have.

        Raises:
            ProtocolError: bytes that `encode` does not make.
        """
        samples = self.head(data).samples
        if not 1 <= samples <= most_samples:
            raise self._error(f"{samples} samples, expected 1 to {most_samples}")
        if len(data) != self.size_bytes(samples):
            raise self._error(f"{len(data)} bytes, expected {self.size_bytes(samples)} for {samples} samples")
        found: list[Array] = []
        at = HEADER_BYTES
        for spec, wire, size in zip(self.specs, self._tensors, self._sizes, strict=True):
            rows = np.frombuffer(data, np.uint8, samples * size, at).reshape(samples, size)
            at += samples * size
            if spec.dtype == "float32":
                try:
                    found.append(wire.decode(rows))
                except CodecError as error:
                    raise self._error(f"tensor {spec.name!r}: {error}") from error
            else:
                found.append(self._whole(spec, rows))
        return tuple(found)

    def heard(self, tensors: Sequence[Array]) -> tuple[Array, ...]:
        """What `decode(encode(tensors))` gives, bit for bit, without making the bytes.

        Raises:
            FringeError, CodecError: as of `encode`.
        """
        self._check(tensors)
        return tuple(
            wire.heard(np.asarray(tensor)) if spec.dtype == "float32" else np.array(tensor)
            for spec, wire, tensor in zip(self.specs, self._tensors, tensors, strict=True)
        )

    def config(self) -> dict[str, Any]:
        """Plain values; `from_config` is its inverse."""
        return {
            "connection": self.connection,
            "tensors": [
                {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype, "form": form.config()}
                for spec, form in zip(self.specs, self.forms, strict=True)
            ],
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Wire:
        """Inverse of `config`.

        Raises:
            FringeError: no wire.
        """
        try:
            specs = tuple(TensorSpec(one["name"], tuple(one["shape"]), one["dtype"]) for one in config["tensors"])
            forms = tuple(WireForm.from_config(one["form"]) for one in config["tensors"])
            if not all(isinstance(n, int) and n >= 0 for spec in specs for n in spec.shape):
                raise ValueError("a shape of something else than whole numbers")
            return cls(specs, forms, int(config["connection"]))
        except (KeyError, TypeError, ValueError) as error:
            raise FringeError(f"a wire of {config!r:.120}: {error}; expected what Wire.config gives") from error

    # -- lengths and checks ------------------------------------------------------------------------------------------

    @cached_property
    def _tensors(self) -> tuple[TensorWire, ...]:
        return tuple(TensorWire(form, spec.shape) for form, spec in zip(self.forms, self.specs, strict=True))

    @cached_property
    def _sizes(self) -> tuple[int, ...]:
        """Bytes of one sample of each tensor."""
        return tuple(
            wire.size_bytes if spec.dtype == "float32" else math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
            for spec, wire in zip(self.specs, self._tensors, strict=True)
        )

    @cached_property
    def _sum(self) -> int:
        """Against mistakes, not against attackers: two ends that were given different forms."""
        return zlib.crc32(json.dumps(self.config(), sort_keys=True).encode())

    def _check(self, tensors: Sequence[Array]) -> int:
        """How many samples they have."""
        if len(tensors) != len(self.specs):
            raise FringeError(f"{len(tensors)} tensors at connection {self.connection}, expected {len(self.specs)}")
        for spec, tensor in zip(self.specs, tensors, strict=True):
            given = np.asarray(tensor)
            shaped = given.ndim and given.shape[1:] == spec.shape and len(given) == len(tensors[0])
            if not shaped or given.dtype != np.dtype(spec.dtype):
                raise FringeError(
                    f"tensor {spec.name!r} of shape {given.shape} and {given.dtype} at connection {self.connection}, "
                    f"expected [batch, {', '.join(map(str, spec.shape))}] of {spec.dtype}"
                )
        if not len(tensors[0]):
            raise FringeError(f"no sample at connection {self.connection}, expected 1 or more")
        return len(tensors[0])

    def _whole(self, spec: TensorSpec, rows: npt.NDArray[np.uint8]) -> Array:
        if spec.dtype == "bool" and rows.size and int(rows.max()) > 1:
            raise self._error(f"tensor {spec.name!r} holds {int(rows.max())}, expected 0 or 1")
        flat = np.frombuffer(rows.tobytes(), _little(spec.dtype)).astype(spec.dtype)
        return flat.reshape(len(rows), *spec.shape)

    def _error(self, message: str) -> ProtocolError:
        return ProtocolError(f"a frame at connection {self.connection}: {message}")


def _little(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def unchecked_head(data: bytes) -> FrameHead:
    """What a frame says before its tensors, for who has yet to find the wire to check it with.

    Raises:
        ProtocolError: fewer bytes than a head has.
    """
    if len(data) < HEADER_BYTES:
        raise ProtocolError(f"a frame of {len(data)} bytes, expected {HEADER_BYTES} or more; it was cut")
    _, _, _, version, samples, request, _ = _HEADER.unpack_from(data)
    return FrameHead(version, request, samples)
