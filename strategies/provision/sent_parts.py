"""`SentParts`: which part of the model each node was sent, in this round and before, and which one a reply answers.

A reply names the message it answers, and work that was begun by a `Renew` says at which step. Work that comes in a
later round than it began in lies where its own round put it: a window that has rolled since is another one. Nothing
here slices, reads numbers or sends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from flwr.app import Message

from flower_edge.runtime.steps.messages import renewed_of
from flower_edge.updates.manifest import Manifest, Spec, whole_manifest
from flower_edge.updates.update import Arrays

from ..filtering.sent import Sent, waited_for

__all__ = ["SentParts"]

#: So many parts of earlier rounds are remembered: lists of channels, no arrays.
_KEPT: Final = 4096


class SentParts:
    """What nodes were sent, for as long as they may answer.

    Attributes:
        sent: the messages of this round.
    """

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self._base: Arrays = {}
        self._renewed: dict[tuple[int, int], Sent] = {}  # by node, and the step it went on at
        self._before: dict[tuple[str, int], Sent] = {}  # by message, and that step

    def opened(self, base: Arrays) -> None:
        """A round begins with this model; what was sent before is remembered without its arrays."""
        told = {(one.metadata.message_id, 0): one for one in self.sent}
        told |= {(one.metadata.message_id, step): one for (_, step), one in self._renewed.items()}
        self._before |= {place: replace(one, base={}) for place, one in told.items() if place[0]}
        for place in list(self._before)[:-_KEPT]:
            del self._before[place]
        self.sent, self._renewed, self._base = [], {}, base

    def of_node(self, node_id: int) -> Sent | None:
        """What a node was sent in this round; `None` where that is nothing."""
        return next((one for one in reversed(self.sent) if one.metadata.dst_node_id == node_id), None)

    def renew(self, sent: Sent, step: int, manifest: Manifest) -> None:
        """From this step of its task on a node has another part."""
        self._renewed[sent.metadata.dst_node_id, step] = replace(sent, manifest=manifest)

    def manifest_of(self, key: str, spec: Spec) -> Manifest:
        """The part of the node with this key that has these shapes; where none has them, the last one it was sent.

        A node that was sent nothing sends back what it is shown.
        """
        own = [one.manifest for one in (*self.sent, *self._renewed.values()) if one.key == key]
        fits = [m for m in own if {n: p.shape for n, p in m.arrays.items()} == {n: s for n, (s, _) in spec.items()}]
        return (fits or own or [whole_manifest(spec)])[-1]

    def answered(self, replies: Iterable[Message], *, rolls: bool) -> list[Sent | None]:
        """What each reply answers; `None` where nothing like it was sent, as far as is known.

        Args:
            replies: as they came.
            rolls: whether parts of equal shape may lie elsewhere in another round. Then a reply to a message that is
                not known (as after a checkpoint) cannot be placed; else it is read as one to what its node has now.
        """
        came = list(replies)
        told = {one.metadata.message_id for one in self.sent} - {""}
        return [
            self._one(reply, found, known=not rolls or not told or reply.metadata.reply_to_message_id in told)
            for reply, found in zip(came, waited_for(self.sent, came), strict=True)
        ]

    def _one(self, reply: Message, found: Sent | None, *, known: bool) -> Sent | None:
        renewed = renewed_of(reply)
        first = 0 if renewed is None else renewed.first_step
        if (before := self._before.pop((reply.metadata.reply_to_message_id, first), None)) is not None:
            return replace(before, base=self._base)
        if found is None or not known:
            return None
        # The second part of a task is of the size it went on with, whichever node has made it.
        return found if renewed is None else self._renewed.get((found.metadata.dst_node_id, first))

    def name_of(self, node_id: int) -> str:
        """The key of a node that was sent something, else its id."""
        return next((one.key for one in self.sent if one.metadata.dst_node_id == node_id), str(node_id))
