"""`Grouped`: a model, a strategy and limits for every group of terminals.

The groups train beside each other, each as if it were a federation of its own; on a virtual clock at the same time.
Who is in which group is a cell function's business, asked again before every round. For one model that all groups
share, use the same groups as cells: `Hierarchical(cells=groups, edge=...)`. Nothing here merges.

Source: [4] ¶41 (different models by group), ¶49 (independent models by group).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from logging import getLogger
from typing import Any
from urllib.parse import quote

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from flower_edge.errors import ConfigError, ModelMismatch, NestingError, ResumeError, RoundFailed
from flower_edge.events import Event
from flower_edge.rounds import Kind, Round
from flower_edge.runtime.edge_messages import EDGE_RECORD, edge_order
from flower_edge.runtime.wrapped_grid import announce
from flower_edge.store.run_folder import RunFolder
from flower_edge.wire import check_model, model_spec, records_from_tree

from ..hierarchy.cell_tier import CellTier
from ..hierarchy.cells import Cells
from ..hierarchy.cloud_rounds import EDGE_SHARE_OF_TIMEOUT
from ..hierarchy.edge_replies import counts_of, events_of, metrics_of, read_reply, row_of, traffic_of, troubles_of
from ..hierarchy.merging import EdgeResult
from ..layered import LayeredGrid
from ..loop import EvaluateFn, drive
from ..round_work import RoundReport
from ..start_only import StartOnly
from .limits import GroupLimits

__all__ = ["Grouped", "GroupedResult", "joined", "parted"]

log = getLogger("flwr.edge")

_HISTORIES = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")


@dataclass
class GroupedResult(Result):
    """What came of every group.

    Attributes:
        groups: the `Result` of each group by its name: its own model and metrics.

    `arrays` are the models of all groups in one record, under `<group>/<array>`; the metrics are means over the groups
    that have them, those of the clients weighted by their examples.
    """

    groups: dict[str, Result] = field(default_factory=dict)


def joined(models: Mapping[str, ArrayRecord]) -> ArrayRecord:
    """The models of all groups in one record.

    >>> import numpy as np
    >>> from flower_edge.wire import record_of
    >>> list(joined({"arm/v7": record_of({"w": np.zeros(1)}), "low": record_of({"w": np.ones(1)})}))
    ['arm%2Fv7/w', 'low/w']
    """
    return ArrayRecord(
        {f"{quote(group, safe='')}/{name}": array for group, model in models.items() for name, array in model.items()}
    )


def parted(arrays: ArrayRecord, groups: Mapping[str, Any]) -> dict[str, ArrayRecord]:
    """Inverse of `joined`, for the groups of these names that are in the record."""
    prefixes = {quote(group, safe="") + "/": group for group in groups}
    found: dict[str, dict[str, Any]] = {}
    for name, array in arrays.items():
        head, slash, tail = name.partition("/")
        if (group := prefixes.get(head + slash)) is not None:
            found.setdefault(group, {})[tail] = array
    return {group: ArrayRecord(found[group]) for group in groups if group in found}


class Grouped(StartOnly):
    """Trains one model per group of nodes.

    Args:
        groups: which nodes belong to which group, asked before every round: `grouped_by(by_levels("load", ...))`,
            `by_property("hardware")`, or a function of your own from the Grid and the round to node ids by name. A node
            is in one group; one in none does not take part.
        strategy: makes the strategy of a group from its name, once per group and run: `lambda group: FedAvg()`, or
            `Layered` around one.
        model: makes the model a group begins with from its name; `None`, or where it returns `None`, the
            `initial_arrays` of `start`. Models of different sizes are fine.
        limits: what a group may do, by its name, or a function from the name.
        evaluate: makes the central evaluation of a group from its name, in place of `start`'s `evaluate_fn`, which is
            otherwise called for the model of every group.
        seed: if given, every group samples from generators of its own, seeded by (seed, group, round), and so do its
            limits; otherwise groups draw from the global `random`, one after the other.

    A group appears when it first has a node, keeps its model while it has none, and goes on where it was. A group with
    fewer nodes than its strategy's minimums is skipped in that round, and it is told. With one group of all nodes the
    result is the strategy's own, in the dtypes of the model it began with.

    Raises:
        ConfigError: arguments that do not fit together.
    """

    right_nesting = (
        "a wrapper around Grouped, which brings its own loop; wrap the strategies of the groups: "
        "Grouped(groups, strategy=lambda group: Wrapper(FedAvg(), ...))"
    )

    def __init__(
        self,
        groups: Cells,
        strategy: Callable[[str], Strategy],
        *,
        model: Callable[[str], ArrayRecord | None] | None = None,
        limits: Mapping[str, GroupLimits] | Callable[[str], GroupLimits] | None = None,
        evaluate: Callable[[str], EvaluateFn] | None = None,
        seed: int | None = None,
    ) -> None:
        given: object = strategy
        if isinstance(given, Strategy):
            name = type(given).__name__
            raise ConfigError(
                f"strategy is a {name}; pass a factory, one per group: strategy=lambda group: {name}(...)"
            )
        self._strategy, self._model, self._evaluate = strategy, model, evaluate
        self._limits = limits if callable(limits) else _looked_up(dict(limits or {}))
        self.seed = seed
        self.tier = CellTier(self._edge, groups)
        self._forget()

    def _forget(self) -> None:
        self.results: dict[str, Result] = {}
        self.rounds_done: dict[str, int] = {}

    def _edge(self, group: str) -> Strategy:
        return self._limits(group).around(self._strategy(group), 0 if self.seed is None else self.seed)

    def start(
        self,
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
    ) -> GroupedResult:
        """Run `num_rounds` rounds of every group. Arguments as Flower's; `run` and `resume` as in `drive`.

        One run folder tells of all groups: the rows of a group have its name as `cell`.

        Raises:
            RoundFailed: a round to which no group contributed that still trains.
        """
        for layer in grid.layers if isinstance(grid, LayeredGrid) else ():
            if layer.narrows:
                name = type(layer).__name__
                raise NestingError(
                    f"{name} around Grouped would narrow groups, and these are no nodes of the Grid; put it inside: "
                    f"Grouped(groups, strategy=lambda group: Layered(FedAvg(), {name}(...)))"
                )
        self._forget()
        self.tier.begin(recorded=run is not None)
        work = _GroupRounds(self, initial_arrays, evaluate_fn)
        central = work.central if evaluate_fn is not None or self._evaluate is not None else None
        try:
            done = drive(
                work,
                grid,
                self._checkpointed(run, initial_arrays) if resume else ArrayRecord(),
                num_rounds,
                timeout,
                train_config,
                evaluate_config,
                central,
                run=run,
                resume=resume,
            )
        finally:
            self.tier.end()
        for group, arrays in parted(done.arrays, self.results).items():
            self.results[group].arrays = arrays
        return GroupedResult(
            done.arrays,
            done.train_metrics_clientapp,
            done.evaluate_metrics_clientapp,
            done.evaluate_metrics_serverapp,
            dict(self.results),
        )

    def model_of(self, group: str, initial_arrays: ArrayRecord) -> ArrayRecord:
        """The model a group begins with."""
        own = None if self._model is None else self._model(group)
        return initial_arrays if own is None else own

    def evaluation_of(self, group: str, evaluate_fn: EvaluateFn | None) -> EvaluateFn | None:
        """The central evaluation of a group, if there is one."""
        return evaluate_fn if self._evaluate is None else self._evaluate(group)

    def is_finished(self, group: str) -> bool:
        """Whether a group has made all the rounds it may."""
        most = self._limits(group).rounds
        return most is not None and self.rounds_done.get(group, 0) >= most

    def _checkpointed(self, run: RunFolder | None, initial_arrays: ArrayRecord) -> ArrayRecord:
        """The models of the checkpoint. Each must be like the one its group begins with."""
        found = None if run is None else run.latest_checkpoint()
        if found is None:
            return ArrayRecord()
        arrays = records_from_tree(found[1]["arrays"])["arrays"]
        assert isinstance(arrays, ArrayRecord)
        groups: Mapping[str, Any] = found[1]["strategy"].get("own", {}).get("rounds_done", {})
        for group, model in parted(arrays, groups).items():
            try:
                check_model(model, model_spec(self.model_of(group, initial_arrays)), sender=f"group {group!r} before")
            except ModelMismatch as error:
                raise ResumeError(f"{error}; resume with the models the run began with") from None
        return arrays

    def summary(self) -> None:
        """Log the configuration."""
        log.info("\t├──> A model for every group of terminals")

    def state_dict(self) -> dict[str, Any]:
        """The groups' strategies and layers, how far each is, and what it has brought."""
        return {
            "tier": self.tier.state_dict(),
            "rounds_done": dict(self.rounds_done),
            "results": {
                group: {
                    name: {number: dict(metrics.items()) for number, metrics in getattr(result, name).items()}
                    for name in _HISTORIES
                }
                for group, result in self.results.items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.tier.load_state_dict(state["tier"])
        self.rounds_done = dict(state["rounds_done"])
        self.results = {group: Result() for group in state["results"]}
        for group, saved in state["results"].items():
            for name in _HISTORIES:
                histories = {number: MetricRecord(values) for number, values in saved[name].items()}
                getattr(self.results[group], name).update(histories)


def _looked_up(limits: Mapping[str, GroupLimits]) -> Callable[[str], GroupLimits]:
    return lambda group: limits.get(group, GroupLimits())


class _GroupRounds:
    """The work of a round: every group's own round, beside each other."""

    def __init__(self, strategy: Grouped, initial_arrays: ArrayRecord, evaluate_fn: EvaluateFn | None) -> None:
        self.strategy = strategy
        self._initial, self._evaluate_fn = initial_arrays, evaluate_fn
        self._groups: Mapping[str, int] = {}

    def train(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """One training round of every group that is not finished."""
        grouped, round = self.strategy, Round(number)
        announce(grid, round)
        self._groups = grouped.tier.cells(_layers(grid)[1], round)
        for group in self._groups:
            grouped.results.setdefault(group, Result())
            grouped.rounds_done.setdefault(group, 0)
        models = self._models(arrays)
        training = {group: node for group, node in self._groups.items() if not grouped.is_finished(group)}
        results = self._ask(grid, round, training, models, config, timeout_s)
        good = [result for result in results if result.arrays is not None]
        for result in results:
            if result.arrays is None:
                log.warning("\tround %d: group %s skipped: %s", number, result.cell, result.trouble)
        if results and not good:
            raise RoundFailed(f"round {number}: no group contributed ({troubles_of(results)})")
        events = [*grouped.tier.events(), *events_of(results)]
        for result in good:
            assert result.arrays is not None
            models[result.cell] = result.arrays
            grouped.rounds_done[result.cell] += 1
            grouped.results[result.cell].train_metrics_clientapp[number] = MetricRecord(dict(result.metrics))
            if grouped.is_finished(result.cell):
                text = f"group {result.cell} is finished after {grouped.rounds_done[result.cell]} rounds"
                events.append(Event("group-finished", text, cell=result.cell))
        return RoundReport(
            arrays=joined(models),
            metrics=metrics_of(good) if good else None,
            counts=counts_of(results, good),
            cells={result.cell: row_of(result) for result in results},
            traffic=traffic_of(results),
            events=events,
        )

    def adopted(self, before: ArrayRecord, after: ArrayRecord) -> None:
        """Groups keep no versions."""

    def stop(self, round: Round) -> str | None:
        """None of its own: limits end groups one by one, and the layers around `Grouped` end all."""
        return None

    def evaluate(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """Let the nodes of every group evaluate its model."""
        round = Round(number, kind="evaluate")
        announce(grid, round)
        results = self._ask(grid, round, self._groups, self._models(arrays), config, timeout_s)
        good = [result for result in results if result.weight > 0]
        events: list[Event] = []
        for result in results:
            events += result.events
            if result.trouble:
                text = f"evaluation in group {result.cell}: {result.trouble}"
                events.append(Event("evaluation-failed", text, cell=result.cell))
        for result in good:
            record = MetricRecord(dict(result.metrics))
            self.strategy.results[result.cell].evaluate_metrics_clientapp[number] = record
        return RoundReport(
            metrics=metrics_of(good) if good else None,
            cells={result.cell: row_of(result) for result in good},
            traffic=traffic_of(results),
            events=events,
        )

    def central(self, number: int, arrays: ArrayRecord) -> MetricRecord | None:
        """The central evaluation of every group's model: means of the numbers, and each as `<group>/<metric>`."""
        found: dict[str, MetricRecord] = {}
        for group, model in self._models(arrays).items():
            evaluate = self.strategy.evaluation_of(group, self._evaluate_fn)
            record = None if evaluate is None else evaluate(number, model)
            if record is not None:
                found[group] = record
                self.strategy.results[group].evaluate_metrics_serverapp[number] = record
        if not found:
            return None
        each = {f"{group}/{name}": value for group, record in found.items() for name, value in record.items()}
        equal = [EdgeResult(group, None, 1.0, dict(record.items()), {}) for group, record in found.items()]
        return MetricRecord({**dict(metrics_of(equal).items()), **each})

    def _models(self, arrays: ArrayRecord) -> dict[str, ArrayRecord]:
        """Models of all groups there have been; a new one begins with its own."""
        known = parted(arrays, self.strategy.results)
        return {
            group: known[group] if group in known else self.strategy.model_of(group, self._initial)
            for group in self.strategy.results
        }

    def _ask(
        self,
        grid: Grid,
        round: Round,
        groups: Mapping[str, int],
        models: Mapping[str, ArrayRecord],
        config: ConfigRecord,
        timeout_s: float,
    ) -> list[EdgeResult]:
        layered, base = _layers(grid)
        tier, kind, number = self.strategy.tier, round.kind, round.cloud
        config["server-round"] = number
        messages = []
        for group, node in groups.items():
            order = edge_order(group, number, number, 1, EDGE_SHARE_OF_TIMEOUT * timeout_s, self.strategy.seed, number)
            content = RecordDict({"arrays": models[group], "config": config, EDGE_RECORD: order})
            messages.append(Message(content, node, kind))

        def deliver(outgoing: list[Message]) -> list[Message]:
            return tier.deliver(base, outgoing, timeout_s)

        replies = layered.hop(messages, deliver) if layered is not None else deliver(messages)
        by_node = {reply.metadata.src_node_id: reply for reply in replies}
        return [_read(group, by_node.get(node), kind, models[group], number) for group, node in groups.items()]


def _read(group: str, reply: Message | None, kind: Kind, model: ArrayRecord, number: int) -> EdgeResult:
    return read_reply(group, reply, kind, model_spec(model), number)


def _layers(grid: Grid) -> tuple[LayeredGrid | None, Grid]:
    return (grid, grid.inner) if isinstance(grid, LayeredGrid) else (None, grid)
