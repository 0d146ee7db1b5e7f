"""`Learning`: the inputs that a controller heals and distils with, and a name of theirs that can be kept.

Inputs may be what a pipeline saw while it served. They are nobody's to write down, so of them a controller keeps no
more than a SHA-256: enough to know after a restart whether those at hand are the same. Nothing here trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..errors import FringeError
from .digest_torch import together
from .pipeline_torch import Pipeline

__all__ = ["Learning"]

#: Fewer say nothing of how channels go together.
_LEAST = 10


@dataclass(frozen=True, eq=False)
class Learning:
    """Make one with `of`.

    Attributes:
        samples: inputs [samples, ...], at least 10.
        labels: [samples, ...] of the same, for distillation; None: there are none.
    """

    samples: torch.Tensor
    labels: torch.Tensor | None = None

    @classmethod
    def of(
        cls, pipeline: Pipeline, samples: torch.Tensor | npt.NDArray[Any], labels: torch.Tensor | None = None
    ) -> Learning:
        """Copies, if a pipeline takes them.

        Raises:
            FringeError: inputs of another shape or dtype, fewer than 10, not finite, or with other labels than that.
        """
        given = torch.from_numpy(np.array(samples)) if isinstance(samples, np.ndarray) else samples.detach().clone()
        wanted = pipeline.example
        if given.dim() < 1 or given.shape[1:] != wanted.shape[1:] or given.dtype != wanted.dtype:
            raise FringeError(
                f"samples {list(given.shape)} of {given.dtype} to learn from; expected [samples, "
                f"{', '.join(map(str, wanted.shape[1:]))}] of {wanted.dtype}, as the pipeline takes them"
            )
        if len(given) < _LEAST:
            raise FringeError(f"{len(given)} samples to learn from: expected {_LEAST} or more, better hundreds")
        if given.is_floating_point() and not torch.isfinite(given).all():
            raise FringeError("samples to learn from that are not finite; leave those out")
        if labels is not None and len(labels) != len(given):
            raise FringeError(f"{len(labels)} labels of {len(given)} samples: expected one each, or labels=None")
        return cls(given, None if labels is None else labels.detach().clone())

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over samples and labels."""
        tensors = {"samples": self.samples} | ({} if self.labels is None else {"labels": self.labels})
        return together(tensors)

    def about(self) -> dict[str, Any]:
        """Plain values, for the state of a controller."""
        return {"digest": self.digest, "samples": len(self.samples), "labelled": self.labels is not None}

    def refuse_other(self, about: object) -> None:
        """
        Raises:
            FringeError: `about` was said of others; of none nothing is said.
        """
        if isinstance(about, Mapping) and about.get("digest") != self.digest:
            raise FringeError(
                f"state of a controller that learned from {about.get('samples')} samples of digest "
                f"{str(about.get('digest'))[:12]}, these are {len(self.samples)} of {self.digest[:12]}; give those, or "
                "go on with these, which it would not have done without a restart: other_samples=True"
            )
