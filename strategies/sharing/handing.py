"""An edge hands the sets of its pool to terminals that may have them, and tells terminals to drop what is withdrawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from flower_edge.sharing import DataCard, TrainingSet

from .shared_state import EDGE, owner_of
from .work import Work

__all__ = ["drop", "hand"]


def drop(work: Work, nodes: list[int]) -> None:
    """Tell those of the nodes that have a withdrawn set to drop it; who does not answer is told again next time."""
    gone = set(work.state.withdrawn)
    wanted = {}
    for node in nodes:
        may_have = dict.fromkeys((*work.state.held.get(node, ()), *work.state.unsure.get(node, ())))
        if keys := [key for key in may_have if key in gone]:
            wanted[node] = keys
    for node, keys in work.line.drop(wanted).items():
        if not keys:
            continue
        state = work.state
        left, unsure = (
            tuple(key for key in having.get(node, ()) if key not in keys) for having in (state.held, state.unsure)
        )
        work.state = replace(state, held={**state.held, node: left}, unsure={**state.unsure, node: unsure})
        text = f"terminal {node} dropped {', '.join(keys[:8])}: withdrawn"
        work.tell("dropped", text, str(node), {"sets": len(keys)})


def hand(work: Work, nodes: list[int], provided: TrainingSet | None) -> None:
    """Give each of the nodes what it may have and has not.

    Args:
        work: whose state is brought up to date.
        nodes: who is here.
        provided: the edge's own set, which everybody may have.
    """
    state = work.state
    own = {} if provided is None else {f"{EDGE}/{provided.card.name}": provided}
    own_cards = {key: replace(one.card, origin="provided") for key, one in own.items()}
    cards = {key: one.card(work.time_s, state.book.total_uses(key)) for key, one in state.pool.items()}
    data = own | {key: one.data for key, one in state.pool.items()}
    sets = {
        key: replace(data[key], card=card) for key, card in (own_cards | cards).items() if key not in state.withdrawn
    }
    wanted = _wanted(work, nodes, sets, cards)
    for node, taken in work.line.hand(wanted, sets, work.spec.row_bytes).items():
        for key, reason in taken.refused.items():
            why = f"terminal {node} does not take it: {reason}"
            work.refuse(why, owner=owner_of(key), receiver=node, key=f"?{key}")
        if taken.unsure:
            keys = tuple(dict.fromkeys((*work.state.unsure.get(node, ()), *taken.unsure)))
            work.state = replace(work.state, unsure={**work.state.unsure, node: keys})
        if taken.whole:
            _given(work, node, {key: sets[key] for key in taken.whole})


def _wanted(
    work: Work, nodes: list[int], sets: Mapping[str, TrainingSet], cards: Mapping[str, DataCard]
) -> dict[int, list[str]]:
    """Keys of the sets to be handed to each node; what the policy refuses it is told."""
    takers = [node for node in nodes if node in work.state.takers]
    # One answer for all, where the rule does not look at who receives.
    by_receiver = work.names_receivers
    for_all = {} if by_receiver else {key: work.policy.decide(card).why for key, card in cards.items()}
    about = work.about(takers) if by_receiver else {}
    wanted: dict[int, list[str]] = {}
    for node in takers:
        held, declined = set(work.state.held.get(node, ())), set(work.state.declined.get(node, ()))
        for key in sets:
            if key in held or owner_of(key) == str(node):
                continue
            why = ""
            if key in cards:
                why = work.policy.decide(cards[key], about[node]).why if by_receiver else for_all[key]
            if not why and f"?{key}" not in declined:
                wanted.setdefault(node, []).append(key)
            elif why and key not in declined:
                work.refuse(why, owner=owner_of(key), receiver=node, key=key)
    return wanted


def _given(work: Work, node: int, sets: Mapping[str, TrainingSet]) -> None:
    """Sets a terminal has taken, in the book and as one event."""
    state = work.state
    book = state.book
    for key, one in sets.items():
        size_bytes = one.card.size_bytes
        book = book.handed(
            key,
            owner_of(key),
            str(node),
            samples=len(one),
            size_bytes=size_bytes,
            round=state.number,
            time_s=work.time_s,
        )
    held = (*state.held.get(node, ()), *sets)
    work.state = replace(state, book=book, held={**state.held, node: held})
    values = {
        "sets": len(sets),
        "samples": sum(map(len, sets.values())),
        "size_bytes": sum(one.card.size_bytes for one in sets.values()),
    }
    text = f"terminal {node} was given {values['samples']} samples in {len(sets)} sets"
    work.tell("shared", text, str(node), values)
