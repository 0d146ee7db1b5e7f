"""Accuracy against bytes, and against time on links of several rates, from the rows of run folders.

Bytes are those that were counted in the runs. Times are computed from them: a round takes a message down, local
training, and a message up; links and device are those of the run config.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compression_app.config import Compression
from flower_edge.coverage.drawing import colour, new_figure, save
from flower_edge.store import RunFolder

#: One run: accuracy after each round, and bits per terminal down and up until then, float64 [rounds + 1].
Curve = tuple[Any, Any, Any]


def curve(run: RunFolder, terminals: int) -> Curve:
    """What a run folder holds of it."""
    scores = {row.round: float(row.values["accuracy"]) for row in run.rows("central")}
    traffic = {row.round: row.values for row in run.rows("traffic")}
    rounds = sorted(traffic)
    down = np.cumsum([0.0] + [float(traffic[n]["down_bits"]) / terminals for n in rounds])
    up = np.cumsum([0.0] + [float(traffic[n]["up_bits"]) / terminals for n in rounds])
    return np.array([scores[n] for n in [0, *rounds]]), down, up


def seconds(config: Compression, one: Curve, rate_bps: float) -> Any:
    """When each round ends on a link of that rate, float64 [rounds + 1]."""
    _, down, up = one
    rounds = np.arange(len(down))
    return (down + up) / rate_bps + rounds * (2 * config.links.latency_s + config.device.train_s)


def draw(config: Compression, curves: Mapping[str, Curve], folder: Path) -> list[Path]:
    """Draw them all into a folder."""
    figure, axes = new_figure("pictures", 7.0, 4.5)
    for number, (name, (accuracy, down, up)) in enumerate(curves.items()):
        # What went before the first round is nothing, and has no place on a logarithmic axis.
        axes.plot((down + up)[1:] / 8e6, accuracy[1:], color=colour(number), label=name)
    _label(axes, "megabytes per terminal, both directions")
    paths = [save(figure, folder / "accuracy-by-bytes.png")]
    rates = config.links.rates_bps
    for rate_bps in rates:
        figure, axes = new_figure("pictures", 7.0, 4.5)
        for number, (name, one) in enumerate(curves.items()):
            axes.plot(seconds(config, one, rate_bps)[1:], one[0][1:], color=colour(number), label=name)
        _label(axes, f"seconds at {rate_bps / 1e6:g} Mbit/s")
        paths.append(save(figure, folder / f"accuracy-by-time-{rate_bps / 1e6:g}-mbps.png"))
    return paths


def _label(axes: Any, what: str) -> None:
    axes.set_xlabel(what)
    axes.set_ylabel("accuracy")
    axes.set_xscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def reached_s(config: Compression, one: Curve, target: float) -> list[float]:
    """Seconds to an accuracy on each of the links; infinite where the run does not come to it."""
    accuracy: Sequence[float] = one[0]
    first = next((n for n, value in enumerate(accuracy) if value >= target), None)
    return [
        float("inf") if first is None else float(seconds(config, one, rate)[first]) for rate in config.links.rates_bps
    ]
