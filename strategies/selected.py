"""`Selected`: a selection pipeline as a layer on any Flower strategy. It narrows training; evaluation is left alone.

    Layered(FedAvg(), Selected(Pipeline(10, eligible="battery >= 0.3", score=Oort()), seed=1))

The pipeline chooses, and the strategy takes all it is shown: leave its `fraction_train` at 1.0, and its
`min_train_nodes` and `min_available_nodes` no higher than what the pipeline may choose.

The layer asks terminals for their conditions where a stage needs them, learns from replies, and carries what it knows
of a terminal to the next edge. How the choice is made is in `flower_edge.selection`; nothing here ranks.

What it does not do: evaluate the present model on candidates before it chooses. A layer that narrows does not see the
model, so losses are those of each terminal's last training (for power of choice the variant called rpow-d).

[4] ¶35, ¶36, ¶51: the edge obtains the terminals' performance and load and hands the model to those that are suitable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from flower_edge.conditions import Conditions
from flower_edge.errors import ConfigError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.abilities import last_duration_s, last_trip, now_s
from flower_edge.runtime.generators import derive_seed
from flower_edge.runtime.queries import CONDITIONS, ask_nodes, conditions_of, without_conditions
from flower_edge.selection import Experience, Job, Known, Pipeline, PipelineState, known_of, statistical_utility
from flower_edge.wire import payload_bits

from .layers import Layer

__all__ = ["Selected", "SelectedState"]

#: Columns that only replies and trips can fill: what a terminal tells under these names is not read.
_LEARNED = frozenset(
    {"loss", "loss_rms", "duration_s", "compute_s", "up_s", "up_bits", "picks", "last_asked", "last_round"}
)
#: Columns that are counted in choices, and so mean nothing at another edge as they are.
_COUNTED = ("last_asked", "last_round")
#: For how many choices static conditions are believed, where no rule depends on them.
_BELIEVED = 25


@dataclass(frozen=True)
class SelectedState:
    """What the layer carries from one exchange to the next.

    Attributes:
        number: choices made so far, from 1 in the first round.
        round: cloud and edge round of the last choice; the same round asked again is the same choice.
        pipeline, before: the pipeline's state after and before the last choice.
        learned, told: what replies and trips taught, and what terminals told.
        told_at: number of the choice at which a terminal was last asked for its conditions, by node id.
        untimed: ids of the nodes that were asked and whose durations are still to be read.
        job: the work of a round, as last seen.
        utility: mean statistical utility of the chosen, as far as known.
        happened: events not yet told, as JSON, with the number of their choice.
        cell: of the last choice.
        chosen: ids of the nodes of the last choice.
    """

    number: int
    round: tuple[int, int]
    pipeline: PipelineState
    before: PipelineState
    learned: Experience
    told: Experience
    told_at: Mapping[int, int] = field(default_factory=dict)
    untimed: tuple[int, ...] = ()
    job: Job = field(default_factory=Job)
    utility: float = 0.0
    happened: tuple[tuple[int, str], ...] = ()
    cell: str = ""
    chosen: tuple[int, ...] = ()


class Selected(Layer[SelectedState]):
    """Shows the strategy the terminals that a pipeline has chosen, and no others.

    Args:
        pipeline: eligibility, score, deadline.
        seed: of all draws; each choice draws from (seed, cell, cloud round, edge round).
        loss_key, rms_key: the reply's metrics that tell the mean training loss, and the root of the mean squared loss
            per sample if the terminal computes it.
        weight_key: the reply's metric that tells how many samples it trained on.
        conditions: `ask` sends `query.conditions` where a stage needs what only terminals know, or others do who read
            `known`; `none` never asks.
        max_age: for how many choices what a terminal told is believed. Default: 0 where the eligibility rule looks at
            conditions, which change, or `known` is given, else 25.
        job: the work of a round, so that told speeds say something before the first reply; learned afterwards.
        ask_timeout_s: how long answers are waited for, in seconds of `send_and_receive`; `None` as long as it takes.
        known: where all that is known of terminals is laid out for others, by every edge of a run on the same one:
            `MidRound(coverage, eligible=…, known=known)`.
        hold: at an edge, choose in the first edge round of a cloud round, and keep those who were chosen, as long as
            they can be asked, for the others of it. A cell that gossips wants that: who mixes with whom what was posted
            in the edge round before must have been there.

    Conditions that terminals send along with their replies (`flower_edge.clients.conditions`) are read and taken out.

    With `over_select` an exchange ends at the pipeline's `count` usable replies, where the Grid can do that.

    Raises:
        ConfigError: an argument out of its range.

    >>> Selected(Pipeline(10), seed=1).narrows
    True
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        seed: int,
        loss_key: str = "train_loss",
        rms_key: str = "train_loss_rms",
        weight_key: str = "num-examples",
        conditions: Literal["ask", "none"] = "ask",
        max_age: int | None = None,
        job: Job | None = None,
        ask_timeout_s: float | None = 30.0,
        known: Known | None = None,
        hold: bool = False,
    ) -> None:
        if not isinstance(pipeline, Pipeline):
            raise ConfigError(
                f"Selected({pipeline!r}): expected a pipeline, for example Selected(Pipeline(10), seed=1)"
            )
        if conditions not in ("ask", "none"):
            raise ConfigError(f"Selected(conditions={conditions!r}): expected 'ask' or 'none'")
        if max_age is not None and max_age < 0:
            raise ConfigError(f"Selected(max_age={max_age}): expected 0 (ask for every choice) or more")
        self.pipeline, self.seed, self.hold = pipeline, seed, hold
        self.loss_key, self.rms_key, self.weight_key = loss_key, rms_key, weight_key
        self.job, self.ask_timeout_s, self.known = job or Job(), ask_timeout_s, known
        needed = pipeline.needs - _LEARNED or pipeline.needs & {"compute_s", "up_s"} or known is not None
        self.asks = conditions == "ask" and bool(needed)
        changing = pipeline.rule_needs - _LEARNED or known is not None
        self.max_age = (0 if changing else _BELIEVED) if max_age is None else max_age

    def init(self) -> SelectedState:
        """Nothing known of anybody."""
        start = self.pipeline.init()
        return SelectedState(0, (0, 0), start, start, Experience(), Experience(), job=self.job)

    def opened(self, state: SelectedState, grid: Grid) -> SelectedState:
        """What a checkpoint knew is laid out again."""
        return self._laid_out(state)

    # -- who is shown

    def narrow(
        self, state: SelectedState, round: Round, grid: Grid, nodes: list[int]
    ) -> tuple[list[int], SelectedState]:
        """The chosen. Asked again in the same round it chooses again, from the same state."""
        state = self._timed(state, grid)
        if round.kind != "train":
            return nodes, self._laid_out(state)
        if self.hold and state.round[0] == round.cloud and state.round[1] < round.edge:
            held = set(state.chosen)
            if staying := [node for node in nodes if node in held]:
                return staying, self._laid_out(state)
        if (round.cloud, round.edge) != state.round:
            here = (round.cloud, round.edge)
            state = replace(state, number=state.number + 1, round=here, before=state.pipeline, cell=round.cell)
        state = self._asked(state, grid, nodes)
        table = known_of(np.array(nodes, np.uint64), state.learned, state.told, state.job)
        rng = np.random.default_rng(derive_seed(self.seed, "selected", round.cell, round.cloud, round.edge))
        chosen, _, after = self.pipeline.choose(table, state.before, state.number, rng)
        utility = statistical_utility(table)[np.isin(table.nodes, chosen)]
        known = utility[~np.isnan(utility)]
        taken = set(chosen.tolist())
        mean = float(known.mean()) if len(known) else 0.0
        state = replace(state, pipeline=after, utility=mean, chosen=tuple(sorted(taken)))
        # In the Grid's order: a strategy that is shown everybody then does what it would do without this layer.
        return [node for node in nodes if node in taken], self._laid_out(self._remarked(state, round, now_s(grid)))

    def _timed(self, state: SelectedState, grid: Grid) -> SelectedState:
        """With the durations of those that were asked, where the grid knows them."""
        if not state.untimed:
            return state
        duration_s: dict[int, float] = {}
        compute_s: dict[int, float] = {}
        up_s: dict[int, float] = {}
        for node in state.untimed:
            whole_s, trip = last_duration_s(grid, node), last_trip(grid, node)
            if whole_s is not None:
                duration_s[node] = whole_s
            if trip is not None:
                up_s[node] = trip.up_s
                # A trip may be the last slice of many; the whole is what lies between the two ways.
                on_the_way_s = trip.down_s + trip.wait_s + trip.up_s
                compute_s[node] = max(trip.compute_s, 0.0 if whole_s is None else whole_s - on_the_way_s)
        learned = state.learned.noted("duration_s", duration_s).noted("compute_s", compute_s).noted("up_s", up_s)
        # Who has not answered yet may still be on the way, and tell its time when it is here.
        asked = learned.of(np.array(state.untimed, np.uint64))
        open_ = ~(asked.column("last_round") >= asked.column("last_asked"))
        return replace(state, learned=learned, untimed=tuple(asked.nodes[open_].tolist()))

    def _asked(self, state: SelectedState, grid: Grid, nodes: list[int]) -> SelectedState:
        """With the conditions of the nodes whose word is too old."""
        if not self.asks:
            return state
        never = -self.max_age - 1
        due = [node for node in nodes if state.number - state.told_at.get(node, never) > self.max_age]
        if not due:
            return state
        answers = ask_nodes(grid, due, CONDITIONS, timeout_s=self.ask_timeout_s)
        # Whoever does not answer is not asked for every choice either.
        told = _noted(state.told, {node: Conditions.read(answer) for node, answer in answers.items()})
        return replace(state, told=told, told_at={**state.told_at, **dict.fromkeys(due, state.number)})

    def _remarked(self, state: SelectedState, round: Round, time_s: float | None) -> SelectedState:
        """With an event where somebody was left out for a reason, or too few are left of those who are there."""
        # Chosen again in the same round: the later word is the one that counts.
        state = replace(state, happened=tuple(entry for entry in state.happened if entry[0] != state.number))
        counts = state.pipeline["counts"]
        unfit, late = counts["candidates"] - counts["eligible"], counts["late"]
        if not counts["candidates"] or (not unfit and not late and counts["chosen"] >= counts["asked"]):
            return state
        said = [f"{counts['chosen']} of {counts['candidates']} terminals chosen, {counts['asked']} wanted"]
        said += [f"{unfit} do not satisfy {self.pipeline.eligible}"] if unfit else []
        said += [f"{late} would miss the deadline"] if late else []
        event = Event(
            "selected",
            "; ".join(said),
            cell=round.cell,
            edge_round=round.edge,
            time_s=time_s,
            values={**counts, "unfit": unfit},
        ).to_json()
        return replace(state, happened=(*state.happened, (state.number, event)))

    def _laid_out(self, state: SelectedState) -> SelectedState:
        """The same, with what it knows where others look it up; before the first choice it is nobody's edge yet."""
        if self.known is not None and state.number:
            self.known.lay_out(state.cell, state.learned, state.told, state.job)
        return state

    # -- what is learned

    def outbound(
        self, state: SelectedState, round: Round, messages: list[Message]
    ) -> tuple[list[Message], SelectedState]:
        """Notes who is asked, and how much work it is; the messages go on as they are."""
        if round.kind != "train" or not messages:
            return messages, state
        asked = np.array([message.metadata.dst_node_id for message in messages], np.uint64)
        learned = state.learned.counted("picks", asked).marked("last_asked", asked, state.number)
        steps = next((float(s) for s in _config_values(messages[0], "local-steps") if s > 0), state.job.steps)
        job = replace(state.job, down_bits=float(payload_bits(messages[0].content)), steps=steps)
        untimed = tuple(dict.fromkeys([*state.untimed, *asked.tolist()]))
        return messages, self._laid_out(replace(state, learned=learned, untimed=untimed, job=job))

    def inbound(
        self, state: SelectedState, round: Round, replies: list[Message]
    ) -> tuple[list[Message], SelectedState]:
        """Learns losses, sizes and steps; the replies go on as they are."""
        good = [reply for reply in replies if not reply.has_error()]
        if round.kind != "train" or not good:
            return replies, state
        learned = state.learned
        keys = {"loss": self.loss_key, "loss_rms": self.rms_key, "num_examples": self.weight_key, "steps": "steps"}
        for name, key in keys.items():
            learned = learned.noted(name, _metrics(good, key))
        along = {reply.metadata.src_node_id: found for reply in good if (found := conditions_of(reply)) is not None}
        told_at = {**state.told_at, **dict.fromkeys(along, state.number)}
        replies = [without_conditions(reply) for reply in replies] if along else replies
        nodes = np.unique(np.array([reply.metadata.src_node_id for reply in good], np.uint64))
        learned = learned.marked("last_round", nodes, state.number)
        job = replace(state.job, up_bits=float(payload_bits(good[0].content)))
        if not job.steps and (steps := [s for s in _metrics(good, "steps").values() if s > 0]):
            job = replace(job, steps=float(np.median(steps)))
        told = _noted(state.told, along)
        return replies, self._laid_out(replace(state, learned=learned, told=told, told_at=told_at, job=job))

    def cut_off(self, state: SelectedState, round: Round) -> int | None:
        """The pipeline's count, where more were chosen than are waited for."""
        if round.kind != "train" or self.pipeline.over_select == 1.0:
            return None
        return state.pipeline["counts"].get("asked")

    # -- what is told and kept

    def events(self, state: SelectedState) -> tuple[list[Event], SelectedState]:
        """One per choice that left somebody out for a reason, with the counts."""
        return [Event.from_json(text) for _, text in state.happened], replace(state, happened=())

    def metrics(self, state: SelectedState) -> Mapping[str, float]:
        """Of the last choice: how many were eligible and chosen, and their mean statistical utility as far as known."""
        counts = state.pipeline["counts"]
        return {"eligible": counts.get("eligible", 0), "chosen": counts.get("chosen", 0), "utility": state.utility}

    def hand_over(self, state: SelectedState, node_id: int) -> tuple[Any, SelectedState]:
        """All that is known of a terminal; what is counted in choices goes as how many choices ago."""
        learned, told = state.learned.row(node_id), state.told.row(node_id)
        if not learned and not told:
            return None, state
        ago = {name: state.number - learned.pop(name) for name in _COUNTED if name in learned}
        told_at = {node: number for node, number in state.told_at.items() if node != node_id}
        told_ago = state.number - state.told_at.get(node_id, 0)
        after = replace(
            state,
            learned=state.learned.without(node_id),
            told=state.told.without(node_id),
            told_at=told_at,
            untimed=tuple(node for node in state.untimed if node != node_id),
        )
        return {"learned": learned, "told": told, "ago": ago, "told_ago": told_ago}, self._laid_out(after)

    def take_over(self, state: SelectedState, node_id: int, parcel: Any) -> SelectedState:
        """Inverse of `hand_over`, on this edge's own count of choices."""
        learned, told, told_at = state.learned, state.told, state.told_at
        # An edge that has chosen less often than that: it was before all its own choices, but it was.
        counted = {name: max(1.0, state.number - ago) for name, ago in parcel["ago"].items()}
        if parcel["learned"] or counted:
            learned = learned.with_row(node_id, {**learned.row(node_id), **parcel["learned"], **counted})
        if parcel["told"]:
            told = told.with_row(node_id, {**told.row(node_id), **parcel["told"]})
            told_at = {**told_at, node_id: state.number - int(parcel["told_ago"])}
        return self._laid_out(replace(state, learned=learned, told=told, told_at=told_at))

    def dump(self, state: SelectedState) -> Any:
        """As plain values and arrays."""
        return {
            "number": state.number,
            "round": list(state.round),
            "pipeline": state.pipeline,
            "before": state.before,
            "learned": state.learned.dump(),
            "told": state.told.dump(),
            "told_at": [list(entry) for entry in state.told_at.items()],
            "untimed": list(state.untimed),
            "job": [state.job.steps, state.job.up_bits, state.job.down_bits],
            "utility": state.utility,
            "happened": [list(entry) for entry in state.happened],
            "cell": state.cell,
            "chosen": list(state.chosen),
        }

    def load(self, saved: Any) -> SelectedState:
        """Inverse of `dump`."""
        return SelectedState(
            number=saved["number"],
            round=(saved["round"][0], saved["round"][1]),
            pipeline=saved["pipeline"],
            before=saved["before"],
            learned=Experience.load(saved["learned"]),
            told=Experience.load(saved["told"]),
            told_at=dict(saved["told_at"]),
            untimed=tuple(saved["untimed"]),
            job=Job(*saved["job"]),
            utility=saved["utility"],
            happened=tuple((number, text) for number, text in saved["happened"]),
            cell=saved["cell"],
            chosen=tuple(saved.get("chosen", ())),
        )

    def __repr__(self) -> str:
        return f"Selected({self.pipeline!r}, seed={self.seed})"


def _noted(told: Experience, conditions: Mapping[int, Conditions]) -> Experience:
    """With what the nodes told, under names that are theirs to tell."""
    rows = {node: found.to_mapping() for node, found in conditions.items()}
    for name in dict.fromkeys(name for row in rows.values() for name in row if name not in _LEARNED):
        told = told.noted(name, {node: row[name] for node, row in rows.items() if name in row})
    return told


def _metrics(replies: Iterable[Message], key: str) -> dict[int, float]:
    """A metric by node, where it is one finite number."""
    found: dict[int, float] = {}
    for reply in replies:
        for record in reply.content.metric_records.values():
            value = record.get(key)
            if isinstance(value, int | float) and math.isfinite(value):
                found[reply.metadata.src_node_id] = float(value)
                break
    return found


def _config_values(message: Message, key: str) -> list[float]:
    values = (record.get(key) for record in message.content.config_records.values())
    return [value for value in values if isinstance(value, int | float) and math.isfinite(value)]
