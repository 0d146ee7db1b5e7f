"""A partition as a picture: one bar per node, one colour per label.

It draws into a file, with a table beside it, and touches no global state of matplotlib, which it imports when called.
"""

from __future__ import annotations

import os
from pathlib import Path

from numpy.typing import ArrayLike

from ..coverage.drawing import beside, ink_on
from .extras import missing_extra
from .partition import Partition

#: Beyond this many nodes the ticks and the gaps between bars would only be noise.
_MANY = 40
#: The least share of the highest bar into which a label can be written.
_ROOM = 0.035
#: Beyond this many labels colours repeat, so a colour bar takes the legend's place.
_LEGEND = 20


def plot_partition(
    partition: Partition, labels: ArrayLike, path: str | os.PathLike[str], *, title: str | None = None
) -> Path:
    """Draw how many samples of each label every node holds, as stacked bars, and save it as PNG.

    Where there is room the label is written into its part of a bar.

    A table beside it, a CSV file of the same name, has the numbers.

    Args:
        partition: who holds what.
        labels: integers [samples], those the partition was made from.
        path: where the PNG goes; folders on the way are made.
        title: above the picture.

    Returns:
        The path.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib import colormaps
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("a picture of a partition", "matplotlib", "report") from error

    counts = partition.label_counts(labels)
    nodes, classes = counts.shape
    figure = Figure(figsize=(min(4 + 0.3 * nodes, 14), 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    few = classes <= _LEGEND
    colours = colormaps["tab10" if classes <= 10 else "tab20" if few else "viridis"]
    bottom = counts[:, 0] * 0
    most = max(int(counts.sum(axis=1).max(initial=0)), 1)
    for label in range(classes):
        colour = colours(label) if few else colours(label / (classes - 1))
        width = 0.85 if nodes <= _MANY else 1.0
        axes.bar(range(nodes), counts[:, label], width, bottom=bottom, color=colour, label=str(label))
        for node in range(nodes if few and nodes <= _MANY else 0):
            if counts[node, label] >= _ROOM * most:
                middle, ink = bottom[node] + counts[node, label] / 2, ink_on(colour)
                axes.text(node, middle, str(label), ha="center", va="center", fontsize=7, color=ink, in_layout=False)
        bottom = bottom + counts[:, label]
    axes.set_xlabel("node")
    axes.set_ylabel("samples")
    axes.set_xlim(-0.6, nodes - 0.4)
    axes.set_ylim(0, 1.05 * most)
    if nodes <= _MANY:
        axes.set_xticks(range(nodes))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if few:
        handles, names = axes.get_legend_handles_labels()
        # Reversed, so that the legend reads in the order of the stack.
        axes.legend(
            handles[::-1], names[::-1], title="label", loc="center left", bbox_to_anchor=(1, 0.5), frameon=False
        )
    else:
        figure.colorbar(ScalarMappable(Normalize(0, classes - 1), colours), ax=axes, label="label")
    if title:
        axes.set_title(title)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
    head = ["node", *(f"label {label}" for label in range(classes))]
    return beside(path, head, [[node, *row] for node, row in enumerate(counts.tolist())])
