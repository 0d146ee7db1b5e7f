"""MNIST and Fashion-MNIST from the original IDX files, read by torchvision's own loaders.

Nothing is downloaded and nothing is written beside the files: what is packed is unpacked into a temporary folder.
Files are checked for being readable and consistent, not against published checksums.

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits"; H. Xiao, K. Rasul,
R. Vollgraf, "Fashion-MNIST", arXiv:1708.07747.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .dataset import CLASSIFICATION, Dataset
from .extras import missing_extra

#: Data set name to torchvision's class, which is also the name of the folder.
FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}
SIZES = (28, 32)
_PARTS = ("images-idx3-ubyte", "labels-idx1-ubyte")


def _find(raw: Path, split: str) -> list[Path]:
    """The two files of one split, packed or not; fewer when some are missing."""
    candidates = [[raw / f"{split}-{part}", raw / f"{split}-{part}.gz"] for part in _PARTS]
    return [next(file for file in pair if file.is_file()) for pair in candidates if any(f.is_file() for f in pair)]


def _unpack(source: Path, folder: Path) -> None:
    """Put `source` into `folder` under the name torchvision reads."""
    if source.suffix == ".gz":
        try:
            with gzip.open(source) as packed, (folder / source.stem).open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{source} cannot be unpacked ({error}); fetch it again") from error
        return
    try:
        (folder / source.name).symlink_to(source.resolve())
    except OSError:  # file systems without links
        shutil.copyfile(source, folder / source.name)


def _read(name: str, files: list[Path], split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One split, [samples, 28, 28] and [samples], through torchvision's loader."""
    try:
        from .torchvision_torch import datasets
    except ImportError as error:
        raise missing_extra(f"data set {name!r}", "torchvision", "torch") from error

    with tempfile.TemporaryDirectory(prefix="flower-edge-") as folder:
        raw = Path(folder, FOLDERS[name], "raw")
        raw.mkdir(parents=True)
        for file in files:
            _unpack(file, raw)
        # torchvision refuses to read one split unless the files of both exist.
        for part in _PARTS:
            for other in ("train", "t10k"):
                if not (raw / f"{other}-{part}").exists():
                    (raw / f"{other}-{part}").touch()
        try:
            loaded = getattr(datasets, FOLDERS[name])(folder, train=split == "train", download=False)
            pictures, labels = loaded.data.numpy(), loaded.targets.numpy()
        # Whatever the reader trips over (it asserts, indexes and reshapes), the cause is the same: the bytes.
        except Exception as error:
            raise DataError(_damaged(files, f"{type(error).__name__}: {error}")) from error
    if pictures.shape[1:] != (28, 28) or len(pictures) != len(labels):
        raise DataError(_damaged(files, f"{pictures.shape} pictures and {len(labels)} labels"))
    if labels.size == 0 or labels.max() > 9:
        raise DataError(_damaged(files, "labels outside 0..9" if labels.size else "no samples"))
    return pictures, labels.astype(np.int64)


def _damaged(files: list[Path], why: str) -> str:
    names = " and ".join(file.name for file in files)
    return f"{names} in {files[0].parent} are damaged or not IDX files of 28x28 pictures ({why}); fetch them again"


def load_idx(name: str, root: str | os.PathLike[str] | None, size: int | None = None) -> tuple[Dataset, Dataset]:
    """Train and test pictures of "mnist" or "fashion-mnist".

    With all four files the split is the published one (60,000 and 10,000). With the t10k files alone their first nine
    tenths are for training, the rest for testing: rows 0..8999 and 9000..9999.

    Args:
        name: "mnist" or "fashion-mnist".
        root: the folder that holds MNIST/raw/ or FashionMNIST/raw/.
        size: 28 (also None), or 32: two black pixels are added on each side.

    Returns:
        Two data sets; x float32 [samples, 1, size, size] in [0, 1], y int64 0..9.

    Raises:
        ConfigError: another size, or torchvision is not installed.
        DataError: files missing (names them and the folder) or damaged (names them and what was found).
    """
    size = 28 if size is None else size
    if size not in SIZES:
        raise ConfigError(f"{name} of size {size!r}; use one of {', '.join(map(str, SIZES))}")
    wanted = ", ".join(f"t10k-{part}.gz" for part in _PARTS)
    fetch = (
        f"put {wanted} (and, for the full training set, the two train- files) into FOLDER/{FOLDERS[name]}/raw/ "
        "and say where FOLDER is: path=... here (data.path in a run config) or the variable FLOWER_EDGE_DATA"
    )
    if not root:
        raise DataError(f"{name} needs its IDX files and no folder was given; {fetch}")
    raw = Path(root).expanduser() / FOLDERS[name] / "raw"
    test_files, train_files = _find(raw, "t10k"), _find(raw, "train")
    if len(test_files) < 2:
        found = ", ".join(file.name for file in test_files + train_files) or "nothing"
        raise DataError(f"{name}: {raw} {'holds ' + found if raw.is_dir() else 'is not a folder'}; {fetch}")
    if len(train_files) == 1:
        raise DataError(f"{name}: {raw} holds {train_files[0].name} but not the other train- file; fetch both or none")

    x_test, y_test = _read(name, test_files, "t10k")
    if train_files:
        x_train, y_train = _read(name, train_files, "train")
    else:
        cut = len(y_test) * 9 // 10
        x_train, x_test, y_train, y_test = x_test[:cut], x_test[cut:], y_test[:cut], y_test[cut:]
    return _dataset(name, x_train, y_train, size), _dataset(name, x_test, y_test, size)


def _dataset(name: str, pictures: NDArray[np.uint8], labels: NDArray[np.int64], size: int) -> Dataset:
    x = (pictures.astype(np.float32) / np.float32(255.0))[:, None]
    margin = (size - 28) // 2
    x = np.pad(x, ((0, 0), (0, 0), (margin, margin), (margin, margin)))
    return Dataset(name, x, labels, 10, CLASSIFICATION)
