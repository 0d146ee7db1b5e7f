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
from flower_edge.coverage.drawing import beside, new_figure, plain_log, save, stroke
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
    """Draw them all into a folder, each with a table of the same name beside it."""
    sent_mb = {name: (down + up) / 8e6 for name, (_, down, up) in curves.items()}
    what = "megabytes per terminal, both directions"
    paths = [_plot(curves, sent_mb, "MB", what, folder / "accuracy-by-bytes.png")]
    for rate_bps in config.links.rates_bps:
        rate = f"{rate_bps / 1e6:g}"
        time_s = {name: seconds(config, one, rate_bps) for name, one in curves.items()}
        path = folder / f"accuracy-by-time-{rate}-mbps.png"
        paths.append(_plot(curves, time_s, "s", f"seconds at {rate} Mbit/s", path))
    return paths


def _plot(curves: Mapping[str, Curve], along: Mapping[str, Any], unit: str, what: str, path: Path) -> Path:
    """Accuracy by what is on the logarithmic axis, where what was before the first round, nothing, has no place."""
    figure, axes = new_figure("pictures", 7.0, 4.5)
    for number, (name, (accuracy, _, _)) in enumerate(curves.items()):
        axes.plot(along[name][1:], accuracy[1:], label=name, **stroke(number))
    axes.set(xlabel=what, ylabel="accuracy", ylim=(0, 1))
    plain_log(axes, "x")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    head = ["round", *(title for name in curves for title in (f"{name}, {unit}", f"{name}, accuracy"))]
    rounds = range(1, max(len(accuracy) for accuracy, _, _ in curves.values()))
    lines = [
        [
            at,
            *(values[at] if at < len(values) else None for name in curves for values in (along[name], curves[name][0])),
        ]
        for at in rounds
    ]
    return beside(save(figure, path), head, lines)


def reached_s(config: Compression, one: Curve, target: float) -> list[float]:
    """Seconds to an accuracy on each of the links; infinite where the run does not come to it."""
    accuracy: Sequence[float] = one[0]
    first = next((n for n, value in enumerate(accuracy) if value >= target), None)
    return [
        float("inf") if first is None else float(seconds(config, one, rate)[first]) for rate in config.links.rates_bps
    ]
