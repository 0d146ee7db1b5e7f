"""The pictures of [1], FIGS. 8 to 11, from plain arrays: latency, regret, one device's accuracy, accuracy over time.

They draw into a file, with a table beside it (CSV); what is drawn was computed elsewhere. Several seeds of a controller
are a line (the median) in a band (from the least to the greatest). FIGS. 6 and 7, the network itself, are drawn by
`topology.network_plot`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..coverage.drawing import beside, new_figure, plain_log, save, stroke
from ..errors import DataError
from ..topology.rows import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_accuracy_over_time", "plot_device_accuracy", "plot_latency", "plot_regret"]

#: x [points], and y [points] or [seeds, points]; NaN where nothing was read.
Curve = tuple[npt.ArrayLike, npt.ArrayLike]


def plot_latency(
    f_s: Mapping[str, npt.ArrayLike], path: str | os.PathLike[str], *, title: str | None = None, true: bool = False
) -> Path:
    """[1] FIG. 8: the latency of each round, by controller.

    Args:
        f_s: for each controller its objective in seconds, [rounds] or [seeds, rounds], round 1 first.
        path: where the picture goes, `.png` or `.svg`.
        title: above the picture.
        true: the numbers are true times of rounds, not the weighted objective.

    Returns:
        The path.

    Raises:
        ConfigError: matplotlib is not installed, or another ending.
        DataError: nothing to draw, or arrays of more than two axes.
    """
    what = "true time of the round (s)" if true else "latency f of the round (s)"
    return _plot({name: _by_round(y) for name, y in f_s.items()}, path, title, "round", what, log=True)


def plot_regret(
    f_s: Mapping[str, npt.ArrayLike],
    optimum_s: Mapping[str, npt.ArrayLike],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
) -> Path:
    """[1] FIG. 9: dynamic regret, f above the least f possible in the same round, added up over the rounds.

    Args:
        f_s: for each controller its objective in seconds, [rounds] or [seeds, rounds].
        optimum_s: for each controller the least objective in the same rounds, of the same shape.
        path, title, errors: as `plot_latency`.
    """
    regret_s = {name: np.cumsum(_rows(y) - _rows(optimum_s[name]), axis=-1) for name, y in f_s.items()}
    curves = {name: _by_round(y) for name, y in regret_s.items()}
    return _plot(curves, path, title, "round", "dynamic regret (s)", log=True)


def plot_device_accuracy(
    accuracy: Mapping[str, Curve], path: str | os.PathLike[str], *, title: str | None = None
) -> Path:
    """[1] FIG. 10: the accuracy of one device by round.

    Args:
        accuracy: for each controller (rounds [points], accuracies [points] or [seeds, points]).
        path, title, errors: as `plot_latency`.
    """
    return _plot(accuracy, path, title, "round", "accuracy of one device", share=True)


def plot_accuracy_over_time(
    accuracy: Mapping[str, Curve],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    until_s: float | None = None,
) -> Path:
    """[1] FIG. 11: the mean accuracy over the devices by time on the virtual clock.

    Args:
        accuracy: for each controller (seconds [points], accuracies [points] or [seeds, points]).
        path, title, errors: as `plot_latency`.
        until_s: where the picture ends; by default with the last curve.
    """
    return _plot(accuracy, path, title, "virtual time (s)", "mean accuracy", share=True, until=until_s)


def _plot(
    curves: Mapping[str, Curve],
    path: str | os.PathLike[str],
    title: str | None,
    across: str,
    up: str,
    *,
    log: bool = False,
    share: bool = False,
    until: float | None = None,
) -> Path:
    if not curves:
        raise DataError(f"no curve to draw in {path}; give at least one controller")
    figure, axes = new_figure(f"a picture of {up}", 7.2, 4.2)
    for k, (name, (x, y)) in enumerate(curves.items()):
        _line(axes, k, name, np.asarray(x, np.float64), _rows(y))
    if share:
        axes.set_ylim(0.0, 1.0)
    elif log and _positive(curves):
        plain_log(axes, "y")
    axes.set_xlim(left=0.0, right=until)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.25, linewidth=0.6)
    if title:
        axes.set_title(title)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return beside(save(figure, path), [across, *curves], _table(curves))


def _table(curves: Mapping[str, Curve]) -> list[list[object]]:
    """A line for each place across, of the medians over seeds; None where a curve has nothing there."""
    read: dict[float, dict[str, float]] = {}
    for name, (x, y) in curves.items():
        rows = _rows(y)
        for k, at in enumerate(np.asarray(x, np.float64).tolist()):
            if not np.isnan(rows[:, k]).all():
                read.setdefault(at, {})[name] = float(np.nanmedian(rows[:, k]))
    return [[at, *(read[at].get(name) for name in curves)] for at in sorted(read)]


def _line(axes: Axes, k: int, name: str, x: Floats, y: Floats) -> None:
    if y.shape[-1] != len(x):
        raise DataError(f"{name}: {len(x)} points across and {y.shape[-1]} up; give as many of each")
    look = stroke(k)
    read = ~np.isnan(y).all(axis=0)
    x, y = x[read], y[:, read]
    axes.plot(x, np.nanmedian(y, axis=0) if len(x) else x, label=name, linewidth=1.6, **look)
    if len(y) > 1 and len(x):
        low, high = np.nanmin(y, axis=0), np.nanmax(y, axis=0)
        axes.fill_between(x, low, high, color=look["color"], alpha=0.13, linewidth=0)


def _by_round(y: npt.ArrayLike) -> Curve:
    rows = _rows(y)
    return np.arange(1, rows.shape[-1] + 1), rows


def _rows(y: npt.ArrayLike) -> Floats:
    """[seeds, points] of [points] or [seeds, points]."""
    rows = np.atleast_2d(np.asarray(y, np.float64))
    if rows.ndim != 2:
        raise DataError(f"a curve of shape {rows.shape}; give [points] or [seeds, points]")
    return rows


def _positive(curves: Mapping[str, Curve]) -> bool:
    """Whether a logarithmic scale shows anything: some value is above 0."""
    return any(bool((_rows(y) > 0.0).any()) for _, y in curves.values())
