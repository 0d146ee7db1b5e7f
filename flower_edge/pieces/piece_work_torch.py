"""`PieceWork`: a terminal's piece of a model in one round. It computes and says frames; it does not send them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import SplitError
from ..splitting.frame import Frame
from .decoupled_torch import Decoupled
from .exact_torch import Exact
from .held_torch import Held
from .order import PieceOrder
from .results import PieceResult
from .said import Said

if TYPE_CHECKING:
    from ..splitting.cutting_torch import CutModel

__all__ = ["PieceWork"]

Arrays = Mapping[str, NDArray[Any]]


class PieceWork:
    """One piece of one chain in one round.

    Hand `take` each frame that comes, bring on what it says, until `done`; then `result`. Step k draws the samples that
    `flower_edge.models.train` draws with the same seed.

    Args:
        order: what to do.
        model: how units compute; its arrays are not used and not changed.
        arrays: parameters and buffers of exactly this piece's units.
        optimiser: their state; parameters without an entry begin at rest.
        x: samples [samples, ...], before standardisation, for place 0; None for all others.
        y: targets, int64 [samples] or [samples, context], for place 0; for mse float32 [samples, ...].
        head: decoupled, not the last piece: parameters of its head; None begins with those of `make_head`.
        head_optimiser: their state; None begins at rest.

    Raises:
        SplitError: the order does not fit the model, samples at the wrong place, or a head where none belongs or none
            can be put.
        ModelMismatch: arrays or state of other units.
        DataError, ConfigError: no samples, or an order that cannot be used.
    """

    def __init__(
        self,
        order: PieceOrder,
        model: CutModel,
        arrays: Arrays,
        optimiser: Arrays,
        *,
        x: NDArray[Any] | None = None,
        y: NDArray[Any] | None = None,
        head: Arrays | None = None,
        head_optimiser: Arrays | None = None,
    ) -> None:
        if (head or head_optimiser) and (order.mode == "exact" or order.last):
            raise SplitError(
                f"a head for place {order.place} of {order.pieces} in mode {order.mode!r}; heads are for decoupled "
                "mode, and for all places but the last"
            )
        self.order = order
        self._model = model
        self._held = Held(order, model, arrays, optimiser, x, y)
        self._steps: Exact | Decoupled = (
            Exact(self._held) if order.mode == "exact" else Decoupled(self._held, model, head or None, head_optimiser)
        )
        self._compute_s = 0.0

    @property
    def done(self) -> bool:
        """Whether all steps of the order are made."""
        return self._held.done

    @property
    def made(self) -> int:
        """Steps so far."""
        return self._held.made

    def take(self, frame: Frame | None) -> tuple[Said, ...]:
        """What this piece says to a frame: nothing, or one frame to a neighbour.

        | mode      | place  | takes       | says                                                  |
        |-----------|--------|-------------|-------------------------------------------------------|
        | exact     | 0      | None, once  | ACTIVATIONS to the next                               |
        |           | 0      | GRADIENT    | ACTIVATIONS of the next step, nothing after the last  |
        |           | middle | ACTIVATIONS | ACTIVATIONS to the next                               |
        |           | middle | GRADIENT    | GRADIENT to the previous                              |
        |           | last   | ACTIVATIONS | GRADIENT to the previous                              |
        | decoupled | 0      | None        | makes a step: ACTIVATIONS to the next                 |
        |           | middle | ACTIVATIONS | makes a step: ACTIVATIONS to the next                 |
        |           | last   | ACTIVATIONS | makes a step: nothing                                 |

        A piece that is the whole model makes all steps at the first None. Place 0 says nothing to None when it is done.

        Raises:
            ProtocolError: not the frame that is due, or tensors or labels that do not fit; the right one still works.
            SplitError, DataError: units that fail on what came, or the loss on place 0's own targets.
        """
        begun = time.perf_counter()
        try:
            return self._steps.take(frame)
        finally:
            self._compute_s += time.perf_counter() - begun

    def result(self) -> PieceResult:
        """This piece as it is now; of a step that is under way nothing is in it."""
        held, order, steps = self._held, self.order, self._steps
        headed = steps if isinstance(steps, Decoupled) else None
        spent = self._model.profile().train_flops(order.start, order.stop) + (headed.head_flops() if headed else 0.0)
        return PieceResult(
            held.arrays(),
            held.half.state(),
            held.made,
            held.samples,
            held.loss,
            spent * held.samples,
            self._compute_s,
            headed.head() if headed else {},
            headed.head_optimiser() if headed else {},
        )

    def state(self) -> dict[str, Any]:
        """All there is between two frames, as plain values and arrays for `flower_edge.store.tree_to_bytes`.

        Of a step that is under way it holds what was there before its forward pass, and what came in for it; a resumed
        work repeats that pass: graphs cannot be stored, and BatchNorm's buffers advance once.
        """
        held, steps = self._held, self._steps
        headed, waits = (steps, None) if isinstance(steps, Decoupled) else (None, steps)
        return {
            "arrays": held.arrays(),
            "optimiser": held.half.state(),
            "made": held.made,
            "losses": list(held.losses),
            "sizes": list(held.sizes),
            "compute_s": self._compute_s,
            "waiting": bool(waits and waits.waiting),
            # Place 0 draws its samples again.
            "inputs": [np.asarray(tensor) for tensor in waits.inputs] if waits and not self.order.first else [],
            "head": headed.head() if headed else {},
            "head_optimiser": headed.head_optimiser() if headed else {},
        }

    @classmethod
    def resumed(
        cls,
        order: PieceOrder,
        model: CutModel,
        state: Mapping[str, Any],
        *,
        x: NDArray[Any] | None = None,
        y: NDArray[Any] | None = None,
    ) -> Self:
        """A work that goes on where `state` was taken, bit for bit, given the same order and data."""
        work = cls(
            order,
            model,
            state["arrays"],
            state["optimiser"],
            x=x,
            y=y,
            head=state["head"],
            head_optimiser=state["head_optimiser"],
        )
        held = work._held
        held.made = int(state["made"])
        held.losses, held.sizes = list(state["losses"]), list(state["sizes"])
        work._compute_s = float(state["compute_s"])
        if isinstance(work._steps, Exact):
            inputs = tuple(np.asarray(tensor) for tensor in state["inputs"])
            work._steps = Exact(held, waiting=bool(state["waiting"]), inputs=inputs)
        return work
