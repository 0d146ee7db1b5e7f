"""The machines of one device's round, by one name: they talk in `Frame`s, and whatever carries those is not here.

    DeviceWork.next  ->  ACTIVATIONS      ->  CloudWork.answer            labels on the cloud
                     <-  GRADIENT         <-

    DeviceWork.next  ->  ACTIVATIONS      ->  CloudWork.answer            labels on the device (U-shape)
                     <-  OUTPUTS          <-
                     ->  OUTPUT_GRADIENT  ->
                     <-  GRADIENT         <-

`MiddleWork` stands between the two. `converse` passes frames in this process.
"""

from __future__ import annotations

from collections.abc import Callable

from .cloud_work_torch import CloudHalf, CloudWork
from .device_work_torch import DeviceWork
from .frame import Frame
from .halves_torch import let_go
from .middle_work_torch import MiddleWork
from .results import WorkResult

__all__ = ["CloudHalf", "CloudWork", "DeviceWork", "MiddleWork", "WorkResult", "converse", "let_go"]


def converse(device: DeviceWork, answer: Callable[[Frame], Frame]) -> int:
    """All that is left of a device's round.

    Args:
        device: between two steps.
        answer: the other end, for example `CloudWork.answer`; not called where the whole model is the device's.

    Returns:
        How many frames the device has said.
    """
    said, frame = 0, device.next(None)
    while frame is not None:
        said, frame = said + 1, device.next(answer(frame))
    return said
