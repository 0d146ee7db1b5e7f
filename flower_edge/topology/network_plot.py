"""A picture of networks: nodes where they are, links as wide as their weights. [1], FIGS. 6 and 7, side by side.

It draws into a file what is handed in. For small networks: a line per link. matplotlib is imported when called.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..coverage.drawing import GREY, beside, colour, new_figure, save
from ..errors import ConfigError, TopologyError
from .rows import Floats
from .topology import Topology

__all__ = ["plot_networks"]


def plot_networks(
    topology: Topology,
    networks: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
) -> Path:
    """Draw the same nodes at different times: start and end of a run, say.

    A link is drawn in two halves; the half next to a node is as wide as the weight this node gives to the other one. A
    link in use in one direction only ends half-way. Widths can be compared between the networks.

    A table beside it, a CSV file of the same name, has for each node and network to how many it listens, and the weight
    it gives to all of them together.

    Args:
        topology: the links.
        networks: for each picture, its name, positions in metres [nodes, 2] and weights [links]; 0 is not in use.
        path: where the picture goes, `.png` or `.svg`.
        title: above all of them.

    Returns:
        The path.

    Raises:
        ConfigError: nothing to draw, matplotlib is not installed, or the path ends neither in .png nor in .svg.
        TopologyError: positions or weights of another shape, or negative weights.
    """
    if not networks:
        raise ConfigError("no network to draw; give at least one: name, positions, weights")
    drawn = {name: _checked(topology, name, *network) for name, network in networks.items()}
    largest = max((float(weights.max(initial=0.0)) for _, weights in drawn.values()), default=0.0) or 1.0
    figure, first = new_figure("a picture of networks", 4.3 * len(drawn), 4.9)
    first.remove()
    from matplotlib.collections import LineCollection

    axes = figure.subplots(1, len(drawn), sharex=True, sharey=True, squeeze=False)[0]
    for panel, (name, (positions_m, weights)) in zip(axes, drawn.items(), strict=True):
        used = weights > 0
        here_m, there_m = positions_m[topology.receiver[used]], positions_m[topology.sender[used]]
        halves = np.stack([here_m, (here_m + there_m) / 2], axis=1)
        widths = 0.3 + 5.0 * weights[used] / largest
        panel.add_collection(LineCollection(list(halves), colors=GREY, linewidths=list(widths), alpha=0.7, zorder=1))
        panel.scatter(positions_m[:, 0], positions_m[:, 1], s=90, c=colour(0), edgecolors="white", zorder=2)
        for i, (x_m, y_m) in enumerate(positions_m):
            panel.annotate(str(i), (x_m, y_m), ha="center", va="center", color="white", fontsize=7, zorder=3)
        panel.set_aspect("equal")
        panel.set_xlabel("x (m)")
        panel.set_title(f"{name}: {int(used.sum())} of {topology.links} links in use")
    axes[0].set_ylabel("y (m)")
    notes = ("wide next to a node: much weight that it gives to the other", "half a line: in one direction only")
    figure.supxlabel(("; " if len(drawn) > 1 else ";\n").join(notes), fontsize=9)
    if title is not None:
        figure.suptitle(title)
    head = ["node", *(f"{name}: {what}" for name in drawn for what in ("listens to", "weight given"))]
    lines = []
    for i in range(topology.nodes):
        rows = [weights[topology.row(i)] for _, weights in drawn.values()]
        lines.append([i, *(told for row in rows for told in (int((row > 0).sum()), round(float(row.sum()), 4)))])
    return beside(save(figure, path), head, lines)


def _checked(
    topology: Topology, name: str, positions_m: npt.ArrayLike, weights: npt.ArrayLike
) -> tuple[Floats, Floats]:
    places, W = np.asarray(positions_m, np.float64), np.asarray(weights, np.float64)
    if places.shape != (topology.nodes, 2):
        raise TopologyError(f"{name}: positions of shape {places.shape}; expected (x, y) for {topology.nodes} nodes")
    if W.shape != (topology.links,) or not (W >= 0).all():
        raise TopologyError(f"{name}: expected {topology.links} weights, 0 or more, one for each link")
    return places, W
