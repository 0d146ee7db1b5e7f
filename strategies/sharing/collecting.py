"""An edge asks terminals what they offer, and takes in what both policies let go. It hands nothing on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flower_edge.runtime.sharing_messages import Wanted
from flower_edge.sharing import DataCard, SetSpec, TrainingSet

from .shared_state import EDGE, PoolSet
from .talk import Offer
from .work import Work

__all__ = ["collect"]

#: By what a set is known to be the same, and what its owner says of it.
_SET = ("name", "samples", "made_at_s")
_SAID = ("public", "anonymous")


def collect(work: Work, due: list[int], wanted: Wanted, pool_bytes: float) -> None:
    """Ask those that are due, and pool what came.

    Args:
        work: whose state is brought up to date.
        due: nodes to ask.
        wanted: of each of them.
        pool_bytes: the most the pool holds.
    """
    if not due:
        return
    offers = work.line.offers(due, wanted)
    state = work.state
    takers = (state.takers - set(due)) | {node for node, offer in offers.items() if offer.takes}
    work.state = replace(state, asked={**state.asked, **dict.fromkeys(due, state.number)}, takers=takers)
    cards: dict[int, DataCard] = {}
    promised_bytes = 0
    for node, offer in offers.items():
        known = work.state.given_by(str(node))
        if offer.card is None:
            # It has nothing any more, or says nothing that is a yes.
            work.state = work.state.without_sets(known)
            continue
        card = _known_card(offer.card, node, work.spec)
        if offer.agreed and known and _same(work.state.pool[known[-1]].data.card, card, (*_SET, *_SAID)):
            continue
        why = _against(work, card, offer, wanted, pool_bytes - promised_bytes)
        if why:
            work.refuse(why, owner=str(node), samples=card.samples)
        else:
            cards[node] = card
            promised_bytes += card.size_bytes
        # Taken back by its owner, replaced by what it has now, or no longer what its owner said of it.
        again = known and _same(work.state.pool[known[-1]].data.card, card, _SET)
        if known and (not offer.agreed or not why or again):
            work.state = work.state.without_sets(known)
    given = work.line.collect(cards, wanted, work.spec)
    for node, reason in given.refused.items():
        work.refuse(reason, owner=str(node), samples=cards[node].samples)
    for node, data in given.sets.items():
        _pool(work, node, data)


def _known_card(told: DataCard, node: int, spec: SetSpec) -> DataCard:
    """What is told of a set, with what the edge knows better; k counts only where the edge can measure it again."""
    return replace(
        told,
        owner=str(node),
        size_bytes=told.samples * spec.row_bytes,
        shape="x".join(map(str, spec.shape)),
        classes=spec.classes,
        # Names of columns that nobody here can look at say nothing.
        quasi_identifiers=told.quasi_identifiers if spec.columns else (),
        k=told.k if spec.columns else None,
        origin="shared",
    )


def _against(work: Work, card: DataCard, offer: Offer, wanted: Wanted, room_bytes: float) -> str:
    """Why a set is not collected; "" if it is."""
    if not offer.agreed:
        return f"its owner does not agree: {offer.why}"
    if not card.samples:
        return "it has no samples"
    if 0 <= wanted.most < card.samples:
        return f"{card.samples} samples offered, {wanted.most} asked for"
    own = set(work.state.given_by(card.owner))
    held_bytes = sum(one.data.card.size_bytes for key, one in work.state.pool.items() if key not in own)
    if held_bytes + card.size_bytes > room_bytes:
        return f"its {card.size_bytes} bytes do not fit into the pool any more; see pool_bytes"
    return work.forbidden(card)


def _same(one: DataCard, other: DataCard, names: Sequence[str]) -> bool:
    """Whether two cards agree in these fields."""
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _pool(work: Work, node: int, data: TrainingSet) -> None:
    """Take in a set that came, where it still satisfies the policy now that k was measured on it."""
    if why := work.forbidden(data.card):
        work.refuse(why, owner=str(node), samples=len(data))
        return
    state, name = work.state, f"{node}/{data.card.name}"
    serial = state.serials.get(name, 0) + 1
    key = name if serial == 1 else f"{name}#{serial}"
    size_bytes = data.card.size_bytes
    book = state.book.handed(
        key, str(node), EDGE, samples=len(data), size_bytes=size_bytes, round=state.number, time_s=work.time_s
    )
    pool = {**state.pool, key: PoolSet(data, work.time_s)}
    work.state = replace(state, pool=pool, serials={**state.serials, name: serial}, book=book)
    text = f"terminal {node} shared {len(data)} samples with its cell as {key!r}"
    work.tell("collected", text, str(node), {"samples": len(data), "size_bytes": size_bytes, "key": key})
