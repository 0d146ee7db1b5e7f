"""What a sweep over controllers comes to: a line per controller, as text, CSV or JSON, and the pictures of [1].

Medians and means over the seeds; times to an accuracy are compared seed by seed. Nothing here runs a controller.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..store.atomic import write_bytes
from ..store.json_file import write_json
from .columns import columns
from .controller_trials import Plan, Trial
from .gossip_learning import seconds_to

__all__ = ["draw_figures", "export", "lines_of", "table"]

#: Against whom speed-ups are given.
REFERENCE: Final = "equal"
#: Rounds at the end that f and times are averaged over.
LAST: Final = 50
#: Mean accuracy over the devices that time is taken to.
GOAL: Final = 0.9

#: Field, title, digits after the point.
_COLUMNS: Final[tuple[tuple[str, str, int], ...]] = (
    ("f_over_opt", "f/OPT", 2),
    ("regret_s", "regret s", 1),
    ("true_over_floor", "time/floor", 2),
    ("links", "links", 0),
    ("sigma2", "sigma2", 3),
    ("rounds_to_goal", "rounds", 0),
    ("virtual_s_to_goal", "s to 90 %", 0),
    ("speedup", "speed-up", 2),
    ("accuracy_mean", "accuracy", 3),
    ("accuracy_worst", "worst", 3),
)


def lines_of(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """A line per controller, in the order they come in: means over its seeds; None where there is nothing.

    Keys: controller, seeds, f_over_opt and true_over_floor (last 50 rounds), regret_s (whole run), links and sigma2
    (last 50 rounds), rounds_to_goal and virtual_s_to_goal (mean accuracy of 90 %; None unless every seed gets there),
    speedup (EQUAL's time to it over the controller's own, seed by seed), accuracy_mean and
    accuracy_worst (last reading, over the devices).
    """
    by_name: dict[str, list[Trial]] = {}
    for trial in trials:
        by_name.setdefault(trial.controller, []).append(trial)
    reference = {trial.seed: _goal(trial)[1] for trial in by_name.get(REFERENCE, [])}
    return [_line(name, some, reference) for name, some in by_name.items()]


def _line(name: str, trials: Sequence[Trial], reference: Mapping[int, float]) -> dict[str, Any]:
    goals = [_goal(trial) for trial in trials]
    learned = [trial.learned for trial in trials if trial.learned is not None]
    taken_s = [taken_s for _, taken_s in goals]
    paired = [reference.get(trial.seed, math.nan) for trial in trials]
    return {
        "controller": name,
        "seeds": len(trials),
        "f_over_opt": _mean([t.f_s[-LAST:].mean() / t.optimum_s[-LAST:].mean() for t in trials]),
        "regret_s": _mean([(t.f_s - t.optimum_s).sum() for t in trials]),
        "true_over_floor": _mean([t.true_s[-LAST:].mean() / t.floor_s[-LAST:].mean() for t in trials]),
        "links": _mean([t.links[-LAST:].mean() for t in trials]),
        "sigma2": _mean([t.sigma2[-LAST:].mean() for t in trials]),
        "rounds_to_goal": _mean([rounds for rounds, _ in goals]),
        "virtual_s_to_goal": _mean(taken_s),
        "speedup": _mean([their_s / own_s for their_s, own_s in zip(paired, taken_s, strict=True)]),
        "accuracy_mean": _mean([found.mean[-1] for found in learned] or [math.nan]),
        "accuracy_worst": _mean([found.worst[-1] for found in learned] or [math.nan]),
    }


def _goal(trial: Trial) -> tuple[float, float]:
    """Rounds and virtual seconds to the goal, NaN where it was not reached."""
    return (math.nan, math.nan) if trial.learned is None else seconds_to(trial.learned, GOAL)


def _mean(values: Sequence[float]) -> float | None:
    """None if one is missing: a mean over other seeds would be another quantity."""
    mean = float(np.mean(values))
    return None if math.isnan(mean) else mean


def table(lines: Sequence[Mapping[str, Any]]) -> str:
    """The lines as text; columns in which there is nothing are left out."""
    shown = [column for column in _COLUMNS if any(line[column[0]] is not None for line in lines)]
    head = ["controller", *(title for _, title, _ in shown)]
    rows = [[line["controller"], *(_number(line[field], digits) for field, _, digits in shown)] for line in lines]
    return "\n".join(columns(head, rows))


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if math.isfinite(value) else str(value)


def export(folder: Path, plan: Plan, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write `controllers.csv` and `controllers.json`, a line per controller."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["controller"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_bytes(folder / "controllers.csv", text.getvalue().encode())
    write_json(folder / "controllers.json", {"plan": vars(plan), "lines": list(lines)})


def draw_figures(folder: Path, plan: Plan, trials: Sequence[Trial]) -> list[Path]:
    """[0], FIGS. 8 to 11, from the trials: those of learning only where there was any.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    from ..control.figures_plot import plot_accuracy_over_time, plot_device_accuracy, plot_latency, plot_regret

    by_name: dict[str, list[Trial]] = {}
    for trial in trials:
        by_name.setdefault(trial.controller, []).append(trial)
    f_s = {name: np.stack([trial.f_s for trial in some]) for name, some in by_name.items()}
    optimum_s = {name: np.stack([trial.optimum_s for trial in some]) for name, some in by_name.items()}
    true_s = {name: np.stack([trial.true_s for trial in some]) for name, some in by_name.items()}
    title = f"{plan.set_up}, {plan.nodes} nodes"
    drawn = [
        plot_latency(f_s, folder / "fig-08-latency.png", title=title),
        plot_latency(true_s, folder / "fig-08-true-time.png", title=title, true=True),
        plot_regret(f_s, optimum_s, folder / "fig-09-regret.png", title=title),
    ]
    learned = {
        name: found for name, some in by_name.items() if (found := [t.learned for t in some if t.learned is not None])
    }
    if learned:
        device = {name: (some[0].rounds, np.stack([one.watched for one in some])) for name, some in learned.items()}
        end_s = _end_s([one.virtual_s[-1] for some in learned.values() for one in some])
        grid_s = np.linspace(0.0, end_s, 201)
        over_time = {
            name: (grid_s, np.stack([_held(grid_s, one.virtual_s, one.mean) for one in some]))
            for name, some in learned.items()
        }
        drawn.append(plot_device_accuracy(device, folder / "fig-10-one-device.png", title=title))
        drawn.append(plot_accuracy_over_time(over_time, folder / "fig-11-mean-accuracy.png", title=title))
    return drawn


def _end_s(ends_s: Sequence[float]) -> float:
    """Where the picture of accuracy over time ends: the fastest run is seen whole, the slowest ones begin."""
    return 3.0 * min(ends_s)


def _held(at_s: Any, virtual_s: Any, values: Any) -> Any:
    """Values as last read at given times, NaN before the first reading and after the last."""
    at = np.searchsorted(virtual_s, at_s, side="right") - 1
    inside = (at >= 0) & (at_s <= virtual_s[-1])
    return np.where(inside, values[np.maximum(at, 0)], np.nan)
