"""`placed`: a pipeline with an encoder at a producer's end and its decoder at the consumer's start.

Both become modules of the parts, `encoder_<connection>` and `decoder_<connection>`, so what crosses is the code, in
the pair's own wire form. The original modules are taken as they are: no array is copied or changed, and none changes
its name. Nothing here trains.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from ..errors import FringeError
from .pair_torch import Pair
from .pipeline_torch import Pipeline
from .wire_forms import WireForm

__all__ = ["placed", "with_decoder", "with_encoder"]


def placed(pipeline: Pipeline, pairs: Mapping[int, Pair]) -> Pipeline:
    """The pipeline with pairs at some connections, a version on; in evaluation.

    The parts it was made of go on working, and share the original arrays with the new ones.

    Args:
        pipeline: whose connections the pairs are for.
        pairs: by number of the connection; the pipeline keeps them, not copies.

    Raises:
        FringeError: no such connection, one that has a pair already, or a pair for other tensors.
    """
    modules: dict[str, fx.GraphModule] = {part.machine: part.module for part in pipeline.parts}
    forms: dict[int, WireForm] = {}
    for number, pair in sorted(pairs.items()):
        check_connection(pipeline, number)
        shapes = tuple(spec.shape for spec in pipeline.wires[number].specs)
        if shapes != pair.shape.tensors:
            raise FringeError(f"a pair for tensors {pair.shape.tensors} at connection {number}, where {shapes} cross")
        connection = pipeline.connections[number]
        modules[connection.producer] = with_encoder(modules[connection.producer], pair.encoder, f"encoder_{number}")
        modules[connection.consumer] = with_decoder(modules[connection.consumer], pair.decoder, f"decoder_{number}")
        forms[number] = pair.shape.form
    return pipeline.with_modules({name: module.eval() for name, module in modules.items()}, forms)


def check_connection(pipeline: Pipeline, number: int) -> None:
    """Refuse a connection at which no pair can stand.

    Raises:
        FringeError: there is none of that number, it has a pair already, or tensors of whole numbers cross it.
    """
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(pipeline.wires):
        raise FringeError(f"connection {number!r}: expected 0 to {len(pipeline.wires) - 1}")
    if hasattr(pipeline.parts[number].module, f"encoder_{number}"):
        raise FringeError(
            f"connection {number} has a pair already; expected none: take the pipeline before its pair, with "
            "teacher= the uncompressed one"
        )
    whole = [spec for spec in pipeline.wires[number].specs if spec.dtype != "float32"]
    if whole:
        raise FringeError(
            f"tensor {whole[0].name!r} of {whole[0].dtype} crosses connection {number}; a pair takes float32 only: cut "
            "the model where whole numbers have become vectors"
        )


def with_encoder(part: fx.GraphModule, encoder: nn.Module, name: str = "encoder") -> fx.GraphModule:
    """The part, whose outputs go through an encoder; shares all its arrays.

    Raises:
        FringeError: the part has a module of that name.
    """
    graph = fx.Graph()
    outputs = graph.graph_copy(part.graph, {})
    graph.output((graph.call_module(name, tuple(outputs)),))  # type: ignore[arg-type]  # a part gives a tuple
    return _built(part, graph, name, encoder)


def with_decoder(part: fx.GraphModule, decoder: nn.Module, name: str = "decoder") -> fx.GraphModule:
    """The part, whose inputs come out of a decoder; shares all its arrays.

    Raises:
        FringeError: the part has a module of that name.
    """
    graph = fx.Graph()
    code = graph.placeholder("code")
    decoded = graph.call_module(name, (code,))
    takes = [node for node in part.graph.nodes if node.op == "placeholder"]
    known: dict[fx.Node, Any] = {}
    for number, node in enumerate(takes):
        known[node] = graph.call_function(operator.getitem, (decoded, number))
    graph.output(graph.graph_copy(part.graph, known))
    return _built(part, graph, name, decoder)


def _built(part: fx.GraphModule, graph: fx.Graph, name: str, added: nn.Module) -> fx.GraphModule:
    if hasattr(part, name):
        raise FringeError(f"a part that has a module {name!r}; expected none: take the pipeline before its pair")
    roots: dict[str, Any] = {name: added}
    for node in graph.nodes:
        target = str(node.target)
        if node.op in ("get_attr", "call_module") and target != name:
            owner, _, last = target.rpartition(".")
            roots[target] = getattr(part.get_submodule(owner), last)
    built = fx.GraphModule(roots, graph, class_name="Part")
    kept = dict(part.named_modules())
    for path, module in built.named_modules():  # torch.fx takes every tensor it fetches for a persistent one
        if path in kept:
            module._non_persistent_buffers_set |= kept[path]._non_persistent_buffers_set
    return built.train(part.training)
