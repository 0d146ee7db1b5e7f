"""What cannot be cut is refused, and the error says why and what to type."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from odd_models import Averaging, Branching, Counting, Dict, Noisy, Pair, TwoSkips, Unbatched
from torch import nn

from flower_edge.errors import SplitError
from flower_edge.splitting.cutting_torch import CutModel


def pictures(*shape: int) -> torch.Tensor:
    return torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Branching.Root, r"cannot trace Root at odd_models\.py:\d+ `.*if x\.sum\(\) > 0.*`.*blocks=\['first', 'mid"),
        (Pair, "takes x, y; .* one tensor"),
        (Dict, "gives a dict; .*one tensor"),
        (Unbatched, r"gives a tensor \(5, 4\) for a batch of 4"),
        (
            lambda: nn.Sequential(nn.Linear(5, 5), nn.ReLU(True), nn.ReLU(True)),
            "fails on an example .* modified by an inpl",
        ),
        (lambda: nn.Linear(6, 2), r"fails on an example of shape \(4, 5\)"),
        (lambda: Counting(persistent=False), "'seen' changes and is not in the state_dict"),
        (nn.Identity, "gives"),
        (Noisy, "Noisy in training computes something else than the steps torch.fx traced; .*blocks=\\['one'\\]"),
        (lambda: torch.compile(nn.Linear(5, 2), backend="eager"), "is compiled, .*cut the module it was compiled from"),
        (lambda: nn.utils.spectral_norm(nn.Linear(5, 2)), "has hooks of its own, .*cut nn.Sequential"),
        (Averaging, "takes other steps in training than in evaluation; pass the submodules .*blocks=\\['one'\\]"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_reason(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(SplitError, match=words):
        CutModel.of(make(), pictures(5))


def test_state_that_no_array_holds_is_refused() -> None:
    with pytest.raises(SplitError, match=r"state 'weight' is torch.bfloat16, .* use torch.float32: model.float\(\)"):
        CutModel.of(nn.Linear(5, 2).bfloat16(), pictures(5).bfloat16())


def test_blocks_that_are_not_the_model_are_refused() -> None:
    with pytest.raises(SplitError, match="something else than its blocks first, last one after"):
        CutModel.of(Branching.Root(), pictures(5), blocks=["first", "last"])
    with pytest.raises(SplitError, match="no submodule 'frist'; near it: first"):
        CutModel.of(Branching.Root(), pictures(5), blocks=["frist", "last"])


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(SplitError, match="batch of 2 samples"):
        CutModel.of(TwoSkips(), torch.zeros(1, 5))
    with pytest.raises(SplitError, match="max_tensors = 0"):
        CutModel.of(TwoSkips(), pictures(5), max_tensors=0)
    cut = CutModel.of(TwoSkips(), pictures(5))
    with pytest.raises(SplitError, match="use 0 <= start <= stop"):
        cut.stage(2, 1)
    with pytest.raises(SplitError, match="units 0 to 99"):
        cut.names(0, 99)
