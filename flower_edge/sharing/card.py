"""`DataCard`: what a training set is, in plain values that a rule can look at. It has no samples and decides nothing.

What a terminal tells of its set is read without raising and within bounds; what it says of anonymity or of its uses is
its word. Only `k` can be measured again by whoever has the rows.

Source: [4] ¶61-62: sets collected by a terminal or obtained from others; shared by their degree of anonymity, time of
generation, frequency of use in training and size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, cast, get_args

from ..conditions import Plain, plain_values
from ..errors import ConfigError

__all__ = ["DataCard", "Origin"]

#: Where a set came from, seen by whoever has it: its own work, the edge, another terminal of the cell.
Origin = Literal["collected", "provided", "shared"]
_MOST_SAMPLES: Final = 10**12
_OLDEST_S: Final = 1e11
_LONGEST: Final = 64
_MOST_COLUMNS: Final = 15


@dataclass(frozen=True)
class DataCard:
    """What a set is; `None` is not known.

    Attributes:
        name: what its owner calls it, 1 to 64 characters.
        owner: who it belongs to, up to 64 characters; an edge writes the id of the node it has it from.
        samples: how many.
        size_bytes: of samples and targets as arrays.
        shape: of one sample as text, `28x28`; "" of a single number.
        classes: how many values a target can take.
        made_at_s: when its newest sample was made, on the owner's clock, seconds.
        age_s: seconds since then.
        uses: in how many trainings it was used.
        public: it is nobody's in particular.
        anonymous: its owner declares that it points at nobody.
        quasi_identifiers: names of columns which together could point at somebody, up to 15; of tables only.
        k: size of the smallest group of rows that agree in them, measured; None where there are none, as for pictures.
        origin: "collected", "provided" or "shared".

    Raises:
        ConfigError: made in code with a value out of its bounds; what comes from outside goes through `read`.

    >>> DataCard("own", samples=10, size_bytes=80, anonymous=True).to_mapping()["size_bytes"]
    80
    """

    name: str
    owner: str = ""
    samples: int = 0
    size_bytes: int = 0
    shape: str = ""
    classes: int | None = None
    made_at_s: float | None = None
    age_s: float | None = None
    uses: int = 0
    public: bool = False
    anonymous: bool = False
    quasi_identifiers: tuple[str, ...] = ()
    k: int | None = None
    origin: Origin = "collected"

    def __post_init__(self) -> None:
        if odd := [name for name, value in vars(self).items() if not _fits(name, value)]:
            came = ", ".join(f"{name}={getattr(self, name)!r}" for name in odd)
            raise ConfigError(
                f"DataCard({came}): out of its bounds; expected short names, whole numbers from 0, seconds, bools; "
                "read what comes from outside with DataCard.read(mapping)"
            )

    @classmethod
    def read(cls, told: object) -> DataCard | None:
        """The card that a terminal told, whatever that is; `None` where it has no name or no count. Never raises.

        What is out of bounds is left out, on the careful side: a set whose `public` cannot be read is not public.

        >>> DataCard.read({"name": "own", "samples": 5, "public": "yes", "age_s": -3.0, "k": 2})
        DataCard(name='own', owner='', samples=5, size_bytes=0, shape='', classes=None, made_at_s=None, age_s=None, \
uses=0, public=False, anonymous=False, quasi_identifiers=(), k=2, origin='collected')
        >>> DataCard.read({"samples": 5}) is None
        True
        """
        entries, _ = plain_values(told)
        found: dict[str, Any] = {}
        for each in fields(cls):
            value: Any = entries.get(each.name)
            if each.name == "quasi_identifiers" and isinstance(value, str):
                value = tuple(name for name in value.split("\n") if name)
            if isinstance(value, int) and not isinstance(value, bool) and each.name in ("made_at_s", "age_s"):
                value = float(value)
            if value is not None and _fits(each.name, value):
                found[each.name] = value
        return cls(**found) if "name" in found and "samples" in found else None

    def to_mapping(self) -> dict[str, Plain]:
        """What is known, by name: ready for a `ConfigRecord`, for `Rule.holds` and for `read`."""
        told = {name: value for name, value in vars(self).items() if value is not None}
        told["quasi_identifiers"] = "\n".join(self.quasi_identifiers)
        return cast("dict[str, Plain]", told)


_WHOLE: Final[Mapping[str, int]] = {
    "samples": _MOST_SAMPLES,
    "size_bytes": 10**18,
    "classes": 10**9,
    "uses": 10**12,
    "k": _MOST_SAMPLES,
}
_MAY_BE_UNKNOWN: Final = frozenset({"classes", "made_at_s", "age_s", "k"})


def _fits(name: str, value: object) -> bool:
    """Whether a field can have this value."""
    if value is None:
        return name in _MAY_BE_UNKNOWN
    if name in _WHOLE:
        return type(value) is int and 0 <= value <= _WHOLE[name]
    if name in ("public", "anonymous"):
        return type(value) is bool
    if name in ("made_at_s", "age_s"):
        # Before 1970 and the start of a virtual clock a time is below 0; an age never is.
        least = 0.0 if name == "age_s" else -_OLDEST_S
        return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= _OLDEST_S
    if name == "quasi_identifiers":
        return (
            isinstance(value, tuple)
            and len(value) <= _MOST_COLUMNS
            and all(isinstance(column, str) and _is_name(column) for column in value)
        )
    if name == "origin":
        return value in get_args(Origin)
    return isinstance(value, str) and (_is_name(value) or (value == "" and name != "name"))


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _LONGEST and text.isprintable()
