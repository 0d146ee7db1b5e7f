"""Models in files that others wrote: safetensors and .npz. Read only, and nothing is unpickled."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, deserialize

from ..errors import StateError

__all__ = ["load_arrays"]

_DTYPES: Final = {
    "BOOL": "bool",
    **{
        f"{letter}{bits}": f"{name}{bits}" for letter, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
    },
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
}

#: What the readers raise, besides OSError, over files that are torn, altered or of another kind.
_DAMAGED: Final = (
    *(SafetensorError, ValueError, KeyError, EOFError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
)


def load_arrays(path: str | Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a `.safetensors` or `.npz` file, by name. bfloat16 comes as float32, which holds it exactly.

    Raises:
        StateError: there is no such file, it is damaged or of another kind, or has a dtype NumPy has not.
    """
    path = Path(path)
    try:
        if path.suffix == ".npz":
            with path.open("rb") as file:
                found = np.load(file, allow_pickle=False)
                if isinstance(found, np.ndarray):
                    raise ValueError("it holds one array without a name, as np.save writes; use np.savez")
                return {name: found[name] for name in found.files}
        return {name: _array(name, tensor) for name, tensor in _tensors(path.read_bytes())}
    except OSError as error:
        raise StateError(
            f"{path}: cannot be read: {error.strerror or error}; expected a .safetensors or .npz"
        ) from None
    except _DAMAGED as error:
        raise StateError(f"{path}: no whole .safetensors or .npz file of plain arrays: {error}") from error


def _tensors(data: bytes) -> list[tuple[str, dict[str, Any]]]:
    found: list[tuple[str, dict[str, Any]]] = deserialize(data)  # type: ignore[no-untyped-call]
    return found


def _array(name: str, tensor: dict[str, Any]) -> npt.NDArray[Any]:
    kind, shape, data = tensor["dtype"], tensor["shape"], bytes(tensor["data"])
    if kind not in _DTYPES and kind != "BF16":
        raise ValueError(f"{name!r} is {kind}; expected one of {', '.join(_DTYPES)}, BF16")
    dtype = np.dtype(_DTYPES.get(kind, "uint16")).newbyteorder("<")
    flat = np.frombuffer(data, dtype) if math.prod(shape) else np.empty(0, dtype)
    if kind == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(shape).astype(flat.dtype.newbyteorder("="))
