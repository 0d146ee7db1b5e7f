"""`Half`: the units one machine holds, with their parameters, buffers and optimiser. It has arrays of no other unit.

A half owns its tensors; a `CutModel` only says how units compute and is never written to, so one `CutModel` serves any
number of halves. Nothing here knows frames, batches or who is at the other end.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..errors import SplitError
from ..models.matching import check_arrays
from .frame import Tensors
from .optimiser_torch import load_optimiser_arrays, make_optimiser, optimiser_arrays
from .order import OptimiserSpec
from .recording_torch import DRAWING
from .tensors_torch import Pass, enter

if TYPE_CHECKING:
    from .cutting_torch import CutModel
    from .stages_torch import Stage

__all__ = ["Half", "let_go"]

Arrays = Mapping[str, NDArray[Any]]


class Half:
    """Some units of a model on one machine, in training.

    Args:
        model: how they compute; its arrays are not used and not changed.
        spans: [start, stop) of the units that are held; more than one where a machine has the head and the tail.
        optimiser: moves their parameters.
        arrays: by the whole model's names, exactly those of these units (`CutModel.names`).
        state: of the optimiser, see `optimiser_state`; parameters without an entry begin at rest.

    Raises:
        SplitError: units the model does not have.
        ModelMismatch: arrays or state of other units, or of another model.
    """

    def __init__(
        self,
        model: CutModel,
        spans: Sequence[tuple[int, int]],
        optimiser: OptimiserSpec,
        arrays: Arrays,
        state: Arrays | None = None,
    ) -> None:
        last = len(model.units)
        for start, stop in spans:
            if not 0 <= start <= stop <= last:
                raise SplitError(f"units {start} to {stop} of a model of {last}; use 0 <= start <= stop <= {last}")
        self.model = model
        self.spans = tuple(spans)
        self.cuts = model.cuts
        some = next(model.model.parameters(), torch.empty(0))
        self._dtype = some.dtype
        self.device = torch.device("cpu") if some.device.type == "meta" else some.device
        self._stages: dict[tuple[int, int], Stage] = {}
        # By identity, so that an array with two names (tied weights) stays one.
        self._own: dict[int, torch.Tensor] = {}
        self._names = self._take(arrays)
        parameters = {id(tensor): name for name, tensor in reversed(self._trained())}
        self._parameters = {name: tensor for name, tensor in self._trained() if parameters[id(tensor)] == name}
        self._optimiser = make_optimiser(optimiser, self._parameters)
        load_optimiser_arrays(self._optimiser, self._parameters, state or {})

    def forward(self, start: int, stop: int, inputs: Tensors, *, seed: int, step: int) -> Pass:
        """Units start .. stop-1, which are held, on a batch, in training mode.

        Args:
            start, stop: which units; none where they are equal.
            inputs: the tensors that are live at `start`.
            seed, step: what random units (dropout) draw from.

        Raises:
            SplitError: units that are not held, that fail on these inputs (BatchNorm on a batch of one sample, symbols
            that an embedding does not have), or that replace a buffer instead of writing into it.
        """
        if start != stop and not any(begin <= start <= stop <= end for begin, end in self.spans):
            raise SplitError(f"units {start} to {stop} on a machine that holds {_spell(self.spans)}")
        leaves = enter(inputs, self.cuts[start].differentiable, self._dtype, self.device)
        if start < stop:
            stage = self._stage(start, stop)
            try:
                with DRAWING if stage.random else nullcontext(), stage.seeded(seed, step):
                    outputs = stage(*leaves)
            except Exception as error:  # the model's own code, on tensors that may be another machine's
                raise SplitError(
                    f"units {start} to {stop} fail on tensors of shapes {[tuple(leaf.shape) for leaf in leaves]} and "
                    f"{', '.join(str(leaf.dtype) for leaf in leaves)}: {error}"
                ) from error
            self._check_buffers(stage)
        else:
            outputs = tuple(leaf.clone() for leaf in leaves)
        return Pass(leaves, outputs, self.cuts[stop].differentiable)

    def begin(self) -> None:
        """Forget all gradients."""
        self._optimiser.zero_grad(set_to_none=True)

    def move(self) -> None:
        """One step of the optimiser. Parameters that got no gradient stay."""
        self._optimiser.step()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of parameters and buffers, in the whole model's order."""
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in self._names.items()}

    def buffers(self) -> dict[str, NDArray[Any]]:
        """Copies of what a forward pass may change."""
        return {
            name: tensor.detach().cpu().numpy().copy()
            for name, tensor in self._names.items()
            if not isinstance(tensor, nn.Parameter)
        }

    def restore(self, buffers: Arrays) -> None:
        """Take back what `buffers` gave."""
        with torch.no_grad():
            for name, array in buffers.items():
                self._names[name].copy_(torch.tensor(array))

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of the optimiser's state, see `optimiser_state`."""
        return optimiser_arrays(self._optimiser, self._parameters)

    def _take(self, arrays: Arrays) -> dict[str, torch.Tensor]:
        """Tensors of our own with the values that came."""
        theirs = self.model.model.state_dict(keep_vars=True)
        names = {name for start, stop in self.spans for name in self.model.names(start, stop)}
        mine = {name: tensor for name, tensor in theirs.items() if name in names}
        what = f"units {_spell(self.spans)} of a {type(self.model.model).__name__}"
        check_arrays(arrays, {name: tuple(tensor.shape) for name, tensor in mine.items()}, what)
        for name, tensor in mine.items():
            array = np.asarray(arrays[name])
            if not tensor.is_floating_point() and array.dtype.kind == "f":
                array = np.rint(array)  # counters that were averaged
            value = torch.tensor(array).to(dtype=tensor.dtype, device=self.device)
            if isinstance(tensor, nn.Parameter):
                value = nn.Parameter(value, requires_grad=tensor.requires_grad)
            self._own.setdefault(id(tensor), value)
        return {name: self._own[id(tensor)] for name, tensor in mine.items()}

    def _trained(self) -> list[tuple[str, torch.Tensor]]:
        return [(name, tensor) for name, tensor in self._names.items() if tensor.requires_grad]

    def _stage(self, start: int, stop: int) -> Stage:
        """A copy whose tensors are ours; made once."""
        if (start, stop) not in self._stages:
            # deepcopy looks into the memo first: no array is copied, and all stages of a half share its own.
            try:
                stage = copy.deepcopy(self.model.stage(start, stop), dict[int, Any](self._own))
            except Exception as error:  # a module's own code
                raise SplitError(
                    f"units {start} to {stop} cannot be copied, and each machine needs its own: {str(error)[:200]}; of "
                    "torch.nn.utils.weight_norm take the one in torch.nn.utils.parametrizations"
                ) from error
            strange = [
                name for name, tensor in stage.state_dict(keep_vars=True).items() if tensor is not self._names.get(name)
            ]
            if strange:
                raise SplitError(
                    f"{', '.join(strange[:5])}: not the arrays the model was cut with; cut it again after it was "
                    "moved or its parameters were replaced"
                )
            self._stages[start, stop] = stage.train()
        return self._stages[start, stop]

    def _check_buffers(self, stage: Stage) -> None:
        """What was replaced would be lost: it is neither sent nor kept."""
        for name, buffer in stage.named_buffers():
            if self._names.get(name, buffer) is not buffer:
                raise SplitError(
                    f"buffer {name!r} is replaced in forward, so it cannot follow its unit; write into it: "
                    f"self.{name.rpartition('.')[2]}.copy_(...)"
                )


def let_go(model: CutModel) -> None:
    """Free the memory of all arrays of a model whose halves hold their own.

    It can still be cut into halves, but not be run: profile it before, and do not evaluate with it. Names, shapes,
    dtypes and ties stay.
    """
    model.profile()
    with torch.no_grad():
        for tensor in model.model.state_dict(keep_vars=True).values():
            tensor.data = torch.zeros((), dtype=tensor.dtype, device=tensor.device).expand(tensor.shape)


def _spell(spans: Sequence[tuple[int, int]]) -> str:
    return " and ".join(f"{start} to {stop}" for start, stop in spans) or "none"
