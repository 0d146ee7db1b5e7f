"""`TrainingSet`: samples, targets and the card that says what they are; `SetSpec`: which sets are taken at all.

The same value for what a terminal collected, an edge provides and another terminal shared. Nothing is sent here, and
nothing is decided about who may have it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DataError
from .anonymity import k_anonymity
from .card import DataCard, Origin

__all__ = ["SetSpec", "TrainingSet", "draw"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Samples with their card; make it with `TrainingSet.of`, which fills in the card.

    Attributes:
        x: numbers or bools, [samples, ...].
        y: numbers, [samples, ...].
        card: what the set is; counts and bytes are those of the arrays.
        columns: names of the columns of x where it is a table [samples, columns].

    Raises:
        DataError: arrays that do not fit together, no numbers, or a card that counts something else.
    """

    x: Array
    y: Array
    card: DataCard
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("x", "y"):
            array = getattr(self, name)
            if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.ndim < 1:
                kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
                raise DataError(f"set {self.card.name!r}: {name} is {kind}; expected an array of numbers [samples, …]")
        if not len(self.x) == len(self.y) == self.card.samples:
            raise DataError(
                f"set {self.card.name!r} has {len(self.x)} samples, {len(self.y)} targets and a card that says "
                f"{self.card.samples}; make it with TrainingSet.of(x, y, …)"
            )
        if self.columns and self.x.shape[1:] != (len(self.columns),):
            raise DataError(
                f"set {self.card.name!r}: {len(self.columns)} column names for x of shape {self.x.shape}; "
                "expected [samples, columns]"
            )

    @classmethod
    def of(
        cls,
        x: Array,
        y: Array,
        *,
        name: str = "own",
        owner: str = "",
        classes: int | None = None,
        made_at_s: float | None = None,
        uses: int = 0,
        public: bool = False,
        anonymous: bool = False,
        columns: Sequence[str] = (),
        quasi_identifiers: Sequence[str] = (),
        origin: Origin = "collected",
    ) -> TrainingSet:
        """A set with a card that was counted and measured from it; arguments as `DataCard` has them.

        >>> TrainingSet.of(np.zeros((3, 2), np.float32), np.array([0, 1, 1]), classes=2).card.size_bytes
        48
        """
        card = DataCard(
            name,
            owner,
            samples=len(x),
            size_bytes=x.nbytes + y.nbytes,
            shape="x".join(map(str, x.shape[1:])),
            classes=classes,
            made_at_s=made_at_s,
            uses=uses,
            public=public,
            anonymous=anonymous,
            quasi_identifiers=tuple(quasi_identifiers),
            origin=origin,
        )
        return cls(x, y, card, tuple(columns)).measured()

    def __len__(self) -> int:
        return len(self.x)

    def measured(self, also: Sequence[str] = ()) -> TrainingSet:
        """The same with `k` measured over its quasi-identifiers and `also`; without any, `k` is None.

        Raises:
            DataError: a quasi-identifier is not one of `columns`.
        """
        wanted = tuple(dict.fromkeys([*self.card.quasi_identifiers, *also]))
        if not wanted:
            return replace(self, card=replace(self.card, k=None))
        table = {name: self.x[:, place] for place, name in enumerate(self.columns)}
        return replace(self, card=replace(self.card, quasi_identifiers=wanted, k=k_anonymity(table, wanted)))

    def rows(self, which: npt.NDArray[np.int64]) -> TrainingSet:
        """Some samples, in the order named, as copies; counted and, where it is a table, measured anew.

        A part of a k-anonymous table need not be: groups are smaller in it.
        """
        x, y = self.x[which], self.y[which]
        card = replace(self.card, samples=len(x), size_bytes=x.nbytes + y.nbytes)
        return TrainingSet(x, y, card, self.columns).measured()


@dataclass(frozen=True)
class SetSpec:
    """Which arrays are taken: all sets of a task have the same samples.

    Attributes:
        shape: of one sample.
        dtype: of samples.
        target_dtype: of targets, whose shape is [samples].
        classes: targets are 0 … classes-1; None for targets that are not classes.
        columns: names of the columns, where a sample is a row of a table.
        quasi_identifiers: columns over which k is measured, whatever the owner names.

    Raises:
        ConfigError: a dtype of no numbers, or names that are not those of the columns.

    >>> SetSpec((2,), classes=3).wrong(np.zeros((4, 2), np.float32), np.array([0, 1, 2, 3]))
    'targets 0..3, expected 0..2'
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    target_dtype: str = "int64"
    classes: int | None = None
    columns: tuple[str, ...] = ()
    quasi_identifiers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for dtype in (self.dtype, self.target_dtype):
            try:
                good = np.dtype(dtype).kind in "biuf" and str(np.dtype(dtype)) == dtype
            except TypeError:
                good = False
            if not good:
                raise ConfigError(f"SetSpec: dtype {dtype!r}; expected one of numbers, such as 'float32' or 'int64'")
        if self.columns and self.shape != (len(self.columns),):
            raise ConfigError(
                f"SetSpec: {len(self.columns)} columns and samples of shape {self.shape}; give one name each"
            )
        if missing := [name for name in self.quasi_identifiers if name not in self.columns]:
            raise ConfigError(f"SetSpec: quasi-identifiers {', '.join(missing)} are not among columns={self.columns}")

    @classmethod
    def like(cls, one: TrainingSet) -> SetSpec:
        """The spec of sets like this one."""
        return cls(
            one.x.shape[1:],
            str(one.x.dtype),
            str(one.y.dtype),
            one.card.classes,
            one.columns,
            one.card.quasi_identifiers,
        )

    @property
    def row_bytes(self) -> int:
        """Of one sample with its target."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize + np.dtype(self.target_dtype).itemsize

    def wrong(self, x: Array, y: Array) -> str:
        """Why these arrays are not taken, in words; "" if they are."""
        wanted = {"x": (self.dtype, self.shape), "y": (self.target_dtype, ())}
        for name, array in (("x", x), ("y", y)):
            dtype, shape = wanted[name]
            if str(array.dtype) != dtype or array.shape[1:] != shape or array.ndim < 1:
                return f"{name} is {array.dtype} {array.shape}, expected {dtype} [samples, {shape}]"
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                return f"{name} has numbers that are not finite"
        if len(x) != len(y):
            return f"{len(x)} samples and {len(y)} targets"
        if self.classes is not None and len(y) and not 0 <= y.min() <= y.max() < self.classes:
            return f"targets {y.min()}..{y.max()}, expected 0..{self.classes - 1}"
        return ""


def draw(samples: int, share: float, most: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Which samples of a set are shared: a part drawn without replacement, rounded up, in rising order.

    >>> draw(10, 0.25, None, seed=0).shape, draw(10, 1.0, 4, seed=0).shape, draw(0, 0.5, None, seed=0).shape
    ((3,), (4,), (0,))
    """
    # Rounded first: 0.05 · 780 is 39.00000000000001 in floats and 39 samples.
    count = min(math.ceil(round(share * samples, 9)), samples if most is None else most)
    chosen = np.random.default_rng(seed).permutation(samples)[:count]
    return np.sort(chosen).astype(np.int64)
