"""A session small enough to be looked at in a test: a model that is its own teacher, on links that are modelled."""

from __future__ import annotations

import torch
from torch import nn

from flower_edge.fringe import Link, Recipe
from flower_edge.runtime.compression.fleets import Modelled
from flower_edge.runtime.compression.session_torch import CompressionSession
from flower_edge.runtime.compression.settings import CompressionSettings
from flower_edge.runtime.compression.task_torch import CompressionTask

MACHINES = ["camera", "gateway", "server"]
CUTS = ("1", "3")


def small_task(name: str = "own teacher") -> CompressionTask:
    """Labels are what the model itself says, so that it is right before any compression."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4)
    )
    x = torch.randn(240, 12)
    y = model(x).argmax(dim=1).detach()
    return CompressionTask(
        name, model, x[:120], (x[120:180], y[120:180]), (x[180:], y[180:]), healing=Recipe(epochs=1)
    )  # fmt: skip


def small_session(name: str = "own teacher") -> CompressionSession:
    """Three machines, of which the first link is the slower one."""
    return CompressionSession(small_task(name), Modelled(MACHINES, [Link(1e5, 0.010), Link(2e5, 0.005)]))


def settings(bandwidth: str = "3x") -> CompressionSettings:
    """All of it given, so that nothing has to be measured."""
    return CompressionSettings(
        machines=tuple(MACHINES), cuts=CUTS, depth=1, methods=("quantisation", "pruning"), drop=0.2, bandwidth=bandwidth
    )
