"""After pruning: fringe layers learn to make up for what is no longer sent, and are kept only if that helped.

`heal_locally` regresses what the consumer's fringe gives to what it gave, on activations without labels, as they come
by while a pipeline serves. `distil_fringe` trains those of a whole pipeline towards the uncompressed model's
scores. Both leave every other array, and the buffers of all layers, as they are: modules stay in evaluation mode, and
no optimiser knows a frozen tensor. Nothing here chooses channels.

Sources: layer by layer: He, Zhang, Sun, "Channel pruning for accelerating very deep neural networks", ICCV 2017;
towards a teacher's scores: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional

from ..errors import FringeError
from .channel_steps_torch import copied
from .fitting_torch import Fit, Recipe, batches, fit
from .precision_torch import quicker
from .pruned_layers_torch import Map, Scatter
from .pruning_outputs_torch import KEPT
from .pruning_torch import run_part
from .sections_torch import around, before_and_after, named_parameters_of, shortened, up_to, whole_before

__all__ = ["Carry", "Healed", "Recipe", "distil_fringe", "heal_locally", "run_parts"]

#: What a connection makes of its tensors, there and back; its own gradient is taken, so a rounding passes it through.
Carry = Callable[[tuple[torch.Tensor, ...]], Sequence[torch.Tensor]]


@dataclass(frozen=True, eq=False)
class Healed:
    """Parts after healing.

    Attributes:
        parts: new ones; copies of those given where healing did not help.
        healed: whether it did.
        fit: losses on what was held out, by epoch: of `heal_locally` the squared error as a share of the target's
            second moment, of `distil_fringe` the divergence from the teacher.
        scores: before and after, by the caller's `score`; None without one.
    """

    parts: tuple[fx.GraphModule, ...]
    healed: bool
    fit: Fit
    scores: tuple[float, float] | None = None


def heal_locally(
    whole: tuple[fx.GraphModule, fx.GraphModule],
    pruned: tuple[fx.GraphModule, fx.GraphModule],
    inputs: Sequence[torch.Tensor],
    layers: Sequence[str],
    *,
    teacher_inputs: Sequence[torch.Tensor] | None = None,
    carry: Carry | None = None,
    recipe: Recipe | None = None,
    score: Callable[[fx.GraphModule, fx.GraphModule], float] | None = None,
) -> Healed:
    """Let the fringe layers of a connection's two ends compute again what they computed before it was pruned.

    The target is the first single tensor behind the consumer's fringe layers: the sum at the end of a residual block.
    Only the steps from the producer's first fringe layer to that tensor run while training.

    Args:
        whole: producer and consumer before any compression.
        pruned: the same after `prune_connection`; not changed.
        inputs: tensors [samples, ...] as the pruned producer takes them.
        layers: names of the layers that may learn, of either part; maps that pruning put in learn too.
        teacher_inputs: as `whole` takes them, where a connection before this one is compressed; None: the same.
        carry: what becomes of the tensors on their way; None: nothing.
        recipe: how to train.
        score: of producer and consumer, more is better: accuracy on validation data. Healing is kept only if it is
            above that of no healing.

    Raises:
        FringeError: layers that are not in the parts; samples that are too few; an error that is not finite;
            a whole pair that the pruned one was not made of.
    """
    recipe = recipe or Recipe()
    parts = [copied(part) for part in pruned]
    parameters = learning(parts, layers)
    spans = [around(part, (*layers, *_maps(part))) for part in parts]
    first = spans[0][0] if spans[0] else len(parts[0].graph.nodes) - 1
    reference = around(whole[1], layers)
    names = up_to(whole[1], reference[1]) if reference else [node.name for node in _ends(whole[1])]
    held = {node.name for node in parts[1].graph.nodes}
    lost = [name for name in names if name not in held]
    if lost:
        raise FringeError(
            f"the pruned consumer has no step {lost[0]!r}, to which its fringe is compared; give the whole pair that "
            "it was made of"
        )
    head, tail = before_and_after(parts[0], whole_before(parts[0], first))
    reader = shortened(parts[1], [_whole_again(parts[1], name) for name in names])
    given = run_part(head, inputs)
    original = run_part(whole[0], inputs if teacher_inputs is None else teacher_inputs)
    told = narrowed_as(parts[1], names, run_part(shortened(whole[1], names), original))
    trained_on, _ = recipe.split(len(told[0]))
    sizes = [float(tensor[trained_on:].square().mean()) or 1.0 for tensor in told]

    def error(numbers: torch.Tensor) -> torch.Tensor:
        made = reader(*carried_by(tail(*(tensor[numbers] for tensor in given)), carry))
        errors = [functional.mse_loss(one.float(), target[numbers]) for one, target in zip(made, told, strict=True)]
        return torch.stack([error / size for error, size in zip(errors, sizes, strict=True)]).mean()

    return healed_by(parts, parameters, error, trained_on, len(told[0]), recipe, score)


def distil_fringe(
    parts: Sequence[fx.GraphModule],
    inputs: Sequence[torch.Tensor],
    teacher_scores: torch.Tensor,
    layers: Sequence[str],
    *,
    temperature: float = 3.0,
    carries: Sequence[Carry | None] | None = None,
    recipe: Recipe | None = None,
    score: Callable[..., float] | None = None,
) -> Healed:
    """Train the fringe layers of a whole pipeline towards the uncompressed model's scores, without labels.

    Args:
        parts: of the pipeline, in order; not changed.
        inputs: tensors [samples, ...] as the first takes them.
        teacher_scores: [samples, ..., classes], what the uncompressed model gives for them, before any softmax.
        layers: names of the layers that may learn.
        temperature: divides both sides' scores.
        carries: per connection, as in `heal_locally`.
        recipe: how to train.
        score: of all parts, more is better; healing is kept only if it is above that of no healing.

    Raises:
        FringeError: layers that are not in the parts; samples that are too few; scores of another shape.
    """
    recipe = recipe or Recipe(epochs=3, lr=1e-3)
    own = [copied(part) for part in parts]
    parameters = learning(own, layers)
    # Steps before the first layer that learns give the same in every epoch, so they run once.
    span = around(own[0], (*layers, *_maps(own[0])))
    head, tail = before_and_after(own[0], whole_before(own[0], span[0] if span else len(own[0].graph.nodes) - 1))
    if len(teacher_scores) != len(inputs[0]) or not temperature > 0:
        raise FringeError(
            f"{len(teacher_scores)} scores for {len(inputs[0])} samples at temperature {temperature}; give one row for "
            "each, and a temperature above 0"
        )
    soft = functional.softmax(teacher_scores / temperature, dim=-1)
    trained_on, _ = recipe.split(len(teacher_scores))
    given = run_part(head, inputs)

    def divergence(numbers: torch.Tensor) -> torch.Tensor:
        scores = run_parts([tail, *own[1:]], [tensor[numbers] for tensor in given], carries)[0]
        if scores.shape[1:] != soft.shape[1:]:
            raise FringeError(
                f"the last part gives {list(scores.shape[1:])} per sample, the teacher {list(soft.shape[1:])}; give "
                "the scores of the same model"
            )
        logs = functional.log_softmax(scores.float() / temperature, dim=-1)
        flat = functional.kl_div(logs.flatten(0, -2), soft[numbers].flatten(0, -2), reduction="batchmean")
        return flat * temperature**2

    return healed_by(own, parameters, divergence, trained_on, len(teacher_scores), recipe, score)


def run_parts(
    parts: Sequence[fx.GraphModule], inputs: Sequence[torch.Tensor], carries: Sequence[Carry | None] | None = None
) -> list[torch.Tensor]:
    """One part after the other in this process, in the modes they are in.

    Raises:
        FringeError: a number of carries that is not that of the connections.
    """
    between = [None] * (len(parts) - 1) if carries is None else list(carries)
    if len(between) != len(parts) - 1:
        raise FringeError(f"{len(between)} carries for {len(parts)} parts; give {len(parts) - 1}, None for a plain one")
    tensors = list(inputs)
    for part, carry in zip(parts, [*between, None], strict=True):
        tensors = carried_by(part(*tensors), carry)
    return tensors


def healed_by(
    parts: list[fx.GraphModule],
    parameters: list[nn.Parameter],
    loss: Callable[[torch.Tensor], torch.Tensor],
    trained_on: int,
    samples: int,
    recipe: Recipe,
    score: Callable[..., float] | None,
    held_out_loss: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> Healed:
    """Parts, changed in place, after a fit of these parameters that was kept only if it helped.

    Args:
        loss: of samples by their numbers; the first `trained_on` of all are trained on.
        held_out_loss: of the others; None: the same.
    """
    measured = held_out_loss or loss
    start = [parameter.detach().clone() for parameter in parameters]

    def held_out() -> float:
        with torch.no_grad():
            parts_of = batches(torch.arange(trained_on, samples), recipe.batch_size)
            return sum(float(measured(numbers)) * len(numbers) for numbers in parts_of) / (samples - trained_on)

    before = None if score is None else score(*parts)
    with _only(parts, parameters), quicker(parts, recipe.bfloat16):
        found = fit(parameters, loss, held_out, trained_on, recipe)
    better = found.best > 0
    scores = None
    if score is not None and before is not None:
        after = score(*parts) if better else before
        better, scores = after > before, (before, after)
    if not better:
        with torch.no_grad():
            for parameter, value in zip(parameters, start, strict=True):
                parameter.copy_(value)
    return Healed(tuple(parts), better, found, scores)


def learning(parts: Sequence[fx.GraphModule], layers: Sequence[str]) -> list[nn.Parameter]:
    """Parameters that learn; they are floating point, or could not."""
    if isinstance(layers, str):
        raise FringeError(f"layers = {layers!r}; expected a list of names: [{layers!r}]")
    found = [(part, named_parameters_of(part, (*layers, *_maps(part)))) for part in parts]
    # A norm without weights is a layer of the fringe, too: it is there, and has nothing to learn.
    there = {name for part in parts for name, _ in (*part.named_modules(), *part.named_parameters())}
    lost = [layer for layer in layers if layer not in there]
    known = ", ".join(sorted({name.rpartition(".")[0] for part in parts for name, _ in part.named_parameters()})[:12])
    if lost:
        raise FringeError(f"no part has a layer {lost[0]!r}; those with parameters are {known}")
    if not any(names for _, names in found):
        raise FringeError(f"layers = {list(layers)!r} with no parameters; name fringe layers that may learn: {known}")
    return [part.get_parameter(name) for part, names in found for name in names]


def _maps(part: fx.GraphModule) -> list[str]:
    return [name for name, module in part.named_modules() if isinstance(module, Map)]


def narrowed_as(part: fx.GraphModule, names: Sequence[str], told: list[torch.Tensor]) -> list[torch.Tensor]:
    """Targets with the channels that this part still makes: its next connection may be pruned already."""
    nodes = {node.name: node for node in part.graph.nodes}
    found = []
    for name, tensor in zip(names, told, strict=True):
        axis, kept = nodes[name].meta.get(KEPT, (-1, None))
        found.append(tensor if kept is None else tensor.index_select(axis, torch.tensor(kept, device=tensor.device)))
    return found


def _whole_again(part: fx.GraphModule, name: str) -> str:
    """The tensor itself; of one that comes in with fewer channels and is passed on, what a map makes of it."""
    node = next(node for node in part.graph.nodes if node.name == name)
    while node.op != "output":
        maps = [
            user
            for user in node.users
            if user.op == "call_module" and isinstance(part.get_submodule(str(user.target)), Map | Scatter)
        ]
        if not maps:
            break
        node = maps[0]
    return str(node.name)


def _ends(part: fx.GraphModule) -> list[fx.Node]:
    return list(next(node for node in reversed(part.graph.nodes) if node.op == "output").all_input_nodes)


def carried_by(tensors: tuple[torch.Tensor, ...], carry: Carry | None) -> list[torch.Tensor]:
    if carry is None:
        return list(tensors)
    return list(carry(tuple(tensor.float() if tensor.dtype == torch.bfloat16 else tensor for tensor in tensors)))


@contextmanager
def _only(parts: Sequence[fx.GraphModule], parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Evaluation mode, and gradients of these parameters only; then as before."""
    modes = [(module, module.training) for part in parts for module in part.modules()]
    flags = [(parameter, parameter.requires_grad) for part in parts for parameter in part.parameters()]
    chosen = {id(parameter) for parameter in parameters}
    try:
        for part in parts:
            part.eval()
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in chosen)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
