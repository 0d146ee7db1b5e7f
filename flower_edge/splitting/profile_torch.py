"""What the units of a cut model cost, measured: FLOPs forward and backward, bytes of state, and seconds if asked for.

FLOPs are those `torch.utils.flop_counter` counts: of matrix products, convolutions and attention; a unit that only
works element by element has 0, so a planner calibrates FLOPs with seconds. Nothing here decides.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from ..errors import SplitError
from .cutting_torch import CutModel
from .profile import ModelProfile, UnitProfile
from .recording_torch import left_as_found

__all__ = ["measure"]


def measure(
    cut_model: CutModel,
    example: torch.Tensor,
    *,
    timed_steps: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ModelProfile:
    """Profile in training mode; the model and torch's random state are left as they were.

    The backward pass of the first unit leaves out the gradient of the input, as training does.

    Args:
        cut_model: to be profiled.
        example: [batch, ...]; figures are divided by its batch.
        timed_steps: how many training steps to time after one that is not counted; their median is reported.
        progress: called with steps done and steps in all.

    Raises:
        SplitError: a negative number of steps, or an example without samples or of another shape.
    """
    if timed_steps < 0 or not example.dim() or not len(example):
        raise SplitError(
            f"timed_steps = {timed_steps} and an example of shape {tuple(example.shape)}; use 0 steps or more and "
            "1 sample or more"
        )
    rounds = 1 + (timed_steps + 1 if timed_steps else 0)
    taken: list[list[_Cost]] = []
    with left_as_found(cut_model.model):
        for done in range(rounds):
            try:
                taken.append(_step(cut_model, example, count=done == 0))
            except Exception as error:  # the model's own code
                raise SplitError(
                    f"{type(cut_model.model).__name__} cannot be profiled with an example of shape "
                    f"{tuple(example.shape)} and {example.dtype}: {error}"
                ) from error
            if progress is not None:
                progress(done + 1, rounds)
    batch = len(example)
    counted, timed = taken[0], taken[2:]

    def seconds(unit: int, backward: bool) -> float:
        times = [costs[unit].backward_s if backward else costs[unit].forward_s for costs in timed]
        return statistics.median(times) / batch if times else math.nan

    trained = {name for name, p in cut_model.model.named_parameters(remove_duplicate=False) if p.requires_grad}
    state = cut_model.model.state_dict()
    units = []
    for unit, name in enumerate(cut_model.units):
        # Two names of one array, as of tied weights, are counted twice: they are sent twice.
        arrays = {array: state[array] for array in cut_model.names(unit, unit + 1)}
        units.append(
            UnitProfile(
                name,
                counted[unit].forward_flops / batch,
                counted[unit].backward_flops / batch,
                seconds(unit, False),
                seconds(unit, True),
                sum(a.numel() for array, a in arrays.items() if array in trained),
                sum(a.numel() for array, a in arrays.items() if array not in trained),
                sum(a.numel() * a.element_size() for a in arrays.values()),
            )
        )
    return ModelProfile(tuple(units), cut_model.cuts, batch, cut_model.digest)


@dataclass
class _Cost:
    """Of one unit in one training step of a batch."""

    forward_flops: int
    forward_s: float
    backward_flops: int = 0
    backward_s: float = 0.0


def _step(cut_model: CutModel, example: torch.Tensor, *, count: bool) -> list[_Cost]:
    """One training step, unit by unit, without moving a parameter."""
    costs, arrived, left = [], [], []
    tensors: tuple[torch.Tensor, ...] = (example,)
    for unit in range(len(cut_model.units)):
        stage = cut_model.stage(unit, unit + 1).train()
        back = cut_model.cuts[unit].differentiable
        tensors = tuple(t.detach().requires_grad_(flag) for t, flag in zip(tensors, back, strict=True))
        arrived.append(tensors)
        tensors, flops, took_s = _measured(partial(stage, *tensors), count, example)
        left.append(tensors)
        costs.append(_Cost(flops, took_s))
    given: tuple[torch.Tensor | None, ...] = tuple(torch.ones_like(tensor) for tensor in tensors)
    for unit in reversed(range(len(cut_model.units))):
        parameters = [p for p in cut_model.stage(unit, unit + 1).parameters() if p.requires_grad]
        inputs = [tensor for tensor in arrived[unit] if tensor.requires_grad]
        pairs = [(o, g) for o, g in zip(left[unit], given, strict=True) if g is not None and o.requires_grad]
        given = (None,) * len(arrived[unit])
        if pairs and (parameters or inputs):
            work = partial(
                torch.autograd.grad,
                [o for o, _ in pairs],
                [*inputs, *parameters],
                [g for _, g in pairs],
                allow_unused=True,
            )
            found, costs[unit].backward_flops, costs[unit].backward_s = _measured(work, count, example)
            gradients = iter(found)
            given = tuple(next(gradients) if tensor.requires_grad else None for tensor in arrived[unit])
    return costs


def _measured(
    work: Callable[[], tuple[torch.Tensor, ...]], count: bool, like: torch.Tensor
) -> tuple[tuple[torch.Tensor, ...], int, float]:
    """What it gives, its FLOPs (0 unless counted) and its wall seconds."""
    if count:
        with FlopCounterMode(display=False) as counter:
            given = work()
        return given, counter.get_total_flops(), math.nan
    _finished(like)
    began_s = time.perf_counter()
    given = work()
    _finished(like)
    return given, 0, time.perf_counter() - began_s


def _finished(like: torch.Tensor) -> None:
    """An accelerator has done what it was given."""
    if like.is_cuda:
        torch.cuda.synchronize(like.device)
