"""`RunExporter`: one run folder or a folder of runs as metrics for Prometheus, read anew at each scrape.

Everything comes from what runs leave behind anyway, so nothing in a run knows of it: the exporter may stand in the
run's process, beside it, or on another machine that sees its disk. Of a folder of runs the newest `most_runs` are told.

How labels stay few: `run` is bounded by `most_runs`; `cell`, `code` and `what` by the bound that every instrument has;
links by the `most_links` with the least bandwidth; nodes are never a label.
"""

from __future__ import annotations

import logging
import threading
from itertools import pairwise
from pathlib import Path
from typing import Final

from ..store.places import by_age
from ..telemetry import DEFAULT_METRICS_PORT, Metrics, MetricsServer
from ..telemetry.instruments import Counter, Gauge, Key
from .follower import RunFollower
from .links import by_bandwidth
from .rounds import RoundLine, latest
from .run_state import RunState

__all__ = ["RunExporter", "serve_metrics"]

log = logging.getLogger(__name__)

STATUSES: Final = ("running", "finished", "failed", "stopped", "interrupted", "missing")
_PARTS: Final = ("sampled", "replied", "failed")
_MICRO_PER_CREDIT: Final = 1_000_000

#: name -> what it is, and its labels beside `run`.
_COUNTERS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "rounds": ("Rounds of which something was recorded.", ()),
    "payload_bytes": ("Bytes of models and metrics, as counted by the run.", ("direction",)),
    "cell_payload_bytes": ("The same of one cell.", ("cell", "direction")),
    "participants": ("Terminals over all rounds: sampled, replied, failed.", ("outcome",)),
    "refusals": ("Replies that were refused, by the code of the reason.", ("code",)),
    "reward_credits": ("Credits that were booked.", ()),
    "rewards": ("Payments of more than nothing.", ()),
    "events": ("Things that happened, by their word.", ("what",)),
    "damaged_lines": ("Lines of the run's record that could not be read.", ()),
}
_GAUGES: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "run_status": ("1 for what the run is, 0 for what it is not.", ("status",)),
    "round": ("The newest round.", ()),
    "accuracy": ("Of the newest evaluation.", ()),
    "loss": ("Of the newest evaluation.", ()),
    "round_participants": ("Terminals in the newest round: sampled, replied, failed.", ("outcome",)),
    "round_seconds": ("Wall-clock seconds of the newest whole round.", ()),
    "elapsed_seconds": ("Wall-clock seconds from the run's start to its newest record.", ()),
    "virtual_seconds": ("The run's virtual clock, where it has one.", ()),
    "cell_accuracy": ("Of a cell's newest evaluation.", ("cell",)),
    "cell_participants": ("Terminals of a cell that replied in its newest round.", ("cell",)),
    "cell_terminals": ("Terminals that are attached to a cell, where runs tell.", ("cell",)),
    "links": ("Links between terminals that are known.", ()),
    "link_bandwidth_bps": ("What a link may carry, bits per second.", ("cell", "sender", "receiver")),
    "link_delay_seconds": ("What a link takes for a model, as measured.", ("cell", "sender", "receiver")),
}


class RunExporter:
    """Metrics of runs; they are read when `metrics.text()` is asked for.

    Args:
        place: a run folder, or a folder of run folders.
        metrics: where to tell them; by default a new one.
        most_runs: runs that are told, of a folder of runs.
        most_links: links that are told, of each run.

    >>> import tempfile
    >>> from flower_edge.store import RunFolder
    >>> root = tempfile.TemporaryDirectory()
    >>> with RunFolder.create("demo", config={}, seed=1, path=f"{root.name}/demo") as run:
    ...     run.record("central", 1, {"accuracy": 0.5})
    >>> 'flower_edge_accuracy{run="demo"} 0.5' in RunExporter(run.path).metrics.text()
    True
    >>> root.cleanup()
    """

    def __init__(
        self, place: str | Path, metrics: Metrics | None = None, *, most_runs: int = 20, most_links: int = 100
    ) -> None:
        self.place = Path(place)
        self.metrics = Metrics() if metrics is None else metrics
        self._most_runs, self._most_links = most_runs, most_links
        self._followers: dict[Path, RunFollower] = {}
        self._lock = threading.Lock()
        most = max(200, most_runs * 50)
        self._counters: dict[str, Counter] = {
            name: self.metrics.counter(name, says, ("run", *labels), most=most)
            for name, (says, labels) in _COUNTERS.items()
        }
        self._gauges: dict[str, Gauge] = {
            name: self.metrics.gauge(name, says, ("run", *labels), most=max(most, most_runs * most_links))
            for name, (says, labels) in _GAUGES.items()
        }
        self._took = self.metrics.histogram("round_duration_seconds", "How long rounds took.", ("run",), most=most_runs)
        self.metrics.before(self.refresh)

    def refresh(self) -> None:
        """Look at the runs now."""
        with self._lock:
            counted: dict[str, dict[Key, float]] = {name: {} for name in self._counters}
            measured: dict[str, dict[Key, float]] = {name: {} for name in self._gauges}
            self._took.clear()
            for follower in self._followed():
                with follower.lock:
                    state = follower.look()
                    run = follower.path.name
                    for name, key, value in _totals(follower, state):
                        counted[name][run, *key] = value
                    for name, key, value in self._measures(follower, state):
                        measured[name][run, *key] = value
                    for took_s in _durations_s(state.lines):
                        self._took.observe(took_s, run=run)
            for name, values in counted.items():
                self._counters[name].replace(values)
            for name, values in measured.items():
                self._gauges[name].replace(values)

    def _followed(self) -> list[RunFollower]:
        paths = [self.place] if (self.place / "run.json").exists() or self.place in self._followers else []
        paths = paths or by_age(self.place)[-self._most_runs :]
        # One that is gone is forgotten, but for the one that was asked for: its absence is news.
        self._followers = {path: self._followers.get(path) or RunFollower(path) for path in paths}
        return list(self._followers.values())

    def _measures(self, follower: RunFollower, state: RunState) -> list[tuple[str, Key, float]]:
        lines, status = state.lines, follower.status
        newest = next((line for line in reversed(lines) if line.nodes_sampled is not None), RoundLine(0))
        durations_s = _durations_s(lines)
        one: list[tuple[str, Key, float | None]] = [
            *(("run_status", (name,), float(name == status)) for name in STATUSES),
            ("round", (), state.round),
            ("accuracy", (), latest(lines, "accuracy")),
            ("loss", (), latest(lines, "loss")),
            *(("round_participants", (part,), getattr(newest, f"nodes_{part}")) for part in _PARTS),
            ("round_seconds", (), durations_s[-1] if durations_s else None),
            ("elapsed_seconds", (), state.last_wall_s),
            ("virtual_seconds", (), state.last_virtual_s),
            *(("cell_accuracy", (cell.cell,), cell.accuracy) for cell in state.cells.values()),
            *(("cell_participants", (cell.cell,), cell.replied) for cell in state.cells.values()),
        ]
        if state.attached:
            inside = list(state.attached.values())
            one += [("cell_terminals", (cell,), inside.count(cell)) for cell in state.cells]
        links = state.links_now()
        one.append(("links", (), state.links_total() or None))
        for link in by_bandwidth(links)[: self._most_links]:
            pair = (link.cell, link.sender, link.receiver)
            one += [("link_bandwidth_bps", pair, link.bandwidth_bps), ("link_delay_seconds", pair, link.delay_s)]
        return [(name, key, float(value)) for name, key, value in one if value is not None]


def _totals(follower: RunFollower, state: RunState) -> list[tuple[str, Key, float]]:
    sums = dict.fromkeys(("up_bits", "down_bits", *(f"nodes_{part}" for part in _PARTS)), 0.0)
    for line in state.lines:
        for name in sums:
            sums[name] += getattr(line, name) or 0.0
    totals: list[tuple[str, Key, float]] = [
        ("rounds", (), sum(line.round > 0 for line in state.lines)),
        ("payload_bytes", ("up",), sums["up_bits"] / 8),
        ("payload_bytes", ("down",), sums["down_bits"] / 8),
        *(("participants", (part,), sums[f"nodes_{part}"]) for part in _PARTS),
        *(("refusals", (code,), number) for code, number in state.refused_by_code.items()),
        ("reward_credits", (), state.paid_micro / _MICRO_PER_CREDIT),
        ("rewards", (), sum(one.times for one in state.paid.values())),
        *(("events", (what,), number) for what, number in state.event_counts.items()),
        ("damaged_lines", (), follower.damaged_lines),
    ]
    for cell in state.cells.values():
        totals += [
            ("cell_payload_bytes", (cell.cell, "up"), cell.up_bits / 8),
            ("cell_payload_bytes", (cell.cell, "down"), cell.down_bits / 8),
        ]
    return totals


def _durations_s(lines: list[RoundLine]) -> list[float]:
    ends = [0.0, *(line.wall_s for line in lines if line.round > 0 and line.wall_s is not None)]
    return [max(0.0, end - start) for start, end in pairwise(ends)]


def serve_metrics(
    place: str | Path,
    host: str = "127.0.0.1",
    port: int = DEFAULT_METRICS_PORT,
    token: str | None = None,
    *,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
) -> MetricsServer:
    """Serve `/metrics` of a run folder, or of a folder of them, from a thread; the one line for an app:

        with RunFolder.create(...) as run, serve_metrics(run.path):
            ...

    Args:
        place: as of `RunExporter`.
        host, port, token, certificate, key: as of `MetricsServer`.

    Raises:
        ConfigError: as of `MetricsServer`.
    """
    return MetricsServer(RunExporter(place).metrics, host, port, token, certificate=certificate, key=key)
