"""What a device's first batch of a round gives away: its inputs compared with the tensors that leave for the cloud.

Costs no pass through the model and changes none; see flower_edge/splitting/leakage.py for what the number says and does
not say.
"""

from __future__ import annotations

from dataclasses import dataclass
from logging import getLogger
from typing import Any, Final

import numpy.typing as npt

from flower_edge.errors import DataError
from flower_edge.models.schedule import make_schedule
from flower_edge.runtime.splitting.messages import SplitOrder
from flower_edge.splitting.frame import Frame
from flower_edge.splitting.leakage import distance_correlation
from flower_edge.splitting.standardise import Standard

from .split_stream import Talker

__all__ = ["Overheard"]

log = getLogger(__name__)

#: Of fewer samples the corrected distance correlation says nothing.
LEAST: Final = 4


@dataclass
class Overheard:
    """A device's work, of which the first frame is measured where the order says so.

    Attributes:
        work: what says and hears frames.
        order: which samples the first batch has, and how they are standardised.
        x, y: the device's samples and targets.
        leak: distance correlation, corrected, of the first batch's inputs as the model sees them with the tensors as
            they leave, noise included, before any codec; None before it, or where it cannot be measured.
    """

    work: Talker
    order: SplitOrder
    x: npt.NDArray[Any]
    y: npt.NDArray[Any]
    leak: float | None = None

    def next(self, incoming: Frame | None) -> Frame | None:
        """As the work does."""
        said = self.work.next(incoming)
        if self.order.gauge and incoming is None and said is not None:
            self.leak = self._measured(said)
        return said

    def _measured(self, said: Frame) -> float | None:
        work = self.order.work
        plan = make_schedule(
            self.x,
            self.y,
            steps=1,
            epochs=None,
            batch_size=work.batch_size,
            seed=work.seed,
            first_step=work.first_step,
        )
        _, batch = next(iter(plan))
        if len(batch) < LEAST:
            return None
        inputs = self.x[batch]
        if work.standard is not None:
            inputs = Standard.from_config(work.standard).apply(inputs)
        try:
            return distance_correlation(inputs, said.tensors, corrected=True)
        except DataError as error:
            log.warning("device %d tells no leakage: %s", work.number, error)
            return None
