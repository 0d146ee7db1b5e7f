"""`refused_event`: how the operator is told of a refusal: a line in the log and an event for the record."""

from __future__ import annotations

from logging import Logger

from flwr.serverapp import Grid

from flower_edge.admission.refusal import Refusal
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.abilities import now_s

__all__ = ["refused_event"]


def refused_event(log: Logger, round: Round, key: str, refusal: Refusal, grid: Grid | None) -> Event:
    """Log why a reply is not used.

    Args:
        log: of the layer that refuses.
        round: of the exchange.
        key: the node's.
        refusal: the code and the sentence.
        grid: tells the virtual time, where there is one.

    Returns:
        the same as an event `refused`, with the code and the numbers behind it.
    """
    log.warning("\t%snode %s: %s", f"cell {round.cell}, " if round.cell else "", key, refusal)
    return Event(
        "refused",
        f"a reply of {key}: {refusal}",
        node=key,
        cell=round.cell,
        edge_round=round.edge,
        time_s=None if grid is None else now_s(grid),
        values={**refusal.values, "code": refusal.code},
    )
