"""`carried`: torch tensors through a `Wire`, as its other end has them. Gradients pass straight through.

The values are those of `Wire.heard`, bit for bit: a model is trained and evaluated with what is sent. Nothing here
rounds by itself.

Source of the gradient: Bengio, Leonard, Courville, "Estimating or propagating gradients through stochastic neurons for
conditional computation", arXiv:1308.3432, 2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..splitting.tensors_torch import leave, row_major
from .wire import Wire
from .wire_forms import TensorWire, WireForm

__all__ = ["carried", "carried_one"]


class _StraightThrough(torch.autograd.Function):
    """Takes the place of a tensor, and hands gradients on to it."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, taken: torch.Tensor) -> torch.Tensor:
        return taken.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


def carried(wire: Wire, tensors: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The tensors [batch, *shape] of a connection as the consumer has them; contiguous, on the same device.

    Raises:
        FringeError: other tensors than the wire is for.
        CodecError: a number that is not finite.
    """
    heard = wire.heard(leave(tensors))
    return tuple(
        _put(tensor, row_major(torch.from_numpy(array)).to(tensor.device))
        for tensor, array in zip(tensors, heard, strict=True)
    )


def carried_one(form: WireForm, tensor: torch.Tensor) -> torch.Tensor:
    """The same of one tensor, for who has no wire yet.

    >>> carried_one(WireForm(bits=2), torch.tensor([[0, 0.9, 2.2, 3]]))
    tensor([[0., 1., 2., 3.]])
    """
    one = TensorWire(form, tuple(tensor.shape[1:]))
    return _put(tensor, torch.from_numpy(one.heard(leave([tensor])[0])).to(tensor.device))


def _put(tensor: torch.Tensor, heard: torch.Tensor) -> torch.Tensor:
    if not tensor.requires_grad:
        return heard
    taken: torch.Tensor = _StraightThrough.apply(tensor, heard)  # type: ignore[no-untyped-call]
    return taken
