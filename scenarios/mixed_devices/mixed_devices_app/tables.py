"""Who trained what and when, and how long it took: tables of a run, from what it has recorded. Nothing here trains."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flower_edge.store.rows import Row
from mixed_devices_app import devices, task
from mixed_devices_app.config import STREET, MixedDevices


@dataclass(frozen=True)
class Part:
    """What a terminal trained in a stretch of a round's steps, or why nothing.

    Attributes:
        round, terminal, edge, device: who and when; `device` is the class.
        what: `rate 0.5`, `units 0-2`, `spare`, or `away`.
        share: of the whole model's parameters; 0 where nothing of it is in the merged model.
        first_step, steps: of the round's, `[first_step, first_step + steps)`.
        why: of a change in mid-round, a piece that was lost or taken over; empty elsewhere.
        reassigned: it was given the piece of another one in mid-round.
    """

    round: int
    terminal: int
    edge: str
    device: str
    what: str
    share: float
    first_step: int
    steps: int
    why: str = ""
    reassigned: bool = False


@dataclass(frozen=True)
class Lasted:
    """Seconds of one terminal's round on the virtual clock, and what they had been with the whole model (computed)."""

    round: int
    terminal: int
    round_s: float
    whole_s: float


def parts(
    config: MixedDevices, terminals: int, rows: Iterable[Row], history: Iterable[Mapping[str, Any]]
) -> list[Part]:
    """Everybody's, round by round.

    Args:
        config: of the scenario.
        terminals: how many there are.
        rows: of the run.
        history: `Pieces.history`.
    """
    events = [row for row in rows if row.kind == "event"]
    street, hall = _street(config, events), _hall(config, terminals, events, list(history))
    return sorted([*street, *hall], key=lambda part: (part.round, part.terminal, part.first_step))


def _street(config: MixedDevices, events: Sequence[Row]) -> list[Part]:
    found, rate = [], dict[int, float]()
    for number in range(1, config.rounds + 1):
        own = [row for row in events if row.round == number and row.values.get("what") == "sub-model"]
        for row in own:
            if "step" not in row.values:
                rate[int(row.node)] = float(row.values["rate"])
        for terminal in range(STREET):
            if terminal not in rate:
                continue
            begins = [(0, rate[terminal], "")]
            for row in sorted(own, key=lambda row: int(row.values.get("step", 0))):
                if row.node == str(terminal) and "step" in row.values:
                    begins.append((int(row.values["step"]), float(row.values["rate"]), str(row.values["reason"])))
            ends = [*(step for step, _, _ in begins[1:]), config.train.steps]
            for (step, now, why), end in zip(begins, ends, strict=True):
                variant = task.models(config).of_size(now)
                share = variant.parameters / task.models(config)["full"].parameters if variant else 0.0
                name = devices.device(terminal).name
                found.append(Part(number, terminal, "street", name, f"rate {now:g}", share, step, end - step, why))
            rate[terminal] = begins[-1][1]
    return found


def _hall(
    config: MixedDevices, terminals: int, events: Sequence[Row], history: Sequence[Mapping[str, Any]]
) -> list[Part]:
    found, steps = [], config.hall.steps
    for number in range(1, config.rounds + 1):
        absent = {row.node for row in events if row.round == number and row.values.get("what") == "absent"}
        taken = {
            int(row.values["to"]): str(row.values["text"])
            for row in events
            if row.round == number and row.values.get("what") == "piece-reassigned"
        }
        for terminal in range(STREET, terminals):
            own = [row for row in history if row["round"] == number and row["terminal"] == terminal]
            last = own[-1] if own else None
            who = (number, terminal, "hall", "hall")
            if last is not None and last["merged"]:
                what, share = _units(last), _share(config, last)
                why = taken.get(terminal, "")
                found.append(Part(*who, what, share, 0, steps, why, bool(why)))
            elif last is not None:
                found.append(Part(*who, _units(last), 0.0, 0, 0, f"lost: {last['lost'] or 'its chain was dropped'}"))
            else:
                found.append(Part(*who, "away" if str(terminal) in absent else "spare", 0.0, 0, 0))
    return found


def _units(row: Mapping[str, Any]) -> str:
    first, last = int(row["start"]), int(row["stop"]) - 1
    return f"unit {first}" if first == last else f"units {first}-{last}"


def _share(config: MixedDevices, row: Mapping[str, Any]) -> float:
    units = task.unit_parameters(config)
    return sum(units[int(row["start"]) : int(row["stop"])]) / sum(units)


def lasted(config: MixedDevices, rows: Iterable[Row]) -> list[Lasted]:
    """Of the street, from the run's rows `seconds`."""
    whole = task.models(config)["full"]
    return [
        Lasted(
            row.round,
            int(row.node),
            float(row.values["round_s"]),
            devices.whole_round_s(config, int(row.node), row.round, whole),
        )
        for row in rows
    ]


def mean_share(found: Sequence[Part]) -> float:
    """Of the whole model's parameters, weighed by steps."""
    steps = sum(part.steps for part in found)
    return sum(part.share * part.steps for part in found) / steps if steps else 0.0


def parts_table(found: Iterable[Part]) -> tuple[list[str], list[list[str]]]:
    """Head and lines, one for each part."""
    head = ["round", "terminal", "edge", "class", "what", "percent of the parameters", "from step", "steps", "why"]
    return head, [
        [
            str(one.round),
            str(one.terminal),
            one.edge,
            one.device,
            one.what,
            f"{100 * one.share:.1f}",
            str(one.first_step),
            str(one.steps),
            one.why,
        ]
        for one in found
    ]


def lasted_table(found: Iterable[Lasted]) -> tuple[list[str], list[list[str]]]:
    """Head and lines, one for each terminal and round."""
    head = ["round", "terminal", "class", "seconds, assigned", "seconds, whole model (computed)"]
    return head, [
        [
            str(one.round),
            str(one.terminal),
            devices.device(one.terminal).name,
            f"{one.round_s:.3f}",
            f"{one.whole_s:.3f}",
        ]
        for one in found
    ]


def accuracy_table(runs: Mapping[str, Sequence[float]]) -> tuple[list[str], list[list[str]]]:
    """Head and lines, one for each round; a column for each run."""
    rounds = max(map(len, runs.values()))
    return ["round", *runs], [[str(at), *(f"{scores[at]:.4f}" for scores in runs.values())] for at in range(rounds)]


def write(table: tuple[Sequence[str], Iterable[Sequence[str]]], path: Path) -> Path:
    """As CSV. One named like a picture stands beside it on the report page."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(table[0])
        writer.writerows(table[1])
    return path
