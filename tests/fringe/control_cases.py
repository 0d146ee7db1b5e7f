"""A small trained network on three machines, and a controller of it whose runs take well under a second."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from flower_edge.data.digits import load_digits
from flower_edge.fringe.controller_torch import Controller
from flower_edge.fringe.distil_recipe import DistilRecipe
from flower_edge.fringe.evaluation_torch import evaluation
from flower_edge.fringe.fringe_torch import fringe
from flower_edge.fringe.goals import Goals
from flower_edge.fringe.healing_torch import Recipe
from flower_edge.fringe.links import Link
from flower_edge.fringe.pipeline_torch import Pipeline, distribute

LINKS = (Link(2e5, 0.010), Link(4e5, 0.005))
QUICK = Recipe(epochs=1)


@cache
def trained() -> tuple[Pipeline, torch.Tensor, torch.Tensor]:
    """Pipeline, inputs and labels; the first 240 were trained on."""
    train, _ = load_digits()
    x, y = torch.from_numpy(train.x[:400]), torch.from_numpy(train.y[:400]).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(),  # frozen
            nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, stride=2), nn.ReLU(),
            nn.Flatten(), nn.Linear(128, 10),
        )  # fmt: skip
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(80):
        some = torch.from_numpy(np.random.default_rng(step).integers(0, 240, 48))
        optimiser.zero_grad()
        functional.cross_entropy(model(x[some]), y[some]).backward()
        optimiser.step()
    return distribute(model.eval(), x[:2], ["camera", "gateway", "server"], ["3", "5"]), x, y


def controlled(goals: Goals | None = None, **options: Any) -> Controller:
    """With goals that take a handful of iterations."""
    pipeline, x, y = trained()
    goals = goals or Goals(drop=0.05, bandwidth="6x")
    options.setdefault("healing", QUICK)
    options.setdefault("distilling", DistilRecipe(regress_epochs=1, distil_epochs=1))
    options.setdefault("methods", ("quantisation", "pruning"))
    if "deployed" not in options:
        options.setdefault("links", LINKS)
    options.setdefault("evaluate", evaluation(x[240:320], y[240:320], goals.metric))
    evaluate = options.pop("evaluate")
    return Controller(pipeline, fringe(pipeline), goals, evaluate, x[:96], **options)
