"""A timeline: which cell each terminal was in, and when it was handed over.

It draws into a file, for any answer to who is where; who is where is asked of what is handed in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .drawing import answers, beside, colour, ink_on, new_figure, save, shown_nodes
from .located import Located
from .moves import moves_between

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_attachment"]

#: Beyond this many cells colours repeat so often that a legend would tell nothing.
_LEGEND = 14
#: Up to this many terminals each has its number at the axis.
_NAMED = 60
#: Of a letter of a cell's name within a row, and how many of them an inch of the axis takes.
_LETTER_PT, _LETTERS_PER_INCH = 6.0, 19.0
_WIDTH_IN = 9.0


def plot_attachment(
    located: Located,
    times_s: Iterable[float],
    path: str | os.PathLike[str],
    *,
    nodes: Iterable[int] | None = None,
    title: str | None = None,
) -> Path:
    """Draw a row per terminal: coloured by its cell, empty while out of coverage, a tick where it was handed over.

    Where there is room a stretch has its cell's name written on it.

    A table beside it, a CSV file of the same name, has the share of the time in each cell and the handovers.

    Args:
        located: who is where.
        times_s: when to look, ascending, at least two; a terminal is drawn in a cell from one time to the next.
        path: where the picture goes, `.png` or `.svg`.
        nodes: which terminals to draw, from top to bottom; all of them where not given.
        title: above the picture.

    Returns:
        The path.

    Raises:
        ConfigError: matplotlib is not installed, or the path ends neither in .png nor in .svg.
        DataError: times that do not ascend, or a node that is not there.
    """
    times = np.array([float(time_s) for time_s in times_s])
    shown = np.array(shown_nodes(None if nodes is None else list(nodes), located.nodes), dtype=np.int64)
    where = np.stack(answers(located, times.tolist()))

    figure, axes = new_figure("a timeline of cells", _WIDTH_IN, float(np.clip(1.8 + 0.13 * len(shown), 3.0, 12.0)))
    from matplotlib.patches import Patch

    handed_over, lines = 0, []
    lasts_s = np.diff(times)
    for row, node in enumerate(shown):
        cells = where[:, node]
        starts = np.flatnonzero(np.diff(cells, prepend=cells[0] - 1))
        ends = np.append(starts[1:], len(times) - 1)
        for cell in np.unique(cells[starts][cells[starts] >= 0]):
            mine = (cells[starts] == cell) & (ends > starts)
            spans = np.stack([times[starts], times[ends] - times[starts]], axis=1)[mine]
            axes.broken_barh([tuple(span) for span in spans.tolist()], (row - 0.4, 0.8), facecolors=colour(int(cell)))
            if len(shown) <= _NAMED:
                _name(axes, row, located.cells[cell], colour(int(cell)), spans.tolist(), float(times[-1] - times[0]))
        # The same question for one node over time as for all nodes between two times.
        at_s = times[1:][moves_between(cells[:-1], cells[1:]).handed_over]
        axes.vlines(at_s, row - 0.5, row + 0.5, colors="black", lw=1.4)
        handed_over += len(at_s)
        # In a cell from one time to the next.
        shares = [float(lasts_s[cells[:-1] == cell].sum() / lasts_s.sum()) for cell in range(-1, len(located.cells))]
        lines.append([int(node), len(at_s), *(f"{share:.0%}" for share in (*shares[1:], shares[0]))])

    axes.set_xlim(times[0], times[-1])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    if len(shown) <= _NAMED:
        every = 1 if len(shown) <= 25 else 5
        axes.set_yticks(range(0, len(shown), every), [str(node) for node in shown[::every]])
    axes.set_xlabel("time (s)")
    axes.set_ylabel("terminal")
    axes.set_title(title or f"{len(shown)} terminals, {handed_over} handovers (ticks); empty: out of coverage")
    if len(located.cells) <= _LEGEND:
        handles = [Patch(color=colour(i), label=name) for i, name in enumerate(located.cells)]
        figure.legend(handles=handles, loc="outside lower center", ncols=7, frameon=False, fontsize=9)
    return beside(save(figure, path), ["terminal", "handed over", *located.cells, "out of coverage"], lines)


def _name(axes: Axes, row: int, name: str, shade: str, spans: list[list[float]], whole_s: float) -> None:
    """Write a cell's name on those of its stretches that are long enough for it."""
    for begin_s, lasts_s in spans:
        if lasts_s / whole_s * _WIDTH_IN * _LETTERS_PER_INCH > len(name) + 1:
            at = (begin_s + lasts_s / 2, row)
            text = axes.annotate(name, at, ha="center", va="center_baseline", fontsize=_LETTER_PT, color=ink_on(shade))
            text.set_in_layout(False)  # lies within the axes anyway, and hundreds of them would be measured
