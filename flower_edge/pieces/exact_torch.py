"""`Exact`: a piece that waits for its gradient, so that all pieces of a chain make the whole model's own step."""

from __future__ import annotations

from dataclasses import replace

from ..errors import ProtocolError
from ..splitting.agreed import check_frame, check_tensors
from ..splitting.frame import Frame, Kind, Tensors
from ..splitting.leakage_torch import nopeek
from ..splitting.tensors_torch import Pass
from .held_torch import Held
from .said import Said

__all__ = ["Exact"]


class Exact:
    """Forward to the next piece; back, and to the previous one, when the gradient has come.

    Args:
        held: the piece.
        waiting: whether a step is under way that was begun in a process that is gone; its forward pass is repeated.
        inputs: what came in for it; not looked at where this is place 0, which draws them again.
    """

    def __init__(self, held: Held, *, waiting: bool = False, inputs: Tensors = ()) -> None:
        self._held = held
        self.waiting = waiting
        self.inputs = held.due(None)[0] if waiting and held.order.first else inputs
        self._through: Pass | None = None

    def take(self, frame: Frame | None) -> tuple[Said, ...]:
        """See `PieceWork.take`."""
        held = self._held
        if self.waiting:
            return self._back(frame)
        if frame is None and held.order.first and held.done:
            return ()
        said = self._forward(frame)
        while held.order.pieces == 1 and not held.done:
            said = self._forward(None)
        return said

    def _forward(self, frame: Frame | None) -> tuple[Said, ...]:
        held = self._held
        inputs, labels = held.due(frame)
        try:
            through = held.forward(inputs)
            if not held.order.last:
                onward = Frame(Kind.ACTIVATIONS, held.step, through.sent(), labels)
                self.waiting, self.inputs, self._through = True, inputs, through
                return (Said("next", onward),)
            loss = held.learn(through.outputs[0], labels)
        except Exception:
            held.drop()
            raise
        step = held.step
        held.move(loss, len(labels))
        if held.order.first:
            return ()
        return (Said("previous", Frame(Kind.GRADIENT, step, through.gradients(), loss=loss)),)

    def _back(self, frame: Frame | None) -> tuple[Said, ...]:
        held, sender = self._held, self._held.neighbour(1)
        if frame is None:
            raise ProtocolError(f"nothing came where GRADIENT of step {held.step} from {sender} is due")
        check_frame(frame, Kind.GRADIENT, held.step, sender)
        size = len(self.inputs[0])
        check_tensors(frame.tensors, held.half.cuts[held.order.stop], sender, batch=size, gradients=True)
        through = self._through or held.forward(self.inputs)
        penalty = nopeek(held.order.work.nopeek, through) if held.order.first else None
        through.back(frame.tensors, penalty)
        held.move(frame.loss, size)
        self.waiting, self.inputs, self._through = False, (), None
        if not held.order.first:
            return (Said("previous", replace(frame, tensors=through.gradients())),)
        return () if held.done else self._forward(None)
