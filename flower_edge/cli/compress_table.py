"""What a compression told of itself, as lines of text: each iteration as it comes, and tables at the end.

    bandwidth, latency   Eqs. 1 and 2: what was, what is, and how much less, per connection and over all
    measured             what was seen on the sockets, beside what is modelled

Reads `Told`; nothing here prints, asks or computes a compression.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..units import human_bits
from .columns import NOTHING, columns, ratio

if TYPE_CHECKING:
    from ..runtime.compression.told import ConnectionTold, Phase, Told, TotalTold

__all__ = ["ITERATION", "ended", "iteration_cells", "proposal", "summary", "tried"]

#: Head of the table of iterations.
ITERATION: Final = ("", "at", "tried", "bytes", "latency", "score", "")
_UNITS: Final = {"quantisation": "bits", "pruning": "channels", "distillation": "bytes"}


def tried(row: Mapping[str, Any]) -> str:
    """What an iteration tried.

    >>> tried({"method": "pruning", "amount": 4})
    'pruning to 4 channels'
    """
    return f"{row['method']} to {row['amount']} {_UNITS.get(row['method'], '')}".rstrip()


def iteration_cells(row: Mapping[str, Any], connections: Sequence[str]) -> tuple[str, ...]:
    """An iteration in the columns of `ITERATION`."""
    at = int(row["connection"])
    return (
        str(row["number"]),
        connections[at] if at < len(connections) else str(at),
        tried(row),
        f"{_bytes(sum(row['before_bytes']))} -> {_bytes(sum(row['after_bytes']))}",
        f"{_ms(row['before_s'])} -> {_ms(row['after_s'])} ms",
        ratio(row["after_score"]),
        "accepted" if row["accepted"] else f"rolled back: {row['why']}",
    )


def summary(told: Told) -> list[str]:
    """All lines at the end, after the iterations."""
    total = told["total"]
    if total is None:
        return [ended(told)]
    return [
        *_connections(told["connections"], total),
        "",
        *_machines(told),
        "",
        *_scores(total),
        *_measured(total),
        *_frozen(told),
        *_requests(told),
        *_attainable(total),
        *_missed(told["phase"], total),
        ended(told),
    ]


def ended(told: Told) -> str:
    """How it stands, and after how many iterations.

    >>> rows = [{"accepted": True}, {"accepted": False}]
    >>> ended({"phase": "goals met", "iterations": rows, "error": None})  # type: ignore[typeddict-item]
    'goals met after 2 iterations, 1 rolled back'
    """
    back = sum(not row["accepted"] for row in told["iterations"])
    why = f": {told['error']}" if told["error"] else ""
    return f"{told['phase']} after {len(told['iterations'])} iterations, {back} rolled back{why}"


def _missed(phase: Phase, total: TotalTold) -> list[str]:
    """By how much, and what can be done about it, where nothing is left to try."""
    if phase != "floor reached" or total["goals_met"]:
        return []
    bytes_, seconds_ = total["most_bytes"], total["most_s"]
    missed = []
    if bytes_ is not None and total["now_bytes"] > bytes_:
        missed.append(f"{_bytes(total['now_bytes'])} where {_bytes(math.floor(bytes_))} were asked for")
    if seconds_ is not None and total["now_s"] > seconds_:
        missed.append(f"{_ms(total['now_s'])} ms where {_ms(seconds_)} ms were asked for")
    do = "allow the metric more (--drop, --floor), more layers (--depth), other --cuts or --methods, or ask for less"
    return [f"missed: {', '.join(missed)}; {do}"]


def _connections(found: Sequence[ConnectionTold], total: TotalTold) -> list[str]:
    head = ("connection", "bytes", "saved", "", "latency, modelled", "saved", "", "measured: bytes", "latency", "link")
    lines = [
        (
            one["name"],
            f"{_bytes(one['before_bytes'])} -> {_bytes(one['now_bytes'])}",
            _bytes(one["saved_bytes"]),
            _percent(one["saved_share"]),
            f"{_ms(one['before_s'])} -> {_ms(one['now_s'])} ms",
            f"{_ms(one['saved_s'])} ms",
            _percent(one["saved_time_share"]),
            NOTHING if one["sent_bytes"] is None else _bytes(one["sent_bytes"]),
            NOTHING if one["measured_s"] is None else f"{_ms(one['measured_s'])} ms",
            _link(one),
        )
        for one in found
    ]
    saved_bytes = total["before_bytes"] - total["now_bytes"]
    sums = (
        "all",
        f"{_bytes(total['before_bytes'])} -> {_bytes(total['now_bytes'])}",
        _bytes(saved_bytes),
        _percent(total["saved_share"]),
        f"{_ms(total['before_s'])} -> {_ms(total['now_s'])} ms",
        f"{_ms(total['before_s'] - total['now_s'])} ms",
        _percent(total["saved_time_share"]),
        NOTHING,
        NOTHING if total["answer_s"] is None else f"{_ms(total['answer_s'])} ms",
        "",
    )
    return columns(head, [*lines, sums])


def _link(one: ConnectionTold) -> str:
    how = "set by hand" if one["overridden"] else "measured" if one["measured"] else "as given"
    return f"{_rate(one['goodput_bps'])}, {_ms(one['delay_s'])} ms, {how}"


def _machines(told: Told) -> list[str]:
    head = ("machine", "parameters", "may change", "compute", "served", "address")
    return columns(
        head,
        [
            (
                one["name"],
                f"{one['parameters_before']} -> {one['parameters']}",
                f"{len(one['optimised'])} of {len(one['layers'])} layers",
                NOTHING if one["compute_s"] is None else f"{_ms(one['compute_s'])} ms",
                NOTHING if one["served"] is None else str(one["served"]),
                (one["address"] or NOTHING) + (f" ({one['error']})" if one["error"] else ""),
            )
            for one in told["machines"]
        ],
    )


def _scores(total: TotalTold) -> list[str]:
    floor = f"{'floor' if total['larger_is_better'] else 'ceiling'} {ratio(total['floor'])}"
    lines = [
        f"{total['metric']}: {ratio(total['score_before'])} -> {ratio(total['score'])} on validation, {floor}",
    ]
    if total["test_before"] is not None and total["test_score"] is not None:
        lines[0] += f"; {ratio(total['test_before'])} -> {ratio(total['test_score'])} on test"
    return lines


def _measured(total: TotalTold) -> list[str]:
    if total["answer_s"] is None:
        return []
    before = NOTHING if total["answer_before_s"] is None else f"{_ms(total['answer_before_s'])} ms"
    return [f"answers, measured at the entry: p50 {before} -> {_ms(total['answer_s'])} ms"]


def _frozen(told: Told) -> list[str]:
    frozen = told["frozen"]
    if frozen is None:
        return []
    how = "the same" if frozen["equal"] else "CHANGED"
    return [f"frozen: {frozen['arrays']} arrays, SHA-256 {frozen['digest'][:16]}, {how} in {frozen['checked']} checks"]


def _requests(told: Told) -> list[str]:
    told_of = told["requests"]
    if told_of is None:
        return []
    counts = ", ".join(f"{told_of[name]} {name}" for name in ("served", "lost", "refused"))
    return [f"requests: {counts}; {told_of['swaps']} swaps while they flowed"]


def _attainable(total: TotalTold) -> list[str]:
    size, time = _percent(total["attainable_bytes_share"]), _percent(total["attainable_time_share"])
    return [f"at most, whatever the score: {size} fewer bytes, {time} less latency ({_ms(total['attainable_s'])} ms)"]


def proposal(found: Mapping[str, Any]) -> list[str]:
    """What `CompressionSession.propose` found: what would be chosen, what an inference costs now, and the most."""
    head = ("connection", "bytes", "latency", "rate", "delay")
    lines = [
        (
            str(one["name"]),
            _bytes(one["size_bytes"]),
            f"{_ms(one['seconds'])} ms",
            _rate(one["goodput_bps"]),
            f"{_ms(one['delay_s'])} ms",
        )
        for one in found["connections"]
    ]
    all_of_them = ("all", _bytes(found["before_bytes"]), f"{_ms(found['before_s'])} ms", "", "")
    size, time = _percent(found["attainable_bytes_share"]), _percent(found["attainable_time_share"])
    most = f"{size} fewer bytes ({found['attainable_factor']:.4g}x), {time} less latency"
    goals = [
        *([] if found["most_bytes"] is None else [f"{_bytes(max(0.0, found['most_bytes']))} of an inference"]),
        *([] if found["most_s"] is None else [f"{_ms(found['most_s'])} ms"]),
    ]
    return [
        f"machines: {', '.join(found['machines'])}; cut after {', '.join(found['cuts'])}",
        "layers that may change beside a cut: "
        + ", ".join(f"{name} {layers}" for name, layers in found["depth"].items()),
        f"methods: {', '.join(found['methods'])}",
        *found["why"],
        "",
        *columns(head, [*lines, all_of_them]),
        "",
        f"{found['metric']}: {ratio(found['score_before'])} on validation, {ratio(found['floor'])} is allowed",
        f"goals: at most {' and '.join(goals)}",
        f"at most, whatever the score: {most} ({_ms(found['attainable_s'])} ms is left)",
        *([] if found["links_measured"] else ["links that nobody has measured are taken to be as the table says"]),
        *([] if found["refused"] is None else [f"refused: {found['refused']}"]),
    ]


def _bytes(value: float) -> str:
    # A frame of some hundred bytes is what all this is about: whole bytes up to ten thousand.
    return f"{value:.0f} B" if abs(value) < 1e4 else human_bits(8 * value)


def _rate(value_bps: float | None) -> str:
    if value_bps is None or math.isinf(value_bps):
        return "any rate"
    for least, unit in ((1e9, "Gbit/s"), (1e6, "Mbit/s")):
        if value_bps >= least:
            return f"{value_bps / least:.3g} {unit}"
    return f"{value_bps / 1e3:.3g} kbit/s"


def _ms(value_s: float | None) -> str:
    return NOTHING if value_s is None else f"{1e3 * value_s:.2f}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
