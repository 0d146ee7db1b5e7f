"""What rounds of split learning were like, device by device: rows for a table, numbers for metrics, events, histories.

Times called *planned* are the plan's model of a step; the others were measured by the device (or worked out by it from
a modelled capacity, see `split_client`) and by the cloud. Nothing here plans or decides.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from logging import getLogger
from typing import Any

from flower_edge.events import Event
from flower_edge.runtime.splitting.messages import SplitReport
from flower_edge.splitting.budgets import History
from flower_edge.splitting.plan import Assignment, Plan
from flower_edge.splitting.profile import ModelProfile

from .outcome import metric_of
from .plane import Task

__all__ = ["Records"]

log = getLogger("flwr.edge")

Value = int | float | str


@dataclass
class Records:
    """Of a run.

    Attributes:
        rows: one per device and round, plain values, always of the same names:
            round, device, samples, cut, units, tail, codecs, steps, loss, lost (why, or empty);
            compute_s, transfer_s (a step's, as the device tells), cloud_s (a step's), step_s (their sum);
            planned_compute_s, planned_transfer_s, planned_cloud_s, planned_step_s;
            up_bits, down_bits (of frames, all steps), half_bits (of the half, there and back);
            reserved_bps (NaN: none), late (transfers over budget), leak (NaN: not measured), reason (of the cut).
        histories: what was measured of each device, by number.
        events: since they were taken.
        transfers, late: of all rounds: of how many steps the way was timed and had a budget, and how many took longer.
        warned: what the log was told once.
    """

    rows: list[dict[str, Value]] = field(default_factory=list)
    histories: dict[int, History] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    transfers: int = 0
    late: int = 0
    warned: set[str] = field(default_factory=set)

    def history(self, number: int) -> History:
        """Of one device."""
        return self.histories.get(number, History())

    def tell(self, what: str, text: str, **values: Value) -> None:
        """Something worth telling happened."""
        self.events.append(Event(f"split-{what}", text, values=values))

    def planned(self, plan: Plan, profile: ModelProfile, round: int) -> None:
        """A plan was made. Where a device holds no parameters, its samples leave it as they are: that is told, too."""
        bare = [
            n for n, one in sorted(plan.assignments.items()) if not any(u.parameters for u in profile.units[: one.cut])
        ]
        if bare:
            first = next((i for i, unit in enumerate(profile.units) if unit.parameters), profile.last - 1) + 1
            text = (
                f"round {round}: no unit before the cut of devices {bare} has parameters, so samples leave them "
                f"as they are; the first cut that hides something is {first}: Dynamic(..., least_cut={first})"
            )
            self.tell("samples-leave", text)
            if "samples-leave" not in self.warned:
                self.warned.add("samples-leave")
                log.warning("\t%s", text)
        cuts = {number: one.cut for number, one in sorted(plan.assignments.items())}
        values: dict[str, Value] = {f"cut_{number}": cut for number, cut in cuts.items()}
        shown = ", ".join(f"{number}: {cut}" for number, cut in cuts.items())
        self.tell("plan", f"round {round}: cuts {{{shown}}}; {plan.why}", worth=int(plan.worth), **values)

    def noted(
        self, task: Task, planned: Assignment, *, samples: int, units: int, rates: Collection[str]
    ) -> dict[str, Value]:
        """A device's round is over; its row. `rates`: which of those it measured go into its history."""
        work, report, measured = task.order.work, task.report, task.measured
        number, steps = work.number, max(1, work.steps)
        compute_s = report.compute_s / steps if report else math.nan
        transfer_s = report.transfer_s / steps if report else math.nan
        cloud_s = measured.get("cloud_s", 0.0) / steps if report else math.nan
        up_bits, down_bits = measured.get("up_bits", 0.0), measured.get("down_bits", 0.0)
        half_bits = 8 * sum(array.nbytes for part in (task.half, task.optimiser) for array in part.values())
        half_bits -= int(measured.get("spared_bits", 0))
        if report is not None:
            half_bits += 8 * sum(
                array.nbytes for part in (task.new_half or {}, task.new_optimiser or {}) for array in part.values()
            )
            found: dict[str, Any] = {"compute_s": compute_s, "transfer_s": transfer_s}
            found |= {name: value for name in rates if (value := getattr(report, name)) is not None}
            found["kept"] = _kept(task, report, up_bits, down_bits)
            self.histories[number] = self.history(number).add(**found)
            if task.order.transfer_s is not None and report.transfer_s > 0.0:
                self.transfers += report.steps
                self.late += min(report.late, report.steps)
        row: dict[str, Value] = {
            "round": work.round,
            "device": number,
            "samples": samples,
            "cut": work.cut,
            "units": units,
            "tail": work.tail,
            "codecs": planned.codecs,
            "steps": report.steps if report else 0,
            "loss": metric_of(task.reply, "loss", math.nan),
            "compute_s": compute_s,
            "transfer_s": transfer_s,
            "cloud_s": cloud_s,
            "step_s": compute_s + transfer_s + cloud_s,
            "planned_compute_s": planned.compute_s,
            "planned_transfer_s": planned.transfer_s,
            "planned_cloud_s": planned.cloud_s,
            "planned_step_s": planned.step_s,
            "up_bits": int(up_bits),
            "down_bits": int(down_bits),
            "half_bits": int(half_bits),
            "reserved_bps": math.nan if planned.up_bps is None else planned.up_bps,
            "late": report.late if report else 0,
            "leak": math.nan if report is None or report.leak is None else report.leak,
            "lost": task.lost,
            "reason": planned.reason,
        }
        self.rows.append(row)
        if task.lost:
            self.events.append(
                Event(
                    "split-lost",
                    f"round {work.round}: device {number} is lost and goes on from where this round began: {task.lost}",
                    node=str(number),
                )
            )
        else:
            self.events.append(
                Event(
                    "split-step",
                    f"device {number} trained {work.cut} of {units} units",
                    node=str(number),
                    values={name: value for name, value in row.items() if name in _TOLD and value == value},
                )
            )
        return row

    def metrics(self, rows: list[dict[str, Value]], plan: Plan) -> dict[str, float]:
        """Numbers of a round from its rows."""
        good = [row for row in rows if not row["lost"]]
        found: dict[str, float] = {
            "devices": len(good),
            "lost": len(rows) - len(good),
            "worth": float(plan.worth),
            **{name: float(sum(_number(row, name) for row in rows)) for name in ("up_bits", "down_bits", "half_bits")},
        }
        if good:
            cuts = [_number(row, "cut") for row in good]
            found |= {"cut_min": min(cuts), "cut_max": max(cuts), "cut_mean": sum(cuts) / len(cuts)}
            samples = [_number(row, "samples") for row in good]
            found["loss"] = sum(w * _number(row, "loss") for w, row in zip(samples, good, strict=True)) / sum(samples)
        for prefix in ("", "planned_"):
            steps_s = [value for row in good if math.isfinite(value := _number(row, f"{prefix}step_s"))]
            if steps_s:
                found[f"{prefix}step_s"] = max(steps_s)
                found[f"{prefix}spread_s"] = max(steps_s) - min(steps_s)
        if leaks := [leak for row in good if math.isfinite(leak := _number(row, "leak"))]:
            found["leak_max"] = max(leaks)
        if self.transfers:
            found["violation_rate"] = self.late / self.transfers
        return found

    def take_events(self) -> list[Event]:
        """What happened since the last call."""
        told, self.events = self.events, []
        return told

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "rows": [dict(row) for row in self.rows],
            "histories": {str(number): history.state_dict() for number, history in self.histories.items()},
            "transfers": self.transfers,
            "late": self.late,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.rows = [dict(row) for row in state["rows"]]
        self.histories = {int(number): History.from_state(saved) for number, saved in state["histories"].items()}
        self.transfers, self.late, self.events = int(state["transfers"]), int(state["late"]), []


#: Of a row, in its event.
_TOLD = (
    "cut",
    "units",
    "tail",
    "codecs",
    "steps",
    "compute_s",
    "transfer_s",
    "cloud_s",
    "step_s",
    "planned_step_s",
    "up_bits",
    "down_bits",
    "late",
    "leak",
)


def _kept(task: Task, report: SplitReport, up_bits: float, down_bits: float) -> float | None:
    """The rate that frames got over what was reserved, at most 1; None where nothing was, or the way was not timed."""
    order = task.order
    legs = 2 if order.work.labels == "cloud" else 4
    sending_s = report.transfer_s - legs * report.steps * (report.delay_s or 0.0)
    if order.up_bps is None or order.down_bps is None or not up_bits or sending_s <= 0.0:
        return None
    return min(1.0, (up_bits / order.up_bps + down_bits / order.down_bps) / sending_s)


def _number(row: Mapping[str, Value], name: str) -> float:
    return float(row[name])
