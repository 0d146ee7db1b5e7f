"""One round's sharing while it is done: the state so far, and what every part of it needs. Nothing is kept here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from flower_edge.conditions import Plain
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.rules import Rule
from flower_edge.sharing import DataCard, SetSpec, SharePolicy

from ..node_rows import rows_of
from .shared_state import SharedState
from .talk import Line

__all__ = ["Work", "share_event"]


@dataclass
class Work:
    """The sharing before one round's training.

    Attributes:
        state: as far as it has come.
        round: the round that follows.
        line: to the terminals.
        spec: which arrays are taken.
        policy: the edge's.
        time_s: now.
    """

    state: SharedState
    round: Round
    line: Line
    spec: SetSpec
    policy: SharePolicy
    time_s: float

    @property
    def names_receivers(self) -> bool:
        """Whether the policy's answer may differ from receiver to receiver."""
        assert isinstance(self.policy.rule, Rule)
        return any(name.startswith("receiver") for name in self.policy.rule.names)

    def about(self, nodes: Iterable[int]) -> dict[int, dict[str, Plain]]:
        """What is known of receivers, under names that a rule tells from those of a card."""
        rows = rows_of(self.line.grid, nodes, ask=False)
        return {
            node: {
                **{f"receiver_{name.replace('-', '_')}": value for name, value in row.items()},
                "receiver": str(node),
                "receiver_cell": self.round.cell,
            }
            for node, row in rows.items()
        }

    def forbidden(self, card: DataCard) -> str:
        """Why the policy gives a set to nobody that is here; "" if there is somebody."""
        if not self.names_receivers:
            return self.policy.decide(card).why
        others = sorted(node for node in self.state.takers if str(node) != card.owner)
        reasons = [self.policy.decide(card, facts).why for facts in self.about(others).values()]
        return "" if "" in reasons else (reasons or ["there is nobody to give it to"])[0]

    def tell(self, what: str, text: str, node: str, values: Mapping[str, int | float | str]) -> None:
        """One more event."""
        event = share_event(what, text, self.round, node, values)
        self.state = replace(self.state, untold=(*self.state.untold, event))

    def refuse(self, why: str, *, owner: str, samples: int = 0, receiver: int | None = None, key: str = "") -> None:
        """A refusal is told; where it is about one receiver it is remembered, so that it is told once.

        A key with `?` was refused by the receiver, and is not sent again; without, a rule may change its mind.
        """
        to, shown = ("" if receiver is None else f" to {receiver}"), key.removeprefix("?")
        if receiver is not None:
            declined = (*self.state.declined.get(receiver, ()), key)
            self.state = replace(self.state, declined={**self.state.declined, receiver: declined})
        self.state = replace(self.state, book=self.state.book.refused())
        to_whom = "" if receiver is None else str(receiver)
        values: dict[str, int | float | str] = {"owner": owner, "receiver": to_whom, "samples": samples, "why": why}
        self.tell("share-refused", f"{shown or f'the set of {owner}'} is not shared{to}: {why}", owner, values)


def share_event(what: str, text: str, round: Round, node: str, values: Mapping[str, int | float | str]) -> Event:
    """Something that happened to a set in a round."""
    return Event(what, text, node=node, cell=round.cell, edge_round=round.edge, values=dict(values))
