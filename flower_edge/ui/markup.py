"""Text as HTML: tables with captions and scopes, lists of terms, bars. All text is escaped here and nowhere else.

Nothing here knows of sessions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

__all__ = ["bar", "definitions", "mark", "paragraph", "table", "text_of", "tile"]


#: A number and its unit stay in one line.
_UNIT: Final = re.compile(r"(?<=\d) (?=(%|[kMG]?B|m?s|[kMG]?bit/s)(?![\w/]))")


def text_of(text: str) -> str:
    """Escaped, with numbers and units kept together.

    >>> text_of("12.3 kB & 1 ms") == "12.3\u00a0kB &amp; 1\u00a0ms"
    True
    """
    return _UNIT.sub("\u00a0", escape(text))


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column names its rows.

    Roles are written out: where it is narrow, a style shows each row as a block, and browsers then forget them.

    Args:
        caption: what it is.
        heads: of the columns.
        rows: cells, as many as heads.

    >>> made = table("Sizes", ["what", "bytes"], [["a<b", "1"]])
    >>> '<th role="rowheader" scope="row">a&lt;b</th><td role="cell" data-label="bytes">1</td>' in made
    True
    >>> '<th role="rowheader" scope="row" data-label="round">1</th>' in table("Rounds", ["round"], [["1"]])
    True
    """
    head = "".join(f'<th role="columnheader" scope="col">{escape(one)}</th>' for one in heads)

    def first(cell: str) -> str:
        # A number alone says nothing as the head of a block.
        label = f' data-label="{escape(heads[0])}"' if cell.isdecimal() else ""
        return f'<th role="rowheader" scope="row"{label}>{text_of(cell)}</th>'

    body = "\n".join(
        f'<tr role="row">{first(row[0])}'
        + "".join(
            f'<td role="cell" data-label="{escape(name)}">{text_of(cell)}</td>'
            for name, cell in zip(heads[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="fe-scroll"><table class="fe-table" role="table"><caption>{escape(caption)}</caption>\n'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{body}\n</tbody></table></div>'
    )


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Terms and what they are.

    >>> definitions([("served", "3")])
    '<dl class="fe-terms"><div><dt>served</dt><dd>3</dd></div></dl>'
    """
    inner = "".join(f"<div><dt>{escape(name)}</dt><dd>{text_of(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="fe-terms">{inner}</dl>'


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph; `kind` is one of our own: "good", "bad", "quiet".

    >>> paragraph("x & y", "bad")
    '<p class="fe-bad">x &amp; y</p>'
    """
    named = f' class="fe-{escape(kind)}"' if kind else ""
    return f"<p{named}>{text_of(text)}</p>"


def mark(text: str, kind: str) -> str:
    """A word in a box of its colour; the word says it, the colour only helps.

    >>> mark("equal", "good")
    '<span class="fe-mark fe-good">equal</span>'
    """
    return f'<span class="fe-mark fe-{escape(kind)}">{escape(text)}</span>'


def tile(title: str, figure: str, lines: Iterable[str], state: str = "") -> str:
    """One figure to be read from afar, with what belongs to it in small.

    Args:
        title: what it is.
        figure: the number.
        lines: beneath.
        state: made by `mark`, beside the title.
    """
    small = "".join(f"<p>{text_of(line)}</p>" for line in lines if line)
    return (
        f'<div class="fe-tile"><h3>{escape(title)} {state}</h3><p class="fe-figure">{text_of(figure)}</p>{small}</div>'
    )


def bar(label: str, share: float, text: str, kind: str) -> str:
    """A bar that fills a share of its width, with words beside it.

    >>> "width:50.00%" in bar("original", 0.5, "65.6 kB", "before")
    True
    """
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        f'<div class="fe-bar"><span>{escape(label)}</span><span class="fe-track" aria-hidden="true">'
        f'<span class="fe-fill fe-{escape(kind)}" style="width:{width:.2f}%"></span></span>'
        f"<span>{text_of(text)}</span></div>"
    )
