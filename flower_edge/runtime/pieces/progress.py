"""`Progress`: how far one terminal of a chain is in its frames, as the edge between the terminals sees it. No threads.

It says which frame a terminal has to say next, and whether it can: what it needs for that has been put to it. A frame
that comes before its turn is none that a piece computed.
"""

from __future__ import annotations

from ...errors import ProtocolError
from ...pieces.order import PieceOrder
from ...splitting.frame import Kind
from .channel import WINDOW, Turn, turns

__all__ = ["Progress"]


class Progress:
    """Of one place.

    Args:
        order: the terminal's.

    >>> from flower_edge.splitting.order import ArchitectureSpec, WorkOrder
    >>> model = ArchitectureSpec(name="mlp", input_shape=(4,), num_classes=2)
    >>> work = WorkOrder(round=1, number=0, architecture=model, cut=2, steps=1, batch_size=8)
    >>> last = Progress(PieceOrder(work=work, start=1, stop=2, place=1, pieces=2))
    >>> last.owes, last.put(), last.owes
    (False, None, True)
    >>> last.say().kind.name, last.over, last.arrived(), last.over
    ('GRADIENT', False, None, True)
    """

    def __init__(self, order: PieceOrder) -> None:
        self.order = order
        #: Decoupled mode: frames that were said to the next place, and those that it has taken.
        self.sent = self.let_go = 0
        #: Decoupled mode: frames from the previous place that it has taken.
        self.took = 0
        #: Sends to this terminal that are under way.
        self._coming = 0
        self._turns = turns(order)
        self._heard = self._needs = 0
        self.next: Turn | None = None
        self._advance()

    @property
    def owes(self) -> bool:
        """Whether it is this terminal's turn: all it needs for its next frame has been put to it."""
        return self.next is not None and self._heard >= self._needs and (self._exact or self._room)

    @property
    def over(self) -> bool:
        """All frames are said, have reached its channel, and are taken."""
        done = self.next is None and self._heard == self._needs and not self._coming
        return done and (self._exact or (self.sent == self.let_go and self._heard == self.took))

    def say(self) -> Turn:
        """It says its next frame.

        Raises:
            ProtocolError: it has none to say, or not yet.
        """
        turn = self.next
        if turn is None:
            raise ProtocolError(f"it said something after all frames of its {self.order.work.steps} steps")
        if not self.owes:
            waits = (
                f"{WINDOW} frames of it are waiting to be taken"
                if self._heard >= self._needs
                else "what it is computed from has not been sent to it"
            )
            raise ProtocolError(f"it said something before {turn.kind.name} of step {turn.step} was due: {waits}")
        self.sent += turn.kind is Kind.ACTIVATIONS
        self._advance()
        return turn

    def put(self) -> None:
        """A neighbour's frame is being sent to it; `arrived` is to be called when it has been."""
        self._coming += 1
        self._heard += 1

    def release(self) -> None:
        """It is being told that the next place has taken a frame; `arrived` as with `put`."""
        self._coming += 1
        self.let_go += 1

    def arrived(self) -> None:
        """What was being sent to it has reached its channel."""
        self._coming -= 1

    def take(self) -> int:
        """Decoupled mode: it says that it has taken the oldest frame it was sent. The step of that frame.

        Raises:
            ProtocolError: it was sent none that it has not taken.
        """
        if self.took >= self._heard:
            raise ProtocolError(f"it took {self.took + 1} frames; it was sent {self._heard}")
        self.took += 1
        return self.order.work.first_step + self.took - 1

    @property
    def may_take(self) -> bool:
        """Whether this terminal says which frames it has taken at all."""
        return not self._exact and not self.order.first

    @property
    def _exact(self) -> bool:
        return self.order.mode == "exact"

    @property
    def _room(self) -> bool:
        return self.order.last or self.sent - self.let_go < WINDOW

    def _advance(self) -> None:
        self.next = None
        for turn in self._turns:
            if turn.says:
                self.next = turn
                return
            self._needs += 1
