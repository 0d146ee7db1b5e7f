"""`ModelList`: a layer that shows terminals the model list, keeps what they tell, and decides who is given which model.

    listed = ModelList(models, ByLoad())
    Layered(SubModels(FedAvg(), groups, assign=listed.assign), listed)

Before a round it asks those it has not asked yet (`query.model_list`), and decides for all that are there. From replies
it learns how long a step really took, and from a virtual clock how long a round and its ways took. What is known, and
what was decided, is the layer's state, and so in the checkpoint; `assign` only looks it up. How it is decided is in
`by_load` and `choosing`; what is sent, in `SubModels`.

Source: [4] ¶34-37, ¶41, ¶48-49.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from logging import getLogger
from typing import Any

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flower_edge.conditions import Conditions
from flower_edge.errors import ConfigError, NestingError, WireError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.abilities import last_duration_s, last_trip, now_s
from flower_edge.runtime.model_list_messages import MODEL_LIST, ListAnswer, ListQuestion
from flower_edge.runtime.queries import ask_nodes, conditions_of
from flower_edge.runtime.steps.messages import LATE_RECORD, renewed_of
from flower_edge.runtime.strategy_state import innermost
from flower_edge.submodels.catalogue import Catalogue
from flower_edge.submodels.order import SUBMODEL_RECORD, SubmodelOrder
from flower_edge.submodels.sizes import Size
from flower_edge.submodels.step_times import StepTimes, believed_s

from ..layers import Layer
from ..node_rows import key_of, rows_of
from .choosing import Choice, Decision
from .model_list_state import ModelListState
from .sub_models import SubModels

__all__ = ["ModelList"]

log = getLogger("flwr.edge")


class _Board:
    """What was decided last, for `assign`: a copy of the layer's state, which is the truth."""

    def __init__(self) -> None:
        self.given: Mapping[str, str] = {}


class ModelList(Layer[ModelListState]):
    """Asks, remembers, decides.

    Args:
        catalogue: the list.
        choice: `ByLoad(...)`, `ByGroup(...)`, `AsChosen(...)`, or a value of your own with `decide` and `check`.
        ask: whether terminals are asked at all; without, their replies and properties are all that is known.
        every: a terminal is asked again after so many rounds; 0 asks it once.
        conditions: whether all are asked for their conditions (`query.conditions`) before every round, where load and
            memory change; what comes along with replies (`conditions_mod`) is read in any case.
        batch: samples in a step of training.
        steps: that a terminal times of each variant.
        budget_s: the most that timing may take a terminal.
        weight: of the newest measurement, above 0 and up to 1.
        timeout_s: how long answers are waited for; `None` as long as it takes.

    Of replies it reads the metrics `steps` and `step_s`, or `train_s` (seconds of the whole training), and the
    conditions that `conditions_mod` adds. It takes nothing out of them, and shows the strategy every node.

    Raises:
        ConfigError: an argument out of its range, or a variant to be given that is not on the list.
        NestingError: around a strategy that is not `SubModels`, and so gives everybody the whole model.

    >>> from flower_edge.submodels.catalogue import mlp_catalogue
    >>> from .choosing import AsChosen
    >>> ModelList(mlp_catalogue([64, 32, 10], {"a": 1.0, "b": 0.5}), AsChosen("b"))
    ModelList(a, b; AsChosen(default='b'))
    """

    def __init__(
        self,
        catalogue: Catalogue,
        choice: Choice,
        *,
        ask: bool = True,
        every: int = 0,
        conditions: bool = False,
        batch: int = 32,
        steps: int = 3,
        budget_s: float = 10.0,
        weight: float = 0.5,
        timeout_s: float | None = 120.0,
    ) -> None:
        if not isinstance(catalogue, Catalogue):
            raise ConfigError(f"ModelList({catalogue!r:.60}): expected catalogue(model, groups, sizes, example)")
        if not callable(getattr(choice, "decide", None)) or not callable(getattr(choice, "check", None)):
            raise ConfigError(f"ModelList(choice={choice!r:.60}): expected ByLoad(), ByGroup(...) or AsChosen(...)")
        if type(every) is not int or every < 0:
            raise ConfigError(f"ModelList(every={every!r}): expected a whole number of rounds, or 0")
        choice.check(catalogue)
        self.catalogue, self.choice, self.ask, self.every, self.conditions = catalogue, choice, ask, every, conditions
        self.question = ListQuestion(catalogue, batch, steps, budget_s)
        self.weight, self.timeout_s = weight, timeout_s
        StepTimes(batch=batch, weight=weight)
        self._board = _Board()

    def assign(self, round: int, key: str, row: Mapping[str, Any]) -> Size:
        """The size that was decided for a node: `SubModels(assign=listed.assign)`.

        Raises:
            ConfigError: nothing was; the layer is not around the strategy.
        """
        if key not in self._board.given:
            raise ConfigError(
                f"node {key}: the model list has decided nothing; write "
                "Layered(SubModels(..., assign=listed.assign), listed) with one and the same `listed`"
            )
        return self.catalogue[self._board.given[key]].size

    def init(self) -> ModelListState:
        """Nothing known of anybody."""
        return ModelListState(times=StepTimes(batch=self.question.batch, weight=self.weight))

    def check(self, strategy: Strategy) -> None:
        """Refuse strategies that would not give anybody what is decided here."""
        core = innermost(strategy)
        if not isinstance(core, SubModels):
            name = type(core).__name__
            raise NestingError(
                f"ModelList around {name}, which does not give terminals models of their own size; write "
                "Layered(SubModels(FedAvg(), groups, assign=listed.assign), listed), in a hierarchy at the edge"
            )

    def opened(self, state: ModelListState, grid: Grid) -> ModelListState:
        """What a checkpoint decided is laid out again."""
        return self._laid_out(state)

    # -- before a round

    def narrow(
        self, state: ModelListState, round: Round, grid: Grid, nodes: list[int]
    ) -> tuple[list[int], ModelListState]:
        """Asks, and decides for all that are there; everybody goes on being shown."""
        keys = {node: key_of(grid, node) for node in nodes}
        state = replace(state, keys={**state.keys, **keys})
        new = [key for key in keys.values() if key not in state.given]
        if round.kind != "train" and not new:
            return nodes, self._laid_out(state)
        state = self._timed(state, grid)
        if (round.cloud, round.edge) != state.round and round.kind == "train":
            state = replace(state, number=state.number + 1, round=(round.cloud, round.edge))
        state = self._asked(state, round, grid, keys)
        rows = rows_of(grid, nodes, ask=self.conditions)
        if self.conditions:
            for node, key in keys.items():
                state = state.heard(key, Conditions.read(rows[node]).to_mapping())
        terminals = {key: state.terminal(key, rows[node]) for node, key in keys.items()}
        decided = self.choice.decide(self.catalogue, state.times, terminals)
        if round.kind != "train":
            # Between two trainings only those who are new are given something: the others keep what they have.
            decided = {key: decided[key] for key in new}
        for key in terminals:
            if key in decided:
                state = self._given(state, round, key, decided[key], now_s(grid))
        return nodes, self._laid_out(replace(state, virtual_s=now_s(grid)))

    def _asked(self, state: ModelListState, round: Round, grid: Grid, keys: Mapping[int, str]) -> ModelListState:
        if not self.ask:
            return state
        due = [
            node
            for node, key in keys.items()
            if key not in state.asked or (self.every and state.number - state.asked[key] >= self.every)
        ]
        answers = ask_nodes(grid, due, MODEL_LIST, self.question.request(), self.timeout_s)
        asked = {**state.asked, **{keys[node]: state.number for node in due}}
        state = replace(state, asked=asked)
        for node, told in answers.items():
            key, answer = keys[node], ListAnswer.read(told, self.question)
            for why in answer.odd:
                state = self._refused(state, round, key, f"of its answer to the model list is not believed: {why}")
            state = state.heard(key, answer.conditions.to_mapping())
            for name, seconds in answer.step_s.items():
                state = state.timed(key, name, seconds)
            state = replace(state, chosen={**state.chosen, key: answer.chosen})
        return state

    def _timed(self, state: ModelListState, grid: Grid) -> ModelListState:
        """With what a virtual clock knows of the last round of those that answered."""
        begun_s = state.virtual_s
        for key, node in state.untimed.items():
            trip, whole_s = last_trip(grid, node), last_duration_s(grid, node)
            if trip is None or begun_s is None or trip.sent_s < begun_s or trip.failed:
                continue
            # A trip may be the last slice of many; the whole is what lies between the two ways.
            ways_s = trip.down_s + trip.wait_s + trip.up_s
            compute_s = max(trip.compute_s, 0.0 if whole_s is None else whole_s - ways_s)
            name, steps = state.sent.get(key), state.steps.get(key)
            if name and steps and (seconds := believed_s(compute_s / steps)) is not None:
                state = state.timed(key, name, seconds)
            rates = [
                bits / s if s > 0 else 0.0 for bits, s in ((trip.up_bits, trip.up_s), (trip.down_bits, trip.down_s))
            ]
            state = replace(state, links={**state.links, key: (rates[0], rates[1])})
        return replace(state, untimed={})

    def _given(
        self, state: ModelListState, round: Round, key: str, decision: Decision, time_s: float | None
    ) -> ModelListState:
        before = state.given.get(key)
        one = self.catalogue[decision.variant]
        state = replace(state, given={**state.given, key: one.name})
        if before == one.name:
            return state
        text = f"terminal {key} is given {one.name!r}" + (f" instead of {before!r}" if before else "")
        values: dict[str, int | float | str] = {"variant": one.name, "rate": one.rate, "depth": one.depth}
        if decision.round_s is not None:
            values["predicted_s"] = decision.round_s
        return state.with_event(
            Event("model-list", f"{text}: {decision.why}", key, round.cell, round.edge, time_s=time_s, values=values)
        )

    def _refused(self, state: ModelListState, round: Round, key: str, what: str) -> ModelListState:
        text = f"terminal {key}: {what}"
        log.warning("\t%s", text)
        return state.with_event(Event("refused", text, key, round.cell, round.edge, values={"code": "model-list"}))

    def _laid_out(self, state: ModelListState) -> ModelListState:
        self._board.given = state.given
        return state

    # -- a round

    def outbound(
        self, state: ModelListState, round: Round, messages: list[Message]
    ) -> tuple[list[Message], ModelListState]:
        """Looks at what each node is really sent."""
        if round.kind != "train":
            return messages, state
        sent = dict(state.sent)
        for message in messages:
            key = state.keys.get(message.metadata.dst_node_id)
            if key is not None:
                sent[key] = self._variant_in(message)
        return messages, replace(state, sent=sent)

    def _variant_in(self, message: Message) -> str:
        """Name of the variant a message carries; "" where its size is not listed."""
        record = message.content.config_records.get(SUBMODEL_RECORD)
        if not isinstance(record, ConfigRecord):
            return ""
        try:
            order = SubmodelOrder.from_values(dict(record.items()))
        except WireError:
            return ""
        found = self.catalogue.of_size(Size(order.rate, order.depth))
        return "" if found is None else found.name

    def inbound(
        self, state: ModelListState, round: Round, replies: list[Message]
    ) -> tuple[list[Message], ModelListState]:
        """Learns from replies; they go on as they came."""
        if round.kind != "train":
            return replies, state
        for reply in replies:
            key = state.keys.get(reply.metadata.src_node_id)
            if key is None or reply.has_error() or not reply.has_content():
                continue
            conditions = conditions_of(reply) or Conditions()
            state = state.heard(key, conditions.to_mapping())
            name = state.sent.get(key)
            if LATE_RECORD in reply.content:
                continue  # of another round, and so perhaps of another variant
            if renewed_of(reply) is not None:
                # The clock knows how long a round took that was done on two sizes, which says nothing of either.
                steps = state.steps.get(key, 0.0) + (_steps_in(reply) or 0.0)
                untimed = {one: node for one, node in state.untimed.items() if one != key}
                state = replace(state, steps={**state.steps, key: steps} if steps else state.steps, untimed=untimed)
            elif name:
                state = self._learned(state, round, key, name, reply, conditions)
        return replies, state

    def _learned(
        self, state: ModelListState, round: Round, key: str, name: str, reply: Message, conditions: Conditions
    ) -> ModelListState:
        told = {
            what: record[what]
            for record in reply.content.metric_records.values()
            for what in ("steps", "step_s", "train_s")
            if what in record
        }
        if (steps := _steps_in(reply)) is not None:
            state = replace(state, steps={**state.steps, key: steps})
        if state.virtual_s is not None:
            # On a virtual clock the seconds of this machine mean nothing; the clock is asked before the next round.
            return replace(state, untimed={**state.untimed, key: reply.metadata.src_node_id})
        step_s: Any = told.get("step_s", conditions.step_s)
        train_s = told.get("train_s")
        if "step_s" not in told and isinstance(train_s, int | float) and key in state.steps and "steps" in told:
            step_s = float(train_s) / state.steps[key]
        if step_s is None:
            return state
        seconds = believed_s(step_s, self.catalogue[name].train_flops * self.question.batch)
        if seconds is None:
            return self._refused(state, round, key, f"a step of {name!r} in {step_s!r:.40} s is not believed")
        return state.timed(key, name, seconds)

    # -- what is told and kept

    def events(self, state: ModelListState) -> tuple[list[Event], ModelListState]:
        """Who was given another variant and why, and what was not believed, since the last call."""
        return list(state.untold), replace(state, untold=())

    def metrics(self, state: ModelListState) -> Mapping[str, float]:
        """How many terminals have each variant."""
        return {f"given_{one.name}": sum(name == one.name for name in state.given.values()) for one in self.catalogue}

    def hand_over(self, state: ModelListState, node_id: int) -> tuple[Any, ModelListState]:
        """What is known of a terminal goes with it; the other edge decides anew."""
        key = state.keys.get(node_id)
        return (None, state) if key is None else state.parcel(key)

    def take_over(self, state: ModelListState, node_id: int, parcel: Any) -> ModelListState:
        """Inverse of `hand_over`."""
        return state.unpacked(node_id, parcel)

    def dump(self, state: ModelListState) -> Any:
        """As plain values, and the list it belongs to."""
        return {**state.to_tree(), "names": list(self.catalogue.names)}

    def load(self, saved: Any) -> ModelListState:
        """Inverse of `dump`; what was decided of variants that are no longer listed is decided anew."""
        return ModelListState.from_tree(saved, self.catalogue)

    def __repr__(self) -> str:
        return f"ModelList({', '.join(self.catalogue.names)}; {self.choice!r})"


def _steps_in(reply: Message) -> float | None:
    """The steps a reply tells; `None` where it tells none that can be."""
    told = [record["steps"] for record in reply.content.metric_records.values() if "steps" in record]
    steps = told[-1] if told else None
    return float(steps) if isinstance(steps, int | float) and 0 < steps < 1e12 else None
