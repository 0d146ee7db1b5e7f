"""The set-up in which depth sub-models are measured: sizes that are compared are equal."""

from __future__ import annotations

import torch

from benchmarks.provision_depth import equal_rate, plain, with_exits
from flower_edge.submodels import index_of, narrow, prefix, width_groups


def test_a_narrow_model_is_as_large_as_the_shallow_one_it_is_compared_with() -> None:
    model, deep = plain(0), with_exits(0)
    groups = width_groups(model, torch.zeros(2, 1, 28, 28))
    for depth in (1, 2):
        most = sum(p.numel() for p in deep.at_depth(depth).parameters())
        rate = equal_rate(model, groups, most)
        small = narrow(model, index_of(groups, prefix(groups, rate)))
        assert 0.7 * most < sum(p.numel() for p in small.parameters()) <= most


def test_both_begin_with_the_same_arrays() -> None:
    model, deep = plain(3).state_dict(), with_exits(3).state_dict()
    assert all(torch.equal(deep[name], tensor) for name, tensor in model.items())
