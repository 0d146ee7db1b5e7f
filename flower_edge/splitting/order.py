"""What a device and the cloud agree on for one round of split learning: values, checked, as plain JSON.

A `WorkOrder` says everything the two halves of a model need to compute what the whole model would have computed. It
says nothing of how tensors travel; nothing here computes or sends.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ArchitectureSpec", "LossName", "OptimiserSpec", "WorkOrder"]

Name = Annotated[str, Field(min_length=1, max_length=256)]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Positive = Annotated[int, Field(ge=1, lt=1 << 53)]
Rate = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
LossName = Literal["cross-entropy", "mse"]


class _Value(BaseModel):
    """Frozen and strict: an unknown key or a text where a number belongs is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ArchitectureSpec(_Value):
    """A model as data: nobody is sent code.

    Attributes:
        name: in the registry of models, or of those a program has registered itself.
        options: of the model, by name; JSON values.
        input_shape: of one sample.
        num_classes: scores.
        blocks: qualified names of submodules, in the order they run, where the model cannot be traced; empty: trace it.
        max_tensors: how many live tensors a cut may have; a skip connection across the cut is one more.
        digest: SHA-256, hex, over the cut model's units and the names, shapes and dtypes of its arrays; both ends
            compute it and must agree.
    """

    name: Name
    options: dict[str, Any] = {}
    input_shape: tuple[Positive, ...]
    num_classes: Positive
    blocks: tuple[Name, ...] = ()
    max_tensors: Annotated[int, Field(ge=1, le=64)] = 3
    digest: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""


class OptimiserSpec(_Value):
    """How parameters move; its state follows the layer when a cut moves.

    Attributes:
        name: sgd, adam or adamw, with torch's meaning and defaults for what is not given.
        lr: step size.
        options: further arguments of torch's class: momentum, nesterov, weight_decay, betas, eps.
    """

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 0.1
    options: dict[str, Any] = {}


class WorkOrder(_Value):
    """One device's work in one round.

    Attributes:
        round: of Flower's, from 1 on.
        number: the device's own, from 0 on, stable over a run; in `Moment` it is the node.
        architecture: which model.
        cut: units 0 .. cut-1 are the device's.
        tail: so many last units are the device's, too; 0 unless `labels` is `device`.
        labels: who has them. `cloud`: they travel with the activations. `device`: U-shaped, the cloud's outputs come
            back and the device computes the loss.
        first_step: how many steps this device has made before, so that batches go on where they stopped.
        steps: how many batches.
        batch_size: samples per batch; the last of an epoch may have fewer.
        seed: of the order of samples, of dropout and of stochastic rounding.
        loss: mean over a batch.
        optimiser: of both halves.
        up, down: configs of the codecs (`flower_edge.codecs.from_config`) for tensors to the cloud and gradients back;
            None sends float32 as it is.
        standard: how samples are standardised, as `Standard.config()`; None leaves them.
        noise: standard deviation of Gaussian noise on the tensors at the cut, in units of theirs; 0 is off.
        nopeek: weight of the distance correlation between inputs and tensors at the cut in the device's loss; 0 is off.
    """

    round: Count
    number: Count
    architecture: ArchitectureSpec
    cut: Count
    tail: Count = 0
    labels: Literal["cloud", "device"] = "cloud"
    first_step: Count = 0
    steps: Positive
    batch_size: Positive
    seed: Count = 0
    loss: LossName = "cross-entropy"
    optimiser: OptimiserSpec = OptimiserSpec()
    up: dict[str, Any] | None = None
    down: dict[str, Any] | None = None
    standard: dict[str, Any] | None = None
    noise: Rate = 0.0
    nopeek: Rate = 0.0
