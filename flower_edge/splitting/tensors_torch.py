"""`Pass`: tensors through some units and gradients back, between NumPy arrays at both ends.

A tensor that comes in becomes a leaf of this machine's own graph; what goes out is a copy. Gradients that come back
enter the graph in one call, before any that arise on this machine: the order in which autograd would have added them up
had the model been whole. Nothing here owns parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .frame import Tensors

__all__ = ["Pass", "enter", "leave", "row_major"]


def enter(
    arrays: Tensors, differentiable: Sequence[bool], dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, ...]:
    """Leaves of a graph; floating point in the model's, whole numbers as they are. The arrays are copied.

    Args:
        arrays: what came in.
        differentiable: whether each wants a gradient.
        dtype, device: of the model.
    """
    leaves = []
    for array, wanted in zip(arrays, differentiable, strict=True):
        leaf = torch.tensor(np.asarray(array))
        if leaf.is_floating_point():
            leaf = leaf.to(dtype)
        leaves.append(leaf.to(device).requires_grad_(wanted and leaf.is_floating_point()))
    return tuple(leaves)


def row_major(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, copied unless its strides are those of a new one.

    A dimension of 1 may have any stride and still count as contiguous. torch takes some of those for channels last and
    convolves in another order, which is another last bit. What comes out of a frame is always in this order.
    """
    stride, wanted = 1, []
    for size in reversed(tensor.shape):
        wanted.append(stride)
        stride *= max(size, 1)
    if tensor.stride() == tuple(reversed(wanted)):
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def leave(tensors: Sequence[torch.Tensor]) -> Tensors:
    """Contiguous copies, cut off from the graph."""
    return tuple(np.array(tensor.detach().cpu().numpy(), order="C") for tensor in tensors)


@dataclass(frozen=True, eq=False)
class Pass:
    """A batch on its way through the units of one machine.

    Attributes:
        leaves: what came in.
        outputs: what came out, with its graph.
        differentiable: of the outputs, which get a gradient back.
    """

    leaves: tuple[torch.Tensor, ...]
    outputs: tuple[torch.Tensor, ...]
    differentiable: tuple[bool, ...]

    def sent(self) -> Tensors:
        """The outputs as arrays."""
        return leave(self.outputs)

    def back(self, gradients: Tensors, penalty: torch.Tensor | None = None) -> None:
        """Accumulate gradients of all parameters and leaves.

        Args:
            gradients: one for each differentiable output, of its shape.
            penalty: a number of this machine's own that is part of the loss.
        """
        roots: list[torch.Tensor] = []
        arriving: list[torch.Tensor | None] = []
        wanting = [output for output, wanted in zip(self.outputs, self.differentiable, strict=True) if wanted]
        for output, gradient in zip(wanting, gradients, strict=True):
            if output.requires_grad:  # not where every parameter before it is frozen
                roots.append(output)
                arriving.append(torch.tensor(np.asarray(gradient)).to(output))
        if penalty is not None and penalty.requires_grad:
            roots.append(penalty)
            arriving.append(None)
        if roots:
            torch.autograd.backward(roots, arriving)

    def gradients(self) -> Tensors:
        """Of the leaves that want one. Zero where the loss does not depend on a leaf."""
        found: list[NDArray[Any]] = []
        for leaf in self.leaves:
            if leaf.requires_grad:
                found.extend(leave([torch.zeros_like(leaf) if leaf.grad is None else leaf.grad]))
        return tuple(found)
