"""`Split(noise=…)` and `Split(nopeek=…)`: what is done against leakage reaches the devices, where there is a cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord
from split_toy import MERGE, device_app, fedavg, initial, samples, split, start
from toy import same_model

from flower_edge.models import train_torch
from flower_edge.runtime import LocalGrid
from flower_edge.splitting.leakage import distance_correlation
from flower_edge.splitting.planner import FixedCut, WholeModel
from flower_edge.wire import arrays_of

#: The activation after three units: Linear, BatchNorm, ReLU.
CUT = 3


def trained(cut: int | None = CUT, **options: float) -> ArrayRecord:
    """What three devices end with after one merge."""
    planner = WholeModel() if cut is None else FixedCut(cut)
    with LocalGrid(device_app(), 3) as grid:
        found = split(planner=planner, **options).start(grid, start(), MERGE).arrays
    assert found is not None
    return found


def told_at_the_cut(model: ArrayRecord) -> float:
    """How much the tensor at the cut depends on the samples it was made of, mean over devices."""
    module = initial()
    train_torch.set_arrays(module, arrays_of(model))
    module.train()
    found = []
    for number in range(3):
        x, _ = samples(number)
        with torch.no_grad():
            sent = module[:CUT](torch.tensor(x)).numpy()
        found.append(distance_correlation(x, sent))
    return float(np.mean(found))


def test_noise_at_the_cut_changes_what_is_learned_and_is_nothing_where_nothing_is_sent() -> None:
    exact = arrays_of(fedavg(1))

    def away(**options: Any) -> float:
        return sum(float(np.abs(array - exact[name]).sum()) for name, array in arrays_of(trained(**options)).items())

    assert 0 < away(noise=0.01) < 0.2 * away(noise=0.5)
    assert away(cut=None, noise=0.5) == 0


def test_nopeek_makes_the_models_tensor_at_the_cut_tell_less_of_the_samples() -> None:
    plain, quiet = fedavg(1), trained(nopeek=50.0)
    assert told_at_the_cut(quiet) < told_at_the_cut(plain) - 0.02
    assert same_model(trained(cut=None, nopeek=50.0), plain), "where nothing is cut, nothing is told"
