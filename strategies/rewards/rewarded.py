"""`Rewarded`: what was merged is measured and paid for, as a layer. Neither replies nor the model are changed.

    Layered(FedAvg(), Rewarded(evaluate, budget=Budget(1_000_000), book="rewards.sqlite", run="demo"), Filtered(...))

It is nearest to the strategy: it sees what the gate and the filter have let pass, waits for the merge, and shares the
round's pot by base x contribution. The base is size, recency and frequency by a `RewardRule`, from claims as far as
they are credited; the contribution is a Shapley value on held-out data, from the updates alone. What was refused earns
nothing. At the centre the nodes are edges, and what an edge has earned goes on to its terminals.

Nothing here decides what is merged, transfers money, or keeps a book: `contributions` measures, `payments` shares out,
`RewardBook` remembers.

[4] ¶32: terminals receive rewards from the edge and from the centre. ¶72: by size, recency and frequency.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic, Strategy

from flower_edge.contribution.truncated import Sampling
from flower_edge.errors import ConfigError, NestingError
from flower_edge.events import Event
from flower_edge.filtering.judging import Evaluate
from flower_edge.rewards.budget import Budget
from flower_edge.rewards.enrolment import Enrolled
from flower_edge.rewards.rule import RewardRule
from flower_edge.rounds import Round
from flower_edge.runtime.edge_messages import EDGE_RECORD
from flower_edge.runtime.error_codes import REFUSED
from flower_edge.runtime.generators import derive_seed
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.steps.messages import renewed_of
from flower_edge.runtime.strategy_state import innermost
from flower_edge.runtime.wrapped_grid import find
from flower_edge.store.reward_rows import text

from ..filtering.manifests import ManifestOf, manifest_now
from ..layers import Layer, Stage
from ..node_rows import key_of
from .contributions import Absent, Method, Score, Worth, worth_of
from .payments import Books, Terms, booked, settled, settlement_of, standing_in, weights_of
from .replies import arrays_in, base_round_of, given_in, moved_since, pending_of
from .state import Given, Pending, RewardedState

if TYPE_CHECKING:
    from flower_edge.store.reward_book import RewardBook

__all__ = ["Rewarded", "RewardedState"]

_METHODS = ("auto", "exact", "truncated", "leave-one-out")


class Rewarded(Layer[RewardedState]):
    """Pays, after every merge, those whose updates went into it.

    Args:
        evaluate: a model (its arrays by name) to its `.loss` and `.accuracy` on data held out for this; an
            `EvalResult` fits. Its data decide who earns: take some that all terminals' data are represented in.
        rule: size, recency and frequency to the base of a reward.
        budget: what there is per round, in whole micro-credits, and for the run. Default: one credit a round.
        book: a `RewardBook`, or its path or URL; `None` books nothing. A path is opened for each settlement, so that
            several edges may name the same.
        run: the run's name in the book; the same when it is resumed. Needed with a book. Rounds that stand in the
            book under this name are not paid again.
        payer: who pays, in the book; of one name for each cell. Default: the cell's name at an edge, "centre" at the
            centre, else "server".
        enrolled: what is known of a node by its key; without, everybody's claims count the same.
        method: how contributions are measured. "auto" is "exact" up to 8 replies and "truncated" above, both Shapley
            values; "leave-one-out" takes one evaluation a reply, and gives replies that could stand for each other
            nothing.
        score: "loss" or "accuracy", of what `evaluate` says.
        absent: what a coalition is compared without: "idle" counts those outside of it as not moved, so that a reply
            that does nothing is worth nothing; "left-out" takes them out of the mean, as the papers do.
        sampling: when "auto" and "truncated" stop; in the units of the score.
        seed: of sampled orders; `None` takes fresh ones in every round.
        pass_on: at the centre, share what an edge has earned among its terminals as that edge has credited them in
            this cloud round. An edge that has told no credits is paid itself.
        manifest: where what a node sends back lies in the whole model, from the round, the node's key and what it is
            sent, as in `Admitted`; needed for sub-models.
        weighted_by: the reply's metric that tells its number of examples.

    Shares are of the pot: all of it goes to those with a positive base x contribution, by largest remainder; without
    one it is carried over. A round that merges nothing carries its pot over, too. A reply that is the model the node
    was given, unchanged, earns nothing whatever its contribution.

    In the mean that is measured a node weighs the examples it is enrolled with, and all weigh the same where
    somebody is not enrolled: else a told number would raise a reward by itself. Where a node's model was changed within
    the round (`Renew`), its parts share that weight and each is measured where it lies; it is paid their sum.

    What a `VersionGate` refuses after the merge has been paid: the replies were good enough to be merged.

    Raises:
        ConfigError: an argument out of its range; a book without run=.
        RewardError: a name that no book can hold. In a round: a book that could not be written, that is not the one
            this run has paid from, or in which this payer has paid another cell for the round.

    >>> from flower_edge.models import EvalResult
    >>> Rewarded(lambda arrays: EvalResult(0.0, 1.0, 1), book="rewards.sqlite")
    Traceback (most recent call last):
    ...
    flower_edge.errors.ConfigError: Rewarded(book=...) needs run=, the run's name in the book: run="demo"
    """

    stage: ClassVar[Stage] = Stage.REWARD
    singly: ClassVar[bool] = True

    def __init__(
        self,
        evaluate: Evaluate,
        *,
        rule: RewardRule | None = None,
        budget: Budget | None = None,
        book: RewardBook | str | Path | None = None,
        run: str = "",
        payer: str = "",
        enrolled: Enrolled | None = None,
        method: Method = "auto",
        score: Score = "loss",
        absent: Absent = "idle",
        sampling: Sampling | None = None,
        seed: int | None = None,
        pass_on: bool = True,
        manifest: ManifestOf | None = None,
        weighted_by: str = "num-examples",
    ) -> None:
        if not callable(evaluate):
            raise ConfigError(
                f"evaluate = {evaluate!r}: expected a function from a model's arrays to loss and accuracy"
            )
        if method not in _METHODS:
            raise ConfigError(f"method = {method!r}: expected one of {', '.join(map(repr, _METHODS))}")
        if score not in ("loss", "accuracy"):
            raise ConfigError(f"score = {score!r}: expected 'loss' or 'accuracy'")
        if absent not in ("idle", "left-out"):
            raise ConfigError(f"absent = {absent!r}: expected 'idle' or 'left-out'")
        if budget is not None and not isinstance(budget, Budget):
            raise ConfigError(
                f"budget = {budget!r}: expected a Budget, such as Budget(per_round=1_000_000) micro-credits a round"
            )
        if book is not None and not run:
            raise ConfigError('Rewarded(book=...) needs run=, the run\'s name in the book: run="demo"')
        text(run, "run", empty=True), text(payer, "payer", empty=True)
        self.evaluate = evaluate
        self.budget = Budget(per_round=1_000_000) if budget is None else budget
        self.terms = Terms(rule or RewardRule(), enrolled, payer, pass_on)
        self.books = Books(book, run)
        self.method, self.score, self.absent, self.seed = method, score, absent, seed
        self.sampling = sampling or Sampling()
        self.manifest, self.weighted_by = manifest, weighted_by

    def init(self) -> RewardedState:
        """Nothing paid, nobody known."""
        return RewardedState(self.budget.start())

    def check(self, strategy: Strategy) -> None:
        """Refuse strategies whose replies are no models to merge, or that tell no layer of their merges."""
        core = innermost(strategy)
        name = type(core).__name__
        if isinstance(core, FedXgbBagging | FedXgbCyclic):
            raise NestingError(
                f"Rewarded around {name}: boosters have no weighted mean, and contributions are of means"
            )
        if type(strategy).start is not Strategy.start and not hasattr(strategy, "tier"):
            raise NestingError(
                f"Rewarded around {type(strategy).__name__}, which brings its own start and tells no layer what it "
                "merged; put it around one of Flower's strategies or Hierarchical"
            )

    def opened(self, state: RewardedState, grid: Grid) -> RewardedState:
        """Keys and durations are asked of this Grid."""
        return replace(state, grid=grid)

    def outbound(
        self, state: RewardedState, round: Round, messages: list[Message]
    ) -> tuple[list[Message], RewardedState]:
        """Notes who is given what; the messages go on as they are."""
        if round.kind != "train":
            return messages, state
        here = (round.cloud, round.edge)
        if not state.number or state.round != here:
            if state.paying:
                # The round before has merged nothing.
                state = replace(state, purse=self.budget.spent(state.purse, 0))
            edges = any(EDGE_RECORD in message.content.config_records for message in messages)
            centre = edges or (state.centre and not messages)
            state = state.opened(here, centre=centre, late=centre or _stepped(state))
        for message in messages:
            given = given_in(message, round, state.number, _grid(state), self.manifest, state.latest)
            if given is not None:
                state = state.noted(message.metadata.dst_node_id, given)
        return messages, state

    def inbound(
        self, state: RewardedState, round: Round, replies: list[Message]
    ) -> tuple[list[Message], RewardedState]:
        """Keeps what the strategy is about to merge; the replies go on as they are."""
        if round.kind != "train":
            return replies, state
        for reply in replies:
            state = self._kept(state, round, reply)
        return replies, state

    def _kept(self, state: RewardedState, round: Round, reply: Message) -> RewardedState:
        node, grid = reply.metadata.src_node_id, _grid(state)
        if reply.has_error():
            known = state.given.get(node, ())
            if reply.error.code == REFUSED and known:
                reason = str(reply.error.reason)
                state = replace(state, refused={**state.refused, known[-1].key: reason})
            return state
        if renewed_of(reply) is not None and _stepped(state) and base_round_of(reply) is None:
            given = self._went_on_with(state, round, reply)
        elif (given := _answers(state, reply)) is not None:
            state = state.answered(node, given)
        if given is None:
            return state
        pending = pending_of(reply, given, grid, self.weighted_by)
        return state if pending is None else replace(state, pending=(*state.pending, pending))

    def _went_on_with(self, state: RewardedState, round: Round, reply: Message) -> Given | None:
        """What work was done with that was begun in mid-round; `None` where that is not known.

        Where it began is known at the merge: it is the model the round began with.
        """
        known = state.given.get(reply.metadata.src_node_id, ())
        first = next((given for given in known if given.number == state.number), None)
        if first is None and self.manifest is None and state.latest is not None:
            # A substitute, that goes on with what the node had which it replaces.
            first = replace(state.latest, key=key_of(_grid(state), reply.metadata.src_node_id))
        if first is None or state.centre:
            return None
        now = manifest_now(self.manifest, round, first.key, reply, first.manifest)
        return replace(first, sent=ArrayRecord(), manifest=now, answered=True)

    def merged(
        self, state: RewardedState, round: Round, before: ArrayRecord, after: ArrayRecord
    ) -> tuple[ArrayRecord, RewardedState]:
        """Pays for the merge; the model goes on as it is."""
        replies = sorted(state.pending, key=lambda pending: (pending.key, pending.given.number))
        replies = [moved_since(pending, before, state.number) for pending in replies]
        state = replace(state, pending=())
        if (round.cloud, round.edge) != state.round or not state.paying:
            return after, state
        # Who sends back what it was given takes no part, or frequency could be had for nothing.
        state = state.counted([reply.key for reply in replies if reply.moved], self.terms.window)
        payer, run, worth = self.terms.payer_in(round, centre=state.centre), self.books.run, None
        with self.books.opened() as book:
            standing = None if book is None else standing_in(book, run, round, payer, state)
            if standing is None:
                worth = self._worth(replies, state, round, before)
                standing = settlement_of(state, round, replies, worth, self.terms, self.budget, run)
                standing = standing if book is None else booked(book, standing, round)
        return after, settled(state, round, standing, worth, self.budget)

    def _worth(self, replies: list[Pending], state: RewardedState, round: Round, before: ArrayRecord) -> Worth:
        seed = secrets.randbits(63) if self.seed is None else self.seed
        return worth_of(
            replies,
            weights_of(replies, self.terms),
            arrays_in(before),
            state.number,
            self.evaluate,
            method=self.method,
            score=self.score,
            absent=self.absent,
            sampling=self.sampling,
            rng=np.random.default_rng(derive_seed(seed, "contribution", round.cell, round.cloud, round.edge)),
        )

    def events(self, state: RewardedState) -> tuple[list[Event], RewardedState]:
        """`rewarded`, one per node that was paid or looked at, and `settled`, one per merge."""
        return list(state.untold), replace(state, untold=())

    def metrics(self, state: RewardedState) -> Mapping[str, float]:
        """So far: `paid_micro`, `contribution_evaluations`, and `carried_micro`, which is left of what was granted."""
        left = self.budget.pot(state.purse) if state.paying else state.purse["carried"]
        return {"paid_micro": state.purse["paid"], "carried_micro": left, **state.measured}

    def hand_over(self, state: RewardedState, node_id: int) -> tuple[Any, RewardedState]:
        """How many exchanges ago the terminal's replies were merged."""
        key = key_of(_grid(state), node_id)
        if key not in state.accepted:
            return None, state
        ago = [state.number - number for number in state.accepted[key]]
        accepted = {name: numbers for name, numbers in state.accepted.items() if name != key}
        return ago, replace(state, accepted=accepted)

    def take_over(self, state: RewardedState, node_id: int, parcel: Any) -> RewardedState:
        """Inverse of `hand_over`, on this edge's own count of exchanges. What could not have been is left out."""
        key = key_of(_grid(state), node_id)
        taken = (state.number - ago for ago in parcel if type(ago) is int and 0 <= ago < self.terms.window)
        return replace(state, accepted={**state.accepted, key: tuple(sorted({*state.accepted.get(key, ()), *taken}))})

    def dump(self, state: RewardedState) -> Any:
        """The purse, who has taken part when, and what is untold; what is under way begins anew."""
        return state.to_tree()

    def load(self, saved: Any) -> RewardedState:
        """Inverse of `dump`."""
        return RewardedState.from_tree(saved)


def _grid(state: RewardedState) -> Grid:
    assert state.grid is not None  # a session opens every layer before it asks anything
    return state.grid


def _stepped(state: RewardedState) -> bool:
    return find(_grid(state), SteppedGrid) is not None


def _answers(state: RewardedState, reply: Message) -> Given | None:
    """What a reply answers; `None` where that has been answered before, or was never asked.

    A late reply answers what its node was given then, and an edge's what it was last given. A node that takes another's
    place was given what the others were.
    """
    node, stepped = reply.metadata.src_node_id, _stepped(state)
    # Only slices make a reply late: elsewhere it is a node that calls itself so.
    known, base_round = state.given.get(node, ()), base_round_of(reply) if stepped else None
    if base_round is not None:
        mine = [given for given in known if given.server_round == base_round]
    else:
        mine = [given for given in known if state.centre or given.number == state.number]
    if mine or state.latest is None or state.centre:
        return next((given for given in reversed(mine) if not given.answered), None)
    if not stepped:
        return None
    # Late, and from before this run was resumed, it counts as what it is now: nobody knows what it began with.
    began = state.latest.server_round if base_round is None else base_round
    return replace(state.latest, key=key_of(_grid(state), node), server_round=began)
