"""A card for each machine, and its part of the traffic: original against optimised. HTML from what a session tells.

Nothing here is kept, and nothing needs NiceGUI.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ...runtime.compression.told import ConnectionTold, MachineTold
from .. import words
from ..markup import bar, definitions, mark, paragraph, table

__all__ = ["bandwidth", "bandwidth_table", "cards", "layers"]


def cards(machines: Sequence[MachineTold], connections: Sequence[ConnectionTold]) -> str:
    """A card for each machine, in the order of the pipeline."""
    if not machines:
        return paragraph("After the first submission: a card for each machine.", "quiet")
    inner = "".join(_card(one, _beside(place, connections)) for place, one in enumerate(machines))
    return f'<div class="fe-cards">{inner}</div>'


def _beside(place: int, connections: Sequence[ConnectionTold]) -> list[ConnectionTold]:
    """Those over which it receives and sends: a pipeline's machine has one before it and one behind it."""
    return [one for number, one in enumerate(connections) if number in (place - 1, place)]


def _card(one: MachineTold, beside: Sequence[ConnectionTold]) -> str:
    if one["reachable"] is None:
        state = mark("modelled", "quiet")
    else:
        state = mark("reachable", "good") if one["reachable"] else mark("not reachable", "bad")
    before, now = (sum(link[name] for link in beside) for name in ("before_bytes", "now_bytes"))
    before_s, now_s = (sum(link[name] for link in beside) for name in ("before_s", "now_s"))
    pairs = [
        ("bandwidth", words.minus(1 - now / before) if before else words.NONE),
        ("latency of its links", words.minus(1 - now_s / before_s) if before_s else words.NONE),
        ("layers", f"{len(one['layers'])} ({len(one['optimised'])} may change)"),
        ("depth", f"{one['depth']} from each cut"),
        ("parameters", f"{words.count(one['parameters_before'])} → {words.count(one['parameters'])}"),
        ("computes", words.seconds(one["compute_s"])),
        ("version", words.NONE if one["version"] is None else str(one["version"])),
        ("served", words.count(one["served"])),
    ]
    where = "" if one["address"] is None else paragraph(f"at {one['address']}", "quiet")
    return (
        f'<article class="fe-card" aria-label="machine {escape(one["name"])}"><h3>{escape(one["name"])} {state}</h3>'
        f"{where}{paragraph(one['error'], 'bad') if one['error'] else ''}{definitions(pairs)}</article>"
    )


def layers(machines: Sequence[MachineTold]) -> str:
    """Which layers each machine holds, and which of them may change."""
    rows = [
        (one["name"], ", ".join(one["layers"]) or words.NONE, ", ".join(one["optimised"]) or words.NONE)
        for one in machines
    ]
    return table("Layers of each machine", ["machine", "layers", "of them may change"], rows)


def bandwidth(machines: Sequence[MachineTold], connections: Sequence[ConnectionTold]) -> str:
    """What each machine receives and sends for an inference, as bars: original against optimised."""
    if not connections:
        return paragraph("After the first submission: what each machine sends and receives.", "quiet")
    most = max(1, *(one["before_bytes"] for one in connections))
    drawn = [
        f"<div><h3>{escape(what)}</h3>"
        + bar("original", one["before_bytes"] / most, words.size(one["before_bytes"]), "before")
        + bar("optimised", one["now_bytes"] / most, f"{words.size(one['now_bytes'])} ({change})", "now")
        + "</div>"
        for what, one, change in _traffic(machines, connections)
    ]
    return f'<div class="fe-monitor">{"".join(drawn)}</div>'


def bandwidth_table(machines: Sequence[MachineTold], connections: Sequence[ConnectionTold]) -> str:
    """The same as a table, with what was measured."""
    rows = [
        (what, words.size(one["before_bytes"]), words.size(one["now_bytes"]), change, words.size(one["sent_bytes"]))
        for what, one, change in _traffic(machines, connections)
    ]
    return table("Bytes of an inference, by machine", ["machine", "original", "optimised", "change", "measured"], rows)


def _traffic(
    machines: Sequence[MachineTold], connections: Sequence[ConnectionTold]
) -> list[tuple[str, ConnectionTold, str]]:
    """By machine: what it receives over the connection before it, and what it sends over that behind it."""
    return [
        (f"{machine['name']} {verb}", connections[number], words.minus(connections[number]["saved_share"]))
        for place, machine in enumerate(machines)
        for number, verb in ((place - 1, "receives"), (place, "sends"))
        if 0 <= number < len(connections)
    ]
