"""The bytes of a published autoencoder, and the few by which a message names it. Never executable, always checked.

    0  version   1 byte       8  SHA-256 of the rest, its first 8 bytes
    1  variant   1 byte      16  five u16: the encoder's channels
    2  nothing   2 bytes     26  weights, float16, the encoder's first
    4  number    u32: how many were published before

little-endian. The `epoch` that messages carry is the first four bytes of the SHA-256.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np

from ...errors import CodecError
from .model import Autoencoder, Shape

__all__ = ["EPOCH_BYTES", "Codebook", "codebook_bytes", "read_codebook"]

EPOCH_BYTES = 4
_VERSION = 1
_HEAD = struct.Struct("<BBHI8s")
_CHANNELS = struct.Struct("<5H")
_LARGEST = np.float32(65504.0)


@dataclass(frozen=True)
class Codebook:
    """A published autoencoder.

    Attributes:
        number: how many were published before it.
        epoch: names it in messages, 4 bytes.
        model: its weights, as both ends have them: rounded to float16.
    """

    number: int
    epoch: bytes
    model: Autoencoder


def codebook_bytes(model: Autoencoder, number: int) -> bytes:
    """What a server publishes: two bytes per weight and 26.

    Raises:
        CodecError: a weight that is not finite.
    """
    if not np.isfinite(model.weights).all():
        raise CodecError("the autoencoder's weights are not finite: its training diverged; lower its learning rate")
    weights = np.clip(model.weights, -_LARGEST, _LARGEST).astype("<f2").tobytes()
    body = _CHANNELS.pack(*model.shape.channels) + weights
    head = (_VERSION, int(model.shape.innovation), 0, number)
    return _HEAD.pack(*head, _digest(head, body)) + body


def read_codebook(data: bytes, shape: Shape) -> Codebook:
    """Inverse, for an autoencoder of that shape.

    Raises:
        CodecError: another version, shape or length, weights that are not finite, or bytes that were altered.
    """
    expected = _HEAD.size + _CHANNELS.size + 2 * shape.params
    if len(data) != expected:
        raise CodecError(f"codebook of {len(data)} bytes, expected {expected} for {shape}; {_RESEND}")
    *head, digest = _HEAD.unpack_from(data)
    body = memoryview(data)[_HEAD.size :]
    if digest != _digest((head[0], head[1], head[2], head[3]), body):
        raise CodecError(f"codebook was altered: its SHA-256 is another; {_RESEND}")
    if (*head[:3], *_CHANNELS.unpack_from(body)) != (_VERSION, int(shape.innovation), 0, *shape.channels):
        raise CodecError(f"codebook of version {head[0]} or of another shape than {shape}; {_RESEND}")
    weights = np.frombuffer(body, "<f2", offset=_CHANNELS.size).astype(np.float32)
    if not np.isfinite(weights).all():
        raise CodecError(f"codebook with weights that are not finite; {_RESEND}")
    return Codebook(head[3], digest[:EPOCH_BYTES], Autoencoder(shape, weights))


#: What to do about a message that cannot be read with the codebook at hand.
_RESEND = "ask for a plain resend"


def _digest(head: tuple[int, int, int, int], body: bytes | memoryview) -> bytes:
    return hashlib.sha256(_HEAD.pack(*head, bytes(8)) + bytes(body)).digest()[:8]
