"""A map: cells as circles, the ways of terminals, and where they were handed over.

It draws into a file; who is where is asked of what is handed in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from .absences import OutOfCoverage
from .arguments import Floats
from .drawing import GREY, answers, beside, colour, new_figure, save, shown_nodes
from .located import ByPosition, Located
from .moves import moves_between
from .regions import Regions

__all__ = ["plot_map"]


def plot_map(
    located: Located,
    times_s: Iterable[float],
    path: str | os.PathLike[str],
    *,
    nodes: Iterable[int] | None = None,
    title: str | None = None,
) -> Path:
    """Draw cells, the ways terminals went between the first and the last time, and their handovers.

    Ways are thin and grey; each ends in a dot, in the colour of the cell the terminal is in at the last time, hollow
    where it is out of coverage. A cross marks where a terminal was first seen in another cell than the time before: the
    denser the times, the nearer to where it was handed over.

    A table beside it, a CSV file of the same name, has the cells: where, how large, and who is there at the last time.

    Args:
        located: `ByPosition`, or absences (`OutOfCoverage`) around one.
        times_s: when to look, ascending, at least two; some hundred make smooth ways.
        path: where the picture goes, `.png` or `.svg`.
        nodes: which terminals to draw; all of them where not given.
        title: above the picture.

    Returns:
        The path.

    Raises:
        ConfigError: nobody is at a position, matplotlib is not installed, or the path ends neither in .png nor in .svg.
        DataError: times that do not ascend, or a node that is not there.
    """
    times = [float(time_s) for time_s in times_s]
    shown = np.array(shown_nodes(None if nodes is None else list(nodes), located.nodes), dtype=np.int64)
    where = answers(located, times)
    on_map = _on_map(located)
    ways_m = np.stack([on_map.mobility.positions_m(time_s) for time_s in times])[:, shown]
    regions = on_map.regions

    low_m, high_m = _extent_m(regions, ways_m)
    # As high as the map needs at this width, with room for what stands above and below.
    height_in = float(np.clip(7.8 * (high_m[1] - low_m[1]) / (high_m[0] - low_m[0]) + 1.5, 4.0, 12.0))
    figure, axes = new_figure("a map of cells and terminals", 8.6, height_in)
    from matplotlib.collections import LineCollection
    from matplotlib.lines import Line2D
    from matplotlib.patches import Circle

    for i, (name, at_m, radius_m) in enumerate(zip(regions.names, regions.positions_m, regions.radius_m, strict=True)):
        for face, edge, order in ((colour(i), "none", 0), ("none", colour(i), 3)):
            alpha = 0.07 if edge == "none" else 0.9
            axes.add_patch(Circle(at_m, radius_m, facecolor=face, edgecolor=edge, alpha=alpha, lw=1.2, zorder=order))
        axes.plot(*at_m, marker="^", ms=9, color=colour(i), mec="white", mew=0.8, zorder=6)
        label = axes.annotate(name, at_m, (0, 8), textcoords="offset points", ha="center", fontsize=9, zorder=7)
        label.set_bbox({"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1})
    alpha = float(np.clip(20 / max(len(shown), 1), 0.12, 0.6))
    ways = [ways_m[:, k] for k in range(len(shown))]
    axes.add_collection(LineCollection(ways, colors=GREY, linewidths=0.7, alpha=alpha, zorder=1))
    crossings = []
    for k in range(1, len(times)):
        moved = np.isin(shown, moves_between(where[k - 1], where[k]).handed_over)
        crossings.append(ways_m[k][moved])
    crossed_m = np.concatenate(crossings)
    axes.scatter(crossed_m[:, 0], crossed_m[:, 1], marker="x", s=20, lw=1.1, color="black", zorder=4)
    last = where[-1][shown]
    outside = int((last < 0).sum())
    faces = [colour(cell) if cell >= 0 else "white" for cell in last]
    edges = ["white" if cell >= 0 else "black" for cell in last]
    axes.scatter(ways_m[-1, :, 0], ways_m[-1, :, 1], s=34, c=faces, edgecolors=edges, linewidths=0.8, zorder=5)

    axes.set_aspect("equal")
    axes.set_xlim(low_m[0], high_m[0])
    axes.set_ylim(low_m[1], high_m[1])
    axes.set_xlabel("x (m)")
    axes.set_ylabel("y (m)")
    axes.set_title(title or f"{len(shown)} terminals, {times[0]:g} to {times[-1]:g} s")
    handles = [
        Line2D([], [], ls="", marker="^", ms=8, color=GREY, label="edge, with its radius"),
        Line2D([], [], color=GREY, lw=1, label="way of a terminal"),
        Line2D([], [], ls="", marker="o", ms=6.5, color=GREY, label="its end, coloured by cell"),
        Line2D([], [], ls="", marker="o", ms=6.5, mfc="white", mec="black", label=f"out of coverage ({outside})"),
        Line2D([], [], ls="", marker="x", ms=5, color="black", label=f"handed over ({len(crossed_m)})"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    lines = [
        [name, float(at_m[0]), float(at_m[1]), float(radius_m), int((last == i).sum())]
        for i, (name, at_m, radius_m) in enumerate(
            zip(regions.names, regions.positions_m, regions.radius_m, strict=True)
        )
    ]
    head = ["edge", "x (m)", "y (m)", "radius (m)", f"terminals at {times[-1]:g} s"]
    return beside(save(figure, path), head, [*lines, ["none", None, None, None, outside]])


def _extent_m(regions: Regions, ways_m: Floats) -> tuple[Floats, Floats]:
    """Corners of what is drawn, with a little room around it."""
    centre_m, radius_m = regions.positions_m, regions.radius_m[:, None]
    drawn_m = np.concatenate([centre_m - radius_m, centre_m + radius_m, ways_m.reshape(-1, 2)])
    low_m, high_m = drawn_m.min(axis=0), drawn_m.max(axis=0)
    room_m = 0.03 * float((high_m - low_m).max()) or 1.0
    return low_m - room_m, high_m + room_m


def _on_map(located: Located) -> ByPosition:
    inside = located
    while isinstance(inside, OutOfCoverage):
        inside = inside.located
    if not isinstance(inside, ByPosition):
        raise ConfigError(
            f"a map of {type(inside).__name__}, which knows no positions; draw ByPosition, or use plot_attachment"
        )
    return inside
