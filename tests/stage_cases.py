"""Stages in this process, and small pipelines that are told apart by what they give."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn

from flower_edge.fringe import Pipeline, distribute
from flower_edge.runtime.fringe.deployment_torch import Deployment
from flower_edge.runtime.fringe.stage import StageServer
from flower_edge.transport import GrpcTransport, Insecure

MACHINES = ("camera", "gateway", "cloud")
TRANSPORT = GrpcTransport(Insecure())


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).eval()


@cache
def pipeline(seed: int = 0) -> Pipeline:
    """Three machines; another seed, another output. Cut once: tracing disturbs stages of the same process."""
    return distribute(small(seed), torch.zeros(2, 6), MACHINES, ["1", "3"])


def samples(number: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(number, 6, generator=torch.Generator().manual_seed(seed))


def wait_until(true: Callable[[], object], most_s: float = 60.0) -> None:
    """Returns as soon as it is so; how soon that is depends on what else the machine does."""
    until_s = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < until_s, f"not so after {most_s:g} s"
        time.sleep(0.01)


@contextmanager
def served(machines: tuple[str, ...] = MACHINES, **options: Any) -> Iterator[tuple[Deployment, dict[str, StageServer]]]:
    """Stages that hold nothing yet, and their controller."""
    with ExitStack() as stack:
        stages = {machine: stack.enter_context(StageServer(machine, TRANSPORT, **options)) for machine in machines}
        addresses = {machine: f"127.0.0.1:{stage.port}" for machine, stage in stages.items()}
        yield stack.enter_context(Deployment(addresses, TRANSPORT)), stages
