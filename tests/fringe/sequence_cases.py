"""A transformer encoder and a recurrent model, trained for seconds on the rows of digits, on three machines each."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

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

MACHINES: Final = ("camera", "gateway", "server")
LINKS: Final = (Link(2e5, 0.010), Link(4e5, 0.005))


class Encoder(nn.Module):
    """Eight rows of a digit as eight tokens, two layers of torch's own encoder, and the mean over the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.position = nn.Parameter(0.1 * torch.randn(8, 16))
        self.first = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.second = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.score = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x.squeeze(1)) + self.position
        out: torch.Tensor = self.score(self.second(self.first(x)).mean(1))
        return out


class Recurrent(nn.Module):
    """Rows through a linear layer, a GRU and an LSTM, and a score at the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)
        self.first = nn.GRU(16, 16, batch_first=True)
        self.second = nn.LSTM(16, 12, batch_first=True)
        self.score = nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.embed(x.squeeze(1)))
        x, _ = self.first(x)
        x, _ = self.second(x)
        out: torch.Tensor = self.score(x[:, -1])
        return out


#: Where each is cut: units or modules.
CUTS: Final[dict[str, tuple[str, str]]] = {"transformer": ("first", "second"), "recurrent": ("relu", "first")}


@cache
def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels; the first 400 are trained on."""
    train, _ = load_digits()
    return torch.from_numpy(train.x[:600]), torch.from_numpy(train.y[:600]).long()


@cache
def trained(kind: str) -> nn.Module:
    """In evaluation."""
    x, y = data()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Encoder() if kind == "transformer" else Recurrent()
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-2)
    for step in range(70):
        some = torch.from_numpy(np.random.default_rng(step).integers(0, 400, 64))
        optimiser.zero_grad()
        functional.cross_entropy(model(x[some]), y[some]).backward()
        optimiser.step()
    return model.eval()


@cache
def pipeline(kind: str) -> Pipeline:
    """On three machines."""
    return distribute(trained(kind), data()[0][:4], MACHINES, CUTS[kind])


def controlled(kind: str, goals: Goals | None = None, **options: Any) -> Controller:
    """All methods, and recipes of a second or so."""
    x, y = data()
    whole, goals = pipeline(kind), goals or Goals(drop=0.1, bandwidth="6x")
    options = {
        "labels": y[:128], "healing": Recipe(epochs=1),
        "distilling": DistilRecipe(regress_epochs=6, distil_epochs=1, regress_lr=2e-2), **options,
    }  # fmt: skip
    score = evaluation(x[400:500], y[400:500], goals.metric)
    return Controller(whole, fringe(whole), goals, score, x[:128], LINKS, **options)
