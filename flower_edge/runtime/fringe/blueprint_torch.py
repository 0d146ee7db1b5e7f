"""`Blueprint`: a part of a pipeline as data, so that another process builds the same part without its model's code.

    steps     what the part's graph does, step by step, see `steps_torch`
    layers    the modules it calls, by their names, as class and options, see `layers_torch`
    arrays    parameters and buffers, by the same names

However a part came to be (cut, pruned, with a pair, with layers left out), its blueprint says what it is now: no
history is replayed. A module that could not be traced is named by its place in the architecture, which the other end
builds from code of its own. Nothing here sends, and nothing is pickled.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import fx, nn

from ...errors import EdgeError, FringeError
from ...fringe.digest_torch import digests
from ...fringe.pipeline_torch import Part
from ...splitting.architecture_torch import module_of
from ...splitting.order import ArchitectureSpec
from .layers_torch import layer_config, layer_from
from .steps_torch import argument_from, argument_of, checked_call, function_named, method_checked, name_of_function

__all__ = ["Blueprint", "Pause", "blueprint_of", "built", "no_pause"]

Array = npt.NDArray[Any]
#: Called between two steps of work that others who are served had better not notice, see `Gently`.
Pause = Callable[[], object]

_KINDS: Final = ("float16", "float32", "float64", "bool", "uint8", "int8", "int16", "int32", "int64")


def no_pause() -> None:
    """Goes on at once."""


@dataclass(frozen=True, eq=False)
class Blueprint:
    """A part as data.

    Attributes:
        config: JSON values: steps, layers, which arrays are parameters, which names are one array.
        arrays: by name; of several names of one array the first.
    """

    config: dict[str, Any]
    arrays: dict[str, Array]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over all of it: two parts of one digest compute the same."""
        return self.digested()

    def digested(self, pause: Pause = no_pause) -> str:
        """`digest`, with pauses between arrays."""
        head = json.dumps(self.config, sort_keys=True, allow_nan=False)
        own: dict[str, str] = {}
        for name, array in self.arrays.items():
            own |= digests({name: torch.from_numpy(np.array(array))})
            pause()
        return hashlib.sha256("\n".join([head, *(own[name] for name in sorted(own))]).encode()).hexdigest()

    def tree(self) -> dict[str, Any]:
        """For `tree_to_bytes`."""
        return {"config": json.dumps(self.config, allow_nan=False), "arrays": self.arrays}

    @classmethod
    def from_tree(cls, tree: Any) -> Blueprint:
        """Inverse of `tree`.

        Raises:
            FringeError: no such tree.
        """
        try:
            config, arrays = json.loads(tree["config"]), dict(tree["arrays"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise FringeError(f"a part of {str(tree)[:80]!r}: {error}; expected what Blueprint.tree gives") from error
        keys = {"steps", "layers", "parameters", "passing", "same", "architecture"}
        if not isinstance(config, dict) or set(config) != keys:
            raise FringeError(f"a part with {str(config)[:80]!r}; expected {', '.join(sorted(keys))}")
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or array.dtype.name not in _KINDS:
                raise FringeError(f"array {str(name)[:80]!r} of a part; expected numbers of one of {', '.join(_KINDS)}")
        return cls(config, arrays)


def blueprint_of(
    part: Part, architecture: ArchitectureSpec | None = None, pause: Pause = no_pause
) -> Blueprint:  # fmt: skip
    """The part as data.

    Args:
        part: of a pipeline.
        architecture: of the model it was cut from, for modules of the user's own that could not be traced.
        pause: called between steps.

    Raises:
        FringeError: a step, an argument or a module that cannot be told; the message says what to do.
    """
    module = part.module
    numbers: dict[fx.Node, int] = {}
    steps, layers = [], {}
    fetched = []
    for number, node in enumerate(module.graph.nodes):
        pause()
        target: Any = str(node.target)
        if node.op == "call_function":
            checked_call(node.target, node.args)
            target = name_of_function(node.target)
        elif node.op == "call_method":
            method_checked(target)
        elif node.op == "call_module" and target not in layers:
            config = layer_config(module.get_submodule(target))
            if config is None:
                if architecture is None:
                    kind = type(module.get_submodule(target)).__name__
                    raise FringeError(
                        f"module {target!r} of {part.machine!r} is a {kind}, which no other machine can make; say what "
                        "model it is of: architecture=ArchitectureSpec(...)"
                    )
                config = {"layer": "architecture", "options": {}}
            layers[target] = config
        elif node.op == "get_attr":
            fetched.append(target)
        steps.append(
            {
                "op": node.op,
                "target": target,
                "args": [argument_of(one, numbers) for one in node.args],
                "kwargs": {name: argument_of(one, numbers) for name, one in node.kwargs.items()},
            }
        )
        numbers[node] = number
    arrays, same, parameters = _arrays(module, tuple(layers), fetched)
    persistent = set(module.state_dict())
    config = {
        "steps": steps,
        "layers": layers,
        "parameters": sorted(parameters),
        "passing": sorted(name for name in (*arrays, *same) if name not in persistent),
        "same": same,
        "architecture": None if architecture is None else json.loads(architecture.model_dump_json()),
    }
    return Blueprint(config, arrays)


def built(
    blueprint: Blueprint,
    machine: str,
    models: Mapping[str, Callable[..., Any]] | None = None,
    pause: Pause = no_pause,
) -> Part:
    """The part, in evaluation.

    Args:
        blueprint: from anywhere; what it says is checked before it is done.
        machine: whose part it is.
        models: factories by name, for architectures that are not in `flower_edge.models`.
        pause: called between layers and steps.

    Raises:
        FringeError: a step, layer or array that cannot be.
        SplitError: an architecture that cannot be built here.
    """
    try:
        return Part(machine, _module(blueprint, models, pause).eval(), ())
    except EdgeError:
        raise
    except Exception as error:  # names that are not there, values of other kinds, what torch.fx does not take
        raise FringeError(f"the part of {machine!r} cannot be built: {type(error).__name__}: {error}") from error


def _arrays(
    module: fx.GraphModule, layers: tuple[str, ...], fetched: list[str]
) -> tuple[dict[str, Array], dict[str, str], set[str]]:
    """Those that steps use, by name; second names of the same ones; which are parameters."""
    first: dict[int, str] = {}
    arrays: dict[str, Array] = {}
    same: dict[str, str] = {}
    parameters = set()
    every: dict[str, torch.Tensor] = dict(module.named_parameters(remove_duplicate=False))
    every |= dict(module.named_buffers(remove_duplicate=False))
    used = tuple(f"{name}." for name in layers)
    for name, tensor in every.items():
        if not (name in fetched or name.startswith(used)):
            continue
        if isinstance(tensor, nn.Parameter):
            parameters.add(name)
        if id(tensor) in first:
            same[name] = first[id(tensor)]
            continue
        first[id(tensor)] = name
        arrays[name] = np.array(tensor.detach().cpu().numpy(), order="C")
    return arrays, same, parameters


def _module(
    blueprint: Blueprint, models: Mapping[str, Callable[..., Any]] | None, pause: Pause
) -> fx.GraphModule:  # fmt: skip
    config = blueprint.config
    parameters, passing = set(config["parameters"]), set(config["passing"])
    tensors: dict[str, torch.Tensor] = {}
    for name, array in blueprint.arrays.items():
        tensor = torch.from_numpy(np.array(array))
        if name in parameters:
            if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
                raise FringeError(f"parameter {name!r} holds something else than finite numbers; send it again")
            tensor = nn.Parameter(tensor)
        tensors[name] = tensor
        pause()
    for name, other in config["same"].items():
        tensors[str(name)] = tensors[str(other)]
    roots: dict[str, Any] = {}
    graph = fx.Graph()
    made: list[fx.Node] = []
    whole = None
    for step in config["steps"]:
        pause()
        op, target = step["op"], step["target"]
        args = tuple(argument_from(one, made) for one in step["args"])
        kwargs = {_identifier(name): argument_from(one, made) for name, one in step["kwargs"].items()}
        if op == "placeholder":
            node = graph.placeholder(_identifier(target))
        elif op == "output":
            node = graph.output(args[0])
        elif op == "call_function":
            function = function_named(target)
            checked_call(function, args)
            node = graph.call_function(function, args, kwargs)
        elif op == "call_method":
            node = graph.call_method(method_checked(target), args, kwargs)
        elif op == "get_attr":
            roots[_path(target)] = tensors[target]
            node = graph.create_node("get_attr", target)
        elif op == "call_module":
            if _path(target) not in roots:
                own = {n.removeprefix(f"{target}."): a for n, a in tensors.items() if n.startswith(f"{target}.")}
                layer_said = config["layers"][target]
                if layer_said["layer"] == "architecture":
                    if whole is None:
                        spec = ArchitectureSpec.model_validate_json(json.dumps(config["architecture"]))
                        whole = module_of(spec, 0, models or {})
                    layer = copy.deepcopy(whole.get_submodule(target))
                else:
                    layer = layer_from(layer_said, {n: t.detach().numpy() for n, t in own.items()})
                _fill(layer, own, target)
                roots[target] = layer
            node = graph.call_module(target, args, kwargs)
        else:
            raise FringeError(f"a step {str(op)[:40]!r}; expected one of torch.fx")
        made.append(node)
    pause()
    module = fx.GraphModule(roots, graph, class_name="Part")
    pause()
    for prefix, owner in module.named_modules():
        owner._non_persistent_buffers_set |= {n for n in owner._buffers if f"{prefix}.{n}".lstrip(".") in passing}
    module.graph.lint()
    return module


def _fill(layer: nn.Module, arrays: Mapping[str, torch.Tensor], where: str) -> None:
    """Give a layer its arrays, all of them and no others."""
    held: dict[str, torch.Tensor] = dict(layer.named_parameters(remove_duplicate=False))
    held |= dict(layer.named_buffers(remove_duplicate=False))
    if set(held) != set(arrays):
        odd = sorted(set(held) ^ set(arrays))
        raise FringeError(
            f"layer {where!r}: array {odd[0]!r} is missing or unknown; expected {', '.join(held) or 'none'}"
        )
    for name, tensor in arrays.items():
        if held[name].shape != tensor.shape or isinstance(held[name], nn.Parameter) != isinstance(tensor, nn.Parameter):
            raise FringeError(
                f"array {f'{where}.{name}'!r} of shape {tuple(tensor.shape)}, expected {tuple(held[name].shape)}"
            )
        owner, _, last = name.rpartition(".")
        setattr(layer.get_submodule(owner), last, tensor)


def _identifier(name: object) -> str:
    # torch.fx writes Python of a graph: a name must be no more than a name.
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
        raise FringeError(f"the name {str(name)[:60]!r} in a part; expected letters, digits and _")
    return name


def _path(name: object) -> str:
    for one in str(name).split("."):
        if not one.isascii() or not one.replace("_", "a").isalnum():
            raise FringeError(
                f"the name {str(name)[:60]!r} in a part; expected letters, digits and _, with dots between"
            )
    return str(name)
