"""What travels where training data are shared: questions of type `query.share` and their answers, read within bounds.

An edge asks what a terminal offers, asks for rows of it, hands rows of others to it and tells it to drop some. Arrays
are read without pickle and only in the shape and dtype that were asked for. Nothing here decides who may have what.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from ..errors import WireError
from ..sharing import DataCard, Part, SetSpec, TrainingSet
from ..updates.npy import npy_view
from ..wire import record_of
from .queries import REQUEST

__all__ = [
    "ANSWER",
    "MOST_SETS",
    "SHARE",
    "SHARED_RECORD",
    "Told",
    "Wanted",
    "numbers_in",
    "parts_in",
    "read_rows",
    "rows_record",
    "take_request",
    "texts_in",
]

#: The question, and the record of its answer.
SHARE: Final = "share"
ANSWER: Final = SHARE
#: Record in which a terminal tells with a training reply what it holds, how often it used it, what it takes back.
SHARED_RECORD: Final = "flower-edge.shared"
#: The most sets a terminal holds or names.
MOST_SETS: Final = 1024
_LONGEST_KEY: Final = 256
_ROWS: Final = "flower-edge.rows"
#: More than the header of an npy file takes.
_HEADER_BYTES: Final = 4096


@dataclass(frozen=True)
class Wanted:
    """What an edge would like of a terminal's set.

    Attributes:
        share: of its samples, 0 to 1; 0 asks only whether it takes what others share.
        most: the most samples; -1 is no limit.
        cell: the edge that asks.
        start, stop: rows of the draw; 0, 0 asks for the card.
    """

    share: float
    most: int
    cell: str
    start: int = 0
    stop: int = 0

    def request(self) -> ConfigRecord:
        """The record of the question."""
        return ConfigRecord({"ask": "rows" if self.stop else "offer", **vars(self)})

    @classmethod
    def read(cls, request: Mapping[str, Any]) -> Wanted:
        """Inverse of `request`.

        Raises:
            WireError: a field is missing, of another type or out of its range.
        """
        found: dict[str, Any] = {name: request.get(name) for name in ("share", "most", "cell", "start", "stop")}
        kinds = {"share": (int, float), "cell": (str,)}
        if odd := [name for name, value in found.items() if not isinstance(value, kinds.get(name, (int,)))]:
            raise WireError(f"query.share without {', '.join(odd)}; install the same flower-edge version on both sides")
        # NaN is within no bounds either.
        if not 0.0 <= found["share"] <= 1.0 or found["most"] < -1 or not 0 <= found["start"] <= found["stop"]:
            raise WireError(f"query.share asks for {found}; expected a share of 0 to 1, and rows from 0 on")
        return cls(**found)


@dataclass(frozen=True)
class Told:
    """What a terminal tells with a training reply.

    Attributes:
        held: keys of the sets it holds, with the trainings it used each in.
        own_uses: trainings it used its own set in.
        withdrawn: it no longer shares its own set.
    """

    held: Mapping[str, int]
    own_uses: int = 0
    withdrawn: bool = False

    def record(self) -> ConfigRecord:
        """The record beside the reply."""
        return ConfigRecord(
            {
                "keys": list(self.held),
                "uses": list(self.held.values()),
                "own-uses": self.own_uses,
                "withdrawn": self.withdrawn,
            }
        )

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Told:
        """Inverse of `record`; what cannot be read is nothing. Never raises."""
        keys, uses = texts_in(record, "keys"), numbers_in(record, "uses")
        held = dict(zip(keys, uses, strict=True)) if len(keys) == len(uses) else dict.fromkeys(keys, 0)
        own = numbers_in({"own": [record.get("own-uses")]}, "own")
        return cls(held, own[0] if own else 0, record.get("withdrawn") is True)


def texts_in(record: Mapping[str, Any], key: str) -> list[str]:
    """A list of up to 1,024 short texts; what is none is left out.

    >>> texts_in({"keys": ["a", 3, "b"]}, "keys")
    ['a', 'b']
    """
    found = record.get(key)
    texts = found[:MOST_SETS] if isinstance(found, list) else []
    return [text for text in texts if isinstance(text, str) and len(text) <= _LONGEST_KEY]


def numbers_in(record: Mapping[str, Any], key: str) -> list[int]:
    """A list of up to 1,024 whole numbers from 0 to 10¹²; what is none is left out."""
    found = record.get(key)
    numbers = found[:MOST_SETS] if isinstance(found, list) else []
    return [number for number in numbers if type(number) is int and 0 <= number <= 10**12]


# -- rows ------------------------------------------------------------------------------------------------------------


def rows_record(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> ArrayRecord:
    """The record that carries rows of a set."""
    return record_of({"x": x, "y": y})


def read_rows(record: object, spec: SetSpec, rows: int, *, sender: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Samples and targets of a record, as copies: exactly as many, and of the shape and dtype, that were asked for.

    Raises:
        WireError: names the sender and what is wrong.
    """
    if not isinstance(record, ArrayRecord) or set(record) != {"x", "y"}:
        raise WireError(f"{sender} sent no rows; expected an ArrayRecord with x and y")
    wanted = {"x": (spec.dtype, (rows, *spec.shape)), "y": (spec.target_dtype, (rows,))}
    arrays = {}
    for name, (dtype, shape) in wanted.items():
        array = record[name]
        if (array.dtype, tuple(array.shape)) != (dtype, shape):
            raise WireError(
                f"{sender} sent {name} as {array.dtype[:40]} {tuple(array.shape)[:9]}; expected {dtype} {shape}"
            )
        needed = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        if len(array.data) > needed + _HEADER_BYTES:
            raise WireError(f"{sender} sent {name} in {len(array.data)} bytes; {dtype} {shape} is {needed}")
        try:
            arrays[name] = npy_view(array.data, dtype, shape).astype(np.dtype(dtype), order="C")
        except WireError as error:
            raise WireError(f"{sender} sent {name}: {error}") from None
    if why := spec.wrong(arrays["x"], arrays["y"]):
        raise WireError(f"{sender} sent rows that do not fit: {why}")
    return arrays["x"], arrays["y"]


def take_request(parts: Iterable[Part], sets: Mapping[str, TrainingSet]) -> RecordDict:
    """A message that hands parts of sets to a terminal."""
    content = RecordDict()
    told: dict[str, list[Any]] = {"keys": [], "starts": [], "stops": [], "samples": []}
    for place, part in enumerate(parts):
        one = sets[part.key]
        for name, value in zip(told, part, strict=True):
            told[name].append(value)
        content[f"{_ROWS}.{place}"] = rows_record(one.x[part.start : part.stop], one.y[part.start : part.stop])
        content[f"{_ROWS}.card.{place}"] = ConfigRecord(dict(one.card.to_mapping()))
    content[REQUEST] = ConfigRecord({"ask": "take", **told})
    return content


def parts_in(content: RecordDict) -> list[tuple[Part, DataCard | None, object]]:
    """Inverse of `take_request`: parts with their card and their record, unread.

    Raises:
        WireError: lists that do not fit together.
    """
    request = dict(content.config_records[REQUEST])
    keys = texts_in(request, "keys")
    columns = [numbers_in(request, name) for name in ("starts", "stops", "samples")]
    if not keys or any(len(column) != len(keys) for column in columns):
        raise WireError("query.share hands over parts that are not named; install the same flower-edge on both sides")
    parts = [Part(*entry) for entry in zip(keys, *columns, strict=True)]
    found: list[tuple[Part, DataCard | None, object]] = []
    for place, part in enumerate(parts):
        # By name: `config_records` of a content makes a new mapping of all its records at every look.
        card = content.get(f"{_ROWS}.card.{place}")
        told = dict(card) if isinstance(card, ConfigRecord) else None
        found.append((part, DataCard.read(told), content.get(f"{_ROWS}.{place}")))
    return found
