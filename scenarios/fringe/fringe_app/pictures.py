"""The latency of all requests and the bytes of an inference over time, as pictures, tables and last lines of the log.

Latencies are those that whoever asked has seen; bytes are counted. Nothing here serves.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from flower_edge.coverage.drawing import GREY, colour, new_figure, plain_log, save, stroke
from fringe_app.config import FringeRun
from fringe_app.serving import Served

LATENCY: Final = "latency-of-requests"
BYTES: Final = "bytes-over-time"
#: While the link is slow.
_BAD: Final = ("worse", "compressed on")
#: Where there are more versions than colours, see `colour`, the next ones have other marks.
_COLOURS: Final = 7
_MARKS: Final = (".", "x", "+", "^")


def lines(served: Served, trained: float) -> list[str]:
    """What a reader wants to know, one line for each thing."""
    told = served.told
    assert told is not None
    total, frozen = told["total"], told["frozen"]
    assert total is not None
    assert frozen is not None
    first, last = served.versions[0], served.versions[-1]
    fewest = min(served.versions, key=lambda one: sum(one.sizes_bytes))
    found = []
    for number, one in enumerate(told["connections"]):
        measured = "" if one["sent_bytes"] is None else f" ({one['sent_bytes']:.0f} measured)"
        found.append(
            f"{one['name']}: {first.sizes_bytes[number]} bytes of an inference before, {fewest.sizes_bytes[number]} "
            f"at the fewest, {last.sizes_bytes[number]} now{measured}; {1e3 * one['before_s']:.0f} -> "
            f"{1e3 * one['now_s']:.0f} ms"
        )
    p50 = ", ".join(f"{_ms(served.p50_s(phase))} {phase.name}" for phase in served.phases)
    test = ""
    if total["test_before"] is not None and total["test_score"] is not None:
        test = f"; {total['metric']} {total['test_before']:.3f} -> {total['test_score']:.3f}"
    counts = f"{len(served.answers) - served.lost} answered, {served.lost} lost, {served.mixed} of mixed versions"
    return [
        *found,
        f"requests, p50 in ms: {p50}",
        f"on test: accuracy {trained:.3f} -> {served.accuracy:.3f}, asked of the machines{test}",
        f"frozen arrays: {'the same' if frozen['equal'] else 'CHANGED'} after {frozen['checked']} iterations",
        f"requests: {counts}; {len(served.versions) - 1} swaps meanwhile",
    ]


def write_tables(served: Served, folder: Path) -> None:
    """The phases and the versions, beside the pictures; and every request."""
    phases = [
        (
            phase.name,
            f"{phase.begin_s:.1f}",
            f"{phase.end_s:.1f}",
            str(len(served.seconds_s(phase))),
            _ms(served.p50_s(phase)),
            _ms(max(served.seconds_s(phase), default=math.nan)),
        )
        for phase in served.phases
    ]
    _write(folder / f"{LATENCY}.csv", ("phase", "from, s", "to, s", "answers", "p50, ms", "longest, ms"), phases)
    names = [] if served.told is None else [one["name"] for one in served.told["connections"]]
    versions = [
        (f"{one.since_s:.1f}", str(one.number), *map(str, one.sizes_bytes), str(sum(one.sizes_bytes)))
        for one in served.versions
    ]
    _write(
        folder / f"{BYTES}.csv", ("from, s", "version", *(f"{name}, bytes" for name in names), "all, bytes"), versions
    )
    requests = [
        (
            str(one.number),
            f"{one.sent_s:.3f}",
            f"{one.seconds_s:.4f}",
            str(one.sample),
            "" if one.served is None else str(one.served.version),
            one.code,
        )
        for one in sorted(served.answers)
    ]
    _write(folder / "requests.csv", ("request", "sent_s", "seconds_s", "input", "served version", "lost"), requests)


def draw(config: FringeRun, served: Served, folder: Path) -> list[Path]:
    """Both pictures, into a folder."""
    figure, axes = new_figure("pictures", 9.0, 4.6)
    answered = [one for one in served.answers if one.served is not None]
    top = 1.35 * max((one.seconds_s for one in answered), default=1.0) * 1e3
    bottom = 0.7 * min([config.goal.latency_ms, *(1e3 * one.seconds_s for one in answered)])
    _phases(axes, served, top)
    for number, version in enumerate(sorted({one.served.version for one in answered if one.served is not None})):
        own = [one for one in answered if one.served is not None and one.served.version == version]
        axes.plot(
            [one.sent_s for one in own],
            [1e3 * one.seconds_s for one in own],
            _MARKS[number // _COLOURS % len(_MARKS)],
            color=colour(number),
            markersize=5,
        )
    for phase in served.phases:
        p50_s = served.p50_s(phase)
        if math.isfinite(p50_s):
            axes.plot([phase.begin_s, phase.end_s], [1e3 * p50_s] * 2, color="black", linewidth=1.6)
    axes.axhline(config.goal.latency_ms, color=GREY, linestyle=":", linewidth=1.2)
    plain_log(axes, "y")
    axes.set(ylabel="milliseconds, as who asked saw them", ylim=(bottom, top))
    axes.set_title(
        "a mark: a request, its form the version; bar: p50 of the phase; dashed: a swap; dotted: the goal, one way",
        fontsize=9,
        pad=42,
    )
    paths = [save(figure, folder / f"{LATENCY}.png")]

    figure, axes = new_figure("pictures", 9.0, 4.0)
    top = 2.5 * max(max(one.sizes_bytes) for one in served.versions)
    _phases(axes, served, top)
    end_s = served.phases[-1].end_s
    names = [] if served.told is None else [one["name"] for one in served.told["connections"]]
    for number, name in enumerate(names):
        sizes = [one.sizes_bytes[number] for one in served.versions]
        since_s = [max(0.0, one.since_s) for one in served.versions]
        axes.step([*since_s, end_s], [*sizes, sizes[-1]], where="post", label=name, linewidth=2, **stroke(number))
    plain_log(axes, "y")
    axes.set(ylabel="bytes of an inference", ylim=(None, top))
    axes.legend(fontsize="small", loc="lower left")
    return [*paths, save(figure, folder / f"{BYTES}.png")]


def _phases(axes: Any, served: Served, top: float) -> None:
    bad = [phase for phase in served.phases if phase.name in _BAD]
    if bad:
        axes.axvspan(bad[0].begin_s, bad[-1].end_s, color=colour(5), alpha=0.1, linewidth=0)
    for one in served.versions[1:]:
        axes.axvline(one.since_s, color=GREY, linestyle="--", linewidth=0.9)
    for number, phase in enumerate(served.phases):
        axes.axvline(phase.end_s, color=GREY, linewidth=0.4)
        # Three heights in turn: the names of short phases must not run into each other.
        middle_s = (phase.begin_s + phase.end_s) / 2
        above = {"xytext": (0, 3 + 11 * (number % 3)), "textcoords": "offset points"}
        axes.annotate(phase.name, (middle_s, top), ha="center", va="bottom", fontsize=8, **above)
    axes.set(xlabel="seconds since the first request", xlim=(0.0, served.phases[-1].end_s))


def _ms(value_s: float) -> str:
    return "-" if math.isnan(value_s) else f"{1e3 * value_s:.0f}"


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows(rows)
