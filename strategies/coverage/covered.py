"""`Covered`: only terminals in coverage are sampled, late updates are brought up to date, nothing is counted twice.

`Layered(FedAvg(), Covered(coverage))`, flat or inside `Hierarchical`. Where the terminals are is `Coverage`'s
business, what becomes of a terminal that leaves in mid-training that of `MidRound`. Nothing here moves or trains.

A late update began from the model w_b of an earlier round b of its cell. It is merged with what it has learned since:

    w' = w + s(τ) (w_reply − w_b),      τ = rounds since b,      s(τ) = 1/√(1+τ)

in float64, cast once; integers are those of w.

Source: Nguyen et al., "Federated learning with buffered asynchronous aggregation", AISTATS 2022 (FedBuff); [4] ¶40 (a
terminal out of coverage keeps training).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid

from flower_edge.errors import ConfigError, ModelMismatch, WireError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.steps.messages import LATE_RECORD, renewed_of
from flower_edge.wire import (
    array_of,
    cast_like,
    check_model,
    copy_content,
    model_spec,
    record_of,
    records_from_tree,
    records_to_tree,
    server_round_of,
    weight_of,
)

from ..hierarchy.asynchronous import Staleness, polynomial
from ..layers import Layer
from .coverage import Coverage

__all__ = ["Covered", "CoveredState", "rebased"]


@dataclass(frozen=True)
class CoveredState:
    """What the layer knows of one federation or cell.

    Attributes:
        cell: the edge it is at; empty around a flat federation.
        flat: whether it has been around a flat federation.
        number: the present `server-round`; where the strategy tells none, the rounds are counted.
        place: cloud and edge round of the last training exchange.
        bases: the model of the present round, and of those rounds from which an update is still to come.
        taken: nodes whose update of a round has been merged, each with the renewal whose part it is: 0 for what the
            strategy sent first, see `Renew`.
        counts: late updates merged, late ones dropped, duplicates dropped.
        events: not fetched yet.
    """

    cell: str = ""
    flat: bool = False
    number: int = 0
    place: tuple[int, int] = (0, 0)
    bases: Mapping[int, ArrayRecord] = field(default_factory=dict)
    taken: Mapping[int, frozenset[tuple[int, int]]] = field(default_factory=dict)
    counts: tuple[int, int, int] = (0, 0, 0)
    events: tuple[Event, ...] = ()


def rebased(late: ArrayRecord, base: ArrayRecord, now: ArrayRecord, scale: float) -> ArrayRecord:
    """now + scale · (late − base), in float64 and cast to the dtypes of `now`; what is no float is taken from `now`.

    >>> one, two, five = (record_of({"w": np.array([value])}) for value in (1.0, 2.0, 5.0))
    >>> rebased(two, one, five, 0.5)["w"].numpy()
    array([5.5])
    """
    out = dict(now.items())
    moved: dict[str, Any] = {}
    for name, array in now.items():
        here = array_of(array)
        if np.issubdtype(here.dtype, np.floating):
            step = array_of(late[name]).astype(np.float64) - array_of(base[name]).astype(np.float64)
            moved[name] = np.asarray(here.astype(np.float64) + scale * step)
    out.update(cast_like(record_of(moved), {name: model_spec(now)[name] for name in moved}).items())
    return ArrayRecord(out)


class Covered(Layer[CoveredState]):
    """Samples terminals in coverage, brings late updates up to date, merges each update once.

    Args:
        coverage: who is where. The same object for `Hierarchical(cells=coverage)` and every cell.
        late: what becomes of an update that comes in a later round: `merge`d as above, or `drop`ped.
        max_staleness: older than so many rounds of its cell, it is dropped.
        staleness: s(τ), from 0 to 1.

    Around a flat federation those in any cell can be sampled; inside `Hierarchical` those of the edge's own cell. A
    late update is told by its record `flower-edge.late`, which no strategy sees. The model of an earlier round is kept
    only while `coverage` knows of a terminal that trains on from it. With all terminals in one cell, and none late, the
    model is bit for bit that of the strategy alone.

    Raises:
        ConfigError: an argument that cannot be used.
    """

    def __init__(
        self,
        coverage: Coverage,
        *,
        late: Literal["merge", "drop"] = "merge",
        max_staleness: int = 5,
        staleness: Staleness | None = None,
    ) -> None:
        if not isinstance(coverage, Coverage):
            raise ConfigError(f"Covered({coverage!r}): expected a Coverage, Covered(Coverage(located))")
        if late not in ("merge", "drop"):
            raise ConfigError(f"late = {late!r}: expected 'merge' or 'drop'")
        if type(max_staleness) is not int or max_staleness < 0:
            raise ConfigError(f"max_staleness = {max_staleness}: a whole number of rounds, 0 or more")
        self.coverage, self.late, self.max_staleness = coverage, late, max_staleness
        self.staleness = polynomial() if staleness is None else staleness

    def init(self) -> CoveredState:
        """Nothing sent yet."""
        return CoveredState()

    def narrow(self, state: CoveredState, round: Round, grid: Grid, nodes: list[int]) -> tuple[list[int], CoveredState]:
        """Those of `nodes` that are members of the cell now, or of any cell in a flat federation."""
        if not round.cell and not state.flat:
            self.coverage.begin()  # a flat run begins, and nobody else tells the coverage so
        members = self.coverage(grid, round)
        if round.cell and round.cell not in members:
            raise ConfigError(
                f"cell {round.cell!r} is not one of this coverage ({', '.join(list(members)[:5])}); "
                "use it for the cells as well: Hierarchical(cells=coverage, edge=...)"
            )
        if round.cell:
            here = set(members[round.cell])
        else:
            here = {node for cell in members.values() for node in cell}
        return [node for node in nodes if node in here], replace(state, cell=round.cell, flat=not round.cell)

    def outbound(
        self, state: CoveredState, round: Round, messages: list[Message]
    ) -> tuple[list[Message], CoveredState]:
        """Keep the model that a training round begins from, and forget those nobody can come back to."""
        if round.kind != "train" or not messages:
            return messages, state
        place = (round.cloud, round.edge)
        counted = state.number + (place != state.place)
        number = next((found for message in messages if (found := server_round_of(message)) is not None), counted)
        oldest = number - self.max_staleness
        given_up = tuple(
            self._given_up(index, base, round) for index, base in self.coverage.work.give_up(round.cell, oldest)
        )
        owed = self.coverage.work.to_come(round.cell)
        bases = {b: arrays for b, arrays in state.bases.items() if b in owed}
        if (sent := _same_model(messages)) is not None:
            bases[number] = sent
        taken = {b: nodes for b, nodes in state.taken.items() if b >= oldest}
        told = (*state.events, *given_up)
        return messages, replace(state, number=number, place=place, bases=bases, taken=taken, events=told)

    def inbound(self, state: CoveredState, round: Round, replies: list[Message]) -> tuple[list[Message], CoveredState]:
        """Each update once, late ones brought up to date."""
        if round.kind != "train":
            return replies, state
        passed: list[Message] = []
        for reply in replies:
            usable, state = (reply, state) if reply.has_error() else self._one(state, round, reply)
            if usable is not None:
                passed.append(usable)
        return passed, state

    def events(self, state: CoveredState) -> tuple[list[Event], CoveredState]:
        """What came late or twice, and what the coverage tells."""
        return [*self.coverage.events(), *state.events], replace(state, events=())

    def metrics(self, state: CoveredState) -> Mapping[str, float]:
        """So far: late updates merged and dropped, duplicates dropped."""
        return dict(zip(("late_merged", "late_dropped", "duplicates_dropped"), state.counts, strict=True))

    # -- one reply ---------------------------------------------------------------------------------------------------

    def _one(self, state: CoveredState, round: Round, reply: Message) -> tuple[Message | None, CoveredState]:
        node, record = reply.metadata.src_node_id, reply.content.config_records.get(LATE_RECORD)
        told = state.number if record is None else record.get("base-round")
        base = told if type(told) is int else -1
        if record is not None:
            self.coverage.work.returned(self.coverage.index_of(node), round.cell, base)
        if base and _part_of(reply) in state.taken.get(base, frozenset()):
            text = f"a second update of terminal {self._key(node)} from round {base} is dropped"
            return None, _noted(state, 2, self._event("dropped-duplicate", text, node, round, base))
        if record is None:
            return reply, self._merged(state, round, reply, base)
        behind = state.number - base
        why = self._unusable(state, reply, base, behind)
        if why:
            text = f"the late update of terminal {self._key(node)} from round {base} is dropped: {why}"
            return None, _noted(state, 1, self._event("late-dropped", text, node, round, base))
        content = copy_content(reply.content)
        del content[LATE_RECORD]
        scale = self._scale(behind)
        (name,) = content.array_records
        content[name] = rebased(content.array_records[name], state.bases[base], state.bases[state.number], scale)
        reply.content = content
        text = (
            f"the update of terminal {self._key(node)} from round {base} came {behind} rounds late; "
            f"it is merged with {scale:.2f} of what it has learned"
        )
        state = _noted(state, 0, self._event("late-merged", text, node, round, base))
        return reply, self._merged(state, round, reply, base)

    def _unusable(self, state: CoveredState, reply: Message, base: int, behind: int) -> str:
        if self.late == "drop":
            return "late updates are not merged here"
        if base > 0 and behind > self.max_staleness:
            return f"it is {behind} rounds old, and more than {self.max_staleness} are not merged"
        if base == 0:
            return "its strategy writes no server-round into its messages, so nobody can say which model it began from"
        if base not in state.bases or state.number not in state.bases:
            return "the model it began from is not known any more"
        records = reply.content.array_records
        if len(records) != 1:
            return f"it has {len(records)} records of arrays, and one is expected"
        try:
            check_model(next(iter(records.values())), model_spec(state.bases[base]), sender="it")
        except ModelMismatch as error:
            return str(error)
        return ""

    def _scale(self, behind: int) -> float:
        scale = self.staleness(behind)
        if not (math.isfinite(scale) and 0 <= scale <= 1):
            raise ConfigError(f"staleness({behind}) = {scale}: expected a number from 0 to 1")
        return scale

    def _merged(self, state: CoveredState, round: Round, reply: Message, base: int) -> CoveredState:
        node = reply.metadata.src_node_id
        with suppress(WireError):  # a strategy that weighs by something else; a handover then tells no examples
            self.coverage.work.credited(self.coverage.index_of(node), round.cell, round.cloud, weight_of(reply))
        return replace(state, taken={**state.taken, base: state.taken.get(base, frozenset()) | {_part_of(reply)}})

    def _key(self, node: int) -> str:
        return self.coverage.key(node)

    def _event(self, what: str, text: str, node: int, round: Round, base: int) -> Event:
        return Event(
            what, text, self._key(node), round.cell, round.edge, self.coverage.time_s, values={"base-round": base}
        )

    def _given_up(self, index: int, base: int, round: Round) -> Event:
        text = (
            f"the late update of terminal {index} from round {base} is not waited for any more: it would be more than "
            f"{self.max_staleness} rounds old"
        )
        values = {"base-round": base}
        return Event("given-up", text, str(index), round.cell, round.edge, self.coverage.time_s, values=values)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def dump(self, state: CoveredState) -> Any:
        """With the models that late updates may need, and, around a flat federation, with the coverage's own state."""
        owed = self.coverage.work.to_come(state.cell)
        return {
            "cell": state.cell,
            "flat": state.flat,
            "number": state.number,
            "place": list(state.place),
            "bases": [
                [b, records_to_tree(RecordDict({"arrays": arrays}))] for b, arrays in state.bases.items() if b in owed
            ],
            # A number alone is a node that was not renewed, as in older checkpoints.
            "taken": [
                [b, [[node, index] if index else node for node, index in sorted(parts)]]
                for b, parts in state.taken.items()
            ],
            "counts": list(state.counts),
            "events": [event.to_json() for event in state.events],
            "coverage": self.coverage.state_dict() if state.flat else None,
        }

    def load(self, saved: Any) -> CoveredState:
        """Inverse of `dump`."""
        if saved["coverage"] is not None:
            self.coverage.load_state_dict(saved["coverage"])
        merged, dropped, twice = saved["counts"]
        return CoveredState(
            cell=saved["cell"],
            flat=saved["flat"],
            number=saved["number"],
            place=(saved["place"][0], saved["place"][1]),
            bases={b: records_from_tree(tree).array_records["arrays"] for b, tree in saved["bases"]},
            taken={
                b: frozenset((part, 0) if isinstance(part, int) else (part[0], part[1]) for part in parts)
                for b, parts in saved["taken"]
            },
            counts=(merged, dropped, twice),
            events=tuple(Event.from_json(text) for text in saved["events"]),
        )

    def __repr__(self) -> str:
        return f"Covered(late={self.late!r}, max_staleness={self.max_staleness})"


def _part_of(reply: Message) -> tuple[int, int]:
    renewed = renewed_of(reply)
    return reply.metadata.src_node_id, 0 if renewed is None else renewed.index


def _same_model(messages: list[Message]) -> ArrayRecord | None:
    """The one model all messages carry; `None` where they carry several, as no late update can be told its own."""
    first: ArrayRecord | None = None
    for message in messages:
        records = list(message.content.array_records.values())
        if len(records) != 1:
            return None
        if first is None:
            first = records[0]
        elif records[0] is not first and not _equal(first, records[0]):
            return None
    return first


def _equal(one: ArrayRecord, other: ArrayRecord) -> bool:
    return model_spec(one) == model_spec(other) and all(one[name].data == other[name].data for name in one)


def _noted(state: CoveredState, which: int, event: Event) -> CoveredState:
    counts = list(state.counts)
    counts[which] += 1
    return replace(state, counts=(counts[0], counts[1], counts[2]), events=(*state.events, event))
