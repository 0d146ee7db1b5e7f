"""Who trained what and when, accuracy beside other ways, and how long rounds took: pictures of a run.

Each has a table of the same name beside it. Nothing here computes what it shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flower_edge.coverage.drawing import GREY, colour, ink_on, new_figure, plain_log, save
from mixed_devices_app import devices, tables
from mixed_devices_app.config import STREET, MixedDevices
from mixed_devices_app.tables import Lasted, Part

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: What each run is, for the legend.
RUNS: Final = {
    "assigned": "a model for each",
    "smallest": "everybody the smallest",
    "whole": "only who can hold all of it",
}
TRAINED, ACCURACY, SECONDS = "who-trained-what", "accuracy-beside-other-ways", "seconds-per-round"
#: Room between two rounds, as a share of one.
_GAP = 0.06


def draw_trained(config: MixedDevices, terminals: int, parts: Sequence[Part], folder: Path) -> Path:
    """A row for each terminal, a cell for each round; within a cell steps go from left to right."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    figure, axes = new_figure("pictures", max(6.75, 2.6 + 0.58 * config.rounds), 2.2 + 0.36 * terminals)
    # The lightest and the darkest end of a map that is ordered for all kinds of colour vision.
    shades, norm = colormaps["cividis_r"], LogNorm(0.01, 1.0)
    for part in parts:
        row = _row(part.terminal)
        total = config.train.steps if part.edge == "street" else max(1, config.hall.steps)
        begin = part.round - 0.5 + _GAP / 2 + (1 - _GAP) * part.first_step / total
        wide = (1 - _GAP) * (part.steps / total if part.share else 1.0)
        if not part.share:
            lost = part.why.startswith("lost")
            axes.barh(
                row, wide, left=begin, height=0.84, color="white", edgecolor="#b0b0b0", hatch="////" if lost else ""
            )
            _write(axes, begin + wide / 2, row, "left" if lost else part.what, "black", lost)
            continue
        shade = shades(norm(max(part.share, 0.01)))
        ink = ink_on(shade)
        axes.barh(row, wide, left=begin, height=0.84, color=shade)
        if part.edge == "hall":
            _write(axes, begin + wide / 2, row, part.what.removeprefix("units ").removeprefix("unit "), ink, False)
        elif wide > 0.5:
            _write(axes, begin + wide / 2, row, f"{_percent(part.share)}", ink, False)
        if part.first_step or part.reassigned:
            _mark(axes, begin, row, _sign(part, parts))
    _frame(config, terminals, axes)
    bar = figure.colorbar(ScalarMappable(norm, shades), ax=axes, pad=0.01, aspect=40)
    bar.set_ticks([0.01, 0.03, 0.1, 0.3, 1.0], labels=["1 %", "3 %", "10 %", "30 %", "100 %"])
    bar.ax.minorticks_off()
    bar.set_label("share of the model's parameters")
    tables.write(tables.parts_table(parts), folder / f"{TRAINED}.csv")
    return save(figure, folder / f"{TRAINED}.png")


def draw_accuracy(runs: Mapping[str, Sequence[float]], folder: Path) -> Path:
    """Accuracy of the centre's model on data that nobody trains on, from before the first round on."""
    figure, axes = new_figure("pictures", 7.0, 4.0)
    for number, (name, scores) in enumerate(runs.items()):
        axes.plot(
            range(len(scores)),
            scores,
            color=colour(number),
            marker="osD"[number % 3],
            markersize=4,
            linestyle=("-", "--", "-.")[number % 3],
            label=f"{RUNS[name]}: {scores[-1]:.3f}",
        )
    axes.set(xlabel="round", ylabel="accuracy", ylim=(0, 1))
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    tables.write(
        tables.accuracy_table({RUNS[name]: scores for name, scores in runs.items()}), folder / f"{ACCURACY}.csv"
    )
    return save(figure, folder / f"{ACCURACY}.png")


def draw_seconds(config: MixedDevices, lasted: Sequence[Lasted], folder: Path) -> Path:
    """The shortest and the longest round of each terminal of the street, and the same with the whole model."""
    figure, axes = new_figure("pictures", 7.5, 4.4)
    plain_log(axes, "x")
    kinds = (
        ("the model it was assigned", colour(0), "o", -0.16, [one.round_s for one in lasted]),
        ("the whole model (computed)", colour(5), "D", 0.16, [one.whole_s for one in lasted]),
    )
    for label, shade, marker, shift, seconds in kinds:
        for terminal in range(STREET):
            own = [s for one, s in zip(lasted, seconds, strict=True) if one.terminal == terminal]
            if own:
                row = [terminal + shift] * 2
                shown = label if terminal == 0 else None
                axes.plot([min(own), max(own)], row, color=shade, marker=marker, markersize=5, linewidth=2, label=shown)
    deadline_s = config.model.deadline_s
    axes.axvline(deadline_s, color=GREY, linestyle="--", label=f"what the list aims at: {deadline_s:g} s")
    axes.set_yticks(range(STREET), [_name(terminal) for terminal in range(STREET)], fontsize=8)
    axes.set(ylim=(STREET - 0.5, -0.5), xlabel="virtual seconds of a round, from the shortest to the longest")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(fontsize="small", loc="outside lower center", ncols=3)
    tables.write(tables.lasted_table(lasted), folder / f"{SECONDS}.csv")
    return save(figure, folder / f"{SECONDS}.png")


def _name(terminal: int) -> str:
    return f"{devices.device(terminal).name} {terminal}"


def _row(terminal: int) -> float:
    """Where a terminal's row is; the hall has some distance."""
    return terminal + (0.5 if terminal >= STREET else 0.0)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.1f} %"


def _sign(part: Part, parts: Sequence[Part]) -> str:
    if part.reassigned:
        return "D"
    before = next(
        one
        for one in parts
        if (one.round, one.terminal, one.first_step + one.steps) == (part.round, part.terminal, part.first_step)
    )
    return "v" if part.share < before.share else "^"


def _mark(axes: Axes, at: float, row: float, sign: str) -> None:
    nudge = 0.07 if sign == "D" else 0.0
    axes.plot([at + nudge], [row - 0.24], sign, color="#D55E00", markeredgecolor="white", markersize=7, zorder=5)


def _write(axes: Axes, at: float, row: float, text: str, ink: str, boxed: bool) -> None:
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"} if boxed else None
    axes.text(at, row, text, ha="center", va="center", fontsize=8, color=ink, bbox=box)


def _frame(config: MixedDevices, terminals: int, axes: Axes) -> None:
    everyone = range(terminals)
    axes.set_yticks([_row(terminal) for terminal in everyone], [_name(terminal) for terminal in everyone], fontsize=8)
    axes.set(xlim=(0.5, config.rounds + 0.5), ylim=(_row(terminals - 1) + 0.6, -0.6), xlabel="round")
    axes.set_xticks(range(1, config.rounds + 1))
    first, last = config.spike_rounds
    at = config.spike.at_step / config.train.steps
    if config.spiking and first <= config.rounds:
        begin, end = first - 0.5 + at, min(last - 0.5 + at, config.rounds + 0.5)
        axes.plot([begin, end], [-0.75, -0.75], color="#D55E00", linewidth=3, clip_on=False)
        text = f"load {config.spike.load:g}: {', '.join(config.spiking)}"
        axes.text((begin + end) / 2, -0.9, text, ha="center", va="bottom", fontsize=8, color="#D55E00")
    for sign, what in (("v", "smaller in mid-round"), ("^", "larger in mid-round"), ("D", "takes over a piece")):
        axes.plot([], [], sign, color="#D55E00", markeredgecolor="white", markersize=7, label=what)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=3, frameon=False)
    axes.set_title("who trained how much of the model; in the hall, which units", fontsize=10, pad=24)
