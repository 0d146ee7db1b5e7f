"""What the parts of `benchmarks.hierarchy` train on: the 10,000 images of MNIST that are for testing, 9,000 + 1,000.

Reads files once per process. Nothing here trains or deals samples to clients.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flower_edge.data import DATA_VARIABLE, load_dataset
from flower_edge.errors import DataError

__all__ = ["INPUTS", "Images", "data_folder", "images"]

INPUTS = 784
CLASSES = 10


@dataclass(frozen=True, eq=False)
class Images:
    """Samples float32 [images, 784] and classes int64 [images], for training and for testing."""

    x: NDArray[Any]
    y: NDArray[np.int64]
    test_x: NDArray[Any]
    test_y: NDArray[np.int64]


def data_folder() -> Path:
    """The folder with `MNIST/raw/`: FLOWER_EDGE_DATA, else data/ or shared/data/ in the checkout or beside it.

    Raises:
        DataError: none of them has the files.
    """
    root = Path(__file__).resolve().parents[1]
    beside = [folder / "data" for folder in (root, root / "shared", root.parent / "shared")]
    named = [Path(os.environ[DATA_VARIABLE])] if os.environ.get(DATA_VARIABLE) else []
    for folder in [*named, *beside, *(folder / "mnist10k" for folder in beside)]:
        if list(folder.glob("MNIST/raw/t10k-images-idx3-ubyte*")):
            return folder
    raise DataError(
        "no MNIST/raw/t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz were found; "
        f"docs/data.md says where to get them, {DATA_VARIABLE}=FOLDER says where they are"
    )


@lru_cache(maxsize=1)
def images() -> Images:
    """The images, pixels 0..1, cached; treat the arrays as read-only.

    Raises:
        DataError: the files are missing or damaged.
    """
    train, test = load_dataset("mnist", path=data_folder())
    return Images(train.x.reshape(-1, INPUTS), train.y, test.x.reshape(-1, INPUTS), test.y)
