"""What compression saved, per connection and over all: Eqs. 1 and 2, absolute and in per cent.

    bandwidth reduction = sum of W - sum of P           Eq. 1
    latency reduction   = sum of T - sum of L           Eq. 2

What was measured stands beside what was modelled, where it was measured. Nothing here measures.

Source: [2] ¶43.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import FringeError
from ..units import human_bits
from .links import Link

__all__ = ["ConnectionSaving", "Measured", "Saving", "savings", "savings_table"]


@dataclass(frozen=True)
class Measured:
    """What was seen at a connection; NaN where it was not.

    Attributes:
        before_bytes, after_bytes: of an inference on the socket.
        before_s, after_s: of an inference on the link.
    """

    before_bytes: float = math.nan
    after_bytes: float = math.nan
    before_s: float = math.nan
    after_s: float = math.nan


@dataclass(frozen=True)
class ConnectionSaving:
    """One connection, or all of them together.

    Attributes:
        name: such as "camera -> gateway"; "all" for the sum.
        before_bytes, after_bytes: W and P of one inference.
        before_s, after_s: T and L of one inference, modelled.
        measured: the same four as they were seen.
    """

    name: str
    before_bytes: float
    after_bytes: float
    before_s: float
    after_s: float
    measured: Measured = Measured()

    @property
    def bytes_saved(self) -> float:
        """Eq. 1 per inference."""
        return self.before_bytes - self.after_bytes

    @property
    def bandwidth_reduction(self) -> float:
        """The same over what it was, 0 to 1; below 0 where it got worse."""
        return _share(self.bytes_saved, self.before_bytes)

    @property
    def seconds_saved(self) -> float:
        """Eq. 2 per inference."""
        return self.before_s - self.after_s

    @property
    def latency_reduction(self) -> float:
        """The same over what it was."""
        return _share(self.seconds_saved, self.before_s)

    @property
    def measured_bandwidth_reduction(self) -> float:
        """Of the bytes that were seen; NaN where they were not."""
        return _share(self.measured.before_bytes - self.measured.after_bytes, self.measured.before_bytes)

    @property
    def measured_latency_reduction(self) -> float:
        """Of the seconds that were seen; NaN where they were not."""
        return _share(self.measured.before_s - self.measured.after_s, self.measured.before_s)

    def row(self) -> dict[str, Any]:
        """Plain values, those that follow from the others among them."""
        told = asdict(self)
        seen = told.pop("measured")
        return {
            **told,
            "bytes_saved": self.bytes_saved,
            "bandwidth_reduction": self.bandwidth_reduction,
            "seconds_saved": self.seconds_saved,
            "latency_reduction": self.latency_reduction,
            **{f"measured_{name}": value for name, value in seen.items()},
            "measured_bandwidth_reduction": self.measured_bandwidth_reduction,
            "measured_latency_reduction": self.measured_latency_reduction,
        }


@dataclass(frozen=True)
class Saving:
    """What compression saved.

    Attributes:
        connections: from the first machine on.
        rate_per_s: inferences per second.
    """

    connections: tuple[ConnectionSaving, ...]
    rate_per_s: float = 1.0

    @property
    def total(self) -> ConnectionSaving:
        """Over all connections: Eqs. 1 and 2 themselves."""
        # NaN where one was not measured: a sum of the others would be another quantity.
        seen = [one.measured for one in self.connections]
        return ConnectionSaving(
            "all",
            sum(one.before_bytes for one in self.connections),
            sum(one.after_bytes for one in self.connections),
            sum(one.before_s for one in self.connections),
            sum(one.after_s for one in self.connections),
            Measured(
                sum(one.before_bytes for one in seen),
                sum(one.after_bytes for one in seen),
                sum(one.before_s for one in seen),
                sum(one.after_s for one in seen),
            ),
        )

    @property
    def bandwidth_saved_bps(self) -> float:
        """Eq. 1 in bits per second, at this rate of inferences."""
        return 8 * self.total.bytes_saved * self.rate_per_s

    def rows(self) -> list[dict[str, Any]]:
        """Plain values, one dict per connection and one for all."""
        return [one.row() for one in (*self.connections, self.total)]


def savings(
    names: Sequence[str],
    before_bytes: Sequence[float],
    after_bytes: Sequence[float],
    links: Sequence[Link],
    *,
    links_before: Sequence[Link] | None = None,
    measured: Sequence[Measured] = (),
    rate_per_s: float = 1.0,
) -> Saving:
    """Put a report together.

    Args:
        names: of connections, in order.
        before_bytes, after_bytes: W and P of an inference, such as `Connection.size_bytes`.
        links: as they are now.
        links_before: as they were when W was sent; None: the same, so that Eq. 2 shows compression alone.
        measured: of each connection; empty: nothing was.
        rate_per_s: inferences per second.

    Raises:
        FringeError: counts that do not go together, bytes below 0, or a rate that is not above 0.

    >>> found = savings(["a -> b"], [65_560], [552], [Link(10e6, 0.01)])
    >>> round(found.total.bandwidth_reduction, 4), round(found.total.latency_reduction, 4)
    (0.9916, 0.8328)
    """
    earlier = links if links_before is None else links_before
    seen = tuple(measured) or (Measured(),) * len(names)
    counts = {len(names), len(before_bytes), len(after_bytes), len(links), len(earlier), len(seen)}
    if counts != {len(names)} or not names:
        raise FringeError(f"{len(names)} names with lists of {sorted(counts)}; expected one of each per connection")
    if not rate_per_s > 0 or any(not size >= 0 for size in (*before_bytes, *after_bytes)):
        raise FringeError(f"rate_per_s = {rate_per_s} and bytes {[*before_bytes, *after_bytes]}; expected above 0")
    rows = zip(names, before_bytes, after_bytes, earlier, links, seen, strict=True)
    return Saving(
        tuple(
            ConnectionSaving(name, before, after, was.seconds(before), now.seconds(after), one)
            for name, before, after, was, now, one in rows
        ),
        rate_per_s,
    )


def savings_table(saving: Saving) -> str:
    """The report as lines of text; what was measured in brackets, where it was."""
    lines = [("connection", "bytes", "saved", "latency", "saved")]
    for one in (*saving.connections, saving.total):
        seen = one.measured
        lines.append(
            (
                one.name,
                f"{_size(one.before_bytes)} -> {_size(one.after_bytes)}"
                + _beside(f"{_size(seen.before_bytes)} -> {_size(seen.after_bytes)}", one.measured_bandwidth_reduction),
                f"{100 * one.bandwidth_reduction:.2f} %"
                + _beside(f"{100 * one.measured_bandwidth_reduction:.2f} %", one.measured_bandwidth_reduction),
                f"{1e3 * one.before_s:.2f} -> {1e3 * one.after_s:.2f} ms"
                + _beside(f"{1e3 * seen.before_s:.2f} -> {1e3 * seen.after_s:.2f} ms", one.measured_latency_reduction),
                f"{100 * one.latency_reduction:.1f} %"
                + _beside(f"{100 * one.measured_latency_reduction:.1f} %", one.measured_latency_reduction),
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _beside(text: str, known: float) -> str:
    return "" if math.isnan(known) else f" ({text})"


def _size(size_bytes: float) -> str:
    return "-" if math.isnan(size_bytes) else human_bits(8 * size_bytes)


def _share(part: float, whole: float) -> float:
    if math.isnan(part) or math.isnan(whole):
        return math.nan
    return part / whole if whole else 0.0
