"""SHA-256 over parameters and buffers, and `FrozenProof`: what was frozen is, bit for bit, what it was.

Nothing here freezes: see `freezing_torch`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import FringeError, FrozenMoved
from .pipeline_torch import Pipeline

__all__ = ["FrozenProof", "digest", "digests", "together"]


def digests(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """By name, SHA-256 (hex) over name, dtype, shape and bytes.

    >>> a, b = torch.zeros(2), torch.zeros(2, 1)
    >>> digests({"w": a}) == digests({"w": a.clone()}), digests({"w": a}) == digests({"w": b})
    (True, False)
    """
    found = {}
    for name, tensor in tensors.items():
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        # The head as JSON, so that no two of (name, dtype, shape) are written alike. float32 little-endian everywhere.
        head = json.dumps([name, array.dtype.name, list(tensor.shape)]).encode()
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        found[name] = hashlib.sha256(head + b"\n" + little.tobytes()).hexdigest()
    return found


def digest(pipeline: Pipeline, names: Collection[str] | None = None) -> str:
    """SHA-256 (hex) of some of a pipeline's parameters and buffers, or of all. Their order does not matter.

    Raises:
        FringeError: no such array.
    """
    return together(_chosen(pipeline, names))


def _chosen(pipeline: Pipeline, names: Collection[str] | None) -> dict[str, torch.Tensor]:
    held = pipeline.named_tensors()
    if names is None:
        return held
    missing = [name for name in names if name not in held]
    if missing:
        raise FringeError(f"no array {missing[0]!r} on {', '.join(pipeline.machines)}; names are the model's own")
    return {name: held[name] for name in names}


def together(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 (hex) over all of them, whatever their order."""
    return _together(digests(tensors))


def _together(found: Mapping[str, str]) -> str:
    return hashlib.sha256("\n".join(found[name] for name in sorted(found)).encode()).hexdigest()


@dataclass(frozen=True)
class FrozenProof:
    """What some arrays were at one moment; `check` compares. Cheap enough for every iteration.

    Attributes:
        digests: by name.
    """

    digests: Mapping[str, str]

    @classmethod
    def of(cls, pipeline: Pipeline, names: Collection[str]) -> FrozenProof:
        """Of these arrays as they are now.

        Raises:
            FringeError: no such array.
        """
        return cls(digests(_chosen(pipeline, names)))

    @property
    def digest(self) -> str:
        """Of all of them, as `digest(pipeline, names)` gives it: one line for a report."""
        return _together(self.digests)

    def moved(self, pipeline: Pipeline) -> tuple[str, ...]:
        """Names of those that are not what they were, or are gone."""
        held = pipeline.named_tensors()
        now = digests({name: held[name] for name in self.digests if name in held})
        return tuple(name for name, before in self.digests.items() if now.get(name) != before)

    def check(self, pipeline: Pipeline) -> str:
        """The digest, if nothing moved.

        Raises:
            FrozenMoved: names what did.
        """
        moved = self.moved(pipeline)
        if moved:
            held = pipeline.named_tensors()
            how = "is another" if moved[0] in held else "is gone"
            more = f", and {len(moved) - 1} more" if len(moved) > 1 else ""
            raise FrozenMoved(
                f"frozen array {moved[0]!r} {how}{more}, of {len(self.digests)}; call freeze(pipeline, fringe) before "
                "training, and give the optimiser fringe.parameters(pipeline) only"
            )
        return self.digest

    def state(self) -> dict[str, Any]:
        """By name, the digest; `FrozenProof(state)` is its inverse."""
        return dict(self.digests)
