"""How fast codecs are on this machine, one core: beside memcpy, and beside what one would type without them.

25,000,000 float32 numbers, 100 MB. Each time is taken next to a memcpy of the same numbers, and the ratio is the median
of such pairs; an encoder makes new bytes and a decoder a new vector, or a sparse one. Nothing here is learned.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from flower_edge.codecs.block import Block
from flower_edge.codecs.eden import Eden
from flower_edge.codecs.error_feedback import stc
from flower_edge.codecs.kernels import available, using
from flower_edge.codecs.layout import Layout
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.vector_codec import VectorCodec

from .harness.figures import mean_and_error

__all__ = ["CODECS", "SIZE", "measure_speed"]

SIZE: Final = 25_000_000
CODECS: Final[Mapping[str, VectorCodec]] = {
    "int8": Block(bits=8),
    "int4": Block(bits=4),
    "eden": Eden(bits=1),
    "ef_topk": stc(0.01),
}
_QUICK, _FULL = 5, 15
#: zlib is so slow that it gets a part of the numbers.
_ZLIB_SHARE: Final = 25

Floats = npt.NDArray[np.float32]


def measure_speed(say: Callable[[str], None], *, quick: bool, size: int = SIZE) -> dict[str, Any]:
    """Speeds of all codecs, with compiled kernels and without, and of peers.

    Returns:
        `encode_over_memcpy.…`, `decode_over_memcpy.…` with `_se`, `fallback_gb_per_s_min`, and `speed`: GB/s by name.
    """
    torch.set_num_threads(1)
    v = np.random.default_rng(0).standard_normal(size, dtype=np.float32)
    times = _QUICK if quick else _FULL
    figures: dict[str, Any] = {}
    speeds: dict[str, Any] = {}
    slowest = float("inf")
    for name, codec in CODECS.items():
        speeds[name] = {"reference": _gb_per_s(codec, v, 1 if quick else 3, "reference")}
        slowest = min(slowest, *speeds[name]["reference"][:2])
        if available():
            encode, decode, ratios = _gb_per_s(codec, v, times, "fast")
            speeds[name]["fast"] = (encode, decode, ratios)
            for way, found in zip(("encode", "decode"), ratios, strict=True):
                key = f"{way}_over_memcpy.{name}"
                figures[key], figures[f"{key}_se"] = float(np.median(found)), mean_and_error(found)[1]
        say(f"    speed: {name}, GB/s {_said(speeds[name])}")
    figures["fallback_gb_per_s"] = slowest
    figures["speed"] = {
        **{
            f"{name} {way}, {path}": found[i]
            for name, of in speeds.items()
            for path, found in of.items()
            for i, way in enumerate(("encode", "decode"))
        },
        **_peers(v, say),
    }
    return figures


def _gb_per_s(
    codec: VectorCodec, v: Floats, times: int, path: Any
) -> tuple[float, float, tuple[list[float], list[float]]]:
    """Median GB/s of encoding and decoding, and each pair's ratio to memcpy."""
    layout, target = Layout.flat(v.size), np.empty_like(v)
    state, found = codec.start(layout), []
    with using(path):
        for number in range(times + 1):
            at = Moment(number)
            memcpy_s = _seconds(lambda: np.copyto(target, v))
            begin_s = time.perf_counter()
            data, state = codec.pack(v, layout, state, at)
            middle_s = time.perf_counter()
            codec.unpack(memoryview(data), layout, codec.start(layout), at)
            found.append((memcpy_s, middle_s - begin_s, time.perf_counter() - middle_s))
    timed = np.array(found[1:])  # the first compiles, or meets memory for the first time
    gb = v.nbytes / 1e9
    ratios = (timed[:, 0] / timed[:, 1]).tolist(), (timed[:, 0] / timed[:, 2]).tolist()
    encode_s, decode_s = np.median(timed[:, 1:], axis=0)
    return gb / float(encode_s), gb / float(decode_s), ratios


def _peers(v: Floats, say: Callable[[str], None]) -> dict[str, float]:
    """GB/s of what is at hand without a codec."""
    gb, k = v.nbytes / 1e9, v.size // 100
    target, part = np.empty_like(v), v[: v.size // _ZLIB_SHARE].tobytes()
    flat = torch.from_numpy(v)
    side = int(np.sqrt(v.size))
    matrix = flat[: side * side].view(side, side)
    found = {
        "memcpy": gb / min(_seconds(lambda: np.copyto(target, v)) for _ in range(5)),
        "np.argpartition 1 %": gb / _seconds(lambda: np.argpartition(np.abs(v), v.size - k)),
        "torch.topk 1 %": gb / _seconds(lambda: torch.topk(flat.abs(), k, sorted=False)),
        "zlib 1 of float32": len(part) / 1e9 / _seconds(lambda: zlib.compress(part, 1)),
        "torch PowerSGD maths, rank 4": 4e-9 * side * side / _seconds(lambda: powersgd_step(matrix, 4)),
    }
    say("    speed: peers, GB/s " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()))
    return found


def powersgd_step(matrix: torch.Tensor, rank: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """P and Q of a matrix as torch's hook computes them, without a process group.

    >>> m = torch.outer(torch.arange(3.0), torch.ones(2))
    >>> p, q = powersgd_step(m, 1)
    >>> bool(torch.allclose(p @ q.T, m, atol=1e-5))
    True
    """
    from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import _orthogonalize

    q = torch.randn(1, matrix.shape[1], rank, generator=torch.Generator().manual_seed(seed))
    _orthogonalize(q)  # type: ignore[no-untyped-call]
    p = matrix @ q
    _orthogonalize(p)  # type: ignore[no-untyped-call]
    return p[0], matrix.T @ p[0]


def _seconds(call: Callable[[], object]) -> float:
    begin_s = time.perf_counter()
    call()
    return time.perf_counter() - begin_s


def _said(of: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} {found[0]:.2f} / {found[1]:.2f}" for path, found in of.items())
