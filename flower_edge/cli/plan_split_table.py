"""What `flower-edge plan-split` finds: every cut's cost for every device, and the plan, as values, text and a picture.

Nothing here builds, profiles or plans a model.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..splitting.capacity import Cloud
from ..splitting.costs import CutCodecs, Job, unit_flops
from ..splitting.plan import Assignment, DeviceView, Plan
from ..splitting.planner import FixedCut
from ..splitting.profile import ModelProfile
from ..units import human_s
from .columns import NOTHING, columns, traffic

__all__ = ["CutCost", "cut_costs", "draw_costs", "named", "plain_values", "tables", "telling_cuts"]

#: A cut, and what a step costs each device there when all are cut there.
CutCost = tuple[int, dict[str, Assignment]]


def telling_cuts(profile: ModelProfile, least_cut: int, tail: int = 0) -> list[int]:
    """Cuts to show: of neighbours that cost the same, the last one; the whole model at the end."""
    flops = unit_flops(profile)
    found = []
    for cut in range(least_cut, profile.last - tail):
        more = cut + 1 < profile.last - tail and flops[cut] == 0.0
        here, there = profile.cuts[cut], profile.cuts[cut + 1]
        if not (more and (here.values, len(here.shapes)) == (there.values, len(there.shapes))):
            found.append(cut)
    return [*found, profile.last]


def cut_costs(
    profile: ModelProfile,
    names: Sequence[str],
    devices: Mapping[int, DeviceView],
    cloud: Cloud,
    job: Job,
    codecs: CutCodecs,
    least_cut: int,
) -> list[CutCost]:
    """The modelled step of every device at every telling cut, all devices cut there at the same time."""
    found = []
    for cut in telling_cuts(profile, least_cut, job.tail):
        plan = FixedCut(cut, codecs, cloud, job).plan(profile, devices, 1)
        found.append((cut, {name: plan.assignments[at] for at, name in enumerate(names)}))
    return found


def tables(
    profile: ModelProfile, names: Sequence[str], costs: Sequence[CutCost], plan: Plan, leak: Mapping[int, float] | None
) -> str:
    """Cost by cut, the plan, and what it comes to."""
    flops = unit_flops(profile)
    lines = []
    for cut, by_device in costs:
        at = profile.cuts[cut]
        first = next(iter(by_device.values()))
        lines.append(
            [
                str(cut),
                _after(profile, cut),
                f"{100.0 * flops[:cut].sum() / flops.sum():.1f} %" if flops.sum() else NOTHING,
                str(len(at.shapes)) if cut < profile.last else NOTHING,
                traffic(first.up_bits + first.down_bits) if cut < profile.last else NOTHING,
                *([] if leak is None else [f"{leak[cut]:.2f}" if cut < profile.last else NOTHING]),
                *(_time(one.step_s) for one in by_device.values()),
            ]
        )
    head = ["cut", "after", "computing", "tensors", "bytes", *([] if leak is None else ["leakage"]), *names]
    parts = [*columns(head, lines, left=2), ""]
    rows = []
    for at_device, name in enumerate(names):
        one = plan.assignments[at_device]
        rows.append(
            [
                name,
                str(one.cut),
                _after(profile, one.cut),
                one.codecs if one.cut < profile.last else NOTHING,
                *(_time(value_s) for value_s in (one.compute_s, one.transfer_s, one.cloud_s, one.step_s)),
                NOTHING if one.up_bps is None else f"{one.up_bps / 1e6:.3g} Mbit/s",
                NOTHING if one.down_bps is None else f"{one.down_bps / 1e6:.3g} Mbit/s",
                traffic(8 * one.memory_bytes),
            ]
        )
    titles = ["device", "cut", "after", "codecs", "compute", "transfer", "cloud", "step", "up", "down", "memory"]
    parts += columns(titles, rows, left=4)
    parts += ["", f"{'worth splitting' if plan.worth else 'not worth splitting'}: {named(plan.why, names)}"]
    return "\n".join(parts)


def plain_values(
    profile: ModelProfile, names: Sequence[str], costs: Sequence[CutCost], plan: Plan, leak: Mapping[int, float] | None
) -> dict[str, Any]:
    """The same for programs; seconds, bits and bytes. What is not known or not limited is None."""
    return {
        "units": [unit.name for unit in profile.units],
        "digest": profile.digest,
        "cuts": [
            {
                "cut": cut,
                "after": _after(profile, cut),
                "values": profile.cuts[cut].values,
                "tensors": len(profile.cuts[cut].shapes),
                "leakage": None if leak is None else leak[cut],
                "devices": {name: _step(one) for name, one in by_device.items()},
            }
            for cut, by_device in costs
        ],
        "plan": {
            name: {**_step(plan.assignments[at]), "reason": plan.assignments[at].reason}
            for at, name in enumerate(names)
        },
        "worth": plan.worth,
        "why": named(plan.why, names),
        "step_s": plan.step_s,
        "spread_s": plan.spread_s,
        "train_s": _finite(plan.train_s),
        "transfer_s": _finite(plan.transfer_s),
        "round_s": plan.round_s,
        "whole_round_s": _finite(plan.whole_s),
        "round_bits": plan.round_bits,
        "whole_round_bits": plan.whole_bits,
    }


def draw_costs(
    profile: ModelProfile,
    names: Sequence[str],
    costs: Sequence[CutCost],
    plan: Plan,
    path: Path,
    title: str,
) -> Path:
    """A panel per device: seconds of a step by cut, in parts and together, and the cut that the plan takes.

    Raises:
        ConfigError: matplotlib is not installed, or the file's ending is neither .png nor .svg.
    """
    from ..coverage.drawing import GREY, colour, new_figure, save

    down = math.ceil(len(names) / 2)
    across = min(2, len(names))
    figure, only = new_figure("a picture of costs by cut", 5.4 * across, 2.9 * down + 0.8)
    only.remove()
    grid = figure.subplots(down, across, squeeze=False, sharex=True)
    cuts = [cut for cut, _ in costs]
    places = range(len(cuts))
    for axes, (at, name) in zip(grid.flat, enumerate(names), strict=False):
        steps = [by_device[name] for _, by_device in costs]
        parts = {
            "computing": [one.compute_s for one in steps],
            "transfers": [one.transfer_s for one in steps],
            "cloud": [one.cloud_s for one in steps],
        }
        for k, (label, values_s) in enumerate(parts.items()):
            shown = [value_s if value_s > 0.0 else math.nan for value_s in values_s]
            axes.plot(places, shown, color=colour(k), linewidth=1.4, marker=".", markersize=4, label=label)
        axes.plot(places, [one.step_s for one in steps], color="black", linewidth=1.8, label="step")
        mine = plan.assignments[at]
        if mine.cut in cuts:
            place = cuts.index(mine.cut)
        else:  # a neighbour that costs the same stands for it
            place = next(index for index, cut in enumerate(cuts) if cut > mine.cut)
        axes.axvline(place, color=GREY, linewidth=6, alpha=0.35, zorder=0)
        axes.plot([place], [mine.step_s], "D", color="black", markersize=5, label="planned")
        axes.set_yscale("log")
        axes.set_ylim(bottom=min(one.step_s for one in steps) / 300.0)
        axes.set_title(f"{name}: cut {mine.cut}, {_time(mine.step_s)} a step", fontsize=10)
        axes.set_xticks(list(places), [_after(profile, cut) for cut in cuts], rotation=60, ha="right", fontsize=7)
        axes.tick_params(labelbottom=at >= len(names) - across)
        axes.set_ylabel("seconds a step")
        axes.grid(alpha=0.25, linewidth=0.6)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    for axes in list(grid.flat)[len(names) :]:
        axes.remove()
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return save(figure, path)


def named(text: str, names: Sequence[str]) -> str:
    """A planner's sentence, its devices by name instead of number.

    >>> named("device 1 has 3 MB for training", ["laptop", "tiny"])
    'device tiny has 3 MB for training'
    """
    return re.sub(r"\bdevice (\d+)\b", lambda found: f"device {names[int(found[1])]}", text)


def _after(profile: ModelProfile, cut: int) -> str:
    return "whole model" if cut == profile.last else profile.cuts[cut].name


def _time(value_s: float) -> str:
    """As `human_s`, finer below a hundredth of a second.

    >>> _time(0.00412), _time(0.2), _time(0.0)
    ('4.12 ms', '200 ms', '0 ms')
    """
    return f"{value_s * 1e3:.3g} ms" if value_s < 0.01 else human_s(value_s)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _step(one: Assignment) -> dict[str, Any]:
    return {
        "cut": one.cut,
        "codecs": one.codecs,
        "compute_s": one.compute_s,
        "transfer_s": one.transfer_s,
        "cloud_s": one.cloud_s,
        "step_s": one.step_s,
        "up_bits": one.up_bits,
        "down_bits": one.down_bits,
        "up_bps": one.up_bps,
        "down_bps": one.down_bps,
        "memory_bytes": one.memory_bytes,
    }
