"""A trained network on stages that are processes behind shaped links, its controller, and traffic from a client."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from contextlib import ExitStack
from functools import cache
from typing import Any, Self

import numpy as np
import torch
from stage_processes import SECRET, StageProcesses
from torch.nn import functional

from flower_edge.data.digits import load_digits
from flower_edge.fringe import Controller, Goals, Link, Pipeline, Recipe, distribute, evaluation, fringe
from flower_edge.models import make_model
from flower_edge.runtime.fringe.channels import Served
from flower_edge.runtime.fringe.deployment_torch import Deployment
from flower_edge.runtime.fringe.shaper import LinkShaper

MACHINES = ("camera", "gateway", "cloud")
LINKS = {"gateway": Link(1e6, 0.010), "cloud": Link(2e6, 0.005)}


@cache
def trained() -> tuple[Pipeline, torch.Tensor, torch.Tensor]:
    """Pipeline, inputs and labels; the first 600 were trained on. Frames of 2 kB and 1 kB."""
    train, _ = load_digits()
    x, y = torch.from_numpy(train.x[:1000]), torch.from_numpy(train.y[:1000]).long()
    with torch.random.fork_rng():
        model = make_model("resnet", input_shape=(1, 8, 8), num_classes=10, seed=0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(120):
        some = torch.from_numpy(np.random.default_rng(step).integers(0, 600, 64))
        optimiser.zero_grad()
        functional.cross_entropy(model(x[some]), y[some]).backward()
        optimiser.step()
    return distribute(model.eval(), x[:2], MACHINES, ["block1", "block2"]), x, y


def controlled(goals: Goals, deployed: Any, **options: Any) -> Controller:
    pipeline, x, y = trained()
    options = {"methods": ("quantisation", "pruning"), "healing": Recipe(epochs=1)} | options
    scored = options.pop("evaluate", None) or evaluation(x[800:1000], y[800:1000], goals.metric)
    return Controller(
        pipeline, fringe(pipeline), goals, scored, x[:100], list(LINKS.values()), deployed=deployed, **options
    )


class Shaped:
    """Processes behind links that can be changed."""

    def __init__(self, processes: StageProcesses) -> None:
        self.processes = processes
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.shapers = {
            name: self._stack.enter_context(LinkShaper(self.processes.addresses[name], link))
            for name, link in LINKS.items()
        }
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def deployment(self, **options: Any) -> Deployment:
        via = {name: shaper.address for name, shaper in self.shapers.items()}
        return Deployment(self.processes.addresses, self.processes.transport, secret=SECRET, via=via, **options)

    def relink(self, name: str, link: Link) -> None:
        self.shapers[name].change(link, back=Link(1e9, link.delay_s))


class Traffic:
    """Open: requests at random times, by a client that only attaches and so outlives any controller."""

    def __init__(self, deployment: Deployment, rate_per_s: float = 12.0) -> None:
        self._deployment, self._rate_per_s = deployment, rate_per_s
        self._stop = threading.Event()
        self.asked: list[tuple[int, Future[Served]]] = []
        self._thread = threading.Thread(target=self._run, name="traffic")

    def _run(self) -> None:
        random, x = np.random.default_rng(0), trained()[1].numpy()
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            due_s += random.exponential(1 / self._rate_per_s)
            number = int(random.integers(800, 1000))
            self.asked.append((number, self._deployment.ask(x[number : number + 1])))

    def __enter__(self) -> Self:
        assert self._deployment.attach() is not None
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join(60)
        if error[0] is not None:
            self._deployment.close()

    def answers(self) -> list[tuple[int, Served]]:
        """Of all that were asked; an error of any is raised."""
        return [(number, future.result(60)) for number, future in self.asked]
