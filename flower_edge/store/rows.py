"""One metric row, and its form as a line of JSON.

JSON has no NaN and no infinity; they are written as the texts "NaN", "Infinity" and "-Infinity", and a metric whose
value is one of these three texts is that number. Nothing here opens a file or knows what a metric means.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import ConfigError, DataError
from .json_file import from_json_value, to_json_value

__all__ = ["Row", "Value", "clean", "parse_lines", "to_line"]

Value = int | float | str


@dataclass(frozen=True)
class Row:
    """What was recorded together: several named values of one kind, in one round."""

    kind: str
    round: int
    values: Mapping[str, Value] = field(default_factory=dict)
    cell: str = ""
    node: str = ""
    edge_round: int = 0
    #: Seconds of real time since the run began.
    wall_s: float | None = None
    #: Seconds on the run's virtual clock, where it has one. Wall and virtual seconds do not add.
    virtual_s: float | None = None

    def number(self, name: str) -> float | None:
        """The value called `name` if it is there and a number."""
        value = self.values.get(name)
        return None if value is None or isinstance(value, str) else value


def parse_lines(data: bytes, *, source: str) -> Iterator[Row]:
    """Rows of whole lines of a `metrics.jsonl`.

    Raises:
        DataError: a line is not a row; the message has its number.
    """
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            values = {name: from_json_value(value) for name, value in entry.pop("values").items()}
            yield Row(values=values, **entry)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{source}, line {number}: not a metric row ({error}): {line[:80]!r}") from error


def clean(row: Row) -> Row:
    """The row with plain Python values that both files can hold.

    Raises:
        ConfigError: a value is neither number nor text, or has no name.
    """
    values: dict[str, Value] = {}
    for name, given in row.values.items():
        value = given.item() if isinstance(given, np.generic) else given
        if not name or not isinstance(value, int | float | str) or (isinstance(value, int) and abs(value) >= 1 << 63):
            raise ConfigError(
                f"metric {name!r} of kind {row.kind!r} in round {row.round} is {value!r} ({type(value).__name__}); "
                "record texts, floats and 64-bit integers, each under a name"
            )
        value = int(value) if isinstance(value, bool) else value
        values[_plain(name)] = from_json_value(_plain(value) if isinstance(value, str) else value)
    return Row(
        kind=_plain(row.kind),
        round=int(row.round),
        values=values,
        cell=_plain(row.cell),
        node=_plain(row.node),
        edge_round=int(row.edge_round),
        wall_s=_moment(row.wall_s),
        virtual_s=_moment(row.virtual_s),
    )


def _moment(value_s: float | None) -> float | None:
    # A moment that is no number is no moment.
    return None if value_s is None or not math.isfinite(value_s) else float(value_s)


def _plain(text: str) -> str:
    # Half a surrogate pair (from undecodable file names) is a str that neither file could hold.
    return str(text).encode("utf-8", "backslashreplace").decode()


def to_line(row: Row) -> str:
    """A clean row as one line of JSON, without its line feed."""
    entry = {
        "kind": row.kind,
        "round": row.round,
        "edge_round": row.edge_round,
        "cell": row.cell,
        "node": row.node,
        "wall_s": row.wall_s,
        "virtual_s": row.virtual_s,
        "values": {name: to_json_value(value) for name, value in row.values.items()},
    }
    return json.dumps(entry, ensure_ascii=True, allow_nan=False)
