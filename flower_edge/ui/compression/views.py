"""What a session tells, as HTML: the pipeline as a whole, its connections, links, proof, requests, iterations, events.

Functions of `Told` or a part of it. What came from outside (names, reasons) is escaped in `markup`. Nothing here
is kept, and nothing needs NiceGUI.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Final

from ...runtime.compression.told import ConnectionTold, Event, FrozenTold, RequestsTold, Told, TotalTold
from .. import words
from ..markup import definitions, mark, paragraph, table, tile

__all__ = [
    "connections",
    "events",
    "frozen",
    "iterations",
    "links",
    "phase_mark",
    "points",
    "requests",
    "status",
    "total",
    "total_table",
]

_KINDS: Final = {
    "running": "busy",
    "preparing": "busy",
    "goals met": "good",
    "floor reached": "warn",
    "paused": "warn",
    "failed": "bad",
}
#: Rows of a table that grows for ever; the export has all.
_MOST_ROWS: Final = 200


def phase_mark(told: Told) -> str:
    """The phase, as a word in a box."""
    return mark(told["phase"], _KINDS.get(told["phase"], "quiet"))


def status(told: Told, said: str = "") -> str:
    """A sentence for everybody, and for who listens instead of looking.

    Args:
        told: by the session.
        said: an error that stands elsewhere on the page already.
    """
    done, phase, all_ = len(told["iterations"]), told["phase"], told["total"]
    if phase == "idle":
        sentence = "Nothing was submitted yet."
    elif phase == "failed":
        sentence = "Failed; the version that served goes on serving."
    elif all_ is None:
        sentence = "Preparing: the model is cut and brought to its machines."
    else:
        sentence = (
            f"{phase.capitalize()}: {done} iteration{'' if done == 1 else 's'}, "
            f"{words.minus(all_['saved_share'])} bytes, {words.minus(all_['saved_time_share'])} latency, "
            f"{all_['metric']} {words.score(all_['score'], all_['metric'])}."
        )
        if phase == "floor reached" and not all_["goals_met"]:
            sentence += (
                " The goals were not reached: ask for less, allow the metric more or more layers, and submit again."
            )
    wrong = paragraph(told["error"], "bad") if told["error"] and told["error"] != said else ""
    return paragraph(sentence) + wrong


def total(all_: TotalTold | None) -> str:
    """The pipeline as a whole against its goals: three figures."""
    if all_ is None:
        return paragraph("After the first submission: score, bytes and latency of the whole pipeline.", "quiet")
    return f'<div class="fe-tiles">{_score(all_)}{_bytes(all_)}{_latency(all_)}</div>'


def _score(all_: TotalTold) -> str:
    metric = all_["metric"]
    above = all_["score"] >= all_["floor"] if all_["larger_is_better"] else all_["score"] <= all_["floor"]
    tested = "" if all_["test_score"] is None else f"{words.score(all_['test_score'], metric)} on the test set"
    return tile(
        metric,
        words.score(all_["score"], metric),
        [f"{words.score(all_['score_before'], metric)} before; floor {words.score(all_['floor'], metric)}", tested],
        mark("floor kept", "good") if above else mark("below the floor", "bad"),
    )


def _bytes(all_: TotalTold) -> str:
    most = all_["most_bytes"]
    return tile(
        "bandwidth",
        words.minus(all_["saved_share"]),
        [
            f"{words.size(all_['before_bytes'])} → {words.size(all_['now_bytes'])} of an inference",
            _goal(most, words.size(most)),
            f"at most reachable: {words.minus(all_['attainable_bytes_share'])}",
        ],
        _met(all_["now_bytes"], most),
    )


def _latency(all_: TotalTold) -> str:
    most, before, now = all_["most_s"], all_["answer_before_s"], all_["answer_s"]
    measured = (
        ""
        if before is None and now is None
        else f"answers, there and back, measured: {words.seconds(before)} → {words.seconds(now)}"
    )
    return tile(
        "latency",
        words.minus(all_["saved_time_share"]),
        [
            f"{words.seconds(all_['before_s'])} → {words.seconds(all_['now_s'])}, modelled from the links",
            measured,
            _goal(most, words.seconds(most)),
            f"at most reachable: {words.seconds(all_['attainable_s'])} ({words.minus(all_['attainable_time_share'])})",
        ],
        _met(all_["now_s"], most),
    )


def total_table(all_: TotalTold | None) -> str:
    """The same as a table."""
    if all_ is None:
        return ""
    metric, before, now = all_["metric"], all_["answer_before_s"], all_["answer_s"]
    saved = words.minus(1.0 - now / before) if before and now is not None else words.NONE
    tested = words.score(all_["test_before"], metric), words.score(all_["test_score"], metric)
    sizes = words.size(all_["before_bytes"]), words.size(all_["now_bytes"])
    modelled = words.seconds(all_["before_s"]), words.seconds(all_["now_s"])
    rows = [
        (f"{metric}, validation", words.score(all_["score_before"], metric), words.score(all_["score"], metric), ""),
        (f"{metric}, test", *tested, ""),
        ("bytes of an inference", *sizes, words.minus(all_["saved_share"])),
        ("latency, modelled", *modelled, words.minus(all_["saved_time_share"])),
        ("answers, there and back, measured (p50)", words.seconds(before), words.seconds(now), saved),
    ]
    return table("Original and optimised", ["what", "original", "optimised", "change"], rows)


def _goal(value: float | None, text: str) -> str:
    return "no goal" if value is None else f"goal: at most {text}"


def _met(now: float, most: float | None) -> str:
    return "" if most is None else mark("goal met", "good") if now <= most else mark("not yet", "warn")


def connections(all_: Sequence[ConnectionTold]) -> str:
    """Every connection: Eqs. 1 and 2 of it, and what was measured beside what is modelled."""
    if not all_:
        return ""
    rows = [
        (
            one["name"],
            words.size(one["before_bytes"]),
            words.size(one["now_bytes"]),
            f"{words.size(one['saved_bytes'])} ({words.minus(one['saved_share'])})",
            words.size(one["sent_bytes"]),
            words.seconds(one["before_s"]),
            words.seconds(one["now_s"]),
            f"{words.seconds(one['saved_s'])} ({words.minus(one['saved_time_share'])})",
            words.seconds(one["measured_s"]),
        )
        for one in all_
    ]
    heads = ["connection", "bytes before", "bytes now", "bytes saved", "bytes, measured"]
    heads += ["latency before", "latency now", "latency saved", "latency, measured"]
    return table("Bytes and latency of each connection", heads, rows)


def links(all_: Sequence[ConnectionTold]) -> str:
    """Every link as it is taken to be, and where that is from."""
    if not all_:
        return paragraph("After the first submission: goodput and delay of every link.", "quiet")
    rows = [
        (
            one["name"],
            words.rate(one["goodput_bps"]),
            words.seconds(one["delay_s"]),
            "set by hand" if one["overridden"] else "measured" if one["measured"] else "as it was given",
            "; ".join(f"{method}: {why}" for method, why in one["closed"].items()) or "all methods open",
        )
        for one in all_
    ]
    return table("Links", ["connection", "goodput", "delay, one way", "from", "not tried any more"], rows)


def points(one: ConnectionTold) -> str:
    """A connection over the iterations: what its two charts draw."""
    rows = [
        (
            str(point["iteration"]),
            words.size(one["before_bytes"]),
            words.size(point["size_bytes"]),
            words.size(point["tried_bytes"]),
            words.seconds(point["latency_s"]),
            "" if not point["here"] else "accepted" if point["accepted"] else "rolled back",
            point["why"],
        )
        for point in one["points"][-_MOST_ROWS:]
    ]
    heads = ["iteration", "original", "optimised", "tried", "latency", "here", "why"]
    return table(f"{one['name']} over the iterations", heads, rows)


def frozen(proof: FrozenTold | None) -> str:
    """Whether the layers that may not change are what they were."""
    if proof is None:
        return paragraph("After the first submission: the digest of all layers that may not change.", "quiet")
    said = mark("equal", "good") if proof["equal"] else mark("CHANGED", "bad")
    pairs = [
        ("SHA-256", proof["digest"][:12]),
        ("arrays", words.count(proof["arrays"])),
        ("checked", f"{proof['checked']} time{'' if proof['checked'] == 1 else 's'}"),
    ]
    return said + definitions(pairs)


def requests(seen: RequestsTold | None, submitted: bool = True) -> str:
    """Requests that were answered, and those that were not.

    Args:
        seen: counted; None: nothing serves.
        submitted: whether something was submitted; before that nothing serves on any machine.
    """
    if seen is None:
        nothing = "Nothing serves: the links are modelled."
        return paragraph(nothing if submitted else "After the first submission: requests served and lost.", "quiet")
    said = mark("none lost", "good") if not seen["lost"] else mark(f"{seen['lost']} lost", "bad")
    by_version = ", ".join(f"version {name}: {words.count(number)}" for name, number in seen["by_version"].items())
    pairs = [
        ("served", words.count(seen["served"])),
        ("lost", words.count(seen["lost"])),
        ("refused, too many waiting", words.count(seen["refused"])),
        ("under way", words.count(seen["under_way"])),
        ("swaps while they flowed", words.count(seen["swaps"])),
        ("answered by", by_version or words.NONE),
    ]
    return said + definitions(pairs)


def iterations(told: Told) -> str:
    """Every iteration, the latest first."""
    if not told["iterations"]:
        return paragraph("No iterations yet.", "quiet")
    rows = []
    for one in reversed(told["iterations"][-_MOST_ROWS:]):
        where = one.get("connection")
        named = isinstance(where, int) and 0 <= where < len(told["connections"])
        rows.append(
            (
                str(one.get("number", one.get("iteration", ""))),
                told["connections"][where]["name"] if isinstance(where, int) and named else str(where or ""),
                str(one.get("method", "")),
                "accepted" if one.get("accepted") else "rolled back",
                str(one.get("why", "")),
            )
        )
    return table("Iterations, the latest first", ["iteration", "connection", "method", "end", "why"], rows)


def events(all_: Sequence[Event]) -> str:
    """What happened, the latest first, in this machine's time."""
    rows = [
        (time.strftime("%H:%M:%S", time.localtime(one["time_s"])) if math.isfinite(one["time_s"]) else "", one["text"])
        for one in reversed(all_[-_MOST_ROWS:])
    ]
    return table("Events, the latest first", ["time", "what"], rows) if rows else paragraph("No events yet.", "quiet")
