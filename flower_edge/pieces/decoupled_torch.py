"""`Decoupled`: a piece that learns by a head of its own and waits for nobody.

The last piece has no head: the model's own output and loss are its. No gradient crosses a cut, so about half the bytes
travel, and all pieces work at the same time, each on the step after the next piece's. What is learnt is another model
than the whole one's step would make: earlier pieces do not see what later ones need.

Source: Belilovsky, Eickenberg, Oyallon, "Decoupled greedy learning of CNNs", ICML 2020.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..models.train_torch import get_arrays, set_arrays
from ..splitting.frame import Frame, Kind
from ..splitting.leakage_torch import nopeek
from ..splitting.optimiser_torch import load_optimiser_arrays, make_optimiser, optimiser_arrays
from .heads_torch import make_head
from .held_torch import Held
from .said import Said

if TYPE_CHECKING:
    from ..splitting.cutting_torch import CutModel

__all__ = ["Decoupled"]

Arrays = Mapping[str, NDArray[Any]]


class Decoupled:
    """A local step for each batch, and on with it.

    Args:
        held: the piece.
        model: how units compute.
        head: parameters of its head; None: those of `make_head`.
        head_optimiser: their state; parameters without an entry begin at rest.

    Raises:
        SplitError: no head can be put where the piece ends.
        ModelMismatch: arrays or state of another head.
    """

    def __init__(self, held: Held, model: CutModel, head: Arrays | None, head_optimiser: Arrays | None) -> None:
        self._held = held
        self._head = None if held.order.last else make_head(model.profile(), held.order.stop)
        self._rows = math.prod(model.cuts[-1].shapes[0][:-1])
        if self._head is None:
            return
        if head is not None:
            set_arrays(self._head, head)
        some = next(model.model.parameters())
        self._head.to(dtype=some.dtype, device=held.half.device).train()
        self._parameters = dict(self._head.named_parameters())
        self._optimiser = make_optimiser(held.order.work.optimiser, self._parameters)
        load_optimiser_arrays(self._optimiser, self._parameters, head_optimiser or {})

    def take(self, frame: Frame | None) -> tuple[Said, ...]:
        """See `PieceWork.take`."""
        held = self._held
        if frame is None and held.order.first and held.done:
            return ()
        said = self._step(frame)
        while held.order.pieces == 1 and not held.done:
            said = self._step(None)
        return said

    def head(self) -> dict[str, NDArray[Any]]:
        """Copies of its parameters; none of the last piece."""
        return {} if self._head is None else get_arrays(self._head)

    def head_optimiser(self) -> dict[str, NDArray[Any]]:
        """Copies of their state."""
        return {} if self._head is None else optimiser_arrays(self._optimiser, self._parameters)

    def head_flops(self) -> float:
        """Of one sample, forward and backward: two for each number of a matrix, and twice that back."""
        if self._head is None:
            return 0.0
        return 6.0 * self._rows * sum(p.numel() for p in self._parameters.values() if p.dim() > 1)

    def _step(self, frame: Frame | None) -> tuple[Said, ...]:
        held, step = self._held, self._held.step
        inputs, labels = held.due(frame)
        try:
            through = held.forward(inputs)
            sent = () if self._head is None else through.sent()
            scores, penalty = through.outputs[0], None
            if self._head is not None:
                self._optimiser.zero_grad(set_to_none=True)
                scores = self._head(scores)
                penalty = nopeek(held.order.work.nopeek, through) if held.order.first else None
            loss = held.learn(scores, labels, penalty)
        except Exception:
            held.drop()
            raise
        if self._head is not None:
            self._optimiser.step()
        held.move(loss, len(labels))
        return () if self._head is None else (Said("next", Frame(Kind.ACTIVATIONS, step, sent, labels)),)
