"""`DistilTraining`: pairs at connections, one epoch after the other; its state is a tree from which it goes on exactly.

Only the pairs have gradients. The parts stay in evaluation, BatchNorm's statistics included; the BatchNorm of the
pairs is live. After each epoch the digest of the parts is compared with that of the beginning.

    regress   encoder and decoder to the tensors that cross in the uncompressed pipeline, by squared error
    distil    the outputs to those of the uncompressed pipeline, beside the labels where there are some

Random draws follow from seed, phase and epoch alone, so nothing but arrays has to be remembered.

Source: the two stages as in Matsubara et al., "SC2 benchmark", TMLR 2023. Departure: there the whole tail is trained in
the second, here nothing but the pair.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from logging import getLogger
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from ..errors import FringeError
from ..splitting.optimiser_torch import load_optimiser_arrays, make_optimiser, optimiser_arrays
from ..splitting.order import OptimiserSpec
from .digest_torch import FrozenProof
from .distil_losses_torch import distillation_loss, regression_loss
from .distil_recipe import DistilRecipe, Phase, phases
from .pair_shapes import PairShape
from .pair_torch import Pair
from .parts_torch import evaluating
from .pipeline_torch import Pipeline
from .wire_forms import PLAIN
from .wire_torch import carried

__all__ = ["DistilData", "DistilTraining", "frozen"]

log = getLogger(__name__)

Array = npt.NDArray[Any]
Tensors = tuple[torch.Tensor, ...]
#: Larger is better; of outputs and of what they should be, both with the batch first.
Metric = Callable[[Array, Array], float]
_FORM: Final = "distil/1"
#: Samples that are evaluated at once.
_EVALUATED: Final = 256


@dataclass(frozen=True, eq=False)
class DistilData:
    """What pairs learn from, and what they are judged by.

    Attributes:
        x: [samples, ...], inputs of the pipeline; y: labels or None.
        teacher: outputs of the uncompressed pipeline for x.
        validation: inputs of other samples; reference: what their outputs are compared with.
        metric: of outputs and reference.
    """

    x: torch.Tensor
    y: torch.Tensor | None
    teacher: torch.Tensor
    validation: torch.Tensor
    reference: Array
    metric: Metric


class DistilTraining:
    """Pairs on their way. `epoch` makes one more epoch, until `finished`.

    Args:
        pipeline: stays as it is.
        shapes: of the codes by connection, in the order of training.
        data: see there.
        recipe: see there.
        state: from `state` of one with the same arguments, to go on from.

    Raises:
        FringeError: state of another training; inputs that are no pictures, and are to be moved.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        shapes: Mapping[int, PairShape],
        data: DistilData,
        recipe: DistilRecipe,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        if recipe.shift and data.x.dim() != 4:
            raise FringeError(
                f"inputs of shape {list(data.x.shape)} to be moved by {recipe.shift} pixels; give pictures [samples, "
                "channels, height, width], or shift=0"
            )
        self.pipeline, self.data, self.recipe = pipeline, data, recipe
        self.phases = tuple(phase for phase in phases(tuple(shapes), recipe) if phase.epochs or phase.kind == "distil")
        self.pairs = {one: Pair(shape, seed=_drawn(recipe.seed, one)) for one, shape in shapes.items()}
        for pair in self.pairs.values():
            pair.to(data.x.device).eval()
        self.proof = FrozenProof.of(pipeline, tuple(pipeline.named_tensors()))
        self.history: list[dict[str, Any]] = []
        self._about = {
            "form": _FORM,
            "recipe": recipe.config(),
            "shapes": {str(one): shape.config() for one, shape in shapes.items()},
            "data": _sum_of(data.x, data.y, data.validation),
            "model": self.proof.digest,
        }
        self._phase, self._epoch = 0, 0
        self._best: tuple[float, dict[str, Any]] | None = None
        self._optimiser: torch.optim.Optimizer | None = None
        self._activations: tuple[Tensors, Tensors] | None = None
        if state is not None:
            self._resume(state)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self._phase == len(self.phases)

    def epoch(self) -> None:
        """One epoch more; at the end of a phase the best of its pairs, by validation, are taken up.

        Raises:
            FringeError: the loss is not finite any more.
            FrozenMoved: a tensor of the pipeline is another than at the beginning.
        """
        phase = self.phases[self._phase]
        with frozen(self.pipeline), evaluating(*(part.module for part in self.pipeline.parts)):
            if self._epoch == 0:
                self._begin(phase)
            if phase.epochs:
                loss = self._regressed(phase) if phase.kind == "regress" else self._distilled(phase)
                self._epoch += 1
                self._noted(phase, loss)
        self.proof.check(self.pipeline)
        if self._epoch == phase.epochs:
            for pair in self.pairs.values():
                pair.zero_grad()
            if self._best is not None:
                self._set_arrays(self._best[1])
            self._phase, self._epoch = self._phase + 1, 0
            self._best = self._optimiser = self._activations = None

    def score(self, active: tuple[int, ...] | None = None) -> float:
        """The metric on validation with these pairs in place; None means all."""
        outputs = self.outputs(self.data.validation, tuple(self.pairs) if active is None else active)
        return float(self.data.metric(outputs, self.data.reference))

    def outputs(self, x: torch.Tensor, active: tuple[int, ...]) -> Array:
        """Outputs of the pipeline with some pairs in place, in evaluation."""
        found = []
        with torch.no_grad(), evaluating(*(part.module for part in self.pipeline.parts), *self.pairs.values()):
            for at in range(0, len(x), _EVALUATED):
                found.append(self._onwards(self._before(x[at : at + _EVALUATED], 0, ()), 0, active).cpu().numpy())
        return np.concatenate(found)

    def state(self) -> dict[str, Any]:
        """Everything to go on from, as nested plain values and NumPy arrays."""
        return {
            **self._about,
            "phase": self._phase,
            "epoch": self._epoch,
            "pairs": self._arrays(),
            "best": None if self._best is None else {"score": self._best[0], "pairs": self._best[1]},
            "optimiser": {} if self._optimiser is None else optimiser_arrays(self._optimiser, self._parameters()),
            "history": [dict(row) for row in self.history],
        }

    # -- phases ------------------------------------------------------------------------------------------------------

    def _begin(self, phase: Phase) -> None:
        if phase.kind == "regress":
            _, targets = self._crossing(phase)
            self.pairs[phase.trained[0]].fit(targets)
        elif self.recipe.regress_epochs == 0:
            for one in phase.trained:
                self.pairs[one].fit(self._before(self.data.x[: self.recipe.regress_samples], one, ()))
        self._optimiser = self._made(phase)
        if phase.kind == "distil":
            score = self.score(phase.active)
            self._best = (score, self._arrays())
            self.history.append({"phase": phase.name, "epoch": 0, "loss": None, "score": score})

    def _regressed(self, phase: Phase) -> float:
        (one,) = phase.trained
        pair = self.pairs[one]
        inputs, targets = self._crossing(phase)
        variance = sum(float(target.var(dim=0, correction=0).sum()) for target in targets)

        def loss(chosen: torch.Tensor) -> torch.Tensor:
            got = pair(*(tensor[chosen] for tensor in inputs))
            return regression_loss(got, [tensor[chosen] for tensor in targets], variance)

        return self._stepped(phase, len(targets[0]), self.recipe.regress_lr, loss)

    def _distilled(self, phase: Phase) -> float:
        data, entry, shift = self.data, min(phase.trained), self.recipe.shift
        moves = np.random.default_rng([self.recipe.seed, self._phase, self._epoch, 1])

        def loss(chosen: torch.Tensor) -> torch.Tensor:
            x, teacher = data.x[chosen], data.teacher[chosen]
            with torch.no_grad():
                if shift:
                    x = torch.roll(x, moves.integers(-shift, shift + 1, 2).tolist(), (2, 3))
                    teacher = self._onwards(self._before(x, 0, ()), 0, ())
                tensors = self._before(x, entry, phase.active)
            outputs = self._onwards(tensors, entry, phase.active)
            labels = None if data.y is None else data.y[chosen]
            return distillation_loss(self.recipe, outputs, teacher, labels)

        return self._stepped(phase, len(data.x), self.recipe.distil_lr, loss)

    def _stepped(self, phase: Phase, samples: int, lr: float, loss_of: Callable[[torch.Tensor], torch.Tensor]) -> float:
        """One epoch of Adam; the mean loss."""
        optimiser = self._optimiser or self._made(phase)
        rng = np.random.default_rng([self.recipe.seed, self._phase, self._epoch])
        batches = _batches(rng.permutation(samples), self.recipe.batch)
        total, done, losses = phase.epochs * len(batches), self._epoch * len(batches), 0.0
        for one in phase.trained:
            self.pairs[one].train()
        for number, batch in enumerate(batches):
            for group in optimiser.param_groups:
                group["lr"] = lr * 0.5 * (1 + math.cos(math.pi * (done + number) / total))
            optimiser.zero_grad()
            with torch.enable_grad():  # whoever evaluates without gradients may train there, too
                loss = loss_of(torch.from_numpy(batch).to(self.data.x.device))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise FringeError(f"{phase.name}, step {number}: loss = {value}; lower {phase.kind}_lr, which is {lr}")
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            losses += value * len(batch) / samples
        for one in phase.trained:
            self.pairs[one].eval()
        return losses

    def _noted(self, phase: Phase, loss: float) -> None:
        score = None
        if phase.kind == "distil":
            score = self.score(phase.active)
            # Of equals the later: its loss is lower, and a validation set counts in whole samples.
            if self._best is None or score >= self._best[0]:
                self._best = (score, self._arrays())
        self.history.append({"phase": phase.name, "epoch": self._epoch, "loss": loss, "score": score})
        log.info("%s, epoch %d of %d: loss %.4g, score %s", phase.name, self._epoch, phase.epochs, loss, score)

    # -- tensors -----------------------------------------------------------------------------------------------------

    def _before(self, x: torch.Tensor, connection: int, active: tuple[int, ...]) -> Tensors:
        """What the producer of a connection makes, with pairs in place before it."""
        tensors: Tensors = (x,)
        for number in range(connection + 1):
            tensors = self.pipeline.parts[number].module(*tensors)
            if number < connection:
                tensors = self._through(tensors, number, active)
        return tensors

    def _onwards(self, tensors: Tensors, connection: int, active: tuple[int, ...]) -> torch.Tensor:
        """Output of the pipeline from what the producer of a connection makes."""
        parts = self.pipeline.parts
        for number in range(connection, len(parts) - 1):
            tensors = parts[number + 1].module(*self._through(tensors, number, active))
        return tensors[0]

    def _through(self, tensors: Tensors, number: int, active: tuple[int, ...]) -> Tensors:
        if number in active:
            through: Tensors = self.pairs[number](*tensors)
            return through
        wire = self.pipeline.wires[number]
        return tensors if all(form == PLAIN for form in wire.forms) else carried(wire, tensors)

    def _crossing(self, phase: Phase) -> tuple[Tensors, Tensors]:
        """Activations at the connection that is regressed: as they come in, and as they should come out."""
        if self._activations is None:
            (one,) = phase.trained
            earlier = tuple(number for number in phase.active if number < one)
            rng = np.random.default_rng([self.recipe.seed, 1 << 20])
            chosen = np.sort(rng.permutation(len(self.data.x))[: self.recipe.regress_samples])
            x = self.data.x[torch.from_numpy(chosen).to(self.data.x.device)]
            with torch.no_grad(), evaluating(*self.pairs.values()):
                targets = self._all_before(x, one, ())
                inputs = self._all_before(x, one, earlier) if earlier else targets
            self._activations = inputs, targets
        return self._activations

    def _all_before(self, x: torch.Tensor, connection: int, active: tuple[int, ...]) -> Tensors:
        found = [self._before(x[at : at + _EVALUATED], connection, active) for at in range(0, len(x), _EVALUATED)]
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    # -- state -------------------------------------------------------------------------------------------------------

    def _parameters(self) -> dict[str, torch.Tensor]:
        trained = self.phases[self._phase].trained
        return {f"{one}.{name}": value for one in trained for name, value in self.pairs[one].named_parameters()}

    def _made(self, phase: Phase) -> torch.optim.Optimizer:
        lr = self.recipe.regress_lr if phase.kind == "regress" else self.recipe.distil_lr
        self._optimiser = make_optimiser(OptimiserSpec(name="adam", lr=lr), self._parameters())
        return self._optimiser

    def _arrays(self) -> dict[str, Any]:
        return {str(one): pair.arrays() for one, pair in self.pairs.items()}

    def _set_arrays(self, arrays: Mapping[str, Any]) -> None:
        for one, pair in self.pairs.items():
            pair.set_arrays(arrays[str(one)])

    def _resume(self, state: Mapping[str, Any]) -> None:
        other = [key for key, value in self._about.items() if state.get(key) != value]
        if other:
            raise FringeError(
                f"state of a training with another {', '.join(other)}; go on with the pipeline, the goals, the data "
                "and the recipe it was begun with, or begin anew: state=None"
            )
        self._phase, self._epoch = int(state["phase"]), int(state["epoch"])
        self._set_arrays(state["pairs"])
        self.history = [dict(row) for row in state["history"]]
        self._best = None if state["best"] is None else (float(state["best"]["score"]), dict(state["best"]["pairs"]))
        if state["optimiser"]:
            load_optimiser_arrays(self._made(self.phases[self._phase]), self._parameters(), state["optimiser"])


@contextmanager
def frozen(pipeline: Pipeline) -> Iterator[None]:
    """No parameter of the parts gets a gradient; each is back as it was after."""
    before = [(one, one.requires_grad) for part in pipeline.parts for one in part.module.parameters()]
    try:
        for one, _ in before:
            one.requires_grad_(False)
        yield
    finally:
        for one, wanted in before:
            one.requires_grad_(wanted)


def _sum_of(*samples: torch.Tensor | None) -> int:
    total = 0
    for one in samples:
        if one is not None:
            total = zlib.crc32(np.ascontiguousarray(one.cpu().numpy()).tobytes(), total)
    return total


def _batches(order: npt.NDArray[np.int64], size: int) -> list[npt.NDArray[np.int64]]:
    """None of one sample, which BatchNorm refuses."""
    found = [order[at : at + size] for at in range(0, len(order), size)]
    if len(found) > 1 and len(found[-1]) == 1:
        found[-2:] = [np.concatenate(found[-2:])]
    return found


def _drawn(seed: int, connection: int) -> int:
    return int(np.random.SeedSequence([seed, connection]).generate_state(1)[0])
