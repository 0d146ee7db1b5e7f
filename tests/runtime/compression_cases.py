"""A small task, trained in a moment, and sessions on machines that are only modelled, for tests of compression."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from flower_edge.fringe import DistilRecipe, Link, Recipe
from flower_edge.runtime.compression.fleets import Modelled
from flower_edge.runtime.compression.settings import CompressionSettings
from flower_edge.runtime.compression.task_torch import CompressionTask

MACHINES = ("camera", "gateway", "server")
LINKS = (Link(1e5, 0.010), Link(2e5, 0.005))
#: What most tests submit: quick, and met after a few iterations.
SETTINGS = CompressionSettings(
    machines=MACHINES, cuts=("1", "3"), depth=1, methods=("quantisation", "pruning"), drop=0.05, bandwidth="6x"
)


@cache
def task() -> CompressionTask:
    """Which of four places a bump lies at: linear layers, which learn it in a second."""
    draw = torch.Generator().manual_seed(0)
    y = torch.randint(0, 4, (400,), generator=draw)
    x = 0.3 * torch.randn(400, 16, generator=draw) + functional.one_hot(y, 4).float().repeat_interleave(4, dim=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(16, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 4)
        )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(x[:200]), y[:200]))
        optimiser.step()
    return CompressionTask(
        "bumps",
        model.eval(),
        x[:200],
        (x[200:300], y[200:300]),
        (x[300:], y[300:]),
        labels=y[:200],
        healing=Recipe(epochs=1),
        distilling=DistilRecipe(regress_epochs=1, distil_epochs=1),
    )


def modelled() -> Modelled:
    """The machines, and nothing that serves."""
    return Modelled(MACHINES, LINKS)


def settings(**other: Any) -> CompressionSettings:
    """`SETTINGS`, but for some."""
    return replace(SETTINGS, **other)
