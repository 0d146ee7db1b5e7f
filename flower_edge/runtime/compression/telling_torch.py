"""From a run to `Told`. Nothing here asks a machine or runs a model: a page may call it as often as it likes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...fringe.controller_torch import Controller
from ...fringe.history import Iteration, Version
from ...fringe.links import Link, attainable, inference
from ...fringe.pipeline_torch import Pipeline
from ...fringe.wire import HEADER_BYTES
from .fleets import Fleet
from .loop_torch import Loop
from .requests import Requests
from .run_torch import Run
from .serving_torch import Serving
from .told import ConnectionTold, Event, FrozenTold, MachineTold, Point, Told, TotalTold, VersionTold

__all__ = ["Moment", "frozen_told", "told_of", "total_told"]


@dataclass(frozen=True)
class Moment:
    """What a controller had done at one moment: it goes on while this is told.

    Attributes:
        pipeline, version: the current one, and the same as it is kept.
        versions: at least all that the iterations made.
        iterations: so far.
    """

    pipeline: Pipeline
    version: Version
    versions: tuple[Version, ...]
    iterations: tuple[Iteration, ...]

    @classmethod
    def of(cls, controller: Controller | None) -> Moment | None:
        """Now; None without a controller."""
        if controller is None:
            return None
        # In this order: a version is kept before it is the current one, and before the iteration that made it is.
        iterations, pipeline = tuple(controller.iterations), controller.pipeline
        versions = controller.versions
        version = next(one for one in versions if one.number == pipeline.version)
        return cls(pipeline, version, versions, iterations)


def connections_told(run: Run, moment: Moment | None, links: Sequence[Link]) -> list[ConnectionTold]:
    """Of each connection; none before the pipeline was cut."""
    whole, serving = run.whole, run.serving
    if whole is None or serving is None:
        return []
    before = [one.size_bytes for one in whole.connections]
    number = 0 if moment is None else moment.version.number
    now = before if moment is None else list(moment.version.sizes_bytes)
    closed = {} if run.controller is None else run.controller.closed
    told: list[ConnectionTold] = []
    for at, (one, link) in enumerate(zip(whole.connections, links, strict=True)):
        seen = serving.seen(number, at)
        before_s, now_s = link.seconds(before[at]), link.seconds(now[at])
        told.append(
            {
                "name": f"{one.producer} -> {one.consumer}",
                "before_bytes": before[at],
                "now_bytes": now[at],
                "saved_bytes": before[at] - now[at],
                "saved_share": _share(before[at] - now[at], before[at]),
                "before_s": before_s,
                "now_s": now_s,
                "saved_s": before_s - now_s,
                "saved_time_share": _share(before_s - now_s, before_s),
                "sent_bytes": None if seen is None else seen.size_bytes,
                "measured_s": None if seen is None else seen.seconds,
                "goodput_bps": link.goodput_bps if math.isfinite(link.goodput_bps) else None,
                "delay_s": link.delay_s,
                "measured": serving.estimate(at).transfers > 0 and not serving.overridden(at),
                "overridden": serving.overridden(at),
                "closed": {key.partition("/")[2]: why for key, why in closed.items() if key.startswith(f"{at}/")},
                "points": [] if moment is None else _points(moment, at, link),
            }
        )
    return told


def _points(moment: Moment, connection: int, link: Link) -> list[Point]:
    sizes = {one.number: one.sizes_bytes[connection] for one in moment.versions}
    seconds = {number: link.seconds(size) for number, size in sizes.items()}
    points: list[Point] = [
        {
            "iteration": 0,
            "size_bytes": sizes[0],
            "latency_s": seconds[0],
            "tried_bytes": sizes[0],
            "here": False,
            "accepted": True,
            "why": "uncompressed",
        }
    ]
    for one in moment.iterations:
        points.append(
            {
                "iteration": one.number,
                "size_bytes": sizes[one.version],
                "latency_s": seconds[one.version],
                "tried_bytes": one.after_bytes[connection],
                "here": one.connection == connection,
                "accepted": one.accepted,
                "why": one.why,
            }
        )
    return points


def machines_told(run: Run, moment: Moment | None, fleet: Fleet) -> list[MachineTold]:
    """Of each machine of the pipeline."""
    whole, serving, choice = run.whole, run.serving, run.choice
    if whole is None or serving is None or choice is None:
        return []
    now = whole if moment is None else moment.pipeline
    said, addresses = serving.statistics(), fleet.addresses()
    told: list[MachineTold] = []
    for machine in whole.machines:
        seen = said.get(machine)
        compute = None if seen is None else seen.get("compute")
        version = None if seen is None else _latest(serving, seen)
        told.append(
            {
                "name": machine,
                "address": addresses.get(machine),
                "reachable": None if seen is None else "error" not in seen,
                "error": None if seen is None else seen.get("error"),
                "depth": int(choice.depth.get(machine, 1)),
                "layers": _layers(whole, machine),
                "optimised": [] if run.layers is None else list(run.layers.layers(machine)),
                "parameters_before": _parameters(whole, machine),
                "parameters": _parameters(now, machine),
                "compute_s": None if not compute or not compute["count"] else float(compute["p50_s"]),
                "version": version,
                "served": None if seen is None else seen.get("served"),
            }
        )
    return told


def _latest(serving: Serving, seen: Mapping[str, Any]) -> int | None:
    """The controller's number of the newest version that a machine holds; at the entry, of the one that it serves."""
    held = [int(number) for number in seen.get("versions", {})]
    current = seen.get("current")
    latest = current if current is not None else max(held, default=None)
    return None if latest is None else serving.number_of(int(latest))


def _layers(pipeline: Pipeline, machine: str) -> list[str]:
    """Names of modules with arrays of their own, in the order they run."""
    part = pipeline.part(machine).module
    names = [name.rpartition(".")[0] or name for name, _ in part.named_parameters(remove_duplicate=False)]
    return list(dict.fromkeys(names))


def _parameters(pipeline: Pipeline, machine: str) -> int:
    return sum(one.numel() for one in pipeline.part(machine).module.parameters())


def total_told(run: Run, moment: Moment | None, links: Sequence[Link], requests: Requests) -> TotalTold | None:
    """Over all connections; None before there is a controller."""
    controller = run.controller
    if controller is None or moment is None:
        return None
    first, now, goals = moment.versions[0], moment.version, controller.goals
    before_s, now_s = _latency_s(first, links), _latency_s(now, links)
    before, left = sum(first.sizes_bytes), sum(now.sizes_bytes)
    most = attainable(first.sizes_bytes, links, first.compute_s)
    most_bytes, most_s = goals.most_bytes(before), goals.most_seconds(before_s)
    return {
        "metric": goals.judge.name,
        "larger_is_better": goals.judge.larger_is_better,
        "score_before": first.score,
        "score": now.score,
        "floor": goals.worst(first.score),
        "test_before": run.test_scores.get(0),
        "test_score": run.test_scores.get(now.number),
        "before_bytes": before,
        "now_bytes": left,
        "saved_share": _share(before - left, before),
        "before_s": before_s,
        "now_s": now_s,
        "saved_time_share": _share(before_s - now_s, before_s),
        "answer_before_s": requests.p50_s(0),
        "answer_s": requests.p50_s(now.number),
        "most_bytes": most_bytes if math.isfinite(most_bytes) else None,
        "most_s": most_s if math.isfinite(most_s) else None,
        "attainable_bytes_share": 1 - HEADER_BYTES * len(first.sizes_bytes) / before,
        "attainable_s": most.latency_s,
        "attainable_time_share": most.fraction,
        "goals_met": goals.met(before, left, before_s, now_s),
    }


def _latency_s(version: Version, links: Sequence[Link]) -> float:
    return inference(version.sizes_bytes, links, version.compute_s).latency_s


def iterations_told(moment: Moment | None) -> list[dict[str, Any]]:
    """Of each iteration, its row in values that JSON has."""
    return [] if moment is None else [_plain(one.row()) for one in moment.iterations]


def versions_told(moment: Moment | None, links: Sequence[Link]) -> list[VersionTold]:
    """All that were accepted."""
    if moment is None:
        return []
    return [
        {
            "number": one.number,
            "score": one.score,
            "size_bytes": sum(one.sizes_bytes),
            "latency_s": _latency_s(one, links),
            "digest": one.digest,
            "current": one.number == moment.version.number,
        }
        for one in moment.versions
    ]


def frozen_told(run: Run, moment: Moment | None) -> FrozenTold | None:
    """The proof; None before there is a controller."""
    controller = run.controller
    if controller is None or run.layers is None or moment is None:
        return None
    digest = controller.frozen_digest
    return {
        "digest": digest,
        "equal": all(one.frozen_digest == digest for one in moment.iterations),
        "checked": len(moment.iterations),
        "arrays": len(run.layers.frozen(controller.whole)),
    }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            value = _plain(value)
        found[name] = None if isinstance(value, float) and not math.isfinite(value) else value
    return found


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def told_of(
    loop: Loop, fleet: Fleet, task: dict[str, Any], requests: Requests, events: list[Event], refused: str | None
) -> Told:
    """All of it.

    Args:
        loop: with the run that goes on.
        fleet: all machines.
        task: what `CompressionTask.told` gave.
        requests, events: counted and said so far.
        refused: why the last submission was.
    """
    run, serving = loop.run, loop.serving
    # The phase before all else: whoever is told of an end finds all of it.
    phase = loop.phase
    moment = None if run is None else Moment.of(run.controller)
    links = () if run is None or run.serving is None else run.links()
    counted = None
    if serving is not None and serving.deployment is not None:
        counted = requests.told(loop.swaps_in_all)
    settings: dict[str, Any] = {}
    if run is not None:
        choice = None if run.choice is None else run.choice.config()
        settings = {
            **run.settings.config(),
            "chosen": choice,
            "why": [] if choice is None else choice["why"],
        }
    error = refused if run is None else refused or run.failed or run.notice
    return {
        "phase": phase,
        "error": error,
        "task": task | ({} if run is None else {"metric": run.settings.metric}),
        "known": list(fleet.machines),
        "settings": settings,
        "machines": [] if run is None else machines_told(run, moment, fleet),
        "connections": [] if run is None else connections_told(run, moment, links),
        "total": None if run is None else total_told(run, moment, links, requests),
        "iterations": iterations_told(moment),
        "versions": versions_told(moment, links),
        "frozen": None if run is None else frozen_told(run, moment),
        "requests": counted,
        "automatic": loop.automatic,
        "events": events,
    }
