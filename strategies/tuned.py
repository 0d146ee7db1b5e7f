"""`Tuned`: hyperparameters as training results. Proposed with the model, reported with the reply, merged by their kind.

    Layered(FedAvg(), Tuned({"lr": LogScale(1e-4, 1.0)}, start={"lr": 0.01}))

A layer on any strategy whose nodes train a model, flat or inside an edge. Every training message gets the proposal, in
its train config under the hyperparameters' own names; reports come back with the replies, in a record of their own
that is taken out, and what they are merged to is the next proposal. Without reports the proposal stays, and
the model is bit for bit that of the strategy alone, given the start as its train config. How reports are merged is in
`flower_edge.tuning`; nothing here trains or tries.

Source: [4] ¶20: training results may be hyperparameters, which the edge server then aggregates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import ConfigError, NestingError, ResumeError, WireError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.generators import derive_seed
from flower_edge.runtime.strategy_state import innermost
from flower_edge.tuning import (
    HYPERPARAMETER_RECORD,
    PROPOSED_KEY,
    ByScore,
    Choice,
    Kind,
    Report,
    Value,
    hyperparameters_of,
    merge,
    read_report,
)
from flower_edge.tuning.merging import check_merging
from flower_edge.wire import weight_of

from .gossip.gossip import Gossip
from .gradients.exchange import GradientExchange
from .hierarchy.hierarchical import Hierarchical
from .layers import Layer
from .splitting.split import Split

__all__ = ["Tuned", "TunedState"]

#: Strategies whose nodes do not answer one training message with one model.
_OTHERS = (Gossip, GradientExchange, Split)


@dataclass(frozen=True)
class TunedState:
    """State of a `Tuned`: plain values.

    Attributes:
        proposal: the value of every hyperparameter, as it is sent next.
        exchange: cloud and edge round of the last training exchange.
        cell: its cell.
        reports: of that exchange, what could be used of each node's: `values`, `weight`, `score`; by node id as text.
        left_out: of that exchange, what could not be used, by reason.
        left_out_total: the same, of all exchanges.
        fresh: whether reports have come that no event has told.
        happened: events not yet taken.
    """

    proposal: Mapping[str, Value]
    exchange: tuple[int, int] = (0, 0)
    cell: str = ""
    reports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    left_out_total: int = 0
    fresh: bool = False
    happened: tuple[Event, ...] = ()


class Tuned(Layer[TunedState]):
    """Proposes hyperparameters to the nodes and merges what they report.

    Args:
        hyperparameters: the kind of each by its name, which is its key in the train config.
        start: the first proposal, one value for each.
        explore: the share of hyperparameters, 0 to 1, that a node is sent a neighbour of instead of the proposal; each
            is drawn by (seed, cell, cloud round, edge round, node, name). Then nodes that search nothing and report
            what they were sent, with their score, tune as well, at the cost of no training.
        by_score, temperature, trim, most_weight: of `flower_edge.tuning.merge`.
        weight_key: the reply's metric that says how much its report weighs.
        config_key: the name of the train config in a message, as the strategy's `configrecord_key`.
        seed: of what is explored.

    A train config given to `start` under one of these names is overridden, and so is what the strategy itself puts
    there, such as FedProx's `proximal-mu`. Reports of one exchange count once per node, the last one if there are
    several. List filters after it, `Layered(strategy, Tuned(...), Filtered(...))`: a refused reply then has no say.

    Raises:
        ConfigError: an argument out of its range.
        NestingError: around `Hierarchical`, whose edges hear the terminals' reports and do not pass them on.

    >>> from flower_edge.tuning import LogScale
    >>> Tuned({"lr": LogScale(1e-4, 1.0)}, start={"lr": 0.01}).init().proposal
    {'lr': 0.01}
    """

    #: A report is one node's; replies that were folded into one have lost it.
    singly = True

    def __init__(
        self,
        hyperparameters: Mapping[str, Kind],
        start: Mapping[str, Value],
        *,
        explore: float = 0.0,
        by_score: ByScore = "rank",
        temperature: float = 1.0,
        trim: float = 0.1,
        most_weight: float = 4.0,
        weight_key: str = "num-examples",
        config_key: str = "config",
        seed: int = 0,
    ) -> None:
        self.start = hyperparameters_of(hyperparameters, start)
        self.kinds = dict(hyperparameters)
        check_merging(by_score, temperature, trim, most_weight)
        if isinstance(explore, bool) or not isinstance(explore, int | float) or not 0.0 <= explore <= 1.0:
            raise ConfigError(f"Tuned(explore={explore!r}): expected a share, 0 to 1")
        if not isinstance(config_key, str) or config_key in ("", HYPERPARAMETER_RECORD):
            raise ConfigError(f"Tuned(config_key={config_key!r}): expected the name of the train config, 'config'")
        self.explore, self.seed = explore, seed
        self.by_score, self.temperature, self.trim, self.most_weight = by_score, temperature, trim, most_weight
        self.weight_key, self.config_key = weight_key, config_key

    def init(self) -> TunedState:
        """The start is proposed."""
        return TunedState(dict(self.start))

    def check(self, strategy: Strategy) -> None:
        """Refuse strategies whose nodes do not answer a training message with a model and a report."""
        core = innermost(strategy)
        name = type(core).__name__
        if isinstance(core, Hierarchical):
            raise NestingError(
                f"Tuned around {name}: terminals report to their edge, so every edge has proposals of its own; "
                f"write {name}(edge=lambda cell: Layered(FedAvg(), Tuned(...)), ...)"
            )
        if isinstance(core, _OTHERS):
            raise NestingError(
                f"Tuned around {name}: its nodes do not answer one training message with one model; leave Tuned out"
            )

    def outbound(self, state: TunedState, round: Round, messages: list[Message]) -> tuple[list[Message], TunedState]:
        """Every training message with a proposal."""
        if round.kind != "train":
            return messages, state
        if (round.cloud, round.edge) != state.exchange:
            state = replace(_told(state), reports={}, left_out={})
        state = replace(state, exchange=(round.cloud, round.edge), cell=round.cell)
        for message in messages:
            values = self._sent(state.proposal, round, message.metadata.dst_node_id)
            config = message.content.config_records.get(self.config_key, ConfigRecord())
            # Messages of a round may share one content: each gets its own, and no record is changed in place.
            # No record of its own: Flower's clipping mods refuse messages with a second ConfigRecord.
            told = ConfigRecord({**config, **values, PROPOSED_KEY: list(values)})
            message.content = RecordDict({**message.content, self.config_key: told})
        return messages, state

    def inbound(self, state: TunedState, round: Round, replies: list[Message]) -> tuple[list[Message], TunedState]:
        """The replies without their reports; the next proposal is merged of all that the exchange has brought."""
        reports, left_out, came = dict(state.reports), dict(state.left_out), 0
        for reply in replies:
            if reply.has_error() or HYPERPARAMETER_RECORD not in reply.content:
                continue
            record = reply.content[HYPERPARAMETER_RECORD]
            if round.kind == "train":
                came += 1
                report, reasons = self._read(record, reply)
                for reason, count in reasons.items():
                    left_out[reason] = left_out.get(reason, 0) + count
                if report is not None:
                    reports[str(reply.metadata.src_node_id)] = report
            reply.content = RecordDict(
                {name: record for name, record in reply.content.items() if name != HYPERPARAMETER_RECORD}
            )
        if not came:
            return replies, state
        total = state.left_out_total + sum(left_out.values()) - sum(state.left_out.values())
        proposal = self._merged(state.proposal, reports)
        state = replace(state, proposal=proposal, reports=reports, left_out=left_out, left_out_total=total, fresh=True)
        return replies, state

    def events(self, state: TunedState) -> tuple[list[Event], TunedState]:
        """What was proposed after each exchange that brought reports."""
        state = _told(state)
        return list(state.happened), replace(state, happened=())

    def metrics(self, state: TunedState) -> Mapping[str, float]:
        """Each next proposal as `tuned_<name>` (of a choice: the place of its option, from 0), and the reports."""
        numbers: dict[str, float] = {}
        for name, value in state.proposal.items():
            kind = self.kinds[name]
            numbers[f"tuned_{name}"] = kind.options.index(str(value)) if isinstance(kind, Choice) else float(value)
        return {**numbers, "tuning_reports": len(state.reports), "tuning_left_out": state.left_out_total}

    def dump(self, state: TunedState) -> Any:
        """The state as plain values."""
        return {
            **vars(state),
            "proposal": dict(state.proposal),
            "exchange": list(state.exchange),
            "reports": {node: {**report, "values": dict(report["values"])} for node, report in state.reports.items()},
            "left_out": dict(state.left_out),
            "happened": [event.to_json() for event in state.happened],
        }

    def load(self, saved: Any) -> TunedState:
        """Inverse of `dump`.

        Raises:
            ResumeError: the checkpoint tuned other hyperparameters, or within other bounds.
        """
        try:
            proposal = hyperparameters_of(self.kinds, saved["proposal"])
        except ConfigError as error:
            raise ResumeError(
                f"the checkpoint proposes {saved['proposal']}, which is not for this Tuned ({error}); "
                "resume with the same hyperparameters"
            ) from None
        return TunedState(
            **{
                **saved,
                "proposal": proposal,
                "exchange": tuple(saved["exchange"]),
                "happened": tuple(Event.from_json(text) for text in saved["happened"]),
            }
        )

    def _sent(self, proposal: Mapping[str, Value], round: Round, node: int) -> dict[str, Value]:
        """What one node is sent: the proposal, or neighbours of it."""
        values = dict(proposal)
        if not self.explore:
            return values
        for name, kind in self.kinds.items():
            drawn = derive_seed(self.seed, "tuned", round.cell, round.cloud, round.edge, node, name)
            rng = np.random.default_rng(drawn)
            if rng.random() < self.explore:
                near = kind.neighbours(values[name])
                values[name] = near[int(rng.integers(len(near)))]
        return values

    def _read(self, record: object, reply: Message) -> tuple[dict[str, Any] | None, Mapping[str, int]]:
        """What could be used of a reply's report, and what could not, by reason."""
        if not isinstance(record, ConfigRecord):
            return None, {"type": 1}
        try:
            weight = weight_of(reply, self.weight_key)
        except WireError:
            weight = math.nan
        told = read_report(dict(record.items()), self.kinds, weight)
        if not told.values:
            return None, told.left_out
        return {"values": dict(told.values), "weight": weight, "score": told.score}, told.left_out

    def _merged(self, proposal: Mapping[str, Value], reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Value]:
        """The next proposal; of a hyperparameter that nobody tells about, the present one."""
        merged = dict(proposal)
        for name, kind in self.kinds.items():
            told = [
                Report(report["values"][name], report["weight"], report["score"])
                for report in reports.values()
                if name in report["values"]
            ]
            value = merge(
                kind,
                told,
                by_score=self.by_score,
                temperature=self.temperature,
                trim=self.trim,
                most_weight=self.most_weight,
            ).value
            if value is not None:
                merged[name] = value
        return merged

    def __repr__(self) -> str:
        return f"Tuned({', '.join(self.kinds)})"


def _told(state: TunedState) -> TunedState:
    """With an event for the reports of the last exchange, where none has told them."""
    if not state.fresh:
        return state
    words = ", ".join(
        f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in state.proposal.items()
    )
    left_out = ", ".join(f"{count} {reason}" for reason, count in sorted(state.left_out.items()))
    event = Event(
        "proposed",
        f"{words}; of {len(state.reports)} reports" + (f", left out: {left_out}" if left_out else ""),
        cell=state.cell,
        edge_round=state.exchange[1],
        values={
            **{f"tuned_{name}": value for name, value in state.proposal.items()},
            "reports": len(state.reports),
            "left_out": sum(state.left_out.values()),
        },
    )
    return replace(state, fresh=False, happened=(*state.happened, event))
