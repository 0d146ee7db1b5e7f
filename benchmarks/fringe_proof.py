"""`Watch`: whether frozen arrays stay as they were, and what is rolled back is again what it was, byte for byte.

The controller and `distil` check digests of their own. A benchmark that trusted them would measure nothing, so here
whole bytes are compared with copies that were taken before: no digest, and no code of theirs but the naming of arrays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flower_edge.fringe import Pipeline
from flower_edge.store import tree_to_bytes

__all__ = ["Watch", "pipeline_bytes"]


def pipeline_bytes(pipeline: Pipeline) -> bytes:
    """Everything that a pipeline is: arrays, wire forms and version."""
    return tree_to_bytes(pipeline.state())


class Watch:
    """Looks at a pipeline after every iteration.

    Args:
        pipeline: before any compression; its frozen arrays are copied.
        frozen: their names.

    Attributes:
        frozen_equal: they always were what they were at the beginning.
        rollback_equal: every iteration that was not accepted left the pipeline as it was before, and every version that
            was gone back to was what it had been.
        checked: how often frozen arrays were compared.
        rolled_back: how often a pipeline was compared after a roll back.
    """

    def __init__(self, pipeline: Pipeline, frozen: Sequence[str]) -> None:
        held = pipeline.named_tensors()
        self._frozen = {name: _bytes(held[name].detach().cpu().numpy()) for name in frozen}
        self._now = pipeline_bytes(pipeline)
        self.frozen_equal, self.rollback_equal = True, True
        self.checked = self.rolled_back = 0

    def frozen(self, pipeline: Pipeline) -> None:
        """Compare the frozen arrays only."""
        held = pipeline.named_tensors()
        same = all(
            name in held and _bytes(held[name].detach().cpu().numpy()) == kept for name, kept in self._frozen.items()
        )
        self.frozen_equal, self.checked = self.frozen_equal and same, self.checked + 1

    def iteration(self, pipeline: Pipeline, accepted: bool) -> bytes:
        """After an iteration: the pipeline as it is now.

        Returns:
            Its bytes.
        """
        self.frozen(pipeline)
        now = pipeline_bytes(pipeline)
        if not accepted:
            self.rollback_equal, self.rolled_back = self.rollback_equal and now == self._now, self.rolled_back + 1
        self._now = now
        return now

    def gone_back(self, pipeline: Pipeline, to: bytes) -> None:
        """After a roll back to a version that was `to`."""
        self.frozen(pipeline)
        self._now = pipeline_bytes(pipeline)
        self.rollback_equal, self.rolled_back = self.rollback_equal and self._now == to, self.rolled_back + 1


def _bytes(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> tuple[str, tuple[int, ...], bytes]:
    return str(array.dtype), array.shape, array.tobytes()
