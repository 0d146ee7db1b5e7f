"""From a message that says a version to what a stage runs: build the part, try it, count what it gives.

A version is only held once its part has computed what its wires expect; a mistake is found before a request is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from ...errors import EdgeError, FringeError
from ...fringe.pipeline_torch import Part, Pipeline
from ...fringe.wire import Wire
from ...splitting.order import ArchitectureSpec
from .blueprint_torch import Blueprint, Pause, blueprint_of, built, no_pause
from .messages import input_wire

__all__ = ["Loaded", "load", "load_orders", "request_wire", "use_threads"]

Loaded = tuple[Part, Wire, Wire | None, str]


def use_threads(count: int) -> None:
    """Let torch compute with so many threads in this process."""
    torch.set_num_threads(count)


def request_wire(pipeline: Pipeline) -> Wire:
    """Frames of requests to its entry."""
    example = pipeline.example
    return input_wire(tuple(example.shape[1:]), str(example.dtype).removeprefix("torch."))


def load_orders(
    pipeline: Pipeline, version: int, addresses: Mapping[str, str], architecture: ArchitectureSpec | None
) -> dict[str, tuple[dict[str, Any], str]]:
    """By machine, what it is told to load, and the digest that it has to answer.

    Args:
        pipeline: of the version.
        version: its number at the deployment.
        addresses: by machine, where the one before dials it.
        architecture: see `blueprint_of`.

    Raises:
        FringeError: a part that no other process could build.
    """
    takes = [request_wire(pipeline), *pipeline.wires]
    gives = [*pipeline.wires, None]
    found: dict[str, tuple[dict[str, Any], str]] = {}
    for at, part in enumerate(pipeline.parts):
        blueprint = blueprint_of(part, architecture)
        onward = gives[at]
        behind = pipeline.machines[at + 1] if onward is not None else ""
        order = {
            "ask": "load",
            "version": version,
            "machine": part.machine,
            "part": blueprint.tree(),
            "takes": takes[at].config(),
            "gives": None if onward is None else onward.config(),
            "next": {"machine": behind, "address": addresses[behind], "behind": len(pipeline.parts) - at - 2}
            if behind
            else None,
        }
        found[part.machine] = (order, _digest(blueprint, takes[at], onward))
    return found


def load(
    order: Mapping[str, Any],
    machine: str,
    models: Mapping[str, Callable[..., Any]] | None,
    pause: Pause = no_pause,
) -> Loaded:
    """The part, its wires and its digest as built here, tried on zeros.

    Args:
        order: see `load_orders`.
        machine: this one.
        models: factories by name, see `StageServer`.
        pause: called between the steps of it.

    Raises:
        FringeError: a part that cannot be built, or that does not go with its wires.
        SplitError: an architecture that cannot be built here.
    """
    blueprint = Blueprint.from_tree(order.get("part"))
    part = built(blueprint, machine, models, pause)
    takes = Wire.from_config(_config(order.get("takes")))
    gives = None if order.get("gives") is None else Wire.from_config(_config(order["gives"]))
    try:
        # Of one sample, too: what torch prepares for it is not prepared while somebody waits.
        for samples in (2, 1):
            out = part.step(tuple(np.zeros((samples, *spec.shape), spec.dtype) for spec in takes.specs))
            if {len(one) for one in out} != {samples}:
                raise FringeError(
                    f"the part of {machine!r} gives {len(out[0])} samples for {samples}; it keeps a batch"
                )
            pause()
            if gives is not None:
                gives.encode(out)
                pause()
    except EdgeError:
        raise
    except Exception as error:  # a part's own steps
        raise FringeError(f"the part of {machine!r} fails on what its wire carries: {str(error)[:200]}") from error
    architecture = blueprint.config["architecture"]
    told = None if architecture is None else ArchitectureSpec.model_validate(_tuples(architecture))
    return part, takes, gives, _digest(blueprint_of(part, told, pause), takes, gives, pause)


def _digest(blueprint: Blueprint, takes: Wire, gives: Wire | None, pause: Pause = no_pause) -> str:
    """Of a part and its wires, SHA-256 in hex."""
    wires = json.dumps([takes.config(), None if gives is None else gives.config()], sort_keys=True)
    return hashlib.sha256(f"{blueprint.digested(pause)}\n{wires}".encode()).hexdigest()


def _config(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise FringeError(f"a wire of {value!r:.60}; expected what Wire.config gives")
    return value


def _tuples(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(one) if isinstance(one, list) else one for key, one in spec.items()}
