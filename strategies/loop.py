"""The round loop: Flower's own, with what it lacks. It can stop early, record what happened, and resume.

`drive` runs rounds of any `Work`: the flat work of one Flower strategy, or the tiers of `Hierarchical`. Bit for bit it
does what `Strategy.start` of flwr 1.41 does, in the same order.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from logging import getLogger
from typing import Any, Protocol, runtime_checkable

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from flower_edge.errors import ConfigError, ModelMismatch, NobodyAdmitted, NobodyContributed, ResumeError
from flower_edge.events import Event
from flower_edge.monitoring.links import MOST_LINKS, Link, LinkTable, told_in_full
from flower_edge.rounds import Round
from flower_edge.runtime.abilities import now_s
from flower_edge.runtime.exchange import evaluate_once, train_once
from flower_edge.runtime.generators import generator_state, give_threads_their_own_jitter, restore_generators
from flower_edge.runtime.strategy_state import load_strategy_state, strategy_state
from flower_edge.runtime.wrapped_grid import grid_state, load_grid_state
from flower_edge.store.rows import Row
from flower_edge.store.run_folder import RunFolder
from flower_edge.telemetry import log_about, log_context, log_to_json
from flower_edge.telemetry.json_lines import wanted_by_environment
from flower_edge.wire import arrays_of, check_model, model_spec, records_from_tree, records_to_tree

from .idling import LetGo, let_pass, too_few
from .step_events import step_events

__all__ = ["FlatWork", "RoundReport", "Work", "drive"]

# A child of Flower's own logger: progress appears where Flower's does.
log = getLogger("flwr.edge")

CHECKPOINT_SCHEMA = "flower-edge.checkpoint/1"
EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]
#: After so many rounds in a row that brought nothing but refused replies, a run ends: that is no bad luck.
_MOST_REFUSED_ROUNDS = 3


@dataclass
class RoundReport:
    """What one phase of a round brought.

    Attributes:
        arrays: the model to go on with, `None` to keep the one before.
        metrics: aggregated metrics of the clients, if any.
        counts: numbers of nodes, messages, bits, recorded as they are.
        cells: the same for each cell.
        traffic: what layers inside the cells measured in this round so far, by cell.
        events: things worth telling.
        refused: why nothing of what came was merged, where every reply was refused.
        links: links between nodes as they are now, by cell, "" where there are no cells; empty where nobody knows any.
    """

    arrays: ArrayRecord | None = None
    metrics: MetricRecord | None = None
    counts: dict[str, float] = field(default_factory=dict)
    cells: dict[str, dict[str, float]] = field(default_factory=dict)
    traffic: dict[str, dict[str, float]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    refused: NobodyAdmitted | None = None
    links: Mapping[str, LinkTable] = field(default_factory=dict)


class Work(Protocol):
    """What a round is made of."""

    @property
    def strategy(self) -> Strategy:
        """Whose state a checkpoint holds, and whose summary is logged."""
        ...

    def train(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """Train once from `arrays`."""
        ...

    def adopted(self, before: ArrayRecord, after: ArrayRecord) -> None:
        """The layers have seen the merge: `after` goes on, which is `before` itself where they refused it."""
        ...

    def evaluate(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """Let the clients evaluate `arrays`."""
        ...

    def stop(self, round: Round) -> str | None:
        """A reason of its own to end the training after this round, or `None`."""
        ...


@runtime_checkable
class Tells(Protocol):
    """A strategy that says what happened in a round."""

    def events(self) -> list[Event]:
        """What happened since the last call."""
        ...


@runtime_checkable
class Linked(Protocol):
    """A strategy that knows the links between its nodes."""

    def links(self) -> tuple[Link, ...]:
        """As they are now; none where nothing is new."""
        ...


@dataclass(frozen=True)
class FlatWork:
    """One Flower strategy and its nodes.

    Attributes:
        strategy: the strategy.
        idle_s: what a round lets pass to which nobody can contribute, see `Layered.start`; `None` waits and raises.
    """

    strategy: Strategy
    idle_s: float | None = None

    def train(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """One training round of the strategy, or time that passes; with what the strategy tells of it."""
        report = self._train(grid, number, arrays, config, timeout_s)
        if isinstance(self.strategy, Tells):
            report.events.extend(self.strategy.events())
        if isinstance(self.strategy, Linked) and (links := self.strategy.links()):
            report.links = {"": LinkTable.of(links)}
        return report

    def _train(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        round = Round(number)
        if self.idle_s is not None and (why := too_few(self.strategy, grid, round)):
            return self._idle(grid, number, self.idle_s, why, asked=0)
        let_go = LetGo(grid)
        try:
            done = train_once(self.strategy, grid, round, number, arrays, config, timeout_s=timeout_s)
        except NobodyAdmitted as refused:
            log.warning("\tround %d: nobody was admitted, the model stays: %s", number, refused)
            event = Event("nobody-admitted", f"the model stays: {refused}")
            asked = len(refused.asked)
            return RoundReport(counts=_counts(asked, asked), events=[event], refused=refused)
        except NobodyContributed as failed:
            gone = let_go.nodes() & failed.asked
            if not gone:
                raise
            if self.idle_s is None:
                advice = f"{len(gone)} were let go in mid-round; where terminals come and go, idle_s= lets time pass"
                raise NobodyContributed(f"{failed}; {advice}", failed.asked) from None
            why = f"{len(gone)} of the {len(failed.asked)} terminals asked were let go"
            return self._idle(grid, number, self.idle_s, why, asked=len(failed.asked))
        return RoundReport(done.arrays, done.metrics, _counts(done.sent, done.failed))

    def adopted(self, before: ArrayRecord, after: ArrayRecord) -> None:
        """A flat strategy keeps no versions."""

    def evaluate(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """One evaluation round of the strategy, where somebody can evaluate or is waited for."""
        round = Round(number, kind="evaluate")
        if self.idle_s is not None and (why := too_few(self.strategy, grid, round)):
            log.warning("\tround %d: no evaluation: %s", number, why)
            return RoundReport(events=[Event("evaluation-failed", f"no evaluation: {why}")])
        done = evaluate_once(self.strategy, grid, round, number, arrays, config, timeout_s=timeout_s)
        return RoundReport(None, done.metrics, _counts(done.sent, done.failed))

    def stop(self, round: Round) -> str | None:
        """Flower's strategies have none."""
        return None

    def _idle(self, grid: Grid, number: int, idle_s: float, why: str, *, asked: int) -> RoundReport:
        log.warning("\tround %d: nobody contributed (%s); the model stays, %g s pass", number, why, idle_s)
        return RoundReport(counts=_counts(asked, asked), events=[let_pass(grid, idle_s, why)])


def _counts(sent: int, failed: int) -> dict[str, float]:
    return {"nodes_sampled": sent, "nodes_replied": sent - failed, "nodes_failed": failed}


@log_context(round=None)
def drive(
    work: Work,
    grid: Grid,
    initial_arrays: ArrayRecord,
    num_rounds: int = 3,
    timeout: float = 3600,
    train_config: ConfigRecord | None = None,
    evaluate_config: ConfigRecord | None = None,
    evaluate_fn: EvaluateFn | None = None,
    *,
    run: RunFolder | None = None,
    resume: bool = False,
) -> Result:
    """Run rounds. Arguments as `Strategy.start`, and:

    Args:
        work: what a round is made of.
        grid: may be layered; its layers are told of rounds and merges, and asked whether to stop.
        run: where to record metrics, models and checkpoints.
        resume: continue from the newest checkpoint of `run`; rounds keep their numbers.

    Raises:
        ResumeError: no checkpoint, or one that does not fit this strategy, grid or model.
    """
    if num_rounds < 0:
        raise ConfigError(f"num_rounds = {num_rounds}: expected 0 or more")
    train_config = ConfigRecord() if train_config is None else train_config
    evaluate_config = ConfigRecord() if evaluate_config is None else evaluate_config
    if wanted_by_environment():
        log_to_json()
    log_about(run=None if run is None else run.path.name)
    give_threads_their_own_jitter()
    result, arrays, first = Result(), initial_arrays, 1
    session = _Session(work, grid, run, train_config, evaluate_config)
    refusals = 0

    log.info("Starting %s strategy:", type(work.strategy).__name__)
    work.strategy.summary()
    if resume:
        first, arrays, refusals = session.restore(result, initial_arrays)
        log.info("Resuming at round %d", first)
        if first > 1 and (reason := session.stop(Round(first - 1))):
            log.info("It had stopped after round %d: %s", first - 1, reason)
            return result
    else:
        if run is not None:
            session.check_resumable()
        if evaluate_fn and (found := evaluate_fn(0, initial_arrays)) is not None:
            log.info("Initial global evaluation results: %s", found)
            result.evaluate_metrics_serverapp[0] = found
            session.record("central", 0, found)
        session.save(1, arrays, result)

    started_s = time.monotonic()
    for number in range(first, num_rounds + 1):
        log_about(round=number)
        log.info("")
        log.info("[ROUND %s/%s]", number, num_rounds)
        trained = work.train(grid, number, arrays, train_config, timeout)
        if trained.arrays is not None:
            before, arrays = arrays, session.merged(Round(number), arrays, trained.arrays)
            work.adopted(before, arrays)
            result.arrays = arrays
        if trained.metrics is not None:
            log.info("\t└──> Aggregated MetricRecord: %s", trained.metrics)
            result.train_metrics_clientapp[number] = trained.metrics
        session.report("train", number, trained, last=number == num_rounds)
        refusals = 0 if trained.refused is None else refusals + 1
        if trained.refused is not None and refusals >= _MOST_REFUSED_ROUNDS:
            raise NobodyAdmitted(
                f"{refusals} rounds in a row brought nothing but refused replies; the last one, {trained.refused}",
                trained.refused.asked,
            )

        evaluated = work.evaluate(grid, number, arrays, evaluate_config, timeout)
        if evaluated.metrics is not None:
            log.info("\t└──> Aggregated MetricRecord: %s", evaluated.metrics)
            result.evaluate_metrics_clientapp[number] = evaluated.metrics
        session.report("evaluate", number, evaluated)

        central = evaluate_fn(number, arrays) if evaluate_fn else None
        if central is not None:
            log.info("\t└──> Global MetricRecord: %s", central)
            result.evaluate_metrics_serverapp[number] = central
            session.record("central", number, central)

        # What an evaluation measured contains what training did.
        traffic = {**trained.traffic, **evaluated.traffic}
        session.scored(Round(number), central if central is not None else evaluated.metrics)
        scores = central or evaluated.metrics
        session.finish_round(number, arrays, result, scores, traffic, refusals, last=number == num_rounds)
        if reason := session.stop(Round(number)) or session.asked_to_stop():
            log.info("Stopping after round %d: %s", number, reason)
            if number < num_rounds:
                session.events(number, step_events(grid, ended=True))
            session.events(number, [Event("stopped", f"stopped: {reason}")])
            break

    log.info("")
    log.info("Strategy execution finished in %.2fs", time.monotonic() - started_s)
    for line in io.StringIO(str(result)):
        log.info("\t%s", line.rstrip("\n"))
    return result


class _Session:
    """What surrounds the rounds: the layered grid's hooks, the run folder, the checkpoint."""

    def __init__(
        self, work: Work, grid: Grid, run: RunFolder | None, train_config: ConfigRecord, evaluate_config: ConfigRecord
    ) -> None:
        self.work, self.grid, self.run = work, grid, run
        self.configs = {"train": train_config, "evaluate": evaluate_config}

    # -- hooks of a layered grid, absent on any other

    def merged(self, round: Round, before: ArrayRecord, after: ArrayRecord) -> ArrayRecord:
        hook = getattr(self.grid, "merged", None)
        return after if hook is None else hook(round, before, after)

    def scored(self, round: Round, metrics: MetricRecord | None) -> None:
        hook = getattr(self.grid, "scored", None)
        if hook is not None and metrics is not None:
            hook(round, {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)})

    def stop(self, round: Round) -> str | None:
        hook = getattr(self.grid, "stop", None)
        return (None if hook is None else hook(round)) or self.work.stop(round)

    def asked_to_stop(self) -> str | None:
        """By a person, for whom the run's folder is all there is to get hold of."""
        asked = None if self.run is None else self.run.stop_asked()
        return None if asked is None else f"asked to: {asked}"

    # -- records

    def record(self, kind: str, number: int, values: Mapping[str, Any], cell: str = "") -> None:
        if self.run is None or not values:
            return
        flat = {name: value for name, value in values.items() if isinstance(value, int | float | str)}
        self.run.record(kind, number, flat, cell=cell, virtual_s=self.virtual_s())

    def report(self, kind: str, number: int, report: RoundReport, *, last: bool = False) -> None:
        self.record(kind, number, dict(report.metrics.items()) if report.metrics is not None else {})
        if kind == "train":
            self.record("nodes", number, report.counts)
        for cell, values in report.cells.items():
            self.record(kind, number, values, cell=cell)
        if self.run is not None and report.links:
            each, present_s = MOST_LINKS // len(report.links) or 1, self.virtual_s()
            in_full = last or told_in_full(number)
            self.run.record_rows(
                replace(table.kept(each).row(number, cell, in_full=in_full), virtual_s=present_s)
                for cell, table in report.links.items()
            )
        self.events(number, report.events)

    def events(self, number: int, events: Iterable[Event]) -> None:
        if self.run is None:
            return
        present_s = self.virtual_s()
        self.run.record_rows(
            Row(
                "event",
                number,
                event.row(),
                cell=event.cell,
                node=event.node,
                edge_round=event.edge_round,
                virtual_s=present_s if event.time_s is None else event.time_s,
            )
            for event in events
        )

    def virtual_s(self) -> float | None:
        return now_s(self.grid)

    def finish_round(
        self,
        number: int,
        arrays: ArrayRecord,
        result: Result,
        scores: MetricRecord | None,
        traffic: Mapping[str, Mapping[str, float]],
        refusals: int,
        *,
        last: bool,
    ) -> None:
        happened = getattr(self.grid, "events", None)
        # Taken even where nobody records them: they must not pile up. What is told of the end is told before the
        # checkpoint, which then knows it has been.
        self.events(number, [*(happened() if callable(happened) else ()), *step_events(self.grid, ended=last)])
        measured: Mapping[str, Any] = getattr(self.grid, "metrics", dict)()
        if self.run is None:
            # Nobody keeps it: the log is where it can be seen.
            if measured:
                log.info("\t└──> Layers: %s", ", ".join(f"{name} {value:.6g}" for name, value in measured.items()))
            return
        for cell, values in traffic.items():
            self.record("traffic", number, values, cell=cell)
        self.record("traffic", number, measured)
        accuracy = scores.get("accuracy") if scores is not None else None
        score = float(accuracy) if isinstance(accuracy, int | float) else None
        self.run.save_model(number, arrays_of(arrays), score)
        self.save(number + 1, arrays, result, refusals)

    # -- checkpoints

    def check_resumable(self) -> None:
        """Raise before the first round rather than after it if this run cannot be checkpointed."""
        strategy_state(self.work.strategy)

    def save(self, next_round: int, arrays: ArrayRecord, result: Result, refusals: int = 0) -> None:
        if self.run is None:
            return
        tree = {
            "schema": CHECKPOINT_SCHEMA,
            "next_round": next_round,
            "refused_rounds": refusals,
            "arrays": records_to_tree(RecordDict({"arrays": arrays})),
            "configs": records_to_tree(RecordDict(dict(self.configs))),
            "result": _result_tree(result),
            "strategy": strategy_state(self.work.strategy),
            "grid": grid_state(self.grid),
            "generators": generator_state(),
        }
        self.run.save_checkpoint(next_round, tree)

    def restore(self, result: Result, initial_arrays: ArrayRecord) -> tuple[int, ArrayRecord, int]:
        if self.run is None:
            raise ResumeError("resume=True needs run=, the run folder to continue")
        found = self.run.latest_checkpoint()
        if found is None:
            raise ResumeError(f"{self.run.path} holds no checkpoint; start the run without resume")
        path, tree = found
        if tree.get("schema") != CHECKPOINT_SCHEMA:
            raise ResumeError(f"{path} has schema {tree.get('schema')!r}, this version reads {CHECKPOINT_SCHEMA!r}")
        arrays = records_from_tree(tree["arrays"])["arrays"]
        assert isinstance(arrays, ArrayRecord)
        try:
            check_model(arrays, model_spec(initial_arrays), sender="the checkpoint")
        except ModelMismatch as error:
            raise ResumeError(f"{error}; resume with the model the run began with") from None
        saved = records_from_tree(tree["configs"])
        for name, record in self.configs.items():
            record.clear()
            record.update(saved.config_records[name].items())
        load_strategy_state(self.work.strategy, tree["strategy"])
        load_grid_state(self.grid, tree["grid"])
        _restore_result(result, tree["result"])
        if tree["next_round"] > 1:
            result.arrays = arrays
        restore_generators(tree["generators"])
        return int(tree["next_round"]), arrays, int(tree.get("refused_rounds", 0))


_HISTORIES = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")


def _result_tree(result: Result) -> dict[str, Any]:
    return {
        name: {number: dict(metrics.items()) for number, metrics in getattr(result, name).items()}
        for name in _HISTORIES
    }


def _restore_result(result: Result, tree: Mapping[str, Any]) -> None:
    for name in _HISTORIES:
        getattr(result, name).update({number: MetricRecord(values) for number, values in tree[name].items()})
