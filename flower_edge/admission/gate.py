"""`Gate`: whether a reply is one to the assignment it answers. A pure function of both; nothing is kept here.

It looks at one reply at a time and at no other: exact arrays, finite numbers, a believable count. Whether an update is
any good is not its question, see `flower_edge.filtering`. Whoever brings replies makes an `Offer` of each: the server's
layer from Flower's messages, a peer from its packets. Whatever an offer holds, the answer is a `Refusal` or `None`, and
no exception.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np

from ..errors import ConfigError, WireError
from ..updates.manifest import ArrayPart
from ..updates.npy import npy_view
from ..updates.sums import finite
from .assignment import STAMP_SCHEMA, Assignment, has_free_length, needed_bytes
from .refusal import Refusal

__all__ = ["MOST_EXAMPLES", "Echo", "Gate", "Offer", "OfferedArray"]

#: The largest count that nobody's enrolment is needed to disbelieve: above it float64 no longer counts by ones.
MOST_EXAMPLES: Final = 2**53
#: What Flower labels the bytes of a NumPy array with.
_NPY: Final = "numpy.ndarray"

_CAST: Final = "convert it before it is sent, with astype"

#: Whether a stamp is looked at: never, where it came, or always.
Echo = Literal["none", "if there", "required"]


class OfferedArray(Protocol):
    """An array as it came: what its label says, and the bytes. `flwr.app.Array` is one."""

    @property
    def dtype(self) -> str:
        """Name of the dtype, by the label."""
        ...

    @property
    def shape(self) -> Sequence[int]:
        """By the label."""
        ...

    @property
    def stype(self) -> str:
        """What the bytes are."""
        ...

    @property
    def data(self) -> bytes:
        """As they came."""
        ...


@dataclass(frozen=True, eq=False)
class Offer:
    """One reply as it came, nothing believed yet.

    Attributes:
        arrays: the arrays by name, by the name of their record.
        metrics: numbers and lists of them by name, by the name of their record.
        size_bytes: of the whole reply.
        run_id: of the run it says it belongs to; `None` where that is not told.
        stamp: what it gives back of the assignment's stamp; `None` where it gives nothing back.
        difference: whether the arrays are what an edge has moved by.
    """

    arrays: Mapping[str, Mapping[str, OfferedArray]]
    metrics: Mapping[str, Mapping[str, Any]]
    size_bytes: int = 0
    run_id: int | None = None
    stamp: Mapping[str, Any] | None = None
    difference: bool = False


@dataclass(frozen=True)
class Gate:
    """The questions that are put to every reply.

    Args:
        weighted_by: the metric that counts its examples.
        finite: whether every number of every array is looked at.
        echo: whether the stamp is: `none`, `if there`, `required`.
        most_metrics: of one reply.
        longest_list: of a metric that is a list.

    Raises:
        ConfigError: an argument out of its range.

    >>> from flower_edge.updates.manifest import Manifest
    >>> gate, asked = Gate(), Assignment("7", Manifest({}), training=False, most_examples=100)
    >>> gate.refusal(Offer({}, {"metrics": {"num-examples": 60}}), asked) is None
    True
    >>> print(gate.refusal(Offer({}, {"metrics": {"num-examples": 600}}), asked))
    refused (num-examples): 'num-examples' is 600; expected a number from 1 to 100, what the node is enrolled with
    """

    weighted_by: str = "num-examples"
    finite: bool = True
    echo: Echo = "none"
    most_metrics: int = 256
    longest_list: int = 4096

    def __post_init__(self) -> None:
        if not isinstance(self.weighted_by, str) or not self.weighted_by:
            raise ConfigError(f"weighted_by = {self.weighted_by!r}: expected the name of a metric, 'num-examples'")
        if self.echo not in ("none", "if there", "required"):
            raise ConfigError(f"echo = {self.echo!r}: expected 'none', 'if there' or 'required'")
        for name in ("most_metrics", "longest_list"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise ConfigError(f"{name} = {value!r}: expected a whole number, at least 1")

    def refusal(self, offer: Offer, assignment: Assignment) -> Refusal | None:
        """Why this reply is not used; `None` where it is one to this assignment.

        Args:
            offer: the reply.
            assignment: what its node was asked for.
        """
        if assignment.edge and not any(offer.arrays.values()) and _weighs_nothing(offer, self.weighted_by):
            return self._stamp(offer, assignment)  # an edge whose terminals were all away
        return (
            self._stamp(offer, assignment)
            or self._records(offer, assignment)
            # Where training has gone wrong its metrics have, too; the arrays say it best.
            or self._arrays(offer, assignment)
            or self._metrics(offer)
            or self._examples(offer, assignment)
            or self._steps(offer, assignment)
        )

    def _stamp(self, offer: Offer, assignment: Assignment) -> Refusal | None:
        if offer.run_id is not None and assignment.run_id is not None and offer.run_id != assignment.run_id:
            text = f"the reply is of run {offer.run_id}, this is run {assignment.run_id}"
            return Refusal("wrong-run", text)
        if self.echo == "none" or assignment.stamp is None:
            return None
        if offer.stamp is None:
            if self.echo == "if there":
                return None
            return Refusal(
                "wrong-version",
                "the reply does not say which assignment it answers; "
                "put the mod on the client: ClientApp(mods=[assignment_mod])",
            )
        for key, expected in assignment.stamp.items():
            if (came := offer.stamp.get(key)) == expected:
                continue
            code = "wrong-run" if key == "run" else "wrong-version"
            fix = (
                f"; install the same flower-edge version on both sides ({STAMP_SCHEMA})"
                if key == "schema"
                else "; it is a reply to another assignment, or an old one once more"
            )
            return Refusal(code, f"{key} of the assignment it answers is {_shown(came)}, expected {expected!r}{fix}")
        return None

    def _records(self, offer: Offer, assignment: Assignment) -> Refusal | None:
        most = needed_bytes(assignment.manifest) if assignment.most_bytes is None else assignment.most_bytes
        if offer.size_bytes > most:
            return Refusal(
                "too-large",
                f"{offer.size_bytes} bytes came, and the assignment can need {most}; "
                "where a node has more to say, most_bytes= allows it",
                {"bytes": offer.size_bytes, "most_bytes": most},
            )
        if assignment.training and len(offer.arrays) != 1:
            names = ", ".join(_shown(name) for name in list(offer.arrays)[:4]) or "none"
            return Refusal("no-arrays", f"expected one record of arrays, {len(offer.arrays)} came: {names}")
        if len(offer.metrics) != 1:
            names = ", ".join(_shown(name) for name in list(offer.metrics)[:4]) or "none"
            return Refusal("metrics", f"expected one record of metrics, {len(offer.metrics)} came: {names}")
        return None

    def _metrics(self, offer: Offer) -> Refusal | None:
        (metrics,) = offer.metrics.values()
        if len(metrics) > self.most_metrics:
            return Refusal("metrics", f"{len(metrics)} metrics came; expected at most {self.most_metrics}")
        for name, value in metrics.items():
            if name == self.weighted_by:
                continue
            if isinstance(value, list) and len(value) > self.longest_list:
                return Refusal(
                    "metrics", f"metric {_shown(name)} has {len(value)} numbers, at most {self.longest_list}"
                )
            for number in value if isinstance(value, list) else [value]:
                if not _finite_number(number):
                    return Refusal("metrics", f"metric {_shown(name)} is {_shown(value)}; expected finite numbers")
        return None

    def _examples(self, offer: Offer, assignment: Assignment) -> Refusal | None:
        (metrics,) = offer.metrics.values()
        name, enrolled = self.weighted_by, assignment.most_examples
        if enrolled == 0:
            return Refusal("num-examples", "the node is not enrolled: most_examples= has no entry for it")
        most = MOST_EXAMPLES if enrolled is None else enrolled
        bound = "no node has more" if enrolled is None else "what the node is enrolled with"
        if name not in metrics:
            return Refusal("num-examples", f"no metric {name!r}; expected a number from 1 to {most}, {bound}")
        value = metrics[name]
        if _finite_number(value) and 1 <= value <= most:
            return None
        told: dict[str, int | float | str] = {"claimed": value} if _finite_number(value) else {}
        text = f"{name!r} is {_shown(value)}; expected a number from 1 to {most}, {bound}"
        return Refusal("num-examples", text, told)

    def _steps(self, offer: Offer, assignment: Assignment) -> Refusal | None:
        (metrics,) = offer.metrics.values()
        most = assignment.manifest.most_steps
        if most is None or "steps" not in metrics or not assignment.training:
            return None
        steps = metrics["steps"]
        if _finite_number(steps) and 0 < steps <= most:
            return None
        return Refusal("steps", f"it says it has made {_shown(steps)} steps; the assignment has {most}")

    def _arrays(self, offer: Offer, assignment: Assignment) -> Refusal | None:
        if not assignment.training:
            return None
        (arrays,) = offer.arrays.values()
        parts = assignment.manifest.arrays
        fix = "build the model with the same name and options on both sides"
        if missing := [name for name in parts if name not in arrays]:
            return Refusal("missing-array", f"{_list(missing)} of the assignment did not come back; {fix}")
        if extra := [name for name in arrays if name not in parts]:
            return Refusal("extra-array", f"{_list(extra)} came, and the assignment has no such array; {fix}")
        for name, part in parts.items():
            if (why := _label(name, arrays[name], part, offer.difference)) is not None:
                return why
        for name in parts:
            if (why := self._content(name, arrays[name])) is not None:
                return why
        return None

    def _content(self, name: str, array: OfferedArray) -> Refusal | None:
        try:
            view = npy_view(array.data, array.dtype, tuple(array.shape))
        except WireError as error:
            return Refusal("bytes", f"{_shown(name)}: {str(error)[:300]}")
        if self.finite and view.dtype.kind in "fc" and not finite(view):
            worst = "NaN" if bool(np.isnan(view).any()) else "infinity"
            return Refusal("not-finite", f"{_shown(name)} has {worst} in it; expected finite numbers throughout")
        return None


def _label(name: str, array: OfferedArray, part: ArrayPart, difference: bool) -> Refusal | None:
    shape = tuple(array.shape)
    if shape != part.shape and not (has_free_length(part) and len(shape) == 1):
        return Refusal("shape", f"{_shown(name)} has shape {_shown(shape)}, expected {part.shape}")
    dtypes = part.dtypes
    if difference and all(np.dtype(known).kind != "f" for known in dtypes):
        dtypes = ("float64",)  # a difference of whole numbers may be negative
    if array.dtype not in dtypes:
        return Refusal("dtype", f"{_shown(name)} is {_shown(array.dtype)}, expected {' or '.join(dtypes)}; {_CAST}")
    if array.stype != _NPY:
        return Refusal("bytes", f"{_shown(name)} comes as {_shown(array.stype)}, expected {_NPY!r}")
    return None


def _weighs_nothing(offer: Offer, weighted_by: str) -> bool:
    weights = [metrics.get(weighted_by) for metrics in offer.metrics.values()]
    return all(type(weight) in (int, float) and weight == 0 for weight in weights)


def _finite_number(value: object) -> bool:
    # A whole number may be too large for a float, and then for every mean.
    if type(value) is int:
        return value.bit_length() <= 63
    return type(value) is float and math.isfinite(value)


def _shown(value: object) -> str:
    """What came, in at most 80 characters: whoever sent it chose it."""
    if type(value) is int and value.bit_length() > 200:
        return f"a whole number of {value.bit_length()} bits"
    text = repr(value[:8]) if isinstance(value, list | tuple) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(_shown(name) for name in names[:4]) + more
