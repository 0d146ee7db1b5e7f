"""`Conditions`: load and performance of a terminal as it told them, every value optional and in bounds.

A frozen record. What comes from outside is read without raising, and what is not believable is left out by name.
Nothing here measures (`flower_edge.clients.measure` does), asks (`runtime.queries` does) or decides.

Source: [4] ¶34-37, ¶51: an edge obtains information on performance and load conditions from the terminals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import ConfigError

__all__ = ["BOUNDS", "Bound", "Conditions", "Plain", "columns_of", "plain_values"]

Plain = bool | int | float | str

#: What is read of a terminal's own entries at most: entries, characters of a name, characters of a text.
MOST_ENTRIES, LONGEST_NAME, LONGEST_TEXT = 64, 128, 1024
#: The largest whole number that travels in a message.
LARGEST: Final = 2**63 - 1


class Bound(NamedTuple):
    """What a field may be: a bool, or a number from `low` to `high`, both included."""

    kind: type[bool] | type[int] | type[float]
    low: float = 0.0
    high: float = 1.0


#: What is believed of each field.
BOUNDS: Final[Mapping[str, Bound]] = MappingProxyType(
    {
        "load": Bound(float),
        "memory_load": Bound(float),
        "cpu_count": Bound(int, 1, 65_536),
        "memory_free_bytes": Bound(int, 0, 1e18),
        "memory_total_bytes": Bound(int, 0, 1e18),
        "disk_free_bytes": Bound(int, 0, 1e18),
        "disk_total_bytes": Bound(int, 0, 1e18),
        "battery": Bound(float),
        "charging": Bound(bool),
        "temperature_c": Bound(float, -100.0, 250.0),
        "cpu_pressure": Bound(float),
        "memory_pressure": Bound(float),
        "cpu_hz": Bound(float, 0.0, 1e12),
        "cpu_max_hz": Bound(float, 0.0, 1e12),
        "throttled": Bound(bool),
        "throttle_bits": Bound(int, 0, 2**32 - 1),
        "up_bps": Bound(float, 0.0, 1e15),
        "down_bps": Bound(float, 0.0, 1e15),
        "step_s": Bound(float, 0.0, 1e6),
        "num_examples": Bound(int, 0, 1e15),
        "data_age_s": Bound(float, 0.0, 1e10),
        "wants_to_join": Bound(bool),
    }
)


@dataclass(frozen=True)
class Conditions:
    """How a terminal is doing; `None` is not told. SI units, shares from 0 to 1.

    Attributes:
        load: share of the processors that is busy.
        memory_load: share of the memory that is in use.
        cpu_count: processors it may use.
        memory_free_bytes, memory_total_bytes: memory that could be had now, and all there is.
        disk_free_bytes, disk_total_bytes: the same of the disk.
        battery: share that is left.
        charging: whether it hangs on the mains.
        temperature_c: of its hottest part, degrees Celsius.
        cpu_pressure, memory_pressure: share of the last ten seconds in which some task waited for a processor, for
            memory (Linux "pressure stall information").
        cpu_hz, cpu_max_hz: clock of its fastest processor, now and at most.
        throttled: whether it is slowed down now, for heat or for want of power.
        throttle_bits: what a Raspberry Pi says of that, as its firmware codes it.
        up_bps, down_bps: bits per second that it can send and receive.
        step_s: seconds one training step took it, measured.
        num_examples: examples it could train on.
        data_age_s: age of its newest example.
        wants_to_join: whether it would like to take part.
        extra: what its owner adds under other names.
        dropped: names of what came and was left out; only `read` sets it.

    Raises:
        ConfigError: made in code with a value out of its bounds; what comes from outside goes through `read`.

    >>> Conditions(load=0.25, battery=0.8).to_mapping()
    {'load': 0.25, 'battery': 0.8}
    """

    load: float | None = None
    memory_load: float | None = None
    cpu_count: int | None = None
    memory_free_bytes: int | None = None
    memory_total_bytes: int | None = None
    disk_free_bytes: int | None = None
    disk_total_bytes: int | None = None
    battery: float | None = None
    charging: bool | None = None
    temperature_c: float | None = None
    cpu_pressure: float | None = None
    memory_pressure: float | None = None
    cpu_hz: float | None = None
    cpu_max_hz: float | None = None
    throttled: bool | None = None
    throttle_bits: int | None = None
    up_bps: float | None = None
    down_bps: float | None = None
    step_s: float | None = None
    num_examples: int | None = None
    data_age_s: float | None = None
    wants_to_join: bool | None = None
    extra: Mapping[str, Plain] = field(default_factory=dict, hash=False)
    dropped: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name, bound in BOUNDS.items():
            value = getattr(self, name)
            if value is not None and (known := _believed(value, bound)) is None:
                expected = "True or False" if bound.kind is bool else f"a number from {bound.low:g} to {bound.high:g}"
                raise ConfigError(
                    f"Conditions({name}={value!r}): expected {expected}, or None; "
                    "read what comes from outside with Conditions.read(mapping)"
                )
            object.__setattr__(self, name, None if value is None else known)
        extra, odd = plain_values(self.extra)
        if odd or (taken := [name for name in extra if name.replace("-", "_") in BOUNDS]):
            raise ConfigError(
                f"Conditions(extra=…): {', '.join(odd or taken)}: expected up to {MOST_ENTRIES} finite numbers, bools "
                "or short texts under other names; read what comes from outside with Conditions.read(mapping)"
            )
        object.__setattr__(self, "extra", MappingProxyType(extra))

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only view cannot be pickled, and a process pool needs to.
        return _rebuilt, ({**self._fields(), "extra": dict(self.extra), "dropped": self.dropped},)

    @classmethod
    def read(cls, told: object) -> Conditions:
        """Conditions from what a terminal told, whatever that is; never raises.

        Fields are found under their names with underscores or hyphens. What is out of bounds, of another type or too
        long is left out and named in `dropped`; other names go to `extra`.

        >>> told = Conditions.read({"load": 0.5, "battery": 80, "num-examples": 120.0, "site": "hall"})
        >>> told.load, told.battery, told.num_examples, dict(told.extra), told.dropped
        (0.5, None, 120, {'site': 'hall'}, ('battery',))
        """
        entries, dropped = plain_values(told, most=MOST_ENTRIES + len(BOUNDS))
        found: dict[str, Any] = {}
        extra: dict[str, Plain] = {}
        for name, value in entries.items():
            bound = BOUNDS.get(field_name := name.replace("-", "_"))
            if bound is None and len(extra) < MOST_ENTRIES:
                extra[name] = value
            elif bound is not None and field_name not in found and (known := _believed(value, bound)) is not None:
                found[field_name] = known
            else:
                dropped.append(name)
        return cls(**found, extra=extra, dropped=tuple(dropped))

    def to_mapping(self) -> dict[str, Plain]:
        """What is known, by name: ready for a `ConfigRecord`, for `Rule.holds`, and for `read`."""
        return {**self._fields(), **self.extra}

    def _fields(self) -> dict[str, Plain]:
        return {name: value for name in BOUNDS if (value := getattr(self, name)) is not None}


def _rebuilt(values: dict[str, Any]) -> Conditions:
    return Conditions(**values)


def _believed(value: Any, bound: Bound) -> Plain | None:
    """The value as the field's type, `None` where it is not believed."""
    if bound.kind is bool:
        return bool(value) if isinstance(value, bool | np.bool_) else None
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.integer | np.floating):
        return None
    # An int is compared as such: as a float it could overflow.
    plain = int(value) if isinstance(value, int | np.integer) else float(value)
    if not bound.low <= plain <= bound.high:
        return None
    if bound.kind is float:
        return float(plain)
    return int(plain) if plain == int(plain) else None


def plain_values(told: object, most: int = MOST_ENTRIES) -> tuple[dict[str, Plain], list[str]]:
    """What can be kept of values from outside, and the names of what cannot; never raises.

    Kept are bools, finite floats, ints of 64 bits and texts up to 1,024 characters, under names up to 128, the first
    `most` of them.

    >>> plain_values({"load": 0.5, "site": "hall", "blob": b"x", "odd": float("nan")})
    ({'load': 0.5, 'site': 'hall'}, ['blob', 'odd'])
    """
    kept: dict[str, Plain] = {}
    dropped: list[str] = []
    for name, value in told.items() if isinstance(told, Mapping) else ():
        plain = _plain(value)
        if plain is None or not isinstance(name, str) or len(name) > LONGEST_NAME or len(kept) >= most:
            if len(dropped) < most:
                dropped.append(str(name)[:LONGEST_NAME])
        else:
            kept[name] = plain
    return kept, dropped


def _plain(value: object) -> Plain | None:
    match value:
        case bool() | np.bool_():
            return bool(value)
        case int() | np.integer():
            return int(value) if abs(int(value)) <= LARGEST else None
        case float() | np.floating():
            return float(value) if math.isfinite(value) else None
        case str():
            return str(value) if len(value) <= LONGEST_TEXT else None
        case _:
            return None


def columns_of(rows: Sequence[Mapping[str, Plain] | Conditions | None]) -> dict[str, npt.NDArray[Any]]:
    """One array [rows] per name that any row tells, ready for `Rule.mask`; a row may be `None`.

    Names with a text in any row become object arrays with `None` where it is not told, the others float64 with NaN.
    Names of `Conditions` are spelled with underscores.

    >>> columns_of([Conditions(load=0.5), None, {"load": 0.25, "site": "hall"}])
    {'load': array([0.5 ,  nan, 0.25]), 'site': array([None, None, 'hall'], dtype=object)}
    """
    told: dict[str, dict[int, Plain]] = {}
    for row, entries in enumerate(rows):
        if entries is None:
            continue
        plain = entries.to_mapping() if isinstance(entries, Conditions) else entries
        for name, value in plain.items():
            spelled = name.replace("-", "_")
            told.setdefault(spelled if spelled in BOUNDS else name, {})[row] = value
    columns: dict[str, npt.NDArray[Any]] = {}
    for name, values in told.items():
        places = np.fromiter(values, dtype=np.int64, count=len(values))
        if any(isinstance(value, str) for value in values.values()):
            column = np.full(len(rows), None, dtype=object)
            column[places] = list(values.values())
        else:
            column = np.full(len(rows), np.nan)
            column[places] = np.array(list(values.values()), dtype=np.float64)
        columns[name] = column
    return columns
