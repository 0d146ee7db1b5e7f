"""Trees of arrays and plain values in one safetensors file, exactly and without pickle.

A *tree* is any nesting of dict (keys str or int), list and tuple around None, bool, int, float, str, bytes, NumPy
arrays and NumPy scalars. What is loaded equals what was saved: types, dtypes, shapes, order of keys, the sign of
zero, the bits of a NaN, integers of any size. Nothing here decides what belongs into a checkpoint.

The file is ordinary safetensors: arrays are tensors named by their place in the tree (`model/conv1.weight`), so any
safetensors reader opens them; the structure is JSON in the header, with a CRC-32 over structure and arrays, so that
a flipped bit is found and not trained on.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from ..errors import ConfigError, StateError
from .atomic import write_bytes

__all__ = ["Tree", "load_tree", "save_tree", "tree_from_bytes", "tree_to_bytes"]

#: dict | list | tuple of None, bool, int, float, str, bytes, np.ndarray, np.generic; see the module docstring.
Tree: TypeAlias = Any

KEY: Final = "flower-edge.tree"
VERSION: Final = "1"
DEEPEST: Final = 100
DTYPES: Final = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64"),
)
#: JSON readers other than Python's round integers beyond this; ours go as hexadecimal text from here on.
PLAIN_INT: Final = 1 << 53


def save_tree(path: str | Path, tree: Tree) -> None:
    """Write `tree` to `path`, atomically: a reader, or a crash at any moment, finds the old file or the new one.

    Raises:
        ConfigError: something in the tree cannot be stored exactly; the message says where in the tree it is.
        OSError: the folder is missing, not writable or full.
    """
    write_bytes(Path(path), tree_to_bytes(tree))


def load_tree(path: str | Path) -> Tree:
    """Read back what `save_tree` wrote. Arrays are writable and owned by the caller.

    Raises:
        StateError: there is no such file, or it is cut off, altered or was not written by `save_tree`.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise StateError(f"{path}: no such file; expected a tree written by save_tree") from None
    except OSError as error:
        raise StateError(f"{path}: cannot be read ({error.strerror or error}); expected a file by save_tree") from error
    return tree_from_bytes(data, source=str(path))


def tree_to_bytes(tree: Tree) -> bytes:
    """`tree` as the bytes of a safetensors file; the same tree gives the same bytes.

    Raises:
        ConfigError: something in the tree cannot be stored exactly; the message says where in the tree it is.

    >>> tree_from_bytes(tree_to_bytes({"round": 3, "rng": (1, [0.5, None], b"x")}))
    {'round': 3, 'rng': (1, [0.5, None], b'x')}
    """
    tensors: dict[str, np.ndarray] = {}
    structure = json.dumps(_encode(tree, (), tensors), separators=(",", ":"), allow_nan=False)
    label = f"{VERSION} {_checksum(structure, tensors):08x} {structure}"
    try:
        return safetensors.numpy.save(tensors, metadata={KEY: label})
    except SafetensorError as error:
        raise ConfigError(
            f"a tree whose structure alone takes {len(label)} characters cannot be stored ({error}); "
            "put long lists of numbers into NumPy arrays"
        ) from error


def tree_from_bytes(data: bytes, *, source: str = "tree") -> Tree:
    """Read back what `tree_to_bytes` made. Arrays are writable and owned by the caller.

    Args:
        data: the whole file.
        source: what the bytes are called in an error, usually the path.

    Raises:
        StateError: the bytes are cut off, altered or were not made by `tree_to_bytes`.
    """
    try:
        tensors = safetensors.numpy.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        label = header.get("__metadata__", {}).get(KEY)
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise StateError(
            f"{source}: {len(data)} bytes that are not a whole safetensors file ({error}); the file was cut off, "
            "altered or written by something else; use an earlier one"
        ) from error
    if label is None:
        raise StateError(f"{source}: a safetensors file, but not one by save_tree; read it with safetensors.numpy")
    version, _, rest = label.partition(" ")
    if version != VERSION:
        raise StateError(
            f"{source}: tree format {version!r}, this flower-edge reads {VERSION!r}; use the one it is from"
        )
    checksum, _, structure = rest.partition(" ")
    if checksum != f"{_checksum(structure, tensors):08x}":
        raise StateError(f"{source}: the content does not match its checksum; the file was altered; use an earlier one")
    return _decode(json.loads(structure), tensors)


def _encode(node: Tree, path: tuple[str, ...], tensors: dict[str, np.ndarray]) -> Any:
    if len(path) > DEEPEST:
        raise ConfigError(f"tree nested more than {DEEPEST} deep at {_at(path[:4])} ...; does it contain itself?")
    kind = type(node)
    if node is None or kind is bool or kind is str:
        return node
    if kind is int:
        return node if abs(node) < PLAIN_INT else {"int": hex(node)}
    if kind is float:
        return node if math.isfinite(node) else {"float": struct.pack(">d", node).hex()}
    if kind is bytes:
        return {"bytes": _add(np.frombuffer(node, np.uint8), path, tensors)}
    if kind is np.ndarray or isinstance(node, np.generic):
        if node.dtype.name not in DTYPES:
            raise _unfit(f"dtype {node.dtype}", path, f"convert it to one of {', '.join(DTYPES)}")
        name = _add(np.asarray(node), path, tensors)
        return {"array" if kind is np.ndarray else "scalar": [name, node.dtype.str, list(node.shape)]}
    if kind is list or kind is tuple:
        items = [_encode(item, (*path, str(at)), tensors) for at, item in enumerate(node)]
        return items if kind is list else {"tuple": items}
    if kind is dict:
        pairs = []
        for key, value in node.items():
            if type(key) is not str and type(key) is not int:
                raise _unfit(f"the key {key!r} ({type(key).__name__})", path, "keys are str or int")
            pairs.append([_encode(key, path, tensors), _encode(value, (*path, str(key)), tensors)])
        return {"dict": pairs}
    raise _unfit(
        f"a {kind.__module__}.{kind.__qualname__}",
        path,
        "a tree holds dict, list, tuple, None, bool, int, float, str, bytes and NumPy arrays, no subclasses",
    )


def _add(array: np.ndarray, path: tuple[str, ...], tensors: dict[str, np.ndarray]) -> str:
    place = "/".join(path).encode("utf-8", "backslashreplace").decode()
    name, again = place, 1
    # Two places can spell alike ("a/b" beside a -> b), and safetensors keeps one name for itself.
    while not name or name == "__metadata__" or name in tensors:
        name, again = f"{place}#{again}", again + 1
    tensors[name] = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return name


def _decode(node: Any, tensors: Mapping[str, np.ndarray]) -> Tree:
    if isinstance(node, list):
        return [_decode(item, tensors) for item in node]
    if not isinstance(node, dict):
        return node
    ((tag, value),) = node.items()
    if tag == "int":
        return int(value, 16)
    if tag == "float":
        return struct.unpack(">d", bytes.fromhex(value))[0]
    if tag == "bytes":
        return tensors[value].tobytes()
    if tag == "tuple":
        return tuple(_decode(item, tensors) for item in value)
    if tag == "dict":
        return {_decode(key, tensors): _decode(item, tensors) for key, item in value}
    name, dtype, shape = value
    array = tensors[name].astype(dtype, copy=False).reshape(shape)
    return array if tag == "array" else array[()]


def _checksum(structure: str, tensors: Mapping[str, np.ndarray]) -> int:
    checksum = zlib.crc32(structure.encode())
    for name in sorted(tensors):
        array = tensors[name]
        checksum = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return checksum


def _at(path: tuple[str, ...]) -> str:
    return "/".join(path) or "the top"


def _unfit(what: str, path: tuple[str, ...], expected: str) -> ConfigError:
    return ConfigError(f"{what} at {_at(path)} cannot be stored exactly; {expected}")
