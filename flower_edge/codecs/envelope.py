"""`Envelope`: 36 bytes in front of a payload between a server and a node, by which it can be read or refused.

    0 magic "FEC1"   4 CRC-32 of all that follows   8 kind   9 flags   10 public aggregates used   11 zero
    12 codec   16 round   20 node   24 version of the base   28 digest of the base   32 codebook      36 payload

All little-endian, u32 from byte 12 on. The check sum finds what was torn or turned over on the way; it is no signature,
so whoever reads believes no number here before comparing it with what it knows itself. Nothing here encodes or sends.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from ..errors import CodecError
from .codec import Codec

__all__ = ["HEADER_BYTES", "SERVER", "Envelope", "Kind", "codebook_epoch", "codec_hash", "config_text", "digest_of"]

_HEADER: Final = struct.Struct("<4sIBBBBIIIIII")
_MAGIC: Final = b"FEC1"
#: Bytes before those that the check sum is of.
_CHECKED: Final = 8
_LARGEST: Final = (1 << 32) - 1
#: Bytes in front of every payload.
HEADER_BYTES: Final = _HEADER.size
#: The number of the server, where nodes have theirs.
SERVER: Final = _LARGEST


class Kind(IntEnum):
    """What follows the header."""

    UPDATE = 0  # by how much the named base moves, by the named codec
    WHOLE = 1  # all arrays, exactly
    BESIDE = 2  # nothing about arrays: they travel plainly in the same message
    LOST = 3  # why a node could not go on from what it holds, as text
    FIRST = 4  # all arrays, by the codec of first models
    STREAMS = 5  # one update after the other, up to the named version
    HELD = 6  # nothing about arrays: the node holds the named version already


@dataclass(frozen=True)
class Envelope:
    """A payload, and what both ends need beside it.

    Attributes:
        kind: what the payload is.
        payload: any bytes.
        codec: `codec_hash` of the codec for updates.
        round: of the exchange, from 1; the `Moment` of that exchange counts from 0.
        node: a stable number of the node, `SERVER` where the server sends.
        version, digest: number of the model that the payload is against, or leads to, and the digest of its bytes.
        aggregates: how many entries of `Public.aggregates` were used.
        epoch: `codebook_epoch` of the codebook that was used, 0 for none.
        flags: which sections a server's payload has.

    Raises:
        CodecError: a number that does not fit.

    >>> envelope = Envelope(Kind.UPDATE, b"abc", codec=1, round=3, node=7, version=2, digest=5)
    >>> len(envelope.to_bytes()), Envelope.from_bytes(envelope.to_bytes(), sender="node 7") == envelope
    (39, True)
    """

    kind: Kind
    payload: bytes = b""
    codec: int = 0
    round: int = 0
    node: int = SERVER
    version: int = 0
    digest: int = 0
    aggregates: int = 0
    epoch: int = 0
    flags: int = 0

    def __post_init__(self) -> None:
        for name in ("codec", "round", "node", "version", "digest", "epoch", "aggregates", "flags"):
            value, most = getattr(self, name), 255 if name in ("aggregates", "flags") else _LARGEST
            if not isinstance(value, int) or not 0 <= value <= most:
                raise CodecError(f"{name} = {value!r} of an envelope: expected a whole number from 0 to {most}")

    def to_bytes(self) -> bytes:
        """Header and payload; the same envelope gives the same bytes."""
        small = self.kind, self.flags, self.aggregates, 0
        large = self.codec, self.round, self.node, self.version, self.digest, self.epoch
        checked = _HEADER.pack(_MAGIC, 0, *small, *large)[_CHECKED:]
        check = zlib.crc32(self.payload, zlib.crc32(checked))
        return b"".join((_MAGIC, struct.pack("<I", check), checked, self.payload))

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview, *, sender: str) -> Self:
        """Inverse of `to_bytes`; the payload is copied once.

        Raises:
            CodecError: these are not the bytes of one whole envelope of this version; names the sender.

        >>> Envelope.from_bytes(b"FEC1", sender="node 7")
        Traceback (most recent call last):
        ...
        flower_edge.errors.CodecError: node 7 sent 4 bytes that are no envelope: expected 36 or more
        """
        view = memoryview(data)
        if len(view) < _HEADER.size:
            raise CodecError(f"{sender} sent {len(view)} bytes that are no envelope: expected {_HEADER.size} or more")
        magic, check, kind, flags, aggregates, zero, *large = _HEADER.unpack_from(view)
        if magic != _MAGIC:
            raise CodecError(
                f"{sender} sent bytes that begin with {magic!r}, expected {_MAGIC!r}; "
                "install the same flower-edge version on both sides"
            )
        if zlib.crc32(view[_CHECKED:]) != check:
            raise CodecError(f"{sender} sent an envelope of {len(view)} bytes with a wrong check sum; it was altered")
        if kind not in set(Kind) or zero:
            raise CodecError(
                f"{sender} sent an envelope of kind {kind}, which is none of this version; "
                "install the same flower-edge version on both sides"
            )
        codec, round_, node, version, digest, epoch = large
        payload = bytes(view[_HEADER.size :])
        return cls(Kind(kind), payload, codec, round_, node, version, digest, aggregates, epoch, flags)


def config_text(codec: Codec) -> str:
    """A codec's config as one line of JSON; equal codecs give equal texts."""
    return json.dumps(codec.config(), sort_keys=True, separators=(",", ":"))


def codec_hash(codec: Codec) -> int:
    """32 bits by which two codecs of another config differ, almost surely."""
    return _short(config_text(codec).encode())


def codebook_epoch(codebook: bytes | None) -> int:
    """32 bits by which two codebooks differ, almost surely; 0 is none."""
    return 0 if codebook is None else max(1, _short(codebook))


def digest_of(arrays: Mapping[str, npt.NDArray[Any]]) -> int:
    """CRC-32 of the arrays' bytes, little-endian, in their order: two ends that agree on it hold the same model.

    >>> digest_of({"w": np.zeros(2, np.float32)}) == digest_of({"w": np.ones(2, np.float32)})
    False
    """
    found = 0
    for array in arrays.values():
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        found = zlib.crc32(little.reshape(-1).view(np.uint8).data, found)
    return found


def _short(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=4).digest(), "little")
