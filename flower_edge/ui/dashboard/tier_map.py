"""The map of a run as HTML: centre, edges and terminals as a tree; terminals that hear each other as a ring of links.

Made of boxes that reflow, so that it can be read on a narrow screen; each map has a table that says the same. Nothing
here is kept, and nothing needs NiceGUI.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from html import escape
from typing import Final

from ...monitoring.links import Link
from ...monitoring.rounds import latest
from ...monitoring.run_state import CellState, RunState
from .. import words
from ..markup import paragraph, table

__all__ = ["STYLE", "in_order", "tier_map", "tier_table"]

#: Terminals that are drawn beside an edge, nodes and links of a ring, edges of a map; the table has more.
MOST_DOTS: Final = 40
MOST_RING: Final = 60
MOST_LINES: Final = 300
MOST_EDGES: Final = 60
#: Nodes of a ring that is drawn small.
FEW: Final = 12
#: Edges whose links are drawn, a ring each.
MOST_RINGS: Final = 12

STYLE: Final = """
.fe-map { margin: 0; }
.fe-tree { border-left: 2px solid var(--fe-before); margin: 0 0 0 22px; padding: 2px 0 0; }
.fe-branch { display: flex; flex-wrap: wrap; gap: 6px 10px; align-items: center; padding: 7px 0 7px 22px;
  position: relative; }
.fe-branch::before { content: ""; position: absolute; left: 0; top: 24px; width: 20px;
  border-top: 2px solid var(--fe-before); }
.fe-branch:last-child::after { content: ""; position: absolute; left: -3px; top: 26px; bottom: 0; width: 4px;
  background: var(--fe-surface); }
.fe-host { display: inline-flex; flex-direction: column; border: 1.5px solid var(--fe-now); border-radius: 8px;
  padding: 3px 11px; min-width: 118px; background: var(--fe-soft); }
.fe-host strong { font-weight: 650; } .fe-host span { color: var(--fe-muted); font-size: 13px; }
.fe-host.fe-bad-host { border-color: var(--fe-bad); }
.fe-host.fe-idle { border-style: dashed; border-color: var(--fe-before); }
.fe-dots { display: flex; flex-wrap: wrap; gap: 4px; align-items: center; flex: 1 1 180px; min-width: 0; }
.fe-dot { border: 1.5px solid var(--fe-muted); border-radius: 999px; min-width: 22px; height: 22px; padding: 0 4px;
  font-size: 12px; line-height: 19px; text-align: center; color: var(--fe-ink); font-variant-numeric: tabular-nums; }
.fe-dot.fe-was-in { border-color: var(--fe-good); background: var(--fe-good); min-width: 14px; width: 14px;
  height: 14px; padding: 0; }
.fe-dot.fe-was-out { width: 14px; min-width: 14px; height: 14px; padding: 0; }
.fe-dot.fe-was-refused { border-color: var(--fe-bad); border-radius: 4px; color: var(--fe-bad); font-weight: 650; }
.fe-key { color: var(--fe-muted); font-size: 13px; display: flex; flex-wrap: wrap; gap: 4px 14px; align-items: center;
  margin-top: 8px; }
.fe-rings { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(200px, 100%), 1fr)); gap: 4px 14px;
  margin-top: 8px; }
.fe-ring { display: block; width: 100%; max-width: 430px; margin: 0 auto; }
.fe-ring.fe-small { max-width: 280px; }
.fe-ring text { fill: var(--fe-ink); font-size: 12px; text-anchor: middle; dominant-baseline: central;
  font-family: inherit; }
.fe-ring circle { fill: var(--fe-surface); stroke: var(--fe-now); stroke-width: 1.8; }
.fe-ring line { stroke: var(--fe-before); }
"""


def in_order(names: Sequence[str]) -> list[str]:
    """As people count: edge-2 before edge-10.

    >>> in_order(["edge-10", "edge-2"])
    ['edge-2', 'edge-10']
    """

    def key(name: str) -> list[tuple[int, int, str]]:
        return [(0, int(part), "") if part.isdecimal() and len(part) < 18 else (1, 0, part)
                for part in re.split(r"([0-9]+)", name)]  # fmt: skip

    return sorted(names, key=key)


def tier_map(state: RunState) -> str:
    """The drawing."""
    links = state.links_now()
    if not state.lines and not links and not state.cells:
        return paragraph("Nothing was recorded yet.", "quiet")
    parts = []
    if state.cells or not links:
        parts.append(_tree(state))
    cells = in_order(list({link.cell for link in links}))
    rings = [_ring([link for link in links if link.cell == cell], cell) for cell in cells[:MOST_RINGS]]
    parts += [f'<div class="fe-rings">{"".join(rings)}</div>'] if rings else []
    if len(cells) > MOST_RINGS:
        left = len(cells) - MOST_RINGS
        parts.append(paragraph(f"Links within {left} more edges are not drawn; the table has them.", "quiet"))
    return "".join(parts)


def _tree(state: RunState) -> str:
    accuracy = latest(state.lines, "accuracy")
    top = "centre" if state.cells else "server"
    small = f"round {state.round}" + (f", {words.share(accuracy)}" if accuracy is not None else "")
    refused = {(where, node) for (node, where, _), one in state.refused.items() if one.last == state.round}
    branches = [_edge(state.cells[name], state, refused) for name in in_order(list(state.cells))[:MOST_EDGES]]
    if not state.cells:
        newest = next((line for line in reversed(state.lines) if line.nodes_sampled is not None), None)
        sampled, replied = (0.0, 0.0) if newest is None else (newest.nodes_sampled or 0.0, newest.nodes_replied or 0.0)
        branches = [f'<div class="fe-branch">{_dots(_whole(sampled), _whole(replied))}</div>'] if sampled else []
    if len(state.cells) > MOST_EDGES:
        branches.append(f'<div class="fe-branch">and {len(state.cells) - MOST_EDGES} more edges</div>')
    outside = sum(not cell for cell in state.attached.values())
    said = f"{top}, {len(state.cells)} edges" if state.cells else top
    return (
        f'<figure class="fe-map" role="img" aria-label="Map: {escape(said)}; the table beneath says who is where">'
        f'<div class="fe-host"><strong>{top}</strong><span>{escape(small)}</span></div>'
        f'<div class="fe-tree">{"".join(branches)}</div>{_key(state, outside)}</figure>'
    )


def _edge(cell: CellState, state: RunState, refused: set[tuple[str, str]]) -> str:
    """One edge and its terminals; `refused`: where, and whose reply, in this round."""
    idle, bad = cell.last_round < state.round, ("", cell.cell) in refused
    turned_away = {node for where, node in refused if where in (cell.cell, "")}
    sampled, replied = _whole(cell.sampled), _whole(cell.replied)
    small = (
        "not in this round" if idle else f"{replied} of {sampled} replied" if sampled else f"round {cell.last_round}"
    )
    here = in_order([node for node, at in state.attached.items() if at == cell.cell])
    if here:
        shown = here[:MOST_DOTS]
        dots = "".join(
            f'<span class="fe-dot{" fe-was-refused" if node in turned_away else ""}">{escape(node[:12])}</span>'
            for node in shown
        ) + (f"<span>+{len(here) - len(shown)}</span>" if len(here) > len(shown) else "")
        dots = f'<div class="fe-dots">{dots}</div>'
    else:
        dots = _dots(sampled, replied, in_order([node for where, node in refused if where == cell.cell]))
    small = f"{small}; refused" if bad else small
    look = " fe-idle" if idle else " fe-bad-host" if bad else ""
    return (
        f'<div class="fe-branch"><div class="fe-host{look}"><strong>{escape(cell.cell)}</strong>'
        f"<span>{small}</span></div>{dots}</div>"
    )


def _whole(value: float | None) -> int:
    return int(value) if value is not None and 0 < value < 1e9 else 0


def _dots(sampled: int, replied: int, refused: Sequence[str] = ()) -> str:
    """Terminals that only their number is known of: filled ones replied; those that were refused by name."""
    named = refused[: max(0, sampled - replied)]
    kinds = ["in"] * min(replied, MOST_DOTS) + ["out"] * max(0, min(sampled, MOST_DOTS) - replied - len(named))
    more = f"<span>+{sampled - MOST_DOTS}</span>" if sampled > MOST_DOTS else ""
    dots = "".join(f'<span class="fe-dot fe-was-{kind}"></span>' for kind in kinds)
    dots += "".join(f'<span class="fe-dot fe-was-refused">{escape(node[:12])}</span>' for node in named)
    return f'<div class="fe-dots">{dots}{more}</div>'


_REFUSED_KEY: Final = (
    '<span><span class="fe-dot fe-was-refused" style="display:inline-block">n</span> refused in this round</span>'
)


def _key(state: RunState, outside: int) -> str:
    if state.attached:
        told = "<span>numbers: terminals in reach of an edge</span>"
        told += _REFUSED_KEY if state.refused else ""
        return f'<p class="fe-key">{told}<span>{outside} in no reach</span></p>'
    return (
        '<p class="fe-key"><span><span class="fe-dot fe-was-in" style="display:inline-block"></span> replied</span>'
        f'<span><span class="fe-dot fe-was-out" style="display:inline-block"></span> did not</span>'
        f"{_REFUSED_KEY if state.refused else ''}</p>"
    )


def _ring(links: Sequence[Link], cell: str) -> str:
    """Nodes on a circle; a line for each pair that has a link, the wider the more it carries."""
    nodes = in_order(list({end for link in links for end in (link.sender, link.receiver)}))
    where = f"{cell}: " if cell else ""
    if len(nodes) > MOST_RING:
        many = f"{where}{len(nodes)} nodes and {len(links)} links: too many to draw; the table has them."
        return paragraph(many, "quiet")
    # Rings of a few nodes stand side by side; their numbers are to be read all the same.
    small = len(nodes) <= FEW
    centre, radius = (130, 110) if small else (200, 180)
    place = {
        node: (centre + (radius - 12) * math.sin(turn), centre - (radius - 12) * math.cos(turn))
        for node, turn in ((node, 2 * math.pi * at / len(nodes)) for at, node in enumerate(nodes))
    }
    pairs: dict[frozenset[str], float] = {}
    for link in links:
        pair = frozenset((link.sender, link.receiver))
        pairs[pair] = max(pairs.get(pair, 0.0), link.bandwidth_bps or 0.0)
    most = max(pairs.values(), default=0.0) or 1.0
    drawn = sorted(pairs.items(), key=lambda item: -item[1])[:MOST_LINES]
    lines = "".join(
        f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" '
        f'stroke-width="{0.6 + 3.4 * math.sqrt(rate / most):.1f}" stroke-opacity="{0.35 + 0.45 * rate / most:.2f}"/>'
        for pair, rate in drawn
        if len(pair) == 2
        for (x1, y1), (x2, y2) in [[place[end] for end in sorted(pair)]]
    )
    dots = "".join(
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="15"/><text x="{x:.0f}" y="{y:.0f}">{escape(node[:5])}</text>'
        for node, (x, y) in place.items()
    )
    left = f"; the {MOST_LINES} fastest are drawn" if len(pairs) > MOST_LINES else ""
    said = f"{where}{len(nodes)} nodes with {len(links)} links; the wider a line, the more it carries{left}"
    return (
        f'<figure class="fe-map"><svg class="fe-ring{" fe-small" if small else ""}" '
        f'viewBox="0 0 {2 * centre} {2 * centre}" role="img" aria-label="{escape(said)}">'
        f'{lines}{dots}</svg><figcaption class="fe-key">{escape(said)}</figcaption></figure>'
    )


def tier_table(state: RunState) -> str:
    """The same as a table: edges with their terminals and newest numbers."""
    if not state.cells:
        return ""
    inside: dict[str, int] = {}
    for at in state.attached.values():
        inside[at] = inside.get(at, 0) + 1
    rows = [
        (
            cell.cell,
            str(inside.get(cell.cell, 0)) if state.attached else words.NONE,
            words.NONE if cell.sampled is None else f"{cell.replied or 0:g} of {cell.sampled:g}",
            str(len(cell.rounds)),
            words.share(cell.accuracy),
            words.NONE if cell.loss is None else f"{cell.loss:.4g}",
            words.size(cell.up_bits / 8 if cell.bits else None),
            words.size(cell.down_bits / 8 if cell.bits else None),
        )
        for cell in (state.cells[name] for name in in_order(list(state.cells))[:500])
    ]
    heads = ["edge", "terminals in reach", "replied", "rounds", "accuracy", "loss", "up in all", "down in all"]
    return table(f"Edges as of round {state.round}", heads, rows)
