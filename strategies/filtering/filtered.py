"""`Filtered`: replies are tested against each other, against held-out data and against rules before they are merged.

    Layered(FedAvg(), Filtered(evaluate=held_out, seed=1), Admitted(most_examples=enrolled))

A layer for an edge or for the centre, on any Flower strategy. A reply that does not pass goes on as an error reply with
the reason, so the strategy counts it as failed and the round goes on. What passes is the very object that came.

What it is not: the admission gate, which looks at one reply at a time and before anything else; nor a robust
aggregation, which is the strategy's own affair. The tests are in `flower_edge.filtering`; no numbers are compared here.

Source: [4] ¶31, ¶67-70.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from logging import getLogger
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flower_edge.admission.refusal import Refusal
from flower_edge.errors import ConfigError, NestingError
from flower_edge.events import Event
from flower_edge.filtering.defaults import default_judges
from flower_edge.filtering.held_out import WithAndWithout
from flower_edge.filtering.judging import Evaluate, Judge
from flower_edge.filtering.track_record import HALF_LIFE, TrackRecord
from flower_edge.filtering.trial import try_updates
from flower_edge.rounds import Round
from flower_edge.rules import Rule
from flower_edge.runtime.abilities import now_s
from flower_edge.runtime.edge_messages import WEIGHT_KEY
from flower_edge.runtime.error_codes import REFUSED
from flower_edge.runtime.flower_private import error_in_place
from flower_edge.runtime.generators import derive_seed
from flower_edge.updates.update import Update
from flower_edge.wire import model_spec

from ..gossip.gossip import Gossip
from ..gradients.exchange import GradientExchange
from ..layers import Layer, Stage
from ..node_rows import key_of
from ..splitting.split import Split
from .criteria import Known, row_of, told_rows
from .filtered_state import FilteredState
from .manifests import ManifestOf, manifest_now
from .refused_event import refused_event
from .reply_updates import read_update, shortened
from .sent import Sent, exchange_of, waited_for
from .weighing import check_weighted_by, weight_told

__all__ = ["Filtered"]

log = getLogger("flwr.edge")

_BRINGS = (Gossip, GradientExchange, Split)
_SAID = re.compile(r"refused \(([a-z-]+)\)")
_UNTOLD = 1000


class Filtered(Layer[FilteredState]):
    """Refuses replies that do not pass the tests or do not satisfy the rule, each with a reason.

    Args:
        judges: tests, asked in this order, cheap first. Without any, `default_judges(evaluate)`. A single `None` is no
            test at all, for rules alone: `Filtered(None, accept=...)`.
        evaluate: a model's loss and accuracy on data that this edge, or the centre, holds out: a function from the
            whole model's arrays to what has both. With it `WithAndWithout(evaluate)` is the last test, also after
            `judges` of your own.
        collect: only terminals that satisfy this rule can be sampled for training ([4] ¶70).
        accept: only replies of terminals that satisfy this rule go on ([4] ¶69).
        own_score: only replies whose own evaluation satisfies this rule: over `reply_<metric>` ([4] ¶68).
        known: what the operator knows of a node, by its key, such as its location. A node cannot overrule it.
        ask: whether nodes may be asked for their conditions before an exchange, where a rule looks at some.
        manifest: where nodes send back other arrays than they were sent: a function of the round, the node's key and
            what it is sent, as in `Admitted`.
        weighted_by: the metric by which the strategy weighs.
        half_life: of a node's reliability, in replies; what it lost comes back in rounds in which it is not judged.
        seed: of the coordinates that are sampled. `None` draws them where nobody can know them: use that outside of
            simulations.

    A node is known by its `partition-id` where the Grid can tell it, else by its id; at the centre it is an edge and
    known by its cell's name. The names that rules can use are in `flower_edge.strategies.filtering.criteria`.

    Tests compare replies that arrive together and began with the same model. Too few of them, and the tests that need a
    majority abstain.

    Raises:
        ConfigError: an argument that cannot be used.

    >>> Filtered(accept="reliability >= 0.5").narrows, Filtered(collect="battery >= 0.3").narrows
    (False, True)
    """

    stage = Stage.MODEL
    singly = True

    def __init__(
        self,
        *judges: Judge | None,
        evaluate: Evaluate | None = None,
        collect: Rule | str | None = None,
        accept: Rule | str | None = None,
        own_score: Rule | str | None = None,
        known: Known | None = None,
        ask: bool = True,
        manifest: ManifestOf | None = None,
        weighted_by: str = WEIGHT_KEY,
        half_life: float = HALF_LIFE,
        seed: int | None = None,
    ) -> None:
        given = tuple(judge for judge in judges if judge is not None)
        for judge in given:
            if not callable(getattr(judge, "judge", None)):
                raise ConfigError(f"Filtered({judge!r}): expected tests such as Norm() or Cosine(), or evaluate=...")
        for name, function in {"evaluate": evaluate, "known": known, "manifest": manifest}.items():
            if function is not None and not callable(function):
                raise ConfigError(f"Filtered({name}={function!r}): expected a function")
        if not half_life > 0.0:
            raise ConfigError(f"Filtered(half_life={half_life}): expected more than 0 replies")
        if seed is not None and type(seed) is not int:
            raise ConfigError(f"Filtered(seed={seed!r}): expected a whole number or None")
        if not judges:
            given = default_judges(evaluate)
        elif evaluate is not None:
            given = (*given, WithAndWithout(evaluate))
        self.judges: tuple[Judge, ...] = given
        self.collect = None if collect is None else Rule.of(collect)
        self.accept = None if accept is None else Rule.of(accept)
        self.own_score = None if own_score is None else Rule.of(own_score)
        self.known, self.ask, self.manifest = known, ask, manifest
        self.weighted_by, self.half_life, self.seed = weighted_by, half_life, seed

    def init(self) -> FilteredState:
        """Nothing known of anybody."""
        return FilteredState()

    def check(self, strategy: Strategy) -> None:
        """Refuse strategies whose nodes send back something else than models, and one that weighs by another metric.

        Raises:
            NestingError: names the strategy.
        """
        if isinstance(strategy, _BRINGS):
            name = type(strategy).__name__
            raise NestingError(f"Filtered around {name}: its replies are not models; leave Filtered out")
        check_weighted_by("Filtered", strategy, self.weighted_by)

    def opened(self, state: FilteredState, grid: Grid) -> FilteredState:
        """The Grid, by which nodes are known."""
        return replace(state, grid=grid)

    @property
    def narrows(self) -> bool:
        """Only with `collect`: then it has a say in who can be sampled."""
        return self.collect is not None

    # -- who is shown, what is sent ----------------------------------------------------------------------------------

    def narrow(
        self, state: FilteredState, round: Round, grid: Grid, nodes: list[int]
    ) -> tuple[list[int], FilteredState]:
        """Those that satisfy `collect`; what they tell is noted for `accept`."""
        rules = [rule for rule in (self.collect, self.accept, self.own_score) if rule is not None]
        if round.kind != "train" or not rules:
            return nodes, state
        keys = {node: key_of(grid, node) for node in nodes}
        known = {node: self._known(key) for node, key in keys.items()}
        rows = told_rows(grid, nodes, rules, known, self.ask)
        state = state.with_told({keys[node]: rows[node] for node in nodes})
        if self.collect is None:
            return nodes, state
        time_s, collect = now_s(grid), self.collect
        full = {
            node: row_of(rows[node], known[node], self._tracked(state, keys[node], round), round, time_s)
            for node in nodes
        }
        left = [node for node in nodes if collect.holds(full[node])]
        if len(left) < len(nodes):
            missing = next(node for node in nodes if node not in set(left))
            text = f"{len(left)} of {len(nodes)} terminals satisfy {collect}; node {keys[missing]} does not"
            text += f": {collect.facts(full[missing])}"
            event = Event("collected", text, cell=round.cell, edge_round=round.edge, time_s=time_s)
            kept = tuple(one for one in state.untold if one.what != "collected" or one.edge_round != round.edge)
            state = replace(state, untold=(*kept, event)[-_UNTOLD:])
        return left, state

    def outbound(
        self, state: FilteredState, round: Round, messages: list[Message]
    ) -> tuple[list[Message], FilteredState]:
        """Notes what each node is given; the messages go on as they are."""
        if round.kind != "train" or not messages:
            return messages, state
        here = (round.cloud, round.edge)
        if here != state.place:
            state = replace(state, place=here, judged=0, refused=0, evaluations=0)
        if state.first is None and (record := next(iter(messages[0].content.array_records.values()), None)) is not None:
            state = replace(state, first=model_spec(record))
        new = exchange_of(messages, round, self._keys(state), self.manifest, state.first, state.model)
        return messages, state.with_sent(new)

    # -- what comes back ---------------------------------------------------------------------------------------------

    def inbound(
        self, state: FilteredState, round: Round, replies: list[Message]
    ) -> tuple[list[Message], FilteredState]:
        """What passes as it came, and an error in place of what is refused."""
        if round.kind != "train":
            return replies, state
        keys: list[str] = []
        said: list[tuple[str, str | None]] = []
        key_of, answers = self._keys(state), waited_for(state.sent, replies)
        refusals: dict[int, Refusal] = {}
        passed: dict[int, Update | None] = {}
        for i, (reply, sent) in enumerate(zip(replies, answers, strict=True)):
            own = sent is not None and sent.metadata.dst_node_id == reply.metadata.src_node_id
            key = sent.key if sent is not None and own else key_of(reply.metadata.src_node_id)
            keys.append(key)
            if reply.has_error():
                if reply.error.code == REFUSED and (found := _SAID.match(reply.error.reason or "")):
                    said.append((key, found.group(1)))
                continue
            # A substitute answers for another node.
            asked = sent
            if sent is not None:
                now = manifest_now(self.manifest, round, sent.key, reply, sent.manifest)
                asked = replace(sent, key=key, manifest=now)
            read = self._first_look(state, round, reply, key, asked)
            if isinstance(read, Refusal):
                refusals[i] = read
            else:
                passed[i] = read
        out = list(replies)
        for number, places in enumerate(_comparable(passed) if self.judges else ()):
            updates = [update for i in places if (update := passed[i]) is not None]
            trial = try_updates(self.judges, updates, self._draws(round, number))
            state = replace(state, evaluations=state.evaluations + int(trial.cost.get("evaluations", 0.0)))
            for place, (code, text) in trial.refused.items():
                refusals[places[place]] = Refusal(code, text, dict(trial.measured.get(place, {})))
            for place, factor in trial.clipped.items():
                out[places[place]] = shortened(replies[places[place]], updates[place], factor)
        for i in sorted(refusals.keys() | passed.keys()):
            if i in refusals:
                out[i] = error_in_place(replies[i], REFUSED, str(refusals[i]))
                state = self._refused(state, round, keys[i], refusals[i])
            said.append((keys[i], refusals[i].code if i in refusals else None))
        judged = len(refusals.keys() | passed.keys())
        state = state.with_replies(said, round.cloud, self.half_life)
        done = {id(one) for one in answers}
        state = replace(state, sent=tuple(replace(s, answered=True) if id(s) in done else s for s in state.sent))
        return out, replace(state, judged=state.judged + judged, refused=state.refused + len(refusals))

    def _first_look(
        self, state: FilteredState, round: Round, reply: Message, key: str, sent: Sent | None
    ) -> Refusal | Update | None:
        """What rules say of a reply, and the reply as numbers; `None` where there is nothing to compare."""
        for rule, code in ((self.accept, "criteria"), (self.own_score, "own-score")):
            if rule is None:
                continue
            time_s = None if state.grid is None else now_s(state.grid)
            weight = weight_told(reply.content, self.weighted_by)
            told, tracked = state.told.get(key, {}), self._tracked(state, key, round)
            row = row_of(told, self._known(key), tracked, round, time_s, reply, weight)
            if not rule.holds(row):
                return Refusal(code, f"{rule.facts(row)}; expected {rule}")
        if sent is None or not self.judges:
            return None
        update = read_update(reply, sent, self.weighted_by)
        if isinstance(update, tuple):
            return Refusal(*update)
        return None if update is None else replace(update, before=state.before(update.base))

    def _refused(self, state: FilteredState, round: Round, key: str, refusal: Refusal) -> FilteredState:
        event = refused_event(log, round, key, refusal, state.grid)
        counts = {**state.counts, refusal.code: state.counts.get(refusal.code, 0) + 1}
        return replace(state, counts=counts, untold=(*state.untold, event)[-_UNTOLD:])

    # -- small answers -----------------------------------------------------------------------------------------------

    def _draws(self, round: Round, number: int) -> np.random.Generator:
        if self.seed is None:
            return np.random.default_rng(secrets.randbits(128))
        return np.random.default_rng(derive_seed(self.seed, "filtered", round.cell, round.cloud, round.edge, number))

    def _keys(self, state: FilteredState) -> Callable[[int], str]:
        grid = state.grid
        return str if grid is None else lambda node: key_of(grid, node)

    def _known(self, key: str) -> Mapping[str, Any]:
        return {} if self.known is None else self.known(key)

    def _tracked(self, state: FilteredState, key: str, round: Round) -> dict[str, float]:
        return state.records.get(key, TrackRecord()).row(round.cloud, self.half_life)

    def merged(
        self, state: FilteredState, round: Round, before: ArrayRecord, after: ArrayRecord
    ) -> tuple[ArrayRecord, FilteredState]:
        """The model as it is; it is kept where nodes are sent parts of it."""
        return after, state if self.manifest is None else replace(state, model=after)

    # -- what is told and kept ---------------------------------------------------------------------------------------

    def events(self, state: FilteredState) -> tuple[list[Event], FilteredState]:
        """Who was refused, and why, since the last call; and where a rule left too few."""
        return list(state.untold), replace(state, untold=())

    def metrics(self, state: FilteredState) -> Mapping[str, float]:
        """Of the last training exchange: replies judged, replies refused, evaluations; and all refused so far."""
        return {
            "filter_judged": state.judged,
            "filter_refused": state.refused,
            "filter_evaluations": state.evaluations,
            "filter_refused_total": sum(state.counts.values()),
        }

    def hand_over(self, state: FilteredState, node_id: int) -> tuple[Any, FilteredState]:
        """The node's record; this edge forgets it."""
        key = self._keys(state)(node_id)
        record = state.records.get(key)
        if record is None:
            return None, state
        left = {other: known for other, known in state.records.items() if other != key}
        return {"key": key, **record.to_tree()}, replace(state, records=left)

    def take_over(self, state: FilteredState, node_id: int, parcel: Any) -> FilteredState:
        """Inverse of `hand_over`, at the edge where the terminal has come to."""
        tree = dict(parcel)
        key = tree.pop("key")
        return replace(state, records={**state.records, key: TrackRecord.from_tree(tree)})

    def dump(self, state: FilteredState) -> Any:
        """As plain values."""
        return state.to_tree()

    def load(self, saved: Any) -> FilteredState:
        """Inverse of `dump`."""
        return FilteredState.from_tree(saved)

    def __repr__(self) -> str:
        said = [type(judge).__name__ for judge in self.judges]
        said += [
            f"{name}={str(rule)!r}" for name in ("collect", "accept", "own_score") if (rule := getattr(self, name))
        ]
        return f"Filtered({', '.join(said)})"


def _comparable(updates: Mapping[int, Update | None]) -> list[list[int]]:
    """Places of the replies that began with the same model, in groups."""
    groups: dict[int, list[int]] = {}
    for i, update in updates.items():
        if update is not None:
            groups.setdefault(id(update.base), []).append(i)
    return list(groups.values())
