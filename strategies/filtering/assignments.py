"""What a gate has given its nodes to do, and which of it a reply answers. Values and look-ups; nothing here refuses.

A reply names the message it answers. Where a Grid does not tell a message's id, the sender's newest open assignment of
that kind is meant. A node whose model was changed within the round answers once for each part of its work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from flwr.app import Message

from flower_edge.admission.assignment import Assignment
from flower_edge.runtime.steps.messages import renewed_of

__all__ = ["Found", "Given", "Lookup", "kind_of", "remembered"]

#: Of one node and kind, how many assignments of earlier exchanges are remembered, for replies that come late or twice.
_EARLIER = 2
#: Of all nodes; where ids do not last, those that went never come back.
_MOST = 200_000


@dataclass(frozen=True, eq=False)
class Given:
    """One assignment, and who has answered it.

    Attributes:
        metadata: of its message, which gets its id only when it is sent.
        kind: `train` or `evaluate`.
        assignment: what the gate compares a reply with; `None` where the message had no model to compare with.
        base: print of the model that was sent; empty where there is none.
        answered: ids of the nodes whose replies have come, its own and substitutes, each with the step at which that
            part of the work began.
    """

    metadata: Any
    kind: str
    assignment: Assignment | None
    base: str = ""
    answered: frozenset[tuple[int, int]] = frozenset()

    @property
    def node_id(self) -> int:
        """Of the node it was sent to."""
        return int(self.metadata.dst_node_id)


def kind_of(message: Message) -> str:
    """`train`, `evaluate` or `query`, without what follows the point."""
    return message.metadata.message_type.partition(".")[0]


def remembered(before: Iterable[Given], new: Sequence[Given]) -> tuple[Given, ...]:
    """The new ones, and the last few of every node and kind from before; oldest first."""
    left: dict[tuple[int, str], int] = {}
    kept: list[Given] = []
    for given in reversed(list(before)):
        key = (given.node_id, given.kind)
        left[key] = left.get(key, _EARLIER) - 1
        if left[key] >= 0:
            kept.append(given)
    return (*reversed(kept[:_MOST]), *new)


class Recalled(NamedTuple):
    """What is left of a message's metadata where only the reply tells of it."""

    message_id: str
    dst_node_id: int
    run_id: int = 0


class Found(NamedTuple):
    """What a reply answers.

    Attributes:
        place: of the assignment in `Lookup.given`; `None` where there is none.
        code: what is wrong about it; empty where nothing is.
        exact: whether it is this very assignment, and not one that stands in for it.
    """

    place: int | None
    code: str = ""
    exact: bool = True


class Lookup:
    """The assignments, for the replies of one batch.

    Args:
        given: oldest first.
        substitutes: whether one node may answer what another was asked, and late, as with a `SteppedGrid`.
    """

    def __init__(self, given: Sequence[Given], *, substitutes: bool) -> None:
        self.given = list(given)
        self._substitutes = substitutes
        self._by_id: dict[str, int] = {}
        self._by_node: dict[tuple[int, str], list[int]] = {}
        for place, one in enumerate(self.given):
            if one.metadata.message_id:
                self._by_id[one.metadata.message_id] = place
            self._by_node.setdefault((one.node_id, one.kind), []).append(place)

    def find(self, reply: Message) -> Found:
        """What a reply answers, and the code of what is wrong about that, if anything."""
        source, kind, part = reply.metadata.src_node_id, kind_of(reply), self._part(reply)
        place = self._by_id.get(reply.metadata.reply_to_message_id)
        if place is not None:
            if part in self.given[place].answered:
                return Found(place, "duplicate")
            if source == self.given[place].node_id or self._substitutes:
                return Found(place)
            return Found(None, "unasked")
        own = self._by_node.get((source, kind), [])
        if reply.metadata.reply_to_message_id:
            # Where ids are told, it answers something else than these.
            own = [place for place in own if not self.given[place].metadata.message_id]
        if waiting := [place for place in own if part not in self.given[place].answered]:
            return Found(waiting[-1])
        if not self._substitutes:
            return Found(own[-1], "duplicate") if own else Found(None, "unasked")
        # A task of before the checkpoint, or one that another had begun: what was asked last is what it can be.
        same = [place for place, one in enumerate(self.given) if one.kind == kind]
        return Found(same[-1], exact=False) if same else Found(None, "unasked")

    def answered(self, found: Found, reply: Message) -> None:
        """This reply to that assignment has come."""
        assert found.place is not None
        one, part = self.given[found.place], self._part(reply)
        if found.exact:
            self.given[found.place] = replace(one, answered=one.answered | {part})
            return
        answers = reply.metadata.reply_to_message_id
        recalled = Given(Recalled(answers, part[0]), one.kind, one.assignment, answered=frozenset({part}))
        self._by_id[answers] = len(self.given)
        self.given.append(recalled)

    def _part(self, reply: Message) -> tuple[int, int]:
        # Only a `SteppedGrid` writes where a part began, over whatever the node has put there.
        renewed = renewed_of(reply) if self._substitutes else None
        return reply.metadata.src_node_id, 0 if renewed is None else renewed.first_step
