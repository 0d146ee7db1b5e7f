"""Which of several codes of about as many bytes to take: each is regressed for a moment, and the best one is kept.

Nothing here trains for good: what is learnt is thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from logging import getLogger
from typing import NamedTuple

import numpy as np
import torch

from ..errors import FringeError
from .distil_losses_torch import regression_loss
from .pair_shapes import PairShape
from .pair_torch import Pair, check_tensors

__all__ = ["Tried", "tried_shapes"]

log = getLogger(__name__)


class Tried(NamedTuple):
    """A shape, and which share of the tensors' variance a short regression left over on samples it had not seen."""

    shape: PairShape
    error: float


def tried_shapes(
    tensors: Sequence[torch.Tensor],
    shapes: Sequence[PairShape],
    *,
    steps: int = 60,
    batch: int = 32,
    lr: float = 4e-3,
    seed: int = 0,
) -> tuple[Tried, ...]:
    """The shapes, that with the least error first. All see the same batches.

    Args:
        tensors: activations at the connection, [samples, *shape] each; a fifth is kept to compare on.
        shapes: as `pair_shapes` lists them.
        steps, batch, lr: of Adam.
        seed: of initial parameters and batches.

    Raises:
        FringeError: fewer than ten samples, or tensors that the shapes are not for.
    """
    samples = len(tensors[0]) if tensors else 0
    if samples < 10:
        raise FringeError(f"{samples} samples to try codes on; expected 10 or more")
    for shape in shapes:
        check_tensors(shape, tensors)
    kept = samples // 5
    seen, unseen = [one[kept:] for one in tensors], [one[:kept] for one in tensors]
    variance = sum(float(one.var(dim=0, correction=0).sum()) for one in unseen)
    found = []
    for shape in shapes:
        pair = Pair(shape, seed=seed).to(tensors[0].device)
        pair.fit(seen)
        optimiser = torch.optim.Adam(pair.parameters(), lr=lr)
        rng = np.random.default_rng(seed)
        pair.train()
        for _ in range(steps):
            chosen = torch.from_numpy(rng.integers(0, samples - kept, size=max(2, batch))).to(tensors[0].device)
            optimiser.zero_grad()
            given = [one[chosen] for one in seen]
            with torch.enable_grad():
                regression_loss(pair(*given), given, variance).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        pair.eval()
        with torch.no_grad():
            left = float(regression_loss(pair(*unseen), unseen, variance))
        log.info("code %s of %d bytes: %.3g of the variance left over", shape.code, shape.size_bytes, left)
        found.append(Tried(shape, left))
    return tuple(sorted(found, key=lambda one: (one.error, one.shape.size_bytes)))
