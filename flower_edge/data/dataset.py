"""What a data set is here: samples, targets, and how many classes there are.

A value. It neither reads files nor draws batches.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

#: One class per sample.
CLASSIFICATION = "classification"
#: One class per position: the symbol that follows.
NEXT_CHARACTER = "next-character"


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples and their targets, samples axis first.

    Attributes:
        name: as `load_dataset` knows it.
        x: float32 [samples, ...] (pictures [samples, channels, height, width], flows [samples, features]) or int64
            [samples, context] (symbols).
        y: int64 [samples], or [samples, context] when the task is "next-character"; values 0..num_classes-1.
        num_classes: how many values a target can take.
        task: "classification" or "next-character".
        groups: int64 [samples], who wrote or collected each sample; None when only its class is known.

    Raises:
        DataError: lengths, dtypes or targets that contradict each other.

    >>> flows = Dataset("demo", np.zeros((3, 2), np.float32), np.array([0, 1, 1]), 2, "classification")
    >>> len(flows), flows.input_shape, flows.subset(np.array([2])).y
    (3, (2,), array([1]))
    """

    name: str
    x: NDArray[Any]
    y: NDArray[np.int64]
    num_classes: int
    task: str
    groups: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y):
            raise DataError(f"data set {self.name!r} has {len(self.x)} samples but {len(self.y)} targets")
        if self.y.dtype != np.int64:
            raise DataError(f"data set {self.name!r} has targets of {self.y.dtype}; use y.astype(np.int64)")
        wanted = {CLASSIFICATION: self.y.shape[:1], NEXT_CHARACTER: self.x.shape}
        if self.task not in wanted:
            raise DataError(f"data set {self.name!r} has task {self.task!r}; use one of {', '.join(wanted)}")
        if self.y.shape != wanted[self.task]:
            raise DataError(
                f"data set {self.name!r} has targets of shape {self.y.shape}; {self.task} needs {wanted[self.task]}"
            )
        if self.y.size and not 0 <= self.y.min() <= self.y.max() < self.num_classes:
            raise DataError(
                f"data set {self.name!r} has targets {self.y.min()}..{self.y.max()}; "
                f"{self.num_classes} classes are 0..{self.num_classes - 1}"
            )
        if self.groups is not None and self.groups.shape != self.y.shape[:1]:
            raise DataError(f"data set {self.name!r} has groups of shape {self.groups.shape}; give one per sample")

    def __len__(self) -> int:
        return len(self.x)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.x.shape[1:]

    @property
    def labels(self) -> NDArray[np.int64]:
        """What a partition goes by, int64 [samples]: the class of a sample, or its group where targets are sequences.

        Raises:
            DataError: targets are sequences and there are no groups.
        """
        if self.y.ndim == 1:
            return self.y
        if self.groups is None:
            raise DataError(f"data set {self.name!r} has neither one class nor one group per sample; pass groups=...")
        return self.groups

    def subset(self, indices: NDArray[np.int64]) -> Dataset:
        """The named samples, in the order named; a copy, so that nodes never share memory."""
        groups = None if self.groups is None else self.groups[indices]
        return replace(self, x=self.x[indices], y=self.y[indices], groups=groups)
