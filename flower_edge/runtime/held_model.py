"""What a node holds of a `Compressed` layer's model, and how a message moves it on. Nothing here answers or sends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from logging import getLogger
from typing import Any, Protocol

import numpy as np
from flwr.app import ArrayRecord, RecordDict

from ..codecs.codec import from_config
from ..codecs.delta import Delta
from ..codecs.envelope import Kind, codebook_epoch, digest_of
from ..codecs.identity import Identity
from ..codecs.layout import Floats
from ..codecs.model_form import form_of, gather, layout_of, scatter
from ..codecs.model_update import Model
from ..codecs.vector_codec import State
from ..errors import CodecError, StateError, WireError
from ..store.tree import Tree
from ..wire import arrays_of, record_of
from .codec_messages import ASIDE, Order, model_in

__all__ = ["Held", "Lost", "Memory", "configs_in", "received", "remembered"]

log = getLogger(__name__)


class Memory(Protocol):
    """Where a node remembers; a `NodeState` is one."""

    def load(self) -> Tree | None:
        """What was saved last; `StateError` where it was lost."""
        ...

    def save(self, tree: Tree) -> None:
        """Remember this from now on."""
        ...

    def delete(self) -> None:
        """Forget it."""
        ...


@dataclass(frozen=True)
class Held:
    """What a node remembers.

    Attributes:
        version, digest: of the model it holds.
        config: JSON of the codecs.
        model: the arrays it holds; with a `delta` only what is no float.
        delta: state of the decoder of a coded downlink, with the replica in it.
        moves: by how much the model moved in the last versions, newest first.
        codebook: as a teacher told it.
        up: state of the codec for replies, and of which one (`codec_hash`).
        sent: the last payload, with what is needed to take it back.
    """

    version: int = 0
    digest: int = 0
    config: str = ""
    model: Model | None = None
    delta: State | None = None
    moves: tuple[Floats, ...] = ()
    codebook: bytes | None = None
    up: State | None = None
    up_codec: int = 0
    sent: dict[str, Any] | None = None

    def worth_saving(self) -> bool:
        """Whether the next message could need any of it."""
        return bool(self.model or self.delta or self.codebook or self.sent or (self.up or {}).get("vector"))

    def to_tree(self) -> Tree:
        return {**vars(self), "moves": list(self.moves)}

    @classmethod
    def from_tree(cls, tree: Tree) -> Held:
        return cls(**{**tree, "moves": tuple(tree["moves"])})


class Lost(Exception):
    """The node cannot go on from what it holds."""


def remembered(memory: Memory) -> Held:
    try:
        tree = memory.load()
    except StateError as error:
        log.warning("what this node held of the model is lost: %s", error)
        memory.delete()
        return Held()
    return Held() if tree is None else Held.from_tree(tree)


def configs_in(text: str) -> Mapping[str, Any]:
    """Configs of the codecs by direction, from JSON.

    Raises:
        CodecError: no JSON object.
    """
    try:
        configs = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CodecError(f"the server sent a config of codecs that is no JSON: {error}") from None
    if not isinstance(configs, dict):
        raise CodecError(f"the server sent a config of codecs that is no JSON object: {text[:40]!r}")
    return configs


def received(
    order: Order, held: Held, aggregates: int, name: str, content: RecordDict
) -> tuple[str, ArrayRecord, Held]:
    """The model of a message under its usual name, and what is held afterwards."""
    if order.codebook is not None:
        held = replace(held, codebook=order.codebook)
    if codebook_epoch(held.codebook) != order.epoch and order.epoch:
        raise Lost("this node has another codebook than the one in force")
    if order.kind is Kind.BESIDE:
        found = model_in(content)
        if found is None:
            raise WireError("the server said that a model comes beside its order, and none came")
        return *found, _beside(order, held, aggregates, found[1])
    if order.kind is Kind.HELD:
        if (held.version, held.digest) != (order.version, order.digest):
            raise Lost(f"this node holds version {held.version}, not version {order.version} of this server")
        return name, record_of(_model(held)), held
    down = configs_in(held.config).get("down")
    delta = from_config(down) if down is not None else None
    if isinstance(delta, Delta) and order.version < ASIDE:
        held = _by_delta(order, held, aggregates, delta)
    else:
        held = _whole(order, held)
    if (held.version, held.digest) != (order.version, order.digest):
        raise Lost(f"version {order.version} came out as another model than the server's")
    return name, record_of(_model(held)), held


def _model(held: Held) -> Model:
    """The arrays that are held."""
    rest = held.model or {}
    if held.delta is None:
        return rest
    return scatter(held.delta["replica"], rest, held.delta, layout_of(held.delta))


def _beside(order: Order, held: Held, aggregates: int, record: ArrayRecord) -> Held:
    """A plain model; kept only for a codec that looks at how it moves."""
    if not aggregates:
        return replace(held, model=None, delta=None, moves=())
    if (held.version, held.digest) == (order.version, order.digest):
        return held
    model = arrays_of(record)
    moves: tuple[Floats, ...] = ()
    follows = held.version + 1 == order.version < ASIDE and held.digest == order.before
    if held.model and follows and form_of(held.model) == form_of(model):
        layout = layout_of(form_of(model))
        moves = (gather(model, layout) - gather(held.model, layout), *held.moves)[:aggregates]
    return replace(held, version=order.version, digest=order.digest, model=model, delta=None, moves=moves)


def _whole(order: Order, held: Held) -> Held:
    """All arrays, exactly."""
    if order.form is None or order.kind is not Kind.WHOLE:
        raise CodecError(f"the server sent a model of kind {order.kind.name} without a codec for it")
    model, _ = Identity().decode(order.model, dict(order.form))
    return replace(held, version=order.version, digest=digest_of(model), model=dict(model), delta=None, moves=())


def _by_delta(order: Order, held: Held, aggregates: int, delta: Delta) -> Held:
    """A replica, sent anew or moved on."""
    if order.kind is Kind.STREAMS:
        if held.delta is None:
            raise Lost("this node holds no replica to go on from")
        state, payloads = held.delta, order.streams
    else:
        if order.form is None:
            raise CodecError("the server sent a whole model without its names and shapes")
        if order.kind is Kind.WHOLE:
            delta = replace(delta, first=Identity())
        like = {
            name: np.broadcast_to(np.zeros((), dtype), tuple(shape))
            for name, shape, dtype in zip(order.form["names"], order.form["shapes"], order.form["dtypes"], strict=True)
        }
        state, payloads = delta.init(like), (order.model,)
    model, moves, first = None, held.moves, order.version - len(payloads) + 1
    for number, payload in enumerate(payloads, start=first):
        if order.kind is Kind.STREAMS and number <= held.version:
            continue
        before = state["replica"]
        model, state = delta.decode(payload, state)
        moves = () if order.kind is not Kind.STREAMS else (state["replica"] - before, *moves)[:aggregates]
    if model is None:
        return held
    floats = set(layout_of(state).names)
    rest = {name: array for name, array in model.items() if name not in floats}
    return replace(held, version=state["sequence"], digest=state["digest"], model=rest, delta=state, moves=moves)
