"""What goes between a deployment's controller, its clients and its stages: purposes, asks and answers as bytes.

    control     controller -> stage      a tree that asks, a tree that answers; one at a time
    requests    client -> entry          frames of the entry's input, answered as below
    frames      stage -> next stage      frames of the connection's `Wire`, bytes as they are counted; of version 0:
                                         one that measures the link, see `probe_frame`

    RECEIVED    request, seconds                the frame has arrived so long ago: what links are measured by
    OUTPUT      request, version, tensor        what the last machine made of it; from there also RECEIVED's seconds
    FAILED      request, code, machine, text    which machine did not, and why

Everything that comes in is checked. Nothing here sends.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import EdgeError, NotServed, ProtocolError
from ...fringe.wire import HEADER_BYTES, TensorSpec, Wire
from ...store import tree_from_bytes, tree_to_bytes

__all__ = [
    "CONTROL",
    "FRAMES",
    "REQUESTS",
    "Failed",
    "Output",
    "Received",
    "input_wire",
    "pack_answer",
    "pack_tree",
    "probe_frame",
    "unpack_answer",
    "unpack_tree",
]

CONTROL: Final = "stage-control"
REQUESTS: Final = "stage-requests"
FRAMES: Final = "stage-frames"

#: Kind, request, version, and microseconds since the frame arrived; 0 where that is not said.
_HEAD: Final = struct.Struct(">BQII")
_RECEIVED, _OUTPUT, _FAILED = 1, 2, 3
#: The number of the connection between clients and the entry, which is none of the pipeline's.
_INPUT: Final = 0xFFFF


@dataclass(frozen=True)
class Received:
    """A frame has arrived whole.

    Attributes:
        request: its number.
        held_s: how long ago. Nobody who is served has to wait for a measurement: it is said when there is time.
    """

    request: int
    held_s: float = 0.0


@dataclass(frozen=True)
class Output:
    """What came out.

    Attributes:
        request: its number.
        version: that it went through.
        body: a tensor as bytes, see `tensor`; empty of a request that carried nothing.
        held_s: as of `Received`, which then is not sent; 0: it is.
    """

    request: int
    version: int
    body: bytes
    held_s: float = 0.0

    def tensor(self) -> npt.NDArray[Any]:
        """
        Raises:
            ProtocolError: bytes that hold none.
        """
        found = unpack_tree(self.body).get("output")
        if not isinstance(found, np.ndarray) or not found.ndim:
            raise ProtocolError(f"an answer that holds {type(found).__name__}, expected a tensor [batch, ...]")
        return found

    @classmethod
    def of(cls, request: int, version: int, tensor: npt.NDArray[Any] | None, held_s: float = 0.0) -> Output:
        """With a tensor [batch, ...]; None: of a request that carried nothing."""
        body = b"" if tensor is None else pack_tree({"output": np.ascontiguousarray(tensor)})
        return cls(request, version, body, held_s)


@dataclass(frozen=True)
class Failed:
    """Nothing came out."""

    request: int
    version: int
    code: str
    machine: str
    message: str

    def error(self) -> NotServed:
        """To be raised where it was asked."""
        return NotServed(f"machine {self.machine!r}: {self.message}", self.code)


Answer = Received | Output | Failed


def pack_answer(answer: Answer) -> bytes:
    """As bytes.

    >>> unpack_answer(pack_answer(Failed(7, 2, "busy", "camera", "64 requests wait")))
    Failed(request=7, version=2, code='busy', machine='camera', message='64 requests wait')
    """
    if isinstance(answer, Received):
        return _HEAD.pack(_RECEIVED, answer.request, 0, _microseconds(answer.held_s))
    if isinstance(answer, Output):
        head = _HEAD.pack(_OUTPUT, answer.request, answer.version, _microseconds(answer.held_s))
        return head + answer.body
    text = json.dumps([answer.code, answer.machine, answer.message[:1000]])
    return _HEAD.pack(_FAILED, answer.request, answer.version, 0) + text.encode()


def _microseconds(seconds: float) -> int:
    # What was held for less than one was held for one: 0 says nothing.
    return min(math.ceil(seconds * 1e6), 2**32 - 1) if seconds > 0 else 0


def unpack_answer(data: bytes) -> Answer:
    """Inverse of `pack_answer`.

    Raises:
        ProtocolError: bytes that it does not make.
    """
    if len(data) < _HEAD.size:
        raise ProtocolError(f"an answer of {len(data)} bytes, expected {_HEAD.size} or more")
    kind, request, version, held_us = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    if kind == _RECEIVED and not body:
        return Received(request, held_us / 1e6)
    if kind == _OUTPUT:
        return Output(request, version, body, held_us / 1e6)
    if kind == _FAILED and len(body) < 1 << 14:
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        if isinstance(said, list) and len(said) == 3 and all(isinstance(one, str) for one in said):
            return Failed(request, version, *said)
    raise ProtocolError(f"an answer that begins with {data[:8].hex()}; is the other end a stage of this version?")


def pack_tree(tree: Mapping[str, Any]) -> bytes:
    """Nested plain values and arrays as bytes."""
    return tree_to_bytes(dict(tree))


def unpack_tree(data: bytes) -> dict[str, Any]:
    """Inverse of `pack_tree`.

    Raises:
        ProtocolError: bytes that it does not make.
    """
    try:
        found = tree_from_bytes(data, source="a message")
    except EdgeError as error:
        raise ProtocolError(f"a message that cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ProtocolError(f"a message that holds a {type(found).__name__}, expected names and values")
    return found


_NOTHING: Final = Wire.plain([TensorSpec("nothing", (1,))])


def probe_frame(size_bytes: int, request: int) -> bytes:
    """A frame of no version, and of bytes that nobody on the way can make fewer; the other end says that it is there.

    >>> from flower_edge.fringe.wire import unchecked_head
    >>> unchecked_head(probe_frame(256, 7)), len(probe_frame(256, 7))
    (FrameHead(version=0, request=7, samples=0), 256)
    """
    return _NOTHING.empty(request=request) + os.urandom(size_bytes - HEADER_BYTES)


def input_wire(shape: tuple[int, ...], dtype: str) -> Wire:
    """Frames of requests: samples as they are.

    >>> input_wire((1, 16, 16), "float32").size_bytes()
    1048
    """
    return Wire.plain([TensorSpec("input", shape, dtype)], _INPUT)
