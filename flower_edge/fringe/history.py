"""What a controller did: `Iteration`, one thing that was tried, and `Version`, a pipeline that was accepted.

Both are plain values and arrays, so that all of it survives a restart. Nothing here runs a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import FringeError
from .actions import Operation

__all__ = ["Iteration", "Version", "history_table"]


@dataclass(frozen=True)
class Iteration:
    """One thing that was tried.

    Attributes:
        number: from 1 on.
        method, connection, amount, octaves: see `Action`.
        accepted: whether it is a version now; else everything is as it was before, byte for byte.
        why: in words.
        before_bytes, after_bytes: of an inference at each connection; after is what it would have been, if refused.
        before_s, after_s: latency of an inference, links and compute, modelled from what was measured; None where it
            was refused.
        before_score, after_score: the metric on validation; None where it did not come to that.
        healed: whether fringe layers were trained to make up for it.
        frozen_digest: SHA-256 over all arrays that may not change, checked after this iteration.
        before_digest, digest: of the pipeline before and after; the same where it was rolled back.
        version: that is current after it.
        seconds_s: that it took.
        features: of the candidate, for a policy that learns.
        learned_from: SHA-256 over the samples it was healed and distilled with; "": it was not kept.
    """

    number: int
    method: str
    connection: int
    amount: int
    octaves: float
    accepted: bool
    why: str
    before_bytes: tuple[int, ...]
    after_bytes: tuple[int, ...]
    before_s: float
    after_s: float | None
    before_score: float
    after_score: float | None
    healed: bool
    frozen_digest: str
    before_digest: str
    digest: str
    version: int
    seconds_s: float
    features: Mapping[str, Any]
    learned_from: str = ""

    def row(self) -> dict[str, Any]:
        """Plain values; `from_row` is its inverse."""
        told = asdict(self)
        for name in ("before_bytes", "after_bytes"):
            told[name] = list(told[name])
        return {**told, "features": dict(self.features)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Iteration:
        """Inverse of `row`.

        Raises:
            FringeError: no such row.
        """
        try:
            sizes = {name: tuple(int(size) for size in row[name]) for name in ("before_bytes", "after_bytes")}
            return cls(**{**row, **sizes})
        except (KeyError, TypeError, ValueError) as error:
            raise FringeError(f"iteration {row!r:.120}: {error}; expected what Iteration.row gives") from error


@dataclass(frozen=True, eq=False)
class Version:
    """A pipeline that was accepted, as what makes it again.

    Attributes:
        number: 0 is the pipeline before any compression. Never used twice, so a server knows it by its number.
        operations: see `operations_torch`.
        arrays: by machine, those that may change.
        sizes_bytes: of an inference at each connection.
        score: the metric on validation.
        compute_s: of each machine; empty where it was not measured.
        digest: SHA-256 over all arrays and forms.
    """

    number: int
    operations: tuple[Operation, ...]
    arrays: Mapping[str, Mapping[str, Any]]
    sizes_bytes: tuple[int, ...]
    score: float
    compute_s: tuple[float, ...]
    digest: str

    def state(self) -> dict[str, Any]:
        """Plain values and arrays; `from_state` is its inverse."""
        return {
            "number": self.number,
            "operations": [dict(one) for one in self.operations],
            "arrays": {machine: dict(arrays) for machine, arrays in self.arrays.items()},
            "sizes_bytes": list(self.sizes_bytes),
            "score": self.score,
            "compute_s": list(self.compute_s),
            "digest": self.digest,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Version:
        """Inverse of `state`.

        Raises:
            FringeError: no such state.
        """
        try:
            return cls(
                int(state["number"]),
                tuple(dict(one) for one in state["operations"]),
                {machine: dict(arrays) for machine, arrays in state["arrays"].items()},
                tuple(int(size) for size in state["sizes_bytes"]),
                float(state["score"]),
                tuple(float(seconds) for seconds in state["compute_s"]),
                str(state["digest"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FringeError(f"a version of {state!r:.120}: {error}; expected what Version.state gives") from error


def history_table(iterations: Sequence[Iteration]) -> str:
    """All iterations as lines of text."""
    lines = [("", "tried", "at", "bytes", "latency", "score", "")]
    for one in iterations:
        unit = {"quantisation": "bits", "pruning": "channels", "distillation": "bytes"}[one.method]
        after = "-" if one.after_s is None else f"{1e3 * one.after_s:.2f}"
        score = "-" if one.after_score is None or math.isnan(one.after_score) else f"{one.after_score:.4g}"
        lines.append(
            (
                str(one.number),
                f"{one.method} to {one.amount} {unit}",
                str(one.connection),
                f"{sum(one.before_bytes)} -> {sum(one.after_bytes)}",
                f"{1e3 * one.before_s:.2f} -> {after} ms",
                score,
                "accepted" if one.accepted else f"rolled back: {one.why}",
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(7)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
