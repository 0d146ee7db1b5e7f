"""`CompressionTask`: a trained model with the data to compress, judge and report it; `task_named` finds one.

Three sets of samples, of which none is in another: to learn from, to judge versions by, and for the report. Nothing
here compresses.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from ...errors import FringeError
from ...fringe.distil_recipe import DistilRecipe
from ...fringe.fitting_torch import Recipe
from ...splitting.cutting_torch import CutModel
from ...splitting.order import ArchitectureSpec

__all__ = ["TASKS", "CompressionTask", "task_named"]

#: Tasks that come with the library.
TASKS: Final = ("digits",)
#: Fewer samples say nothing of a model.
_LEAST: Final = 10


@dataclass(frozen=True, eq=False)
class CompressionTask:
    """A model and its data. Arrays may be torch's or NumPy's.

    Attributes:
        name: for reports.
        model: trained, one tensor in and one out.
        learn: inputs [samples, ...] that fringe layers learn from; labels are not needed.
        validation: inputs and labels by which versions are judged.
        test: inputs and labels for the report, by which nothing is chosen.
        labels: of `learn`, which distillation uses where there are some.
        blocks: names of submodules, of a model that cannot be traced; see `CutModel.of`.
        max_tensors: that may cross a cut; see there.
        architecture: of such a model, for the stages: they build it from a factory of theirs.
        healing, distilling: how fringes and pairs learn; None: as by default.

    Raises:
        FringeError: too few samples, or not as many labels.
    """

    name: str
    model: nn.Module = field(repr=False)
    learn: torch.Tensor = field(repr=False)
    validation: tuple[torch.Tensor, torch.Tensor] = field(repr=False)
    test: tuple[torch.Tensor, torch.Tensor] = field(repr=False)
    labels: torch.Tensor | None = field(default=None, repr=False)
    blocks: tuple[str, ...] = ()
    max_tensors: int = 3
    architecture: ArchitectureSpec | None = None
    healing: Recipe | None = None
    distilling: DistilRecipe | None = None

    def __post_init__(self) -> None:
        def tensor(values: Any) -> torch.Tensor:
            return values if isinstance(values, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(values))

        if not isinstance(self.model, nn.Module):
            raise FringeError(f"model of task {self.name!r} is a {type(self.model).__name__}; expected a torch module")
        object.__setattr__(self, "learn", tensor(self.learn))
        if self.labels is not None:
            object.__setattr__(self, "labels", tensor(self.labels))
        for name in ("validation", "test"):
            x, y = getattr(self, name)
            object.__setattr__(self, name, (tensor(x), tensor(y)))
        labelled = {"validation": self.validation, "test": self.test}
        labelled |= {} if self.labels is None else {"learn": (self.learn, self.labels)}
        for name, (x, y) in labelled.items():
            if len(x) != len(y):
                raise FringeError(
                    f"{name} of task {self.name!r}: {len(x)} inputs and {len(y)} labels; expected as many"
                )
        for name, samples in self.samples.items():
            if samples < _LEAST:
                raise FringeError(f"{name} of task {self.name!r}: {samples} samples; expected {_LEAST} or more")

    @property
    def samples(self) -> dict[str, int]:
        """How many each part has."""
        return {"learn": len(self.learn), "validation": len(self.validation[0]), "test": len(self.test[0])}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one sample."""
        return tuple(self.learn.shape[1:])

    @cached_property
    def cut(self) -> CutModel:
        """The model as a row of units, traced when it is first asked for.

        Raises:
            SplitError: it cannot be cut.
        """
        return CutModel.of(self.model.eval(), self.learn[:2], blocks=self.blocks, max_tensors=self.max_tensors)

    def told(self) -> dict[str, Any]:
        """Name, parameters, samples by part, shape of an input, and the units after which it can be cut."""
        return {
            "name": self.name,
            "parameters": sum(one.numel() for one in self.model.parameters()),
            "samples": self.samples,
            "input_shape": list(self.input_shape),
            "units": list(self.cut.units[:-1]),
        }


def task_named(source: str, seed: int = 0) -> CompressionTask:
    """One of `TASKS`, or what `module:NAME` gives: a task, or a function that returns one.

    The current folder counts as a place of modules. A function with an argument `seed` is given it.

    Args:
        source: such as "digits" or "my_app.compression:make_task".
        seed: of training and of what is drawn.

    Raises:
        FringeError: there is none of that name, or it is no task.
    """
    if source in TASKS:
        from .digits_task_torch import digits_task

        return digits_task(seed)
    module, colon, name = source.partition(":")
    if not colon or not module or not name:
        raise FringeError(
            f"task {source!r}: expected {' or '.join(map(repr, TASKS))}, or module:NAME of a function that returns a "
            "CompressionTask, as my_app:make_task"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise FringeError(
            f"task {source!r}: {error}; expected module:NAME of a function that returns a CompressionTask"
        ) from error
    if callable(found):
        found = _called(source, found, seed)
    if not isinstance(found, CompressionTask):
        raise FringeError(f"task {source!r} gives a {type(found).__name__}; expected a CompressionTask")
    return found


def _called(source: str, function: Any, seed: int) -> Any:
    from inspect import signature

    try:
        takes = signature(function)
        given = {"seed": seed} if "seed" in takes.parameters else {}
        takes.bind(**given)
    except (TypeError, ValueError) as error:
        raise FringeError(
            f"task {source!r} cannot be called: {error}; expected a function without arguments, or with seed"
        ) from error
    return function(**given)
