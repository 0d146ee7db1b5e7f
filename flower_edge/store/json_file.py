"""JSON documents that hold any float and are old or new, never half.

JSON has no NaN and no infinity: they are written as the texts "NaN", "Infinity" and "-Infinity". Nothing here knows
what a document means.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..errors import ConfigError, DataError
from .atomic import write_bytes

__all__ = ["from_json_value", "read_json", "ready", "to_json_value", "write_json"]

_WORDS: Final[Mapping[str, float]] = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def write_json(path: Path, value: Any) -> None:
    """Write one document, indented. Mappings, lists, tuples, paths and NumPy scalars are taken as JSON knows them.

    Raises:
        ConfigError: something in `value` has no form in JSON; the message says where, starting at the file's name.
        OSError: the folder is missing, not writable or full; the old file is untouched.
    """
    text = json.dumps(ready(value, path.stem), indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, (text + "\n").encode("utf-8", "backslashreplace"))


def read_json(path: Path) -> Any:
    """Read one document; the three texts for what JSON lacks stay texts, see `from_json_value`.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; is {path.parent} a run folder?") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error}); restore or remove it") from error


def to_json_value(value: Any) -> Any:
    """NaN and infinities as the texts JSON can hold; everything else as it is.

    >>> to_json_value(float("inf")), to_json_value(2)
    ('Infinity', 2)
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def from_json_value(value: Any) -> Any:
    """What `to_json_value` was given.

    >>> from_json_value("-Infinity"), from_json_value("lost 2 nodes")
    (-inf, 'lost 2 nodes')
    """
    return _WORDS.get(value, value) if isinstance(value, str) else value


def ready(value: Any, at: str) -> Any:
    """`value` as `json.dumps` takes it; `at` is its name in messages.

    Raises:
        ConfigError: something in it has no form in JSON; the message says where.
    """
    if isinstance(value, Mapping):
        return {str(key): ready(item, f"{at}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [ready(item, f"{at}.{number}") for number, item in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return to_json_value(value)
    if isinstance(value, Path):
        return str(value)
    raise ConfigError(
        f"{at} is {value!r} ({type(value).__name__}), which JSON cannot hold; a pydantic model: .model_dump()"
    )
