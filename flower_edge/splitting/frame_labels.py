"""`LabelForm`: labels that travel with a frame, in as few bytes as the number of classes needs."""

from __future__ import annotations

import math
import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import SplitError
from .frame_reader import Reader
from .order import WorkOrder

__all__ = ["LabelForm"]

#: Samples, and what a label may have besides, such as a context.
_MOST_AXES: Final = 6
_FLOAT: Final = np.dtype("<f4")


class LabelForm:
    """How the labels of an order are written.

    Classes of a cross entropy are whole numbers from 0 to classes - 1, decoded as int64; the numbers of a squared error
    are float32, as they are.

    Args:
        order: names the loss and the number of classes.
        most_values: of one sample's labels: a model has at least as many outputs.
    """

    def __init__(self, order: WorkOrder, most_values: int) -> None:
        self._classes = order.architecture.num_classes if order.loss == "cross-entropy" else 0
        self._batch_size, self._most_values = order.batch_size, max(most_values, 1)
        fits = [np.dtype(text) for text in ("u1", "<u2", "<u4", "<i8")]
        whole = next(dtype for dtype in fits if self._classes - 1 <= np.iinfo(dtype).max)
        self._dtype: np.dtype[Any] = whole if self._classes else _FLOAT

    def most_bytes(self) -> int:
        """No batch's labels are longer."""
        return 4 * _MOST_AXES + self._batch_size * self._most_values * self._dtype.itemsize

    def encode(self, labels: npt.NDArray[Any] | None, batch: int) -> tuple[bytes, int]:
        """The bytes of labels, and how many axes they have.

        Raises:
            SplitError: none, of another batch, or no label that this loss can take.
        """
        if labels is None:
            raise SplitError("ACTIVATIONS without labels, which the cloud needs for the loss; set labels='device'?")
        found = np.asarray(labels)
        if not found.ndim or len(found) != batch or found.ndim > _MOST_AXES:
            raise SplitError(f"labels of shape {found.shape}, expected {batch} of them")
        if not 1 <= math.prod(found.shape[1:]) <= self._most_values:
            raise SplitError(f"labels of shape {found.shape}, expected 1 to {self._most_values} per sample")
        if self._classes:
            if found.dtype.kind not in "iu":
                raise SplitError(f"labels of {found.dtype}, expected whole numbers for a cross entropy, or loss='mse'")
            if found.size and not 0 <= int(found.min()) <= int(found.max()) < self._classes:
                bad = found[(found < 0) | (found >= self._classes)].flat[0]
                raise SplitError(f"label {bad}, expected 0 to {self._classes - 1}")
        elif found.dtype.kind not in "fiu" or not np.isfinite(found.astype(_FLOAT)).all():
            raise SplitError(f"labels of {found.dtype}, expected finite numbers for loss='mse'")
        lengths = struct.pack(f"<{found.ndim - 1}I", *found.shape[1:])
        return lengths + np.ascontiguousarray(found).astype(self._dtype).tobytes(), found.ndim

    def decode(self, reader: Reader, axes: int, batch: int) -> npt.NDArray[Any]:
        """int64 or float32 [batch, ...].

        Raises:
            ProtocolError: no labels of this order.
        """
        if not 1 <= axes <= _MOST_AXES:
            raise reader.error(f"axes of labels = {axes}, expected 1 to {_MOST_AXES}")
        shape = (batch, *reader.unpack(struct.Struct(f"<{axes - 1}I"), "lengths of the labels' axes"))
        if not 1 <= math.prod(shape[1:]) <= self._most_values:
            raise reader.error(f"labels of shape {shape}, expected 1 to {self._most_values} per sample")
        found = np.frombuffer(reader.take(math.prod(shape) * self._dtype.itemsize, "labels"), self._dtype)
        if not self._classes:
            if not np.isfinite(found).all():
                raise reader.error("labels with a value that is not finite")
            return found.astype(np.float32).reshape(shape)
        if found.size and not 0 <= int(found.min()) <= int(found.max()) < self._classes:
            bad = found[(found < 0) | (found >= self._classes)][0]
            raise reader.error(f"label {bad}, expected 0 to {self._classes - 1}")
        return found.astype(np.int64).reshape(shape)
