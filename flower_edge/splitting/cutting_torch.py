"""`CutModel`: a model as a row of units, with the places between them where it can be cut.

Traced with torch.fx, or taken as the blocks a caller names; see `boundaries_torch` for what makes a place a cut. The
model itself is neither copied nor changed: stages share its arrays. Nothing here trains, plans or sends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import torch
from torch import fx, nn

from ..errors import SplitError
from .boundaries_torch import Boundary, boundaries, owned_by
from .profile import CutProfile, ModelProfile
from .recording_torch import Record, left_as_found, record, same, trained
from .stages_torch import Stage
from .tensors_torch import row_major
from .tracing_torch import Traced, one_input, traced

__all__ = ["CutModel"]

#: What state moves as from machine to machine: what NumPy has, too.
_TRAVEL: Final = frozenset(
    {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.float32, torch.float64}
)


@dataclass(frozen=True, eq=False)
class CutModel:
    """A model that can be cut; make one with `of`.

    Attributes:
        model: as it was given; move it to its device and its dtype before.
        units: names, in the order they run: of the module or the operation that ends each.
        cuts: what passes at positions 0 .. len(units).
        example: a batch to profile with.
        digest: SHA-256, hex, over units, cuts, and names, shapes and dtypes of arrays. Equal wherever the same code
            builds the model, whatever the arrays hold.
    """

    model: nn.Module
    units: tuple[str, ...]
    cuts: tuple[CutProfile, ...]
    example: torch.Tensor
    digest: str
    _traced: Traced
    _boundaries: tuple[Boundary, ...]
    _random: frozenset[int]
    _owner: dict[str, int]
    _stages: dict[tuple[int, int], Stage] = field(default_factory=dict)
    _profile: list[ModelProfile] = field(default_factory=list)

    @classmethod
    def of(
        cls, model: nn.Module, example: torch.Tensor, *, blocks: Sequence[str] = (), max_tensors: int = 3
    ) -> CutModel:
        """Find the units of a model.

        It is run a few times on the example, in training and in evaluation, and left as it was.

        Args:
            model: one tensor in, one tensor out, both with the batch as their first axis.
            example: [batch, ...] with a batch of 2 or more, of the kind the model is trained with.
            blocks: qualified names of submodules in the order they run, each a unit, for a model that cannot be traced.
            max_tensors: how many tensors may pass a cut; a skip connection across it is one more.

        Raises:
            SplitError: the model fails on the example, cannot be traced, is not the chain of its blocks, has several
                inputs or outputs, or keeps state where it cannot be moved.
        """
        name = type(model).__name__
        if example.dim() < 1 or example.shape[0] < 2:
            raise SplitError(f"an example of shape {tuple(example.shape)}; give a batch of 2 samples or more")
        if max_tensors < 1:
            raise SplitError(f"max_tensors = {max_tensors}; use 1 or more")
        if isinstance(model, torch.jit.ScriptModule) or hasattr(model, "_orig_mod"):
            raise SplitError(f"{name} is compiled, and its steps cannot be seen; cut the module it was compiled from")
        if any((model._forward_hooks, model._forward_pre_hooks, model._backward_hooks, model._backward_pre_hooks)):
            raise SplitError(f"{name} has hooks of its own, which no part of it would run; cut nn.Sequential(model)")
        example = row_major(example)  # as batches are that came in a frame
        module = one_input(model)
        wanted = {training: _whole(model, example, training) for training in (True, False)}
        with left_as_found(model):
            torch.manual_seed(1)  # so that a random tensor that tracing made a constant of is found out below
            found = traced(module, blocks)
        try:
            runs = {training: record(found, example, training=training) for training in (True, False)}
            larger = record(found, torch.cat([example, example[:1]]), training=True)
        except Exception as error:  # the model's own code
            raise SplitError(f"{name} runs as a whole and fails step by step: {str(error)[:200]}") from error
        for training, run in runs.items():
            if not _alike(run, wanted[training]):
                how = "training" if training else "evaluation"
                raise SplitError(
                    f"{name} in {how} computes something else than "
                    + (f"its blocks {', '.join(blocks)} one after the other" if blocks else "the steps torch.fx traced")
                    + f"; name the submodules that make it up: blocks={[n for n, _ in model.named_children()][:6]}"
                )
        state = _state(model, runs[True].written)
        places = boundaries(found, example, runs[True], larger, max_tensors=max_tensors, state=state.values())
        units = _unit_names(found, places)
        owner = _owners(found, places, state)
        cuts = tuple(
            CutProfile(position, place.shapes, place.differentiable, units[position - 1] if position else "input")
            for position, place in enumerate(places)
        )
        return cls(
            model,
            units,
            cuts,
            example,
            _digest(units, places, cuts, state, owner),
            found,
            places,
            frozenset(_random_units(found, places, runs)),
            owner,
        )

    def stage(self, start: int, stop: int) -> Stage:
        """Units start .. stop-1; sharing parameters and buffers with the model and with all other stages.

        Raises:
            SplitError: no such positions.
        """
        self._check(start, stop)
        if (start, stop) not in self._stages:
            stage = Stage(self._traced, self._boundaries, start, stop, random=self._random, persistent=self._owner)
            stage.training = self.model.training
            self._stages[start, stop] = stage
        return self._stages[start, stop]

    def names(self, start: int, stop: int) -> tuple[str, ...]:
        """Of the arrays of units start .. stop-1, as in the model's state_dict and in its order.

        Each array belongs to one unit; those that nothing uses, to the last.

        Raises:
            SplitError: no such positions.
        """
        self._check(start, stop)
        return tuple(name for name, unit in self._owner.items() if start <= unit < stop)

    @property
    def graphs(self) -> Traced:
        """What the model computes, step by step, for who runs it otherwise than in stages."""
        return self._traced

    @property
    def places(self) -> tuple[Boundary, ...]:
        """Where the cuts are among those steps, by position."""
        return self._boundaries

    def profile(self) -> ModelProfile:
        """Shapes, sizes and FLOPs of all units and cuts, counted once; with times, see `profile_torch.measure`."""
        from .profile_torch import measure

        if not self._profile:
            self._profile.append(measure(self, self.example))
        return self._profile[0]

    def _check(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= len(self.units):
            raise SplitError(f"units {start} to {stop} of a model of {len(self.units)}; use 0 <= start <= stop")


def _whole(model: nn.Module, example: torch.Tensor, training: bool) -> Record:
    """The model's own output, drawn as `record` draws."""
    found = Record()
    with left_as_found(model) as written:
        torch.manual_seed(0)
        model.train(training)
        try:
            output = model(example.clone())
            if isinstance(output, torch.Tensor):
                found.trained = trained(model, output)
        except Exception as error:  # the model's own code
            raise SplitError(
                f"{type(model).__name__} fails on an example of shape {tuple(example.shape)} and {example.dtype}: "
                f"{error}"
            ) from error
        if not isinstance(output, torch.Tensor):
            raise SplitError(
                f"{type(model).__name__} gives a {type(output).__name__}; a model that is cut has one tensor as its "
                "output: wrap it in a module whose forward returns what the loss needs"
            )
        found.output, found.written = output.detach(), written()
    return found


def _alike(one: Record, other: Record) -> bool:
    """The same output, gradients for the same parameters, the same buffers written to."""
    return same(one.output, other.output) and (one.trained, one.written) == (other.trained, other.written)


def _state(model: nn.Module, written: Sequence[str]) -> dict[str, torch.Tensor]:
    """The model's own tensors by their names; state that could not follow its unit is refused."""
    state: dict[str, object] = model.state_dict(keep_vars=True)
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise SplitError(f"state {name!r} is a {type(value).__name__}; keep it in a buffer: register_buffer")
        if value.dtype not in _TRAVEL:
            raise SplitError(f"state {name!r} is {value.dtype}, which no array holds; use torch.float32: model.float()")
    lost = [name for name in written if name not in state]
    if lost:
        raise SplitError(f"buffer {lost[0]!r} changes and is not in the state_dict; register it with persistent=True")
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def _unit_names(found: Traced, places: Sequence[Boundary]) -> tuple[str, ...]:
    names: list[str] = []
    for place in places[1:]:
        step: fx.Node = found.steps()[place.steps - 1]
        owner = str(step.meta.get("owner", ""))
        own = step.target if isinstance(step.target, str) else getattr(step.target, "__name__", "step")
        name = str(own) if step.op == "call_module" else ".".join(filter(None, (owner, str(own))))
        again = sum(other.partition("#")[0] == name for other in names)
        names.append(f"{name}#{again + 1}" if again else name)
    return tuple(names)


def _unit_of(places: Sequence[Boundary]) -> list[int]:
    """By number of a step, its unit."""
    return [unit for unit, (before, after) in enumerate(pairwise(places)) for _ in range(before.steps, after.steps)]


def _owners(found: Traced, places: Sequence[Boundary], state: dict[str, torch.Tensor]) -> dict[str, int]:
    """By name in the state_dict, the unit that uses the array."""
    user: dict[int, int] = {}
    for step, unit in zip(found.steps(), _unit_of(places), strict=True):
        user |= {id(tensor): unit for tensor in owned_by(step, found)}
    return {name: user.get(id(tensor), len(places) - 2) for name, tensor in state.items()}


def _random_units(found: Traced, places: Sequence[Boundary], runs: dict[bool, Record]) -> set[int]:
    """Units a step of which drew random numbers."""
    units = _unit_of(places)
    return {
        units[number]
        for training, run in runs.items()
        for number, step in enumerate(found.steps(training))
        if step in run.random
    }


def _digest(
    units: Sequence[str],
    places: Sequence[Boundary],
    cuts: Sequence[CutProfile],
    state: dict[str, torch.Tensor],
    owner: dict[str, int],
) -> str:
    told = {
        "units": units,
        "cuts": [[cut.shapes, cut.differentiable, place.dtypes] for cut, place in zip(cuts, places, strict=True)],
        "arrays": [[name, list(a.shape), str(a.dtype), owner[name]] for name, a in state.items()],
    }
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
