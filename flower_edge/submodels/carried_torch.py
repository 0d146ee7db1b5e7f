"""A torch optimiser that goes on where the last message left it, as far as the model is the same.

`optimiser_arrays` of `splitting.optimiser_torch` makes what a node keeps; nothing here keeps it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray

from ..splitting.optimiser_torch import load_optimiser_arrays, optimiser_arrays
from .carried import Carried, carried

__all__ = ["optimiser_state", "resume_optimiser"]

log = logging.getLogger(__name__)


def optimiser_state(optimiser: torch.optim.Optimizer, model: torch.nn.Module) -> dict[str, NDArray[Any]]:
    """The optimiser's state by the names of the model's parameters, for `NodeState.save`.

    Args:
        optimiser: torch's SGD, Adam or AdamW over parameters of `model`.
        model: whose parameters they are.
    """
    return optimiser_arrays(optimiser, dict(model.named_parameters()))


def resume_optimiser(
    optimiser: torch.optim.Optimizer, model: torch.nn.Module, state: Mapping[str, NDArray[Any]] | None
) -> Carried:
    """Give a new optimiser the state that fits the model; what does not is told in the log and begins at rest.

    Args:
        optimiser: torch's SGD, Adam or AdamW, just made over parameters of `model`.
        model: the one to go on with.
        state: what `optimiser_state` gave, of this model or one of another size; `None` where there is none yet.

    Raises:
        ModelMismatch: the state of another kind of optimiser, or made with other options.

    >>> model = torch.nn.Linear(3, 2)
    >>> optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> model(torch.ones(1, 3)).sum().backward(); optimiser.step()
    >>> smaller = torch.nn.Linear(2, 2)
    >>> after = resume_optimiser(
    ...     torch.optim.SGD(smaller.parameters(), lr=0.1, momentum=0.9), smaller, optimiser_state(optimiser, model)
    ... )
    >>> list(after.state), list(after.dropped)
    (['bias::momentum_buffer'], ['weight'])
    """
    parameters = dict(model.named_parameters())
    found = carried(state, {name: tuple(parameter.shape) for name, parameter in parameters.items()})
    load_optimiser_arrays(optimiser, parameters, found.state)
    for name, why in found.dropped.items():
        log.info("optimiser of %s begins at rest: %s", name, why)
    return found
