"""What a run's folder tells, as HTML: its figures, selection, links, refusals, rewards, events, facts.

Functions of a follower and its state, which nobody writes meanwhile. What came from outside (names, reasons) is escaped
in `markup`. Nothing here is kept, and nothing needs NiceGUI.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from ...monitoring.attendance import sentences
from ...monitoring.follower import RunFollower
from ...monitoring.happenings import Happening
from ...monitoring.links import by_bandwidth
from ...monitoring.rounds import RoundLine, latest, total
from ...monitoring.run_state import RunState
from ...units import human_s
from .. import words
from ..markup import definitions, mark, paragraph, table, tile
from .tier_map import in_order
from .watched import age_s

__all__ = [
    "KINDS",
    "events",
    "facts",
    "figures",
    "links",
    "refusals",
    "rewards",
    "selection",
    "status_mark",
    "status_sentence",
]

#: Colours of what a run is.
KINDS: Final = {
    "running": "busy",
    "finished": "good",
    "failed": "bad",
    "stopped": "warn",
    "interrupted": "warn",
    "missing": "bad",
}
#: Rows of each table; the report and the command line have all.
MOST_ROWS: Final = 200
_MICRO_PER_CREDIT: Final = 1_000_000
#: What a config calls its number of rounds.
_PLANNED: Final = ("num-server-rounds", "num_server_rounds", "rounds", "num-rounds")


def planned(follower: RunFollower) -> int | None:
    """How many rounds the run's config asks for, where it says so."""
    found = (follower.config.get(name) for name in _PLANNED)
    return next((int(value) for value in found if isinstance(value, int | float) and 0 < value < 1e9), None)


def status_mark(follower: RunFollower) -> str:
    """What the run is, as a word in a box."""
    return mark(follower.status, KINDS.get(follower.status, "quiet"))


def status_sentence(follower: RunFollower, state: RunState) -> str:
    """A sentence for everybody, and for who listens instead of looking."""
    lines, status, run = state.lines, follower.status, follower.run
    rounds = planned(follower)
    said = [f"round {state.round}{f' of {rounds}' if rounds and status == 'running' else ''}"]
    accuracy = latest(lines, "accuracy")
    said += [f"accuracy {words.share(accuracy)}"] if accuracy is not None else []
    told = paragraph(f"{status.capitalize()}: {', '.join(said)}.")
    if status == "missing":
        gone = "Its folder is gone" if run is not None else "There is no such folder yet"
        told += paragraph(f"{gone}; below is what was read before.", "warn")
    elif status == "interrupted":
        told += paragraph("The process that ran it ended without saying so; below is what it had recorded.", "warn")
    if run is not None and run.info.get("error"):
        told += paragraph(str(run.info["error"])[:500], "bad")
    if run is not None and status == "running" and (asked := run.stop_asked()) is not None:
        told += paragraph(f"Asked to stop after this round: {asked}", "warn")
    if follower.damaged_lines:
        told += paragraph(f"{follower.damaged_lines} damaged lines of its record were passed over.", "warn")
    return told


def figures(follower: RunFollower, state: RunState) -> str:
    """What one looks at first."""
    lines, rounds = state.lines, planned(follower)
    accuracies = [line.accuracy for line in lines if line.accuracy is not None]
    newest = next((line for line in reversed(lines) if line.nodes_sampled is not None), RoundLine(0))
    best = f"best {words.share(max(accuracies))}" if accuracies else ""
    loss = latest(lines, "loss")
    up, down = (total(lines, name) for name in ("up_bits", "down_bits"))
    took = _duration(age_s(follower, state))
    virtual = "" if state.last_virtual_s is None else f"virtual clock: {_duration(state.last_virtual_s)}"
    refused, paid = sum(state.refused_by_code.values()), state.paid_micro
    goes_on = f"{took} so far" if follower.status == "running" else took
    traffic = None if up is None and down is None else ((up or 0) + (down or 0)) / 8
    ways = [words.size(None if bits is None else bits / 8) for bits in (up, down)]
    came = words.NONE if newest.nodes_sampled is None else f"{newest.nodes_replied or 0:g} of {newest.nodes_sampled:g}"
    codes = ", ".join(f"{code} {number}" for code, number in state.refused_by_code.most_common(3))
    nodes = {node for node, _ in state.paid}
    asked = f"of {rounds}" if rounds and follower.status == "running" else ""
    tiles = [
        tile("round", str(state.round), [asked, goes_on, virtual]),
        tile("accuracy", words.share(accuracies[-1] if accuracies else None), [best, _loss(loss)]),
        tile("traffic", words.size(traffic), [f"{ways[0]} up, {ways[1]} down"]),
        tile(
            "terminals", came, ["replied in the newest round", f"{total(lines, 'nodes_failed') or 0:g} failed in all"]
        ),
        tile("refused", words.count(refused), [codes]),
        tile("rewards", f"{paid / _MICRO_PER_CREDIT:,.2f}" if nodes else words.NONE, [_paid(len(nodes))]),
    ]
    return f'<div class="fe-tiles fe-tiles-small">{"".join(tiles)}</div>'


def _duration(value_s: float | None) -> str:
    return words.NONE if value_s is None else human_s(value_s)


def _loss(loss: float | None) -> str:
    return "" if loss is None else f"loss {loss:.4g}"


def _paid(nodes: int) -> str:
    return f"credits to {nodes} node{'' if nodes == 1 else 's'}" if nodes else "none were booked"


def selection(state: RunState) -> str:
    """Whom rounds asked, and whom they could have asked."""
    chosen = [cell for cell in state.cells.values() if cell.eligible is not None or cell.chosen is not None]
    said = []
    newest = next((line for line in reversed(state.lines) if line.nodes_sampled is not None), None)
    if newest is not None:
        pairs = [
            ("round", str(newest.round)),
            ("sampled", f"{newest.nodes_sampled:g}"),
            ("replied", f"{newest.nodes_replied or 0:g}"),
            ("failed", f"{newest.nodes_failed or 0:g}"),
        ]
        if newest.cells_skipped is not None:
            pairs.append(("edges left out", f"{newest.cells_skipped:g}"))
        said.append(definitions(pairs))
    if chosen:
        rows = [
            (cell.cell, _told(cell.eligible), _told(cell.chosen), _told(cell.replied))
            for cell in sorted(chosen, key=lambda cell: cell.cell)
        ]
        said.append(table("By edge, newest round", ["edge", "could be asked", "chosen", "replied"], rows[:MOST_ROWS]))
    absent = sentences(state.attendance())
    if absent:
        said.append("".join(paragraph(sentence, "warn") for sentence in absent))
    moved = [(what, state.event_counts[what]) for what in _MOVES if state.event_counts[what]]
    if moved:
        said.append(definitions([(what, words.count(number)) for what, number in moved]))
    told = [event for event in state.events if event.what == "selected"][-8:]
    if told:
        why = [(str(event.round), event.cell, event.text) for event in reversed(told)]
        said.append(table("Why somebody was left out", ["round", "edge", "in words"], why))
    return "".join(said) or paragraph("Nothing was recorded of whom rounds asked.", "quiet")


_MOVES: Final = ("entered", "left", "handed-over", "exited", "joined", "stopped", "given-up", "replaced", "retired")


def links(state: RunState) -> str:
    """Every link with its bandwidth and delay, the slowest first."""
    all_ = state.links_now()
    if not all_:
        return paragraph(
            "No links between terminals were recorded: terminals of this run talk to an edge or a server.", "quiet"
        )
    slowest, cells = by_bandwidth(all_), any(link.cell for link in all_)
    rows = [
        (
            *((link.cell,) if cells else ()),
            f"{link.sender} → {link.receiver}",
            words.rate(link.bandwidth_bps),
            words.seconds(link.delay_s),
            words.NONE if link.weight is None else f"{link.weight:.3f}",
            str(link.round),
        )
        for link in slowest[:MOST_ROWS]
    ]
    total_ = state.links_total()
    more = f", the {len(rows)} slowest of {total_}" if total_ > len(rows) else ""
    heads = [*(["edge"] if cells else []), "link", "bandwidth", "delay of a model", "weight", "round"]
    return table(f"{total_} links{more}", heads, rows)


def refusals(state: RunState) -> str:
    """Who was refused where, and why."""
    if not state.refused:
        return paragraph("No reply was refused.", "quiet")
    codes = definitions([(code, words.count(number)) for code, number in state.refused_by_code.most_common(12)])
    top = "centre" if state.cells else "server"
    order = {node: at for at, node in enumerate(in_order(list({node for node, _, _ in state.refused})))}
    rows = [
        (
            node,
            where or top,
            code,
            words.count(one.times),
            str(one.first) if one.first == one.last else f"{one.first} to {one.last}",
            one.why[:300],
        )
        for (node, where, code), one in sorted(state.refused.items(), key=lambda item: (order[item[0][0]], item[0][1:]))
    ]
    heads = ["node", "at", "code", "times", "rounds", "why, the first time"]
    return codes + table(_most("Refused replies", rows), heads, rows[:MOST_ROWS])


def rewards(state: RunState) -> str:
    """Who was paid how much, the most first."""
    if not state.paid:
        return paragraph("No rewards were booked.", "quiet")
    top = "centre" if state.cells else "server"
    rows = [
        (node, where or top, words.count(one.times), f"{one.micro / _MICRO_PER_CREDIT:,.3f}")
        for (node, where), one in sorted(state.paid.items(), key=lambda item: -item[1].micro)
    ]
    return table(_most("Rewards", rows), ["node", "payer", "times paid", "credits"], rows[:MOST_ROWS])


def events(state: RunState) -> str:
    """What happened, the latest first."""
    if not state.events:
        return paragraph("Nothing happened that is told as an event.", "quiet")
    # Edges work side by side, and each tells what happened when it is done.
    newest = sorted(state.events, key=lambda one: (one.round, math.inf if one.virtual_s is None else one.virtual_s))
    columns = [
        (head, write)
        for head, write in _EVENT_COLUMNS
        if head in ("round", "in words") or any(write(event) for event in newest)
    ]
    rows = [[write(event) for _, write in columns] for event in newest[-MOST_ROWS:][::-1]]
    total_ = max(sum(state.event_counts.values()), len(rows))
    caption = f"The latest {len(rows)} of {total_} events, the latest first"
    return table(caption, [head for head, _ in columns], rows)


_EVENT_COLUMNS: Final[tuple[tuple[str, Callable[[Happening], str]], ...]] = (
    ("round", lambda event: str(event.round)),
    ("virtual time", lambda event: "" if event.virtual_s is None else _duration(event.virtual_s)),
    ("what", lambda event: event.what),
    ("edge", lambda event: event.cell),
    ("node", lambda event: event.node),
    ("in words", lambda event: event.text[:300]),
)


def facts(follower: RunFollower) -> str:
    """What was asked for, and with what."""
    run = follower.run
    info: Mapping[str, Any] = {} if run is None else run.info
    told = [
        (name, str(info[name]))
        for name in ("started_at", "finished_at", "seed", "resumed_from", "platform")
        if info.get(name) is not None
    ]
    parts = [table("Run", ["what", "value"], [("folder", follower.path.name), *told])]
    for title, value in (("Config", follower.config), ("Versions", info.get("versions", {}))):
        rows = list(_flat(value))[:MOST_ROWS]
        if rows:
            parts.append(table(title, ["what", "value"], rows))
    return "".join(parts)


def _flat(value: object, at: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{at}.{key}" if at else str(key))
    elif at:
        yield at, str(value)[:300]


def _told(value: float | None) -> str:
    return words.NONE if value is None else f"{value:g}"


def _most(title: str, rows: list[Any]) -> str:
    return f"{title}, {MOST_ROWS} of {len(rows)}" if len(rows) > MOST_ROWS else title
