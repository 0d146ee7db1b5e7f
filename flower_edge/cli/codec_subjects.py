"""What codecs are measured on: a file of arrays, a run's last two models, or a model by name. Nothing here encodes."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..models import MODELS, get_arrays, make_model
from ..store.array_files import load_arrays
from ..store.run_folder import RunFolder

__all__ = ["Subject", "drawn", "subject"]

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Subject:
    """Arrays to be encoded.

    Attributes:
        name: what they are, for people.
        arrays: floats are an update; what is no float is as it is.
    """

    name: str
    arrays: Arrays

    @property
    def params(self) -> int:
        """How many floats there are."""
        return sum(array.size for array in self.arrays.values() if array.dtype.kind == "f")

    @property
    def bytes(self) -> int:
        """What they weigh as they are."""
        return sum(array.nbytes for array in self.arrays.values())


def subject(what: str, before: str | None = None, *, root: Path | None = None, seed: int = 0) -> Subject:
    """What somebody typed.

    Args:
        what: a file (.safetensors, .npz), a run's folder or name, the name of a model, or `matrix:ROWSxCOLUMNS`.
        before: a second file of the same arrays, of which `what` is the later version: the update is what moved.
        root: folder of run folders.
        seed: of an update that is drawn.

    Raises:
        ConfigError: nothing of that kind; says what there is.
        StateError: a file or folder that is damaged, or a run that has kept no two models.
    """
    path = Path(what).expanduser()
    if before is not None:
        return Subject(f"{path.name} less {Path(before).name}", _moved(load_arrays(path), load_arrays(before)))
    if path.is_file() or path.suffix in (".safetensors", ".npz"):
        return Subject(f"{path.name}, the numbers themselves", load_arrays(path))
    if what in MODELS:
        return drawn(what, _model(what), seed)
    if what.startswith("matrix:"):
        rows, cross, columns = what.removeprefix("matrix:").partition("x")
        if not (cross and rows.isdecimal() and columns.isdecimal() and 0 < int(rows) * int(columns) <= 1 << 28):
            raise ConfigError(
                f"{what!r}: expected matrix:ROWSxCOLUMNS, as in matrix:1000x1000, of at most 2^28 numbers"
            )
        return drawn(what, {"matrix": np.zeros((int(rows), int(columns)), np.float32)}, seed)
    if path.is_dir() or what == "latest" or RunFolder.all(root):
        run = RunFolder.open(path if path.is_dir() else what, root=root)
        rounds = sorted(run.models.rounds())
        if len(rounds) < 2:
            raise ConfigError(
                f"run {run.name} has kept the models of {len(rounds)} rounds; two are needed, what moved between them "
                "is measured"
            )
        moved = _moved(run.load_model(rounds[-1]), run.load_model(rounds[-2]))
        return Subject(f"what round {rounds[-1]} of {run.name} moved since round {rounds[-2]}", moved)
    near = get_close_matches(what, MODELS, 1)
    raise ConfigError(
        f"{what!r}: expected a .safetensors or .npz file, a run's folder, a model ({', '.join(MODELS)}), or "
        f"matrix:ROWSxCOLUMNS{f'; did you mean {near[0]!r}?' if near else ''}"
    )


def drawn(name: str, like: Arrays, seed: int) -> Subject:
    """An update that nobody trained: heavy tails as real ones have, every array on a scale of its own.

    Laplace numbers times a log-normal scale. Signs, neighbours and layers are independent: what real updates have in
    common is not there, and codecs that live on it gain nothing.
    """
    rng = np.random.default_rng(seed)
    arrays = {
        key: (1e-3 * rng.lognormal() * rng.laplace(size=array.shape)).astype(array.dtype)
        if array.dtype.kind == "f"
        else array
        for key, array in like.items()
    }
    return Subject(f"{name}, a drawn update", arrays)


def _model(name: str) -> Arrays:
    shapes = {"char-transformer": ((64,), 96), "resnet": ((3, 32, 32), 10), "cnn": ((3, 32, 32), 10)}
    input_shape, classes = shapes.get(name, ((1, 28, 28), 10))
    return get_arrays(make_model(name, input_shape=input_shape, num_classes=classes, seed=0))


def _moved(now: Arrays, before: Arrays) -> Arrays:
    if now.keys() != before.keys() or any(now[name].shape != before[name].shape for name in now):
        other = sorted(now.keys() ^ before.keys())[:6] or [n for n in now if now[n].shape != before[n].shape][:6]
        raise ConfigError(f"two versions of different models: they differ in {', '.join(other)}")
    return {
        name: (array - before[name]).astype(array.dtype) if array.dtype.kind == "f" else array
        for name, array in now.items()
    }
