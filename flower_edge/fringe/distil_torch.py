"""`distil`: bytes first, accuracy after. New encoder/decoder pairs at connections of a pipeline; nothing else moves.

    goal in bytes or seconds -> codes that keep it -> pairs -> regression of the tensors -> distillation end to end

What an inference costs is settled before the first step and does not change: what training can do is win back accuracy.
If it does not win back enough, `distil` says so and gives no pipeline. Nothing here sends.

Source: see `distil_training_torch`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from ..errors import FloorNotReached, FringeError
from .distil_recipe import DistilGoal, DistilRecipe
from .distil_training_torch import DistilData, DistilTraining, Metric
from .pair_parts_torch import check_connection, placed
from .pair_search_torch import tried_shapes
from .pair_shapes import PairShape, pair_shapes
from .pair_torch import Pair
from .pipeline_torch import Pipeline

__all__ = ["DistilResult", "accuracy", "agreement", "distil", "pairs_from"]

Array = npt.NDArray[Any]
Samples = Array | torch.Tensor
_WHOLE: Final = (torch.uint8, torch.int8, torch.int16, torch.int32)


def accuracy(outputs: Array, labels: Array) -> float:
    """Share of the labels that the largest score names.

    >>> accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    0.5
    """
    return float((outputs.argmax(axis=-1) == labels).mean())


def agreement(outputs: Array, reference: Array) -> float:
    """Share of the places where two models' largest scores name the same class.

    >>> agreement(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([[3.0, 4.0], [2.0, 0.0]]))
    1.0
    """
    return float((outputs.argmax(axis=-1) == reference.argmax(axis=-1)).mean())


def negative_error(outputs: Array, reference: Array) -> float:
    """Minus the mean squared difference.

    >>> negative_error(np.array([[1.0], [3.0]]), np.array([0.0, 0.0]))
    -5.0
    """
    return -float(np.square(outputs - reference.reshape(outputs.shape)).mean())


@dataclass(frozen=True, eq=False)
class DistilResult:
    """A pipeline with pairs, and what that did.

    Attributes:
        pipeline: with the pairs in place; its original tensors are those of the pipeline it was made of.
        pairs: by connection.
        score_before, score_after: the metric on validation, which also chose the epoch.
        test_before, test_after: on samples that chose nothing; None without them.
        bytes_before, bytes_after: of one inference by connection, header of the frame included.
        frozen_digest: SHA-256 over every original parameter and buffer, the same before and after each epoch.
        history: a row per epoch: phase, epoch, loss, score.
        seconds_s: that training took in this call.
    """

    pipeline: Pipeline
    pairs: dict[int, Pair]
    score_before: float
    score_after: float
    test_before: float | None
    test_after: float | None
    bytes_before: dict[int, int]
    bytes_after: dict[int, int]
    frozen_digest: str
    history: tuple[dict[str, Any], ...]
    seconds_s: float

    @property
    def bandwidth_reduction(self) -> float:
        """Share of the bytes of the distilled connections that is saved."""
        return 1 - sum(self.bytes_after.values()) / sum(self.bytes_before.values())

    def report(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "score_before": self.score_before,
            "score_after": self.score_after,
            "test_before": self.test_before,
            "test_after": self.test_after,
            "bandwidth_reduction": self.bandwidth_reduction,
            "connections": {
                str(one): {
                    "bytes_before": self.bytes_before[one],
                    "bytes_after": self.bytes_after[one],
                    "code": list(pair.shape.code),
                    "bits": pair.shape.bits,
                    "parameters": sum(value.numel() for value in pair.parameters()),
                }
                for one, pair in self.pairs.items()
            },
            "frozen_digest": self.frozen_digest,
            "seconds_s": self.seconds_s,
        }

    def tree(self) -> dict[str, Any]:
        """The pairs as nested plain values and NumPy arrays; `pairs_from` is its inverse."""
        return {
            str(one): {"shape": pair.shape.config(), "hidden": pair.hidden, "arrays": pair.arrays()}
            for one, pair in self.pairs.items()
        }


def pairs_from(tree: Mapping[str, Any]) -> dict[int, Pair]:
    """The pairs of `DistilResult.tree`, in evaluation, for `placed`.

    Raises:
        FringeError, ModelMismatch: no such tree.
    """
    found = {}
    for one, kept in tree.items():
        if not isinstance(kept, Mapping) or set(kept) != {"shape", "hidden", "arrays"} or not str(one).isdecimal():
            raise FringeError(f"pairs under {one!r}: {kept!r:.80}; expected what DistilResult.tree gives")
        pair = Pair(PairShape.from_config(kept["shape"]), hidden=kept["hidden"])
        pair.set_arrays(kept["arrays"])
        found[int(one)] = pair.eval()
    return found


def distil(
    pipeline: Pipeline,
    goals: Mapping[int, DistilGoal | PairShape | int],
    x: Samples,
    y: Samples | None = None,
    *,
    validation: tuple[Samples, Samples | None] | None = None,
    test: tuple[Samples, Samples | None] | None = None,
    metric: Metric | None = None,
    floor: float | None = None,
    teacher: Pipeline | None = None,
    recipe: DistilRecipe | None = None,
    state: Mapping[str, Any] | None = None,
    on_state: Callable[[dict[str, Any]], None] | None = None,
) -> DistilResult:
    """Put pairs at connections that keep a goal exactly, and train them until the pipeline is about as good as it was.

    Args:
        pipeline: stays as it is, and goes on working.
        goals: by connection, the slowest first: a budget in bytes of one inference, a `DistilGoal`, or a shape itself.
        x: inputs [samples, ...] to train on.
        y: their labels; None learns from the uncompressed pipeline alone.
        validation: (inputs, labels) that the best epoch is chosen by and `floor` is held against; None keeps back the
            fifth of `x` (and `y`) that the seed draws.
        test: (inputs, labels) that nothing is chosen by.
        metric: of outputs and labels, or where there are none of outputs and those of the uncompressed pipeline; larger
            is better. None: the accuracy, the agreement, or minus the mean squared error of a recipe of "numbers".
        floor: the least the metric may be on validation.
        teacher: the pipeline to learn from, where that is not `pipeline` itself.
        recipe: of training.
        state: what `on_state` was last given, to go on from; with the same other arguments.
        on_state: is handed all there is to go on from after each epoch, nested plain values and NumPy arrays.

    Raises:
        FloorNotReached: it names what was reached.
        FringeError: a goal that no code keeps, tensors that no pair takes, or samples that do not belong together.
        FrozenMoved: an original tensor was changed by somebody else meanwhile.
    """
    recipe, begun = recipe or DistilRecipe(), time.perf_counter()
    if not goals:
        raise FringeError("goals = {}: expected a connection or more, such as {0: 552}")
    for number in goals:
        check_connection(pipeline, number)
    device = next((p.device for part in pipeline.parts for p in part.module.parameters()), torch.device("cpu"))
    _same_length("x", x, "y", y)
    inputs, labels, held = _parted(x, y, validation, recipe.seed)
    inputs, labels = _tensor(inputs, device), None if labels is None else _tensor(labels, device)
    if labels is not None and recipe.outputs == "classes" and labels.dtype in _WHOLE:
        labels = labels.long()  # as cross entropy takes them; NumPy's int32 is as good a class
    teacher = teacher or pipeline
    judge = metric or _metric(recipe, held[1] is not None)
    reference, before = _reference(teacher, held, judge, device)
    shapes = {number: _shape(pipeline, number, goal, inputs, recipe) for number, goal in goals.items()}
    learnt = torch.from_numpy(_outputs(teacher, inputs)).to(device)
    data = DistilData(inputs, labels, learnt, _tensor(held[0], device), reference, judge)
    training = DistilTraining(pipeline, shapes, data, recipe, state)
    while not training.finished:
        training.epoch()
        if on_state is not None:
            on_state(training.state())
    after = training.score()
    if floor is not None and not after >= floor:
        raise FloorNotReached(
            f"{after:.4g} on validation at {_said(shapes)}, where {before:.4g} was before; expected {floor:.4g} or "
            "more: allow more bytes, a lower floor, or a recipe of more epochs"
        )
    new = placed(pipeline, training.pairs)
    tested: tuple[float | None, float | None] = (None, None)
    if test is not None:
        wanted, was = _reference(teacher, test, judge, device)
        tested = (was, float(judge(_outputs(new, _tensor(test[0], device)), wanted)))
    return DistilResult(
        new,
        training.pairs,
        before,
        after,
        *tested,
        {number: teacher.wires[number].size_bytes() for number in shapes},
        {number: new.wires[number].size_bytes() for number in shapes},
        training.proof.check(pipeline),
        tuple(training.history),
        time.perf_counter() - begun,
    )


def _shape(
    pipeline: Pipeline, number: int, goal: DistilGoal | PairShape | int, x: torch.Tensor, recipe: DistilRecipe
) -> PairShape:
    tensors = tuple(spec.shape for spec in pipeline.wires[number].specs)
    if isinstance(goal, PairShape):
        if goal.tensors != tensors:
            raise FringeError(f"a code for tensors {goal.tensors} at connection {number}, where {tensors} cross")
        return goal
    if not isinstance(goal, DistilGoal | int | np.integer) or isinstance(goal, bool):
        raise FringeError(f"a goal of {goal!r:.60} at connection {number}; expected bytes, a DistilGoal or a PairShape")
    budget = goal.budget_bytes if isinstance(goal, DistilGoal) else int(goal)
    fitting = pair_shapes(tensors, budget)[: recipe.search]
    if len(fitting) == 1:
        return fitting[0]
    return tried_shapes(pipeline.crossing(x[:512])[number], fitting, seed=recipe.seed)[0].shape


def _parted(
    x: Samples, y: Samples | None, validation: tuple[Samples, Samples | None] | None, seed: int
) -> tuple[Samples, Samples | None, tuple[Samples, Samples | None]]:
    if validation is not None:
        return x, y, validation
    if len(x) < 10:
        raise FringeError(f"{len(x)} samples to train on and to keep a fifth of; expected 10 or more, or validation=")
    order = np.random.default_rng([seed, 1 << 21]).permutation(len(x))
    kept, rest = np.sort(order[: len(x) // 5]), np.sort(order[len(x) // 5 :])
    return x[rest], None if y is None else y[rest], (x[kept], None if y is None else y[kept])


def _reference(
    teacher: Pipeline, samples: tuple[Samples, Samples | None], metric: Metric, device: torch.device
) -> tuple[Array, float]:
    """What outputs are compared with, and the uncompressed pipeline's own score."""
    x, y = _tensor(samples[0], device), samples[1]
    _same_length("inputs", x, "labels", y)
    outputs = _outputs(teacher, x)
    reference = outputs if y is None else _tensor(y, torch.device("cpu")).numpy()
    return reference, float(metric(outputs, reference))


def _outputs(pipeline: Pipeline, x: torch.Tensor) -> Array:
    return np.concatenate([pipeline.run(x[at : at + 256]).cpu().numpy() for at in range(0, len(x), 256)])


def _metric(recipe: DistilRecipe, labelled: bool) -> Metric:
    if recipe.outputs == "numbers":
        return negative_error
    return accuracy if labelled else agreement


def _tensor(samples: Samples, device: torch.device) -> torch.Tensor:
    found = samples if isinstance(samples, torch.Tensor) else torch.from_numpy(np.ascontiguousarray(samples))
    return found.to(device)


def _same_length(first: str, one: Samples, second: str, other: Samples | None) -> None:
    if len(one) < 2 or (other is not None and len(other) != len(one)):
        lengths = f"{len(one)} {first}" + ("" if other is None else f" and {len(other)} {second}")
        raise FringeError(f"{lengths}; expected 2 samples or more, and as many of both")


def _said(shapes: Mapping[int, PairShape]) -> str:
    return ", ".join(f"{shape.size_bytes} bytes over connection {number}" for number, shape in shapes.items())
