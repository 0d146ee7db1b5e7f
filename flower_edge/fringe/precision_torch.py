"""`quicker`: while parts are trained, convolutions and products of matrices in bfloat16, with channels last.

Parameters stay float32, and afterwards they lie in memory as before. What is evaluated or sent is never made here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["quicker"]


@contextmanager
def quicker(parts: Sequence[nn.Module], wanted: bool) -> Iterator[None]:
    """Do so with all that runs inside, if it is wanted.

    Args:
        parts: whose weights are laid out for it meanwhile.
        wanted: False does nothing.
    """
    if not wanted:
        yield
        return
    found = [one for part in parts for one in part.parameters() if one.dim() == 4]
    try:
        _laid_out(found, torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):  # weights change inside
            yield
    finally:
        _laid_out(found, torch.contiguous_format)


def _laid_out(parameters: Sequence[nn.Parameter], form: torch.memory_format) -> None:
    for parameter in parameters:
        parameter.data = parameter.data.contiguous(memory_format=form)
