"""Single weights of the fringe set to zero, and a sparse form to store them in.

This makes what is stored and shipped smaller. It does not change what crosses a connection at serving time by one byte,
and torch multiplies with zeros as with other numbers: no inference gets faster. For fewer bytes on the wire see
`wire_forms`. Nothing here sends.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..codecs.identity import Identity
from ..codecs.layout import Layout
from ..codecs.moment import NO_MOMENT
from ..codecs.sparse import dense
from ..codecs.top_k import TopK
from ..errors import CodecError, FringeError, ProtocolError
from .pipeline_torch import Pipeline

__all__ = ["SparseStorage", "keep_zeros", "pack_sparse", "prune_weights", "storage", "unpack_sparse"]

Array = npt.NDArray[Any]

#: All numbers but zeros, exactly; where they lie by the shorter of gaps and a bit per place.
_STORED = TopK(1.0, Identity(), "auto")


@dataclass(frozen=True)
class SparseStorage:
    """What pruning single weights changed, and what it did not.

    Attributes:
        numbers, zeros: of the arrays looked at.
        dense_bytes, sparse_bytes: of the same, stored as they are and by `pack_sparse`.
        wire_bytes: of one inference over all connections: the same as before.
    """

    numbers: int
    zeros: int
    dense_bytes: int
    sparse_bytes: int
    wire_bytes: int


def prune_weights(pipeline: Pipeline, names: Collection[str], fraction: float) -> tuple[Pipeline, dict[str, Array]]:
    """Set the smallest weights to zero, over all of these arrays together.

    Args:
        pipeline: stays as it is.
        names: of arrays, such as `Fringe.arrays`; of them, float32 parameters of two axes or more are pruned.
        fraction: of their numbers that are zero after, from 0 to 1 (without 1).

    Returns:
        A version on, and by name where a weight is kept, for `keep_zeros`.

    Raises:
        FringeError: a fraction that is none, no such array, or none with weights.

    Source: Han et al., "Learning both weights and connections for efficient neural networks", NeurIPS 2015.
    """
    if not 0.0 <= fraction < 1.0:
        raise FringeError(f"fraction = {fraction!r}: expected from 0 to below 1, such as 0.5")
    new = pipeline.copied()
    held = new.named_tensors()
    missing = [name for name in names if name not in held]
    if missing:
        raise FringeError(f"no array {missing[0]!r} on {', '.join(pipeline.machines)}; names are the model's own")
    weights = {
        name: held[name]
        for name in names
        if isinstance(held[name], torch.nn.Parameter) and held[name].dim() >= 2 and held[name].dtype == torch.float32
    }
    if not weights:
        raise FringeError(f"no weights among {', '.join(names) or 'no names'}; expected parameters of two axes or more")
    sizes = torch.cat([tensor.detach().abs().reshape(-1) for tensor in weights.values()])
    count = round(fraction * sizes.numel())
    kept = torch.ones(sizes.numel(), dtype=torch.bool)
    kept[torch.sort(sizes, stable=True).indices[:count]] = False
    masks: dict[str, Array] = {}
    at = 0
    for name, tensor in weights.items():
        masks[name] = kept[at : at + tensor.numel()].reshape(tensor.shape).numpy().copy()
        at += tensor.numel()
    keep_zeros(new, masks)
    return new.with_modules({}), masks


def keep_zeros(pipeline: Pipeline, masks: Mapping[str, Array]) -> None:
    """Set to zero what masks leave out; call it after every step of an optimiser.

    Raises:
        FringeError: no such array, or a mask of another shape.
    """
    held = pipeline.named_tensors()
    for name, mask in masks.items():
        if name not in held or tuple(held[name].shape) != mask.shape:
            found = tuple(held[name].shape) if name in held else "no array"
            raise FringeError(
                f"a mask {mask.shape} for {name!r}, which is {found}; expected the masks of this pipeline"
            )
        with torch.no_grad():
            held[name].mul_(torch.from_numpy(mask).to(held[name]))


def pack_sparse(arrays: Mapping[str, Array]) -> dict[str, bytes]:
    """float32 arrays by name to bytes that leave zeros out; exact, but that -0 becomes 0.

    Raises:
        CodecError: another dtype, or a number that is not finite.

    >>> {name: len(data) for name, data in pack_sparse({"w": np.eye(16, dtype=np.float32)}).items()}
    {'w': 78}
    """
    packed = {}
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise CodecError(f"{name!r} of {array.dtype}, expected float32; only weights are stored sparse")
        flat = np.ascontiguousarray(array).reshape(-1)
        packed[name] = _STORED.pack(flat, Layout((name,), (array.shape,)), {}, NO_MOMENT)[0]
    return packed


def unpack_sparse(packed: Mapping[str, bytes], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Inverse of `pack_sparse`.

    Args:
        packed: by name, as received.
        shapes: of the same arrays.

    Raises:
        ProtocolError: other names, or bytes that `pack_sparse` does not make.
    """
    if set(packed) != set(shapes):
        other = sorted(set(packed) ^ set(shapes))
        raise ProtocolError(f"arrays {other} are in one of bytes and shapes only; expected the same names")
    found: dict[str, Array] = {}
    for name, shape in shapes.items():
        try:
            update = _STORED.unpack(memoryview(packed[name]), Layout((name,), (shape,)), {}, NO_MOMENT)[0]
        except CodecError as error:
            raise ProtocolError(f"array {name!r}: {error}") from error
        found[name] = dense(update).reshape(shape)
    return found


def storage(pipeline: Pipeline, names: Collection[str]) -> SparseStorage:
    """What these arrays take, dense and sparse; whole numbers and others than float32 are left out.

    Raises:
        FringeError: no such array.
    """
    held = pipeline.named_tensors()
    missing = [name for name in names if name not in held]
    if missing:
        raise FringeError(f"no array {missing[0]!r} on {', '.join(pipeline.machines)}; names are the model's own")
    arrays = {n: held[n].detach().cpu().numpy() for n in names if held[n].dtype == torch.float32}
    return SparseStorage(
        sum(array.size for array in arrays.values()),
        sum(int((array == 0).sum()) for array in arrays.values()),
        sum(array.nbytes for array in arrays.values()),
        sum(map(len, pack_sparse(arrays).values())),
        sum(connection.size_bytes for connection in pipeline.connections),
    )
