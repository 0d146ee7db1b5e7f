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
from typing import TYPE_CHECKING

from ..errors import ConfigError, DataError
from .arguments import Indices
from .located import Located

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["GREY", "answers", "beside", "colour", "new_figure", "save", "shown_nodes"]

#: Okabe and Ito's palette for all kinds of colour vision, without black and in an order that puts unlike ones first.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREY = "#9a9a9a"


def colour(cell: int) -> str:
    """The colour of a cell; they repeat after seven, grey is out of coverage."""
    return GREY if cell < 0 else _COLOURS[cell % len(_COLOURS)]


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
