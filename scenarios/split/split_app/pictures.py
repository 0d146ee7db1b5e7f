"""Cuts, step times, spread, accuracy: pictures of a run's rows. All times in them are of the modelled world.

A round of a device takes its steps (computing, link both ways, its share of the cloud), and its half there and back;
the round ends with the slowest device. Bits are those that were counted in the run. Nothing here computes a plan.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flower_edge.coverage.drawing import beside, colour, new_figure, plain_log, save, stroke
from split_app import world
from split_app.config import Split

Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Told:
    """One run in arrays.

    Attributes:
        cut: [devices, rounds]; NaN where a device was lost, as in all of them.
        step_s: of one step, all its parts, [devices, rounds].
        clock_s: when each round ends, [rounds + 1], from 0 on.
        traffic_bits: of all devices, both ways, until then, [rounds + 1].
        accuracy: of the model there is then, [rounds + 1].
        units: of the model.
    """

    cut: npt.NDArray[np.float64]
    step_s: npt.NDArray[np.float64]
    clock_s: npt.NDArray[np.float64]
    traffic_bits: npt.NDArray[np.float64]
    accuracy: npt.NDArray[np.float64]
    units: int

    @property
    def spread_s(self) -> npt.NDArray[np.float64]:
        """Between the slowest and the quickest device's step, [rounds]."""
        return np.asarray(np.nanmax(self.step_s, axis=0) - np.nanmin(self.step_s, axis=0))


def told(config: Split, rows: Sequence[Row], accuracy: Sequence[float]) -> Told:
    """From the rows of `Split.history`, and accuracies from before the first round on."""
    devices = 1 + max(int(row["device"]) for row in rows)
    rounds = max(int(row["round"]) for row in rows)
    names = ("cut", "planned_step_s")
    table = {name: np.full((devices, rounds), np.nan) for name in names}
    took_s, bits = np.zeros((devices, rounds)), np.zeros(rounds)
    for row in rows:
        device, at = int(row["device"]), int(row["round"]) - 1
        moved = float(row["half_bits"])
        bits[at] += moved + float(row["up_bits"]) + float(row["down_bits"])
        if row["lost"]:
            continue
        for name in names:
            table[name][device, at] = float(row[name])
        own = world.capacity(config, device, at + 1)
        took_s[device, at] = int(row["steps"]) * float(row["planned_step_s"]) + moved / own.up_bps + 2 * own.delay_s
    return Told(
        cut=table["cut"],
        step_s=table["planned_step_s"],
        clock_s=np.concatenate([[0.0], np.cumsum(took_s.max(axis=0))]),
        traffic_bits=np.concatenate([[0.0], np.cumsum(bits)]),
        accuracy=np.asarray(accuracy, np.float64),
        units=int(rows[0]["units"]),
    )


def write_rows(rows: Sequence[Row], path: Path) -> Path:
    """As a table for other programs."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def draw(config: Split, runs: Mapping[str, Told], folder: Path) -> list[Path]:
    """Draw them all into a folder, each with a table of its name beside it; the first of `runs` is the run itself."""
    own = next(iter(runs.values()))
    names = [
        f"device {number}: {speed:g} GFLOP/s, {rate:g} Mbit/s"
        for number, (speed, rate) in enumerate(
            zip(np.divide(config.devices.flops_per_s, 1e9), np.divide(config.links.rates_bps, 1e6), strict=True)
        )
    ]
    return [
        _cuts(own, names, folder / "cut-by-device-and-round.png"),
        _steps(own, names, folder / "step-time-by-round.png"),
        _spread(runs, folder / "slowest-and-quickest-step-by-round.png"),
        _accuracy(runs, lambda one: one.clock_s, "s", "seconds, modelled", folder / "accuracy-by-modelled-time.png"),
        _accuracy(
            runs,
            lambda one: one.traffic_bits / 8e6,
            "MB",
            "megabytes, all devices, both ways",
            folder / "accuracy-by-traffic.png",
        ),
    ]


def _cuts(own: Told, names: Sequence[str], path: Path) -> Path:
    devices, rounds = own.cut.shape
    figure, axes = new_figure("pictures", max(7.0, 2.6 + 0.34 * rounds), 1.3 + 0.42 * devices)
    image = axes.imshow(own.cut, cmap="viridis", vmin=0, vmax=own.units, aspect="auto", interpolation="nearest")
    for device in range(devices):
        for at in range(rounds):
            value = own.cut[device, at]
            if np.isfinite(value):
                ink = "white" if value < 0.6 * own.units else "black"
                axes.text(at, device, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=8)
    axes.set_yticks(range(devices), names)
    axes.set_xticks(range(rounds), [str(at + 1) for at in range(rounds)])
    axes.set_xlabel("round")
    axes.set_title(f"units on the device, of {own.units}; {own.units}: the whole model", fontsize=10)
    figure.colorbar(image, ax=axes, pad=0.01, label="units")
    return beside(save(figure, path), _head(devices, "units"), _lines(own.cut))


def _steps(own: Told, names: Sequence[str], path: Path) -> Path:
    figure, axes = new_figure("pictures", 7.0, 4.0)
    rounds = np.arange(1, own.step_s.shape[1] + 1)
    for device, name in enumerate(names):
        axes.plot(rounds, 1e3 * own.step_s[device], label=name, marker="o", markersize=3, **stroke(device))
    axes.set(xlabel="round", ylabel="milliseconds per batch, modelled", ylim=(0, None))
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    # Below the picture: anywhere else it would hide a device.
    figure.legend(fontsize="small", loc="outside lower center", ncols=2)
    return beside(save(figure, path), _head(len(names), "ms"), _lines(1e3 * own.step_s))


def _spread(runs: Mapping[str, Told], path: Path) -> Path:
    figure, axes = new_figure("pictures", 7.0, 4.0)
    table = []
    for number, (name, one) in enumerate(runs.items()):
        rounds = np.arange(1, one.step_s.shape[1] + 1)
        low, high = 1e3 * np.nanmin(one.step_s, axis=0), 1e3 * np.nanmax(one.step_s, axis=0)
        axes.fill_between(rounds, low, high, color=colour(number), alpha=0.15, linewidth=0)
        axes.plot(rounds, high, label=f"{name}: {one.spread_s.mean() * 1e3:,.0f} ms apart", **stroke(number))
        axes.plot(rounds, low, linewidth=0.8, **stroke(number))
        table += [low, high]
    axes.set(xlabel="round", ylabel="milliseconds per batch, modelled")
    axes.set_title("thick: the slowest device; thin: the quickest", fontsize=10)
    plain_log(axes, "y")
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    figure.legend(fontsize="small", loc="outside lower center", ncols=3)
    head = ["round", *(f"{name}, {which}, ms" for name in runs for which in ("quickest", "slowest"))]
    return beside(save(figure, path), head, _lines(table))


def _accuracy(runs: Mapping[str, Told], along: Any, unit: str, what: str, path: Path) -> Path:
    figure, axes = new_figure("pictures", 7.0, 4.0)
    table = []
    for number, (name, one) in enumerate(runs.items()):
        # The model changes at merges alone, so these are steps; what was before the first round has no place on a
        # logarithmic axis.
        axes.step(along(one)[1:], one.accuracy[1:], label=name, where="post", **stroke(number))
        axes.plot(along(one)[-1:], one.accuracy[-1:], "o", color=colour(number), markersize=4)
        table += [along(one)[1:], one.accuracy[1:]]
    axes.set(xlabel=what, ylabel="accuracy", ylim=(0, 1))
    plain_log(axes, "x")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    head = ["round", *(title for name in runs for title in (f"{name}, {unit}", f"{name}, accuracy"))]
    return beside(save(figure, path), head, _lines(table))


def _head(devices: int, unit: str) -> list[str]:
    return ["round", *(f"device {number}, {unit}" for number in range(devices))]


def _lines(columns: Sequence[npt.NDArray[np.float64]] | npt.NDArray[np.float64]) -> list[list[object]]:
    """A line for each round, 1 first, of columns that are [rounds]; one that has fewer is NaN from there on."""
    rounds = max(map(len, columns))
    return [
        [at + 1, *(float(column[at]) if at < len(column) else np.nan for column in columns)] for at in range(rounds)
    ]
