"""`Packet`: what one node has to say to its neighbours in one round, and its bytes.

    magic "FEPK"   CRC-32 of all that follows   version   round   sender   sequence   lengths   codec   payload

A reader believes nothing before it is checked: lengths must add up to what is there, so no header can make it allocate
more than it was given. The check sum finds what was torn or turned over on the way. It is no signature: who may send
is for the channel to say. Nothing here sends, decodes a payload or keeps anything.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import Self

from ..errors import PeerError, WireError

__all__ = ["LONGEST_CODEC", "Header", "Packet", "read_header"]

_MAGIC = b"FEPK"
_VERSION = 1
_CHECKED = 8  # bytes before those that the check sum is of
#: magic, check sum, version, length of the codec's text, round, sender, sequence, length of the payload
_HEADER = struct.Struct("<4sIHHQIIQ")
_CODEC = re.compile(r"[ -~]*")
#: Most characters of a codec's text.
LONGEST_CODEC = 64

#: Bytes as a mailbox may hold them.
Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Packet:
    """A model on its way to neighbours.

    Attributes:
        round: the round in which it was posted, from 0.
        sender: index of the node that made it (`partition-id`), from 0.
        sequence: how many-th packet of its sender; of two in one round the later counts.
        codec: short text that tells how the payload was encoded, see `codecs.codec.label`; printable ASCII.
        payload: the encoded model.

    Raises:
        PeerError: a number that does not fit, a payload that is not bytes, or a codec text that is too long or not
            printable ASCII.

    >>> packet = Packet(round=3, sender=7, sequence=0, codec="identity", payload=b"abc")
    >>> len(packet.to_bytes()), Packet.from_bytes(packet.to_bytes()) == packet
    (47, True)
    """

    round: int
    sender: int
    sequence: int
    codec: str
    payload: bytes

    def __post_init__(self) -> None:
        for name, bits in (("round", 63), ("sender", 32), ("sequence", 32)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
                raise PeerError(f"{name} = {value!r} of a packet: expected a whole number from 0 to 2^{bits} - 1")
        if not isinstance(self.payload, bytes):
            raise PeerError(f"payload of a packet is {type(self.payload).__name__}: expected the bytes a codec made")
        if not isinstance(self.codec, str):
            raise PeerError(f"codec = {self.codec!r} of a packet: expected text; take label(codec)")
        if len(self.codec) > LONGEST_CODEC or not _CODEC.fullmatch(self.codec):
            raise PeerError(
                f"codec = {self.codec[:80]!r} of a packet: expected at most {LONGEST_CODEC} printable ASCII "
                "characters; take label(codec)"
            )

    def to_bytes(self) -> bytes:
        """The packet as one byte string; the same packet gives the same bytes."""
        codec = self.codec.encode("ascii")
        sizes = len(codec), self.round, self.sender, self.sequence, len(self.payload)
        checked = _HEADER.pack(_MAGIC, 0, _VERSION, *sizes)[_CHECKED:] + codec
        check = zlib.crc32(self.payload, zlib.crc32(checked))
        return b"".join((_MAGIC, struct.pack("<I", check), checked, self.payload))

    @classmethod
    def from_bytes(cls, data: Buffer) -> Self:
        """Inverse of `to_bytes`; the payload is copied once, so `data` may be a map that is closed afterwards.

        Raises:
            WireError: these are not the bytes of one whole packet of this version.

        >>> Packet.from_bytes(b"FEPK and more")
        Traceback (most recent call last):
        ...
        flower_edge.errors.WireError: 13 bytes that are no packet: expected 36 or more; the sender stopped half-way
        """
        header = read_header(data)
        payload = bytes(memoryview(data)[len(data) - header.payload_bytes :])
        return cls(header.round, header.sender, header.sequence, header.codec, payload)


@dataclass(frozen=True)
class Header:
    """What a packet says about itself, the whole of it checked; see `Packet` for the fields.

    `payload_bytes` is the length of the payload, the last part of the packet.
    """

    round: int
    sender: int
    sequence: int
    codec: str
    payload_bytes: int


def read_header(data: Buffer) -> Header:
    """Check a packet, check sum included, without copying its payload.

    Raises:
        WireError: as `Packet.from_bytes`.
    """
    view = memoryview(data)
    if len(view) < _HEADER.size:
        raise WireError(
            f"{len(view)} bytes that are no packet: expected {_HEADER.size} or more; the sender stopped half-way"
        )
    magic, check, version, codec_bytes, round_, sender, sequence, payload_bytes = _HEADER.unpack_from(view)
    if magic != _MAGIC:
        raise WireError(f"bytes that begin with {magic!r} are no packet: expected {_MAGIC!r}; post Packet.to_bytes()")
    if version != _VERSION:
        raise WireError(
            f"packet of version {version}, this side reads {_VERSION}; install the same flower-edge version everywhere"
        )
    if len(view) != (announced := _HEADER.size + codec_bytes + payload_bytes) or codec_bytes > LONGEST_CODEC:
        raise WireError(
            f"packet of {len(view)} bytes that announces {announced}, {codec_bytes} of them for its codec's text: "
            "it was cut off or altered on the way"
        )
    if zlib.crc32(view[_CHECKED:]) != check:
        raise WireError(f"packet of {len(view)} bytes with a wrong check sum: it was altered on the way")
    codec = bytes(view[_HEADER.size : _HEADER.size + codec_bytes]).decode("ascii", "replace")
    if not _CODEC.fullmatch(codec) or round_ >= 1 << 63:
        raise WireError(
            f"packet of round {round_} with codec {codec[:80]!r}: made by something that is not flower-edge"
        )
    return Header(round_, sender, sequence, codec, payload_bytes)
