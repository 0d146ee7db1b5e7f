"""What pictures have in common: a figure, colours that can be told apart, a file, the table beside it.

matplotlib is imported when called, and none of its global state is touched. What is drawn is decided by the callers.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ..errors import ConfigError, DataError
from .arguments import Indices
from .located import Located

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["GREY", "answers", "beside", "colour", "ink_on", "new_figure", "plain_log", "save", "shown_nodes", "stroke"]

#: Okabe and Ito's palette for all kinds of colour vision, without black and in an order that puts unlike ones first.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREY = "#9a9a9a"
#: As many as have no divisor in common with the colours, so that no two of 28 lines are alike.
_DASHES: Final = ("solid", "dashed", "dashdot", "dotted")


def colour(cell: int) -> str:
    """The colour of a cell; they repeat after seven, grey is out of coverage."""
    return GREY if cell < 0 else _COLOURS[cell % len(_COLOURS)]


def stroke(number: int) -> dict[str, Any]:
    """Colour and dash of a line, for `axes.plot`: lines can be told apart without the colours, too."""
    return {"color": colour(number), "linestyle": _DASHES[number % len(_DASHES)]}


def ink_on(shade: Any) -> str:
    """Black or white, whichever can be read on a colour of matplotlib's."""
    from matplotlib.colors import to_rgb

    red, green, blue = to_rgb(shade)
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.53 else "white"


def plain_log(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with ticks at 1, 2 and 5 of each decade that are written as people write them."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axis.set_minor_formatter(NullFormatter())


def new_figure(what: str, width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            f"{what} needs matplotlib, which is not installed; type: pip install 'flower-edge[report]'"
        ) from error
    figure = Figure(figsize=(width_in, height_in), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def save(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write as PNG or SVG, as the name ends; folders on the way are made.

    Raises:
        ConfigError: the name ends differently.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("png", "svg"):
        raise ConfigError(f"{path} is neither .png nor .svg; give one of these endings")
    path.parent.mkdir(parents=True, exist_ok=True)
    # No date, so that the same picture is the same file.
    figure.savefig(path, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return path


def beside(picture: Path, head: Sequence[object], lines: Iterable[Sequence[object]]) -> Path:
    """Write the table beside a picture, for who cannot see it: a CSV file of its name, which a report shows with it.

    Floats are written with six digits; None and NaN are a dash.

    Returns:
        The path of the picture.
    """
    with picture.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        writer.writerows([_told(value) for value in line] for line in lines)
    return picture


def _told(value: object) -> object:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.6g}"
    return "-" if value is None else value


def answers(located: Located, times_s: list[float]) -> list[Indices]:
    """Who is where at each time, each answer knowing the one before.

    Raises:
        DataError: fewer than two times, or not ascending.
    """
    if len(times_s) < 2 or any(b <= a for a, b in pairwise(times_s)):
        raise DataError(f"{len(times_s)} times to draw; give at least two, ascending")
    found: list[Indices] = []
    for time_s in times_s:
        found.append(located.where(time_s, found[-1] if found else None))
    return found


def shown_nodes(nodes: list[int] | None, count: int) -> list[int]:
    """The nodes to draw: those asked for, or all.

    Raises:
        DataError: one that there is not.
    """
    shown = list(range(count)) if nodes is None else nodes
    strange = [node for node in shown if not 0 <= node < count]
    if strange:
        raise DataError(f"node {strange[0]} is not there; nodes go from 0 to {count - 1}")
    return shown
