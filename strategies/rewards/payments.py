"""From what replies were worth to who is paid how much: scores, shares of the pot, the settlement, what is told of it.

Whole micro-credits from the pot on: what is paid and what is carried over add up exactly. Nothing here measures or
looks at a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flower_edge.errors import RewardError
from flower_edge.events import Event
from flower_edge.rewards.budget import Budget, Purse
from flower_edge.rewards.claims import Claim, Measured, enrolment_of, others_examples_per_s
from flower_edge.rewards.enrolment import Enrolled
from flower_edge.rewards.rule import RewardRule
from flower_edge.rewards.shares import largest_remainder
from flower_edge.rounds import Round
from flower_edge.runtime.abilities import now_s
from flower_edge.store.reward_rows import Settlement

from .contributions import Worth
from .replies import REWARDED
from .state import Pending, RewardedState

if TYPE_CHECKING:
    from flower_edge.store.reward_book import RewardBook

__all__ = ["Books", "Terms", "booked", "settled", "settlement_of", "standing_in", "weights_of"]

log = getLogger("flwr.edge")

#: What the centre's settlements are called in the book; all others are for training.
_CENTRE, _TRAINING = "centre", "training"
#: How much of a refusal's text is booked.
_LONGEST = 300


@dataclass(frozen=True)
class Terms:
    """What is paid for, and by whom; see `Rewarded` for each."""

    rule: RewardRule
    enrolled: Enrolled | None
    payer: str
    pass_on: bool

    @property
    def window(self) -> int:
        """For how many exchanges it is remembered who took part."""
        return 1 if self.rule.frequency is None else self.rule.frequency.window

    def payer_in(self, round: Round, *, centre: bool) -> str:
        """Who pays in this round."""
        return self.payer or round.cell or ("centre" if centre else "server")


@dataclass(frozen=True)
class Books:
    """Where settlements are kept, if anywhere: a book that is open, or one to open for each settlement."""

    book: RewardBook | str | Path | None
    run: str

    @contextmanager
    def opened(self) -> Iterator[RewardBook | None]:
        """The book, for one settlement."""
        if isinstance(self.book, str | Path):
            # Imported here: SQLAlchemy takes longer than all strategies together, and most runs book nothing.
            from flower_edge.store.reward_book import RewardBook

            with RewardBook(self.book) as book:
                yield book
        else:
            yield self.book


def _kind_of(state: RewardedState) -> str:
    """What is paid for: training, or an edge's work by the centre."""
    return _CENTRE if state.centre else _TRAINING


def standing_in(book: RewardBook, run: str, round: Round, payer: str, state: RewardedState) -> Settlement | None:
    """What stands in the book for this round, if anything.

    Raises:
        RewardError: it stands for another cell, or the book is empty and this run has paid from it before.
    """
    standing = book.find(run, round.cloud, round.edge, payer, _kind_of(state))
    if standing is not None:
        return _of_this_cell(standing, round, book)
    if state.purse["paid"] and not book.head().rows:
        raise RewardError(
            f"{book.name} is empty, and run {run!r} has paid {state.purse['paid']} micro-credits: "
            "the book was moved or is another one; put it back, and resume"
        )
    return None


def booked(book: RewardBook, settlement: Settlement, round: Round) -> Settlement:
    """What stands once a settlement has been booked: it, or what somebody has booked in between.

    Raises:
        RewardError: that stands for another cell.
    """
    return _of_this_cell(book.settle(settlement), round, book)


def _of_this_cell(standing: Settlement, round: Round, book: RewardBook) -> Settlement:
    if standing.cell != round.cell:
        raise RewardError(
            f"{round}: {standing.payer!r} has paid for it in {book.name} already, for cell {standing.cell!r} and not "
            f"for {round.cell!r}; give each cell a payer= of its own, or leave payer= out"
        )
    return standing


def weights_of(replies: Sequence[Pending], terms: Terms) -> list[float]:
    """What each reply weighs in the mean that is measured: the examples it is enrolled with.

    Where somebody's are not known all weigh the same. What a node tells is in it only where its work of one round came
    in parts: they share its weight by their examples.
    """
    known = [enrolment_of(terms.enrolled, reply.key) for reply in replies]
    examples = [None if one is None else one.most_examples for one in known]
    same = any(count is None for count in examples) or not any(examples)
    parts: dict[tuple[str, int], list[float]] = {}
    for reply in replies:
        parts.setdefault((reply.key, reply.given.number), []).append(max(reply.told_examples or 0.0, 0.0))
    weights: list[float] = []
    for reply, count in zip(replies, examples, strict=True):
        told, whole = parts[reply.key, reply.given.number], 1.0 if same else float(count or 0)
        if len(told) > 1:
            total = sum(told)
            whole *= max(reply.told_examples or 0.0, 0.0) / total if 0.0 < total < math.inf else 1 / len(told)
        weights.append(whole)
    return weights


def settlement_of(
    state: RewardedState,
    round: Round,
    replies: Sequence[Pending],
    worth: Worth,
    terms: Terms,
    budget: Budget,
    run: str,
) -> Settlement:
    """Divide the round's pot among those whose replies were merged.

    Args:
        state: with this exchange counted.
        round: that has merged.
        replies: that went into the merge.
        worth: what they were worth, in their order.
        terms: what counts.
        budget: of the pot.
        run: the run's name in the book.
    """
    scores, details = _scores(state, replies, worth, terms)
    pot = budget.pot(state.purse)
    credits = largest_remainder(pot, scores)
    for key, reason in state.refused.items():
        if key not in credits:
            credits[key], details[key] = 0, {"refused": reason[:_LONGEST]}
    if state.centre and terms.pass_on:
        credits, details = _passed_on(credits, details, replies)
    payer, paid = terms.payer_in(round, centre=state.centre), sum(credits.values())
    return Settlement(
        run or "-",
        round.cloud,
        round.edge,
        payer,
        pot,
        pot - paid,
        credits,
        details,
        _kind_of(state),
        round.cell,
    )


def _scores(
    state: RewardedState, replies: Sequence[Pending], worth: Worth, terms: Terms
) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """Each node's weight in the shares, and what it is made of; of a node with several replies the sum."""
    durations_s = {reply.key: reply.measured_s for reply in replies if reply.measured_s is not None}
    values = (0.0,) * len(replies) if worth.found is None else worth.found.values
    moved = {reply.key for reply in replies if reply.moved}
    scores: dict[str, float] = {}
    details: dict[str, dict[str, Any]] = {}
    for reply, contribution in zip(replies, values, strict=True):
        rate = others_examples_per_s(reply.key, terms.enrolled, durations_s)
        found = terms.rule.scored(
            Claim(reply.told_examples, reply.told_age_s),
            enrolment_of(terms.enrolled, reply.key),
            contribution=contribution,
            accepted=len(set(state.accepted.get(reply.key, ()))),
            measured=Measured(reply.measured_s, rate),
        )
        scores[reply.key] = scores.get(reply.key, 0.0) + (found.score if reply.moved else 0.0)
        details[reply.key] = {
            "contribution": details.get(reply.key, {}).get("contribution", 0.0) + contribution,
            "size": found.size,
            "recency": found.recency,
            "frequency": found.frequency,
            "examples": details.get(reply.key, {}).get("examples", 0) + found.credited.examples,
            "age_s": found.credited.age_s,
            **({} if reply.key in moved else {"unchanged": True}),
        }
    return scores, details


def _passed_on(
    credits: Mapping[str, int], details: Mapping[str, dict[str, Any]], replies: Sequence[Pending]
) -> tuple[dict[str, int], dict[str, dict[str, Any]]]:
    """What each edge has earned, divided among the terminals it has credited; rows of edges keep what they are for."""
    shared: dict[str, int] = dict.fromkeys(credits, 0)
    told: dict[str, dict[str, Any]] = {key: dict(of_key) for key, of_key in details.items()}
    parcels: dict[str, dict[str, int]] = {}
    for reply in replies:
        of_edge = parcels.setdefault(reply.key, {})
        for node, micro in reply.passed_on.items():
            of_edge[node] = of_edge.get(node, 0) + micro
    for edge, part in credits.items():
        divided = largest_remainder(part, parcels.get(edge, {}))
        if not any(divided.values()):
            shared[edge] = shared.get(edge, 0) + part
            continue
        told[edge]["passed_on"] = part
        for node, micro in divided.items():
            shared[node] = shared.get(node, 0) + micro
            through = told.setdefault(node, {}).get("through")
            told[node]["through"] = edge if through is None else f"{through}, {edge}"
    return shared, told


def settled(
    state: RewardedState, round: Round, standing: Settlement, worth: Worth | None, budget: Budget
) -> RewardedState:
    """The state after a settlement, by the numbers that stand.

    Args:
        state: with the exchange open.
        round: that was settled.
        standing: what stands for it.
        worth: `None` where it stood before and nothing was measured.
        budget: of the purse.
    """
    if worth is None:
        log.warning(
            "\t%s: settled before, by %s; not paid again. A run that is not a resumed one needs a run= of its own",
            round,
            standing.payer,
        )
    found = None if worth is None else worth.found
    if worth is not None and found is None:
        log.warning("\t%s: the model before it scores %s; nothing can be measured", round, worth.before)
    purse = _after(state.purse, standing, budget)
    evaluations = 0 if worth is None else 1 if found is None else found.evaluations
    text = f"{standing.paid} of {standing.pot} micro-credits paid by {standing.payer}, {standing.carried} carried over"
    values: dict[str, int | float | str] = {
        "pot": standing.pot,
        "paid": standing.paid,
        "carried": standing.carried,
        "evaluations": evaluations,
    }
    if worth is not None:
        values["contribution_s"] = worth.seconds_s
    if found is not None:
        values |= {"method": found.method, "total": found.total, "sum_error_bound": found.sum_error_bound}
    time_s = None if state.grid is None else now_s(state.grid)
    told = [_credit(standing, node, micro, round, time_s) for node, micro in standing.credits.items()]
    told.append(Event("settled", text, "", round.cell, round.edge, time_s, values))
    done = state.measured.get("contribution_evaluations", 0) + evaluations
    return replace(
        state,
        purse=purse,
        paying=False,
        untold=(*state.untold, *told),
        measured={**state.measured, "contribution_evaluations": done},
    )


def _credit(standing: Settlement, node: str, micro: int, round: Round, time_s: float | None) -> Event:
    details = standing.details.get(node, {})
    values = {name: value for name, value in details.items() if isinstance(value, int | float | str)}
    why = " (refused)" if "refused" in details else " (unchanged)" if "unchanged" in details else ""
    cell = round.cell or str(details.get("through", "")).partition(",")[0]
    text = f"{node} earns {micro} micro-credits{why}"
    return Event(REWARDED, text, node, cell, round.edge, time_s, {**values, "micro": micro})


def _after(purse: Purse, standing: Settlement, budget: Budget) -> Purse:
    if standing.pot == budget.pot(purse):
        return budget.spent(purse, standing.paid)
    # What stands was settled from another pot, by a run with another past: its numbers go on.
    paid = purse["paid"] + standing.paid
    return {
        "rounds": purse["rounds"] + 1,
        "granted": paid + standing.carried,
        "paid": paid,
        "carried": standing.carried,
    }
