"""An edge's part of one device's round, as it passes between the cloud and the edge on the channel of the frames.

    edge  -> cloud   the device's own hello and token, with `edge` added to its data
    cloud -> edge    the part: the device's order, where the edge's units end, their arrays, their optimiser's state
    ...              frames, as from a device whose cut is where the edge's units end
    edge  -> cloud   the result: the same arrays after the round

Trees in the store's own format: no pickle, checked. Nothing here sends or computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ...errors import EdgeError, ModelMismatch, ProtocolError
from ...splitting.order import WorkOrder
from ...splitting.results import WorkResult
from ...store.tree import tree_from_bytes, tree_to_bytes

__all__ = ["EdgePart", "pack_result", "unpack_result"]

Arrays = Mapping[str, npt.NDArray[Any]]
_FORM: Final = "flower-edge.split-edge/1"


@dataclass(frozen=True, eq=False)
class EdgePart:
    """What an edge does for one device in one round.

    Attributes:
        order: the device's. The edge's units begin at its cut.
        stop: where they end.
        arrays, optimiser: of these units, by the whole model's names.
    """

    order: WorkOrder
    stop: int
    arrays: Arrays
    optimiser: Arrays

    @property
    def onward(self) -> WorkOrder:
        """The order as the cloud has it: of a device whose cut is `stop`."""
        return self.order.model_copy(update={"cut": self.stop})

    def pack(self) -> bytes:
        """As bytes."""
        return tree_to_bytes(
            {
                "form": _FORM,
                "order": self.order.model_dump_json(),
                "stop": self.stop,
                "arrays": dict(self.arrays),
                "optimiser": dict(self.optimiser),
            }
        )

    @classmethod
    def unpack(cls, data: bytes) -> EdgePart:
        """Inverse of `pack`.

        Raises:
            ProtocolError: not a part.
        """
        tree = _tree(data, "an edge's part")
        try:
            order, stop = WorkOrder.model_validate_json(tree["order"]), tree["stop"]
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"an edge's part that cannot be read: {str(error)[:200]}") from None
        if type(stop) is not int or not order.cut < stop:
            raise ProtocolError(f"an edge's units from {order.cut} to {stop!r}; expected at least one")
        return cls(order, stop, _arrays(tree, "arrays"), _arrays(tree, "optimiser"))


def pack_result(result: WorkResult) -> bytes:
    """What an edge hands back after a round."""
    tree = {"form": _FORM, "arrays": dict(result.arrays), "optimiser": dict(result.optimiser), "steps": result.steps}
    return tree_to_bytes(tree | {"flops": float(result.flops), "compute_s": float(result.compute_s)})


def unpack_result(data: bytes, part: EdgePart) -> WorkResult:
    """Inverse of `pack_result`, checked against what the edge was given.

    Raises:
        ProtocolError: not a result, or not of all steps.
        ModelMismatch: arrays of other names, shapes or dtypes, or state of parameters it was not given.
    """
    tree = _tree(data, "an edge's result")
    arrays, optimiser = _arrays(tree, "arrays"), _arrays(tree, "optimiser")
    if _spec(arrays) != _spec(part.arrays):
        raise ModelMismatch(
            f"the edge of device {part.order.number} handed back {sorted(_spec(arrays))[:3]} and so on; "
            f"expected {sorted(_spec(part.arrays))[:3]} and so on, of the shapes and dtypes it was given"
        )
    for name, array in optimiser.items():
        parameter = name.rpartition("::")[0]
        if parameter not in part.arrays or array.shape not in ((), part.arrays[parameter].shape):
            raise ModelMismatch(f"the edge of device {part.order.number} handed back {name!r}, state of nothing it has")
    steps, numbers = tree.get("steps"), [tree.get("flops"), tree.get("compute_s")]
    if steps != part.order.steps or not all(isinstance(one, float) and 0.0 <= one < np.inf for one in numbers):
        raise ProtocolError(
            f"the edge of device {part.order.number} made {steps!r} of {part.order.steps} steps and counted {numbers}"
        )
    return WorkResult(arrays, optimiser, steps, flops=float(tree["flops"]), compute_s=float(tree["compute_s"]))


def _tree(data: bytes, what: str) -> dict[str, Any]:
    try:
        tree = tree_from_bytes(data, source=what)
    except EdgeError as error:
        raise ProtocolError(str(error)) from None
    except Exception as error:  # a structure that nobody's `pack` writes
        raise ProtocolError(f"{what} that cannot be read: {type(error).__name__}: {error}") from None
    if not isinstance(tree, dict) or tree.get("form") != _FORM:
        raise ProtocolError(
            f"{what} of another form than {_FORM!r}; install the same flower-edge version on both sides"
        )
    return tree


def _arrays(tree: Mapping[str, Any], key: str) -> dict[str, npt.NDArray[Any]]:
    found = tree.get(key)
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(array, np.ndarray) for name, array in found.items()
    ):
        raise ProtocolError(f"{key} = {type(found).__name__}; expected arrays by name")
    return found


def _spec(arrays: Arrays) -> dict[str, tuple[tuple[int, ...], str]]:
    return {name: (array.shape, array.dtype.str) for name, array in arrays.items()}
