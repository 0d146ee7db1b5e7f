"""What is done to a pipeline, and that as plain values: `Compressor.apply` does it, `rebuilt` does its shapes again.

    {"kind": "form", "connection", "forms"}                             other bits on the wire
    {"kind": "prune", "connection", "keep", "of", "tensor", "axis"}     fewer channels
    {"kind": "pair", "connection", "shape", "hidden"}                   an encoder and a decoder

A pipeline is its operations and the arrays they changed: `kept_arrays` are those, `restored` puts both together again,
byte for byte. Nothing here decides what is good enough.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..errors import FringeError
from .actions import Action, Operation, prunable
from .digest_torch import digest
from .distil_recipe import DistilRecipe
from .distil_torch import distil
from .fringe_torch import Fringe
from .healing_torch import Recipe
from .pair_parts_torch import placed
from .pair_shapes import PairShape, pair_shapes
from .pair_torch import Pair
from .pipeline_torch import Pipeline
from .pruning_pipeline_torch import heal, heal_together, prune, rank
from .wire_forms import WireForm

__all__ = ["Compressor", "fingerprint", "kept_arrays", "rebuilt", "restored"]

Score = Callable[[Pipeline], float]
Arrays = dict[str, dict[str, Any]]


def fingerprint(pipeline: Pipeline) -> str:
    """SHA-256 (hex) over all arrays and over what the wires make of tensors; the version is not in it."""
    wires = json.dumps([wire.config() for wire in pipeline.wires], sort_keys=True)
    return hashlib.sha256(f"{digest(pipeline)}\n{wires}".encode()).hexdigest()


def rebuilt(whole: Pipeline, fringe: Fringe, operations: Sequence[Operation]) -> Pipeline:
    """The shapes and forms that operations lead to; arrays that they changed are not those yet.

    Args:
        whole: before any compression.
        fringe: the layers that may change.
        operations: in order, as `Compressor.apply` gives them.

    Raises:
        FringeError: an operation that is none, or does not go with this pipeline.
    """
    pipeline = whole
    for operation in operations:
        try:
            kind, connection = operation["kind"], int(operation["connection"])
            if kind == "form":
                pipeline = pipeline.formed({connection: [WireForm.from_config(one) for one in operation["forms"]]})
            elif kind == "prune":
                keep = [int(channel) for channel in operation["keep"]]
                # The map counts by its shape only: its numbers come with the arrays.
                empty = np.zeros((int(operation["of"]), len(keep)))
                at = {"tensor": int(operation["tensor"]), "axis": int(operation["axis"])}
                pipeline = prune(pipeline, connection, keep, empty, fringe=fringe, **at)
            elif kind == "pair":
                pair = Pair(PairShape.from_config(operation["shape"]), hidden=operation["hidden"]).eval()
                pipeline = placed(pipeline, {connection: pair})
            else:
                raise FringeError(f"operation of kind {kind!r}: expected form, prune or pair")
        except (KeyError, TypeError) as error:
            raise FringeError(f"operation {operation!r:.120}: {error}; expected what a compressor gives") from error
    return pipeline


def kept_arrays(pipeline: Pipeline, frozen: Sequence[str]) -> Arrays:
    """Copies of all arrays but the frozen ones, by machine."""
    still = set(frozen)
    return {
        part.machine: {name: array for name, array in part.arrays().items() if name not in still}
        for part in pipeline.parts
    }


def restored(
    whole: Pipeline,
    fringe: Fringe,
    operations: Sequence[Operation],
    arrays: Mapping[str, Mapping[str, Any]],
    version: int,
) -> Pipeline:
    """Inverse of operations and `kept_arrays`.

    Raises:
        FringeError, ModelMismatch: what does not go with this pipeline.
    """
    shaped = rebuilt(whole, fringe, operations)
    state = shaped.state()
    unknown = [machine for machine in arrays if machine not in state["parts"]]
    if unknown:
        raise FringeError(f"arrays of machine {unknown[0]!r}; expected {', '.join(shaped.machines)}")
    parts = {machine: {**held, **arrays.get(machine, {})} for machine, held in state["parts"].items()}
    return shaped.with_state({**state, "parts": parts, "version": version})


@dataclass(frozen=True, eq=False)
class Compressor:
    """Does actions, and heals.

    Attributes:
        whole: the pipeline before any compression, which healing and distillation learn from.
        fringe: the layers that may change, found on it.
        samples: inputs [samples, ...] to learn from, without labels: live ones will do.
        labels: of the same, for distillation; None learns from the whole pipeline alone.
        healing: recipe after pruning, and after fewer bits where they cost too much; None: five epochs.
        distilling: recipe of pairs; None: its own.
    """

    whole: Pipeline
    fringe: Fringe
    samples: torch.Tensor
    labels: torch.Tensor | None = None
    healing: Recipe | None = None
    distilling: DistilRecipe | None = None

    def apply(
        self, pipeline: Pipeline, operations: Sequence[Operation], action: Action
    ) -> tuple[Pipeline, tuple[Operation, ...]]:
        """Another pipeline with the action done, not healed yet; the one given stays as it is.

        Raises:
            FringeError: an action that this connection does not allow.
        """
        if action.method == "quantisation":
            return self._quantised(pipeline, operations, action)
        if action.method == "pruning":
            return self._pruned(pipeline, operations, action)
        if action.method == "distillation":
            return self._distilled(pipeline, operations, action)
        raise FringeError(f"method {action.method!r}: expected quantisation, pruning or distillation")

    def heal(self, pipeline: Pipeline, connection: int, score: Score) -> tuple[Pipeline, bool]:
        """With fringe layers that make up for what is lost, if that raises the score; and whether it did."""
        healed, found = heal(
            self.whole,
            pipeline,
            connection,
            self.samples,
            self.fringe,
            recipe=self.healing or Recipe(epochs=5),
            score=score,
        )
        return healed, found.healed

    def heal_together(self, pipeline: Pipeline, score: Score) -> tuple[Pipeline, bool]:
        """With fringe layers of all machines that make up for it, by the recipe's `together`, if that raises the score.

        Without such a recipe nothing is done.
        """
        recipe = None if self.healing is None else self.healing.together
        if recipe is None:
            return pipeline, False
        healed, found = heal_together(self.whole, pipeline, self.samples, self.fringe, recipe=recipe, score=score)
        return healed, found.healed

    def _quantised(
        self, pipeline: Pipeline, operations: Sequence[Operation], action: Action
    ) -> tuple[Pipeline, tuple[Operation, ...]]:
        wire = pipeline.wires[action.connection]
        forms = [
            replace(form, bits=min(form.bits, action.amount)) if spec.dtype == "float32" else form
            for spec, form in zip(wire.specs, wire.forms, strict=True)
        ]
        told = {"kind": "form", "connection": action.connection, "forms": [form.config() for form in forms]}
        # One form per connection is enough to tell: what an earlier operation said is said again by this one. But a
        # pair or a pruning in between has a form of its own, so only a form right before it is dropped.
        before = list(operations)
        if before and before[-1]["kind"] == "form" and before[-1]["connection"] == action.connection:
            before.pop()
        return pipeline.formed({action.connection: forms}), (*before, told)

    def _pruned(
        self, pipeline: Pipeline, operations: Sequence[Operation], action: Action
    ) -> tuple[Pipeline, tuple[Operation, ...]]:
        number = action.connection
        tensor, axis = prunable(pipeline.wires[number])
        found = rank(pipeline, number, self.samples, self.fringe, tensor=tensor, axis=axis)
        keep = found.keep(action.amount)
        pruned = prune(pipeline, number, keep, found.map(keep), fringe=self.fringe, tensor=tensor, axis=axis)
        told = {"kind": "prune", "connection": number, "keep": list(keep), "of": len(found.removed)}
        return pruned, (*operations, {**told, "tensor": tensor, "axis": axis})

    def _distilled(
        self, pipeline: Pipeline, operations: Sequence[Operation], action: Action
    ) -> tuple[Pipeline, tuple[Operation, ...]]:
        number = action.connection
        earlier = self._unpaired(operations, number)
        if len(earlier) < len(operations):  # a smaller pair takes the place of the one that is there
            pipeline = self._as(pipeline, earlier)
        tensors = tuple(spec.shape for spec in pipeline.wires[number].specs)
        shape = pair_shapes(tensors, action.amount)[0]
        found = distil(
            pipeline, {number: shape}, self.samples, self.labels, teacher=self.whole, recipe=self.distilling
        )  # fmt: skip
        told = {"kind": "pair", "connection": number, "shape": shape.config(), "hidden": found.pairs[number].hidden}
        return found.pipeline, (*earlier, told)

    @staticmethod
    def _unpaired(operations: Sequence[Operation], number: int) -> tuple[Operation, ...]:
        """Without the pair of a connection, and without what was done to its code."""
        at = [place for place, one in enumerate(operations) if one["kind"] == "pair" and one["connection"] == number]
        if not at:
            return tuple(operations)
        return tuple(one for place, one in enumerate(operations) if place < at[-1] or one["connection"] != number)

    def _as(self, pipeline: Pipeline, operations: Sequence[Operation]) -> Pipeline:
        """These operations with the arrays of a pipeline, as far as both have them."""
        shaped = rebuilt(self.whole, self.fringe, operations)
        state = shaped.state()
        now = {part.machine: part.arrays() for part in pipeline.parts}
        parts = {machine: {name: now[machine][name] for name in held} for machine, held in state["parts"].items()}
        return shaped.with_state({**state, "parts": parts})
