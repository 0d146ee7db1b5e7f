"""The 1,797 handwritten digits that come inside scikit-learn: real pictures without a download.

8x8 grey pictures, optionally enlarged to the sizes LeNet-5 was drawn for. Enlarging adds no information.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998 (its test part).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from ..errors import ConfigError
from .dataset import CLASSIFICATION, Dataset
from .extras import missing_extra

#: Pixels along one side, as stored.
NATIVE_SIZE = 8
SIZES = (NATIVE_SIZE, 28, 32)
TEST_SHARE = 0.2


def enlarge(pictures: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Square pictures [samples, channels, side, side] enlarged to `size` pixels a side, bilinearly.

    Pixels are areas, not points: the outermost rows keep their place, as in torch with align_corners=False.

    >>> enlarge(np.array([[[[0.0, 1.0], [0.0, 1.0]]]], np.float32), 4)[0, 0, 0]
    array([0.  , 0.25, 0.75, 1.  ], dtype=float32)
    """
    factor = size / pictures.shape[-1]
    out = zoom(pictures, (1, 1, factor, factor), order=1, mode="nearest", grid_mode=True)
    return np.asarray(out, dtype=np.float32)


def load_digits(size: int | None = None, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Train (1,437) and test (360) digits, every class in the same proportion in both.

    Args:
        size: pixels a side: 8 (as stored, also None), 28 or 32.
        seed: which digits are for testing; also the order of the samples.

    Returns:
        Two data sets; x float32 [samples, 1, size, size] in [0, 1], y int64 0..9.

    Raises:
        ConfigError: another size, or scikit-learn is not installed.
    """
    size = NATIVE_SIZE if size is None else size
    if size not in SIZES:
        raise ConfigError(f"digits of size {size!r}; use one of {', '.join(map(str, SIZES))}")
    try:
        from sklearn import datasets, model_selection
    except ImportError as error:
        raise missing_extra("data set 'digits'", "scikit-learn", "data") from error

    raw = datasets.load_digits()
    y = np.asarray(raw.target, dtype=np.int64)
    x = (np.asarray(raw.images) / 16.0).astype(np.float32)[:, None]
    if size != NATIVE_SIZE:
        x = enlarge(x, size)
    x_train, x_test, y_train, y_test = model_selection.train_test_split(
        x, y, test_size=TEST_SHARE, stratify=y, random_state=seed
    )
    return (
        Dataset("digits", x_train, y_train, 10, CLASSIFICATION),
        Dataset("digits", x_test, y_test, 10, CLASSIFICATION),
    )
