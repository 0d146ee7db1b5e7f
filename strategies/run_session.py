"""`RunSession`: what surrounds the rounds of a run: hooks of a layered Grid, the run folder, checkpoints.

Nothing here trains, evaluates or decides when a round is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from logging import getLogger
from typing import Any, Final

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from flower_edge.errors import ModelMismatch, ResumeError
from flower_edge.events import Event
from flower_edge.monitoring.links import MOST_LINKS, told_in_full
from flower_edge.rounds import Round
from flower_edge.runtime.abilities import now_s
from flower_edge.runtime.generators import generator_state, restore_generators
from flower_edge.runtime.strategy_state import load_strategy_state, strategy_state
from flower_edge.runtime.wrapped_grid import grid_state, load_grid_state
from flower_edge.store.rows import Row
from flower_edge.store.run_folder import RunFolder
from flower_edge.wire import arrays_of, check_model, model_spec, records_from_tree, records_to_tree

from .round_work import RoundReport, Work
from .step_events import step_events

__all__ = ["RunSession"]

log = getLogger("flwr.edge")

CHECKPOINT_SCHEMA: Final = "flower-edge.checkpoint/1"


class RunSession:
    """The hooks of its Grid, its records and its checkpoints.

    Args:
        work: whose rounds they are; of its strategy a checkpoint holds the state.
        grid: may be layered, or know a virtual time.
        run: where to record and keep checkpoints; None: nowhere.
        train_config, evaluate_config: what strategies write into them is part of a checkpoint.
    """

    def __init__(
        self, work: Work, grid: Grid, run: RunFolder | None, train_config: ConfigRecord, evaluate_config: ConfigRecord
    ) -> None:
        self.work, self.grid, self.run = work, grid, run
        self.configs = {"train": train_config, "evaluate": evaluate_config}

    # -- hooks of a layered grid, absent on any other

    def merged(self, round: Round, before: ArrayRecord, after: ArrayRecord) -> ArrayRecord:
        """The model to go on with: `after`, or what layers make of it."""
        hook = getattr(self.grid, "merged", None)
        return after if hook is None else hook(round, before, after)

    def scored(self, round: Round, metrics: MetricRecord | None) -> None:
        """Tell layers what an evaluation has brought."""
        hook = getattr(self.grid, "scored", None)
        if hook is not None and metrics is not None:
            hook(round, {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)})

    def stop(self, round: Round) -> str | None:
        """Why the run ends after this round; None where it goes on."""
        hook = getattr(self.grid, "stop", None)
        return (None if hook is None else hook(round)) or self.work.stop(round)

    def asked_to_stop(self) -> str | None:
        """By a person, for whom the run's folder is all there is to get hold of."""
        asked = None if self.run is None else self.run.stop_asked()
        return None if asked is None else f"asked to: {asked}"

    # -- records

    def record(self, kind: str, number: int, values: Mapping[str, Any], cell: str = "") -> None:
        """Keep what of the values a run folder can hold."""
        if self.run is None or not values:
            return
        flat = {name: value for name, value in values.items() if isinstance(value, int | float | str)}
        self.run.record(kind, number, flat, cell=cell, virtual_s=self.virtual_s())

    def report(self, kind: str, number: int, report: RoundReport, *, last: bool = False) -> None:
        """Keep what a phase of a round has brought."""
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
        """Keep what has happened."""
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
        """What time it is on the virtual clock, where there is one."""
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
        """What a round ends with: layers' events and measures, its model, a checkpoint."""
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
        """Keep all that is needed to begin with `next_round`."""
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
        """Take up the newest checkpoint.

        Returns:
            The round to go on with, its model, and how many rounds in a row had brought refused replies only.

        Raises:
            ResumeError: no checkpoint, or one that does not fit this strategy, grid or model.
        """
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
