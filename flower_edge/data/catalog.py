"""Data sets by name, as run configs name them.

It only looks up: each data set lives in a file of its own.
"""

from __future__ import annotations

import difflib
import os

from ..errors import ConfigError
from .characters import characters
from .clutter import SIDE, clutter
from .dataset import Dataset
from .digits import load_digits
from .idx import FOLDERS, load_idx
from .network_traffic import network_traffic

#: Where data sets that cannot be embedded are looked for when no path is given.
DATA_VARIABLE = "FLOWER_EDGE_DATA"
DATASETS = ("digits", "mnist", "fashion-mnist", "network-traffic", "characters", "clutter")


def load_dataset(
    name: str, *, path: str | os.PathLike[str] | None = None, size: int | None = None, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """A data set by name, as (train, test). The same arguments give the same arrays.

    Args:
        name: one of `DATASETS`.
        path: the folder that holds MNIST/raw/ or FashionMNIST/raw/; without it the environment variable
            FLOWER_EDGE_DATA. The other data sets need no files and ignore it.
        size: pixels a side for pictures: 8, 28 or 32 for digits, 28 or 32 for the MNISTs, 32 for clutter. None: as
            stored.
        seed: draws what is synthetic, and which digits are for testing. The MNISTs have a fixed split. The validation
            part of clutter is not among the two: see `clutter`.

    Raises:
        ConfigError: an unknown name, a size the data set does not come in, a negative seed, or an optional package not
            installed.
        DataError: files that are missing or damaged.
    """
    if seed < 0:
        raise ConfigError(f"seed = {seed}; use 0 or more")
    if name in FOLDERS:
        return load_idx(name, path or os.environ.get(DATA_VARIABLE), size)
    if name == "digits":
        return load_digits(size, seed)
    if name == "clutter":
        if size not in (None, SIDE):
            raise ConfigError(f"clutter of size {size!r}; use {SIDE}, or leave size out")
        parts = clutter(seed)
        return parts.train, parts.test
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(DATASETS)}"
        raise ConfigError(f"unknown data set {name!r}; {hint}")
    if size is not None:
        raise ConfigError(f"data set {name!r} has no pictures, so no size ({size!r} came); leave size out")
    return network_traffic(seed=seed) if name == "network-traffic" else characters(seed=seed)
