"""`DepthModel`: a model with a classifier behind each of its depths, so that its first layers are a model as well.

A terminal of depth d holds the layers up to the d-th exit and the classifiers of exits 1 .. d. The arrays of the model
keep their names; those of the classifiers are called `exits.<place>.…`. Nothing here trains: `depth_training_torch`.

Source: Kim et al., "DepthFL: Depthwise Federated Learning for Heterogeneous Clients", ICLR 2023.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import fx, nn

from ..errors import SplitError
from ..models.heads_torch import classifier_head
from ..splitting.cutting_torch import CutModel
from ..splitting.recording_torch import left_as_found
from .depth_parts_torch import Wanted, fetch, fill
from .depth_places_torch import exit_name, exit_positions
from .depth_plan_torch import Plan, steps_of
from .sizes import Depths

__all__ = ["DepthModel", "Predict", "depth_model"]

#: Whether a model answers with the mean of its exits' scores, or with its deepest exit's.
Predict = Literal["mean", "last"]


class DepthModel(nn.Module):
    """A model with several exits; made by `depth_model`.

    Its forward gives one tensor of scores, as any classifier's: with `predict="mean"` the mean of its exits' scores
    (DepthFL's ensemble), with `"last"` those of its deepest exit alone, which of the whole model is the model's output.
    `get_arrays`, `set_arrays`, `evaluate`, `narrow` and copies work as with any module.

    Attributes:
        exits: the classifiers, by place.
    """

    exits: nn.ModuleDict

    def __init__(self, source: nn.Module, plan: Plan, depth: int, heads: nn.ModuleDict, predict: Predict) -> None:
        super().__init__()
        self._plan, self._depth = plan, depth
        self.predict = predict
        steps = {step for mode in plan.modes.values() for step in mode.steps[: mode.exits[depth - 1][0]]}
        called = {str(step.target) for step in steps if step.op == "call_module"}
        fetched = {str(n.target) for step in steps for n in step.all_input_nodes if n.op == "get_attr"}
        memo: dict[int, Any] = {}  # one for all, so that tied arrays stay tied
        fill(self, source, "", Wanted(called, fetched, frozenset(plan.names[depth - 1])), memo)
        for target in sorted(fetched):
            fetch(self, source, target)
        self.exits = nn.ModuleDict({name: copy.deepcopy(heads[name], memo) for name in plan.heads[:depth]})
        self.train(source.training)

    @property
    def depth(self) -> int:
        """How many exits it has, its last among them."""
        return self._depth

    @property
    def exit_names(self) -> tuple[str, ...]:
        """Of its exits, the shallowest first; the whole model's last one is `output`."""
        return (*self._plan.heads, "output")[: self._depth]

    @property
    def predict(self) -> Predict:
        """What the forward gives: the `mean` of all exits' scores, or the `last` one's."""
        return self._predict

    @predict.setter
    def predict(self, how: Predict) -> None:
        if how not in ("mean", "last"):
            raise SplitError(f"predict = {how!r}: expected 'mean', of all exits, or 'last', the deepest exit's alone")
        self._predict = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, ...] to scores [batch, classes], or [batch, context, classes]."""
        if self._predict == "last":
            return self._run(x, only_last=True)[-1]
        scores = self._run(x)
        total = scores[0]
        for more in scores[1:]:
            total = total + more
        return total / len(scores) if len(scores) > 1 else total

    def scores(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Of each exit, the shallowest first; each as `forward` gives."""
        return tuple(self._run(x))

    def at_depth(self, depth: int) -> DepthModel:
        """A copy that holds what exits 1 .. depth need, and no other arrays; 0 is all of them.

        Raises:
            SplitError: it has fewer exits.
        """
        if type(depth) is not int or not 0 <= depth <= self._depth:
            raise SplitError(f"depth = {depth!r}: this model has {self._depth} exits; give 1 to {self._depth}, or 0")
        return DepthModel(self, self._plan, depth or self._depth, self.exits, self._predict)

    def depths(self) -> Depths:
        """Which arrays each depth holds, for `SubModels(..., depths=model.depths())`."""
        state = list(self.state_dict())
        held = []
        for depth in range(1, self._depth + 1):
            own = set(self._plan.names[depth - 1])
            heads = tuple(f"exits.{name}." for name in self._plan.heads[:depth])
            held.append(tuple(name for name in state if name in own or name.startswith(heads)))
        return Depths(tuple(held))

    def every_exit(self) -> DepthModel:
        """The same arrays, with a forward in which all exits take part."""
        view = copy.copy(self)
        view.predict = "mean"
        return view

    def extra_repr(self) -> str:
        return f"exits at {', '.join(self.exit_names)}; predict={self._predict!r}"

    def _run(
        self, x: torch.Tensor, *, only_last: bool = False, live: list[tuple[torch.Tensor, int]] | None = None
    ) -> list[torch.Tensor]:
        """Scores of its exits, or of the last alone; `live` is told what each head read, and its version then."""
        mode = self._plan.modes[self.training]
        env: dict[fx.Node, Any] = {mode.given: x}
        scores: list[torch.Tensor] = []
        before = 0
        for number, (stop, node) in enumerate(mode.exits[: self._depth]):
            for at in range(before, stop):
                step = mode.steps[at]
                env[step] = self._step(step, env)
                for value in mode.done[at]:
                    env.pop(value, None)
            before = stop
            if only_last and number < self._depth - 1:
                continue
            value = env[node]
            if number == len(self._plan.heads):
                scores.append(value)
                continue
            if live is not None:
                live.append((value, value._version))
            head = self.exits[self._plan.heads[number]]
            scores.append(head(value.clone() if number in self._plan.copied else value))
        return scores

    def _step(self, step: fx.Node, env: dict[fx.Node, Any]) -> Any:
        def value(node: fx.Node) -> Any:
            if node not in env:  # a parameter, fetched when it is read
                env[node] = operator.attrgetter(str(node.target))(self)
            return env[node]

        args: Any = fx.node.map_arg(step.args, value)
        kwargs: Any = fx.node.map_arg(step.kwargs, value)
        if step.op == "call_module":
            return self.get_submodule(str(step.target))(*args, **kwargs)
        if step.op == "call_method":
            return getattr(args[0], str(step.target))(*args[1:], **kwargs)
        assert callable(step.target)  # call_function
        return step.target(*args, **kwargs)


def depth_model(
    model: nn.Module,
    example: torch.Tensor,
    exits: int | Sequence[str | int],
    *,
    seed: int = 0,
    predict: Predict = "mean",
    blocks: Sequence[str] = (),
) -> DepthModel:
    """A copy of a model with exits: small classifiers behind some of its layers, and its own output.

    Sequential and residual models and modules of your own are traced; see `CutModel.of` for what cannot be.

    Args:
        model: one tensor in, scores [batch, classes] or [batch, context, classes] out; it is left as it was.
        example: [2 or more samples, ...], such as the model takes.
        exits: how many, the model's own output among them, spread evenly by FLOPs; or the places of those before the
            output: names of modules or units (`["conv1", "block2"]`), or positions of cuts.
        seed: of the classifiers' first parameters.
        predict: what the forward gives, see `DepthModel`.
        blocks: names of layers in the order in which they run, for a chain of layers that cannot be traced.

    Raises:
        SplitError: a place where several tensors are live, before which nothing is trained, or that is not there, with
            those where an exit can be; a model that cannot be traced.

    >>> from flower_edge.models import make_model
    >>> lenet = make_model("lenet5", input_shape=(1, 28, 28), num_classes=10, seed=0)
    >>> model = depth_model(lenet, torch.zeros(2, 1, 28, 28), ["pool1", "pool2"])
    >>> list(model.at_depth(1).state_dict())
    ['conv1.weight', 'conv1.bias', 'exits.pool1.linear.weight', 'exits.pool1.linear.bias']
    >>> [sum(p.numel() for p in model.at_depth(d).parameters()) for d in (1, 2, 3)]
    [406, 3472, 62606]
    """
    cut = CutModel.of(model, example, blocks=blocks)
    _check_names(model)
    positions = exit_positions(cut, exits)
    outputs = cut.cuts[-1].shapes[0]
    some = next(model.parameters())
    heads = nn.ModuleDict()
    for number, position in enumerate(positions):
        head = classifier_head(cut.cuts[position].shapes[0], outputs, seed=seed + number)
        heads[_key(heads, exit_name(cut, position))] = head.to(some.device, some.dtype)
    last = len(cut.units)
    names = tuple(cut.names(0, position) for position in (*positions, last))
    places = tuple(cut.places[position] for position in (*positions, last))
    modes = {training: steps_of(cut.graphs, places, training) for training in (True, False)}
    plan = Plan(modes, tuple(heads), frozenset(), names)
    made = DepthModel(_rooted(cut), plan, last_depth := len(places), heads, predict)
    if written := _written(made, example):
        plan = Plan(modes, tuple(heads), written, names)
        made = DepthModel(made, plan, last_depth, made.exits, predict)
    return made.train(model.training)


def _rooted(cut: CutModel) -> nn.Module:
    """The model with the constants that tracing found."""
    root: nn.Module = cut.graphs.module
    root.training = cut.model.training
    return root


def _written(model: DepthModel, example: torch.Tensor) -> frozenset[int]:
    """Exits whose tensor a later step writes to: a classifier that had read it could not go back."""
    live: list[tuple[torch.Tensor, int]] = []
    with left_as_found(model):
        model.train()
        model._run(example.clone(), live=live)
    return frozenset(number for number, (value, version) in enumerate(live) if value._version != version)


def _check_names(model: nn.Module) -> None:
    for name in (*model._modules, *model._parameters, *model._buffers):
        if name == "exits" or hasattr(DepthModel, name):
            raise SplitError(f"{type(model).__name__} has a {name!r} of its own, as a model with exits has; rename it")


def _key(heads: nn.ModuleDict, name: str) -> str:
    """A name that a module can have, and that no other exit has."""
    key = name.replace(".", "_")
    while key in heads or hasattr(heads, key):
        key += "_"
    return key
