"""`Layered`: any Flower strategy with layers around it, and the Grid at which they act.

`Layered(strategy, Selected(...), Compressed(...), Metered())`: listed from the strategy to the wire. Layers act at the
Grid, so the strategy is not changed, subclassed or asked for anything it does not already do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from flower_edge.errors import ConfigError, NestingError, ResumeError
from flower_edge.events import Event
from flower_edge.rounds import Kind, Round
from flower_edge.runtime.abilities import cutting_off
from flower_edge.runtime.narrowed_grid import Patience, minimum_nodes
from flower_edge.runtime.strategy_state import load_strategy_state, strategy_state
from flower_edge.runtime.wrapped_grid import WrappedGrid

from .flat_work import FlatWork
from .idling import check_idle_s
from .layers import Layer, check_order
from .loop import drive
from .start_only import StartOnly

__all__ = ["Layered", "LayeredGrid"]


class LayeredGrid(WrappedGrid):
    """A Grid with layers on it: the session of one `Layered`, with the layers' states.

    Args:
        inner: where the messages go.
        layers: from the strategy to the wire.
        timeout_s: how long somebody may ask for nodes that a layer has narrowed away; `None` is for ever, as in
            Flower. Where no layer narrows it is always for ever.
        minimum: how many nodes the strategy needs in an exchange of a kind, for the error.
    """

    def __init__(
        self,
        inner: Grid,
        layers: Iterable[Layer[Any]],
        timeout_s: float | None = None,
        minimum: Callable[[Kind], int] = lambda kind: 1,
    ) -> None:
        super().__init__(inner)
        self.layers = tuple(layers)
        self.states: list[Any] = [layer.opened(layer.init(), inner) for layer in self.layers]
        self.round = Round(0)
        narrows = any(layer.narrows for layer in self.layers)
        self._patience = Patience(timeout_s if narrows else None, label="the federation, as its layers narrowed it,")
        self._minimum = minimum
        self._narrowed: tuple[Round, tuple[int, ...], list[int]] | None = None
        # While a layer narrows, virtual time may pass and terminals may move.
        self._narrowing = False
        self._afterwards: list[Callable[[], object]] = []

    # -- told by whoever runs the rounds

    def announced(self, round: Round) -> None:
        """A round begins."""
        self.round = round
        self._patience.minimum = self._minimum(round.kind)
        self._patience.reset()

    def merged(self, round: Round, before: ArrayRecord, after: ArrayRecord) -> ArrayRecord:
        """A round has merged; the model to go on with."""
        for i, layer in enumerate(self.layers):
            after, self.states[i] = layer.merged(self.states[i], round, before, after)
        return after

    def stop(self, round: Round) -> str | None:
        """The first layer's reason to end the training, or `None`."""
        reasons = (layer.stop(state, round) for layer, state in zip(self.layers, self.states, strict=True))
        return next((reason for reason in reasons if reason), None)

    def metrics(self) -> dict[str, float]:
        """What the layers measured; a later layer's name wins."""
        return {
            # A NumPy number is not one that a message or a run folder takes.
            name: value.item() if isinstance(value, np.generic) else value
            for layer, state in zip(self.layers, self.states, strict=True)
            for name, value in layer.metrics(state).items()
        }

    def scored(self, round: Round, metrics: Mapping[str, float]) -> None:
        """What an evaluation found after the round's merge."""
        for i, layer in enumerate(self.layers):
            self.states[i] = layer.scored(self.states[i], round, metrics)

    def events(self) -> list[Event]:
        """What happened since the last call."""
        told: list[Event] = []
        for i, layer in enumerate(self.layers):
            own, self.states[i] = layer.events(self.states[i])
            told += own
        return told

    def hand_over(self, node_id: int) -> list[Any]:
        """What each layer knows of a terminal that goes to another edge, in the order of the layers."""
        parcels = []
        for i, layer in enumerate(self.layers):
            parcel, state = layer.hand_over(self.states[i], node_id)
            parcels.append((type(layer).__name__, parcel))
            if not self._narrowing:
                self.states[i] = state
        if self._narrowing:
            self._afterwards.append(lambda: self.hand_over(node_id))
        return parcels

    def take_over(self, node_id: int, parcels: list[Any]) -> None:
        """Inverse of `hand_over` at the other edge; what its layers have no counterpart for is left."""
        if self._narrowing:
            # A layer is asking its nodes, time passes, and it will hand back the state it began with.
            self._afterwards.append(lambda: self.take_over(node_id, parcels))
            return
        for i, (layer, (name, parcel)) in enumerate(zip(self.layers, parcels, strict=False)):
            if parcel is not None and name == type(layer).__name__:
                self.states[i] = layer.take_over(self.states[i], node_id, parcel)

    # -- the Grid

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that can be sampled in this round."""
        there = tuple(self.inner.get_node_ids())
        if self._narrowed is None or self._narrowed[:2] != (self.round, there):
            nodes = list(there)
            self._narrowing = True
            try:
                for i, layer in enumerate(self.layers):
                    nodes, self.states[i] = layer.narrow(self.states[i], self.round, self.inner, nodes)
            finally:
                self._narrowing = False
            afterwards, self._afterwards = self._afterwards, []
            for catch_up in afterwards:
                catch_up()
            self._narrowed = (self.round, there, nodes)
        nodes = self._narrowed[2]
        self._patience.asked(len(nodes))
        return list(nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages, through the layers, without waiting."""
        self._patience.reset()
        return self.inner.push_messages(self.outgoing(list(messages)))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that have arrived, through the layers."""
        # Whoever pulls waits for replies and not for nodes.
        self._patience.reset()
        replies = list(self.inner.pull_messages(list(message_ids)))
        return self.incoming(replies) if replies else []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages through the layers and wait for their replies."""
        return self.hop(list(messages), lambda outgoing: self._exchange(outgoing, timeout))

    def _exchange(self, messages: list[Message], timeout: float | None) -> list[Message]:
        counts = [
            count
            for layer, state in zip(self.layers, self.states, strict=True)
            if (count := layer.cut_off(state, self.round)) is not None
        ]
        with cutting_off(self.inner, min(counts, default=None)):
            return list(self.inner.send_and_receive(messages, timeout=timeout))

    def hop(self, messages: list[Message], deliver: Callable[[list[Message]], list[Message]]) -> list[Message]:
        """Take messages through the layers, deliver them in some way, take the replies back through the layers."""
        return self.incoming(deliver(self.outgoing(messages)))

    def outgoing(self, messages: list[Message]) -> list[Message]:
        """Take messages through the layers, towards the nodes."""
        self._patience.reset()
        for i, layer in enumerate(self.layers):
            messages, self.states[i] = layer.outbound(self.states[i], self.round, messages)
        return messages

    def incoming(self, replies: list[Message]) -> list[Message]:
        """Take replies through the layers, towards the strategy."""
        for i, layer in reversed(list(enumerate(self.layers))):
            replies, self.states[i] = layer.inbound(self.states[i], self.round, replies)
        return replies

    # -- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """States of the layers, in order."""
        return {
            "layers": [
                {"layer": type(layer).__name__, "state": layer.dump(state)}
                for layer, state in zip(self.layers, self.states, strict=True)
            ]
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`.

        Raises:
            ResumeError: the layers are not those of the checkpoint.
        """
        saved, own = [entry["layer"] for entry in state["layers"]], [type(layer).__name__ for layer in self.layers]
        if saved != own:
            raise ResumeError(f"the checkpoint has the layers {saved}, this run {own}; resume with the same layers")
        self.states = [
            layer.opened(layer.load(entry["state"]), self.inner)
            for layer, entry in zip(self.layers, state["layers"], strict=True)
        ]
        self._narrowed = None


class Layered(StartOnly):
    """Any Flower strategy, with layers between it and its nodes.

    Args:
        strategy: one of Flower's, your own, a DP wrapper around one, or one that brings its own `start`.
        layers: from the strategy to the wire.

    Raises:
        NestingError: an order that cannot work; the message says the right one.

    A strategy with Flower's own `start` gets flower-edge's copy of that loop, which can stop early, record and resume;
    one that brings its own is started on the layered Grid. With no layer, or `Identity()`, the model is bit for bit
    that of the strategy alone, but where something went wrong: a training round from which only errors came back
    raises `RoundFailed` instead of silently keeping the old model, and a node whose arrays are not the model's is
    named in a `ModelMismatch`, also where NumPy would have broadcast them. A strategy that brings its own `start`
    keeps its own ways.

    >>> from flwr.serverapp.strategy import FedAvg
    >>> Layered(Layered(FedAvg()))
    Traceback (most recent call last):
    ...
    flower_edge.errors.NestingError: Layered around Layered: list all layers in one, Layered(strategy, first, second)
    """

    right_nesting = (
        "a strategy around Layered, and layers act at the Grid, which only Layered.start can wrap; "
        "put the wrapper inside: Layered(Wrapper(strategy, ...), layers), "
        "for example Layered(DifferentialPrivacyServerSideFixedClipping(FedAvg(), ...), Metered())"
    )

    def __init__(self, strategy: Strategy, *layers: Layer[Any]) -> None:
        for layer in layers:
            if isinstance(layer, Strategy):
                raise NestingError(
                    f"{type(layer).__name__} is a strategy, not a layer; "
                    f"there is one strategy, the first argument: Layered({type(layer).__name__}(...), layers)"
                )
            if not isinstance(layer, Layer):
                raise ConfigError(f"{layer!r} is not a Layer; {_instead(layer)}")
        if not isinstance(strategy, Strategy):
            raise ConfigError(
                f"{strategy!r} is not a Flower strategy; the first argument of Layered is one{_made(strategy)}"
            )
        if isinstance(strategy, Layered):
            raise NestingError("Layered around Layered: list all layers in one, Layered(strategy, first, second)")
        refuse_layered_inside(strategy)
        check_order(layers)
        for layer in layers:
            layer.check(strategy)
        self.strategy = strategy
        self.layers = layers

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
        **options: Any,
    ) -> Result:
        """Run the strategy, as Flower's `Strategy.start`.

        Keyword options beside Flower's own, all optional:
            run: a `RunFolder` to record metrics, models and checkpoints in.
            resume: continue from the newest checkpoint of `run`.
            idle_s: what a round lets pass to which nobody can contribute (virtual seconds on a virtual clock), and
                keeps the model: too few nodes for the strategy's minimums once the layers have narrowed, or all let go
                by the policy of a `SteppedGrid` within the round. `None` waits for nodes, and raises. Nodes that have
                yet to connect are not waited for then; `GridProxy(expected_nodes=…)` does that.

        Raises:
            RoundFailed: a training round from which nothing usable came back.
            NotEnoughNodes: a layer narrows, and the strategy waited for nodes for longer than `timeout`.
            ResumeError: the checkpoint is not one of this strategy, these layers or this grid.
        """
        layered = LayeredGrid(grid, self.layers, timeout, lambda kind: minimum_nodes(self.strategy, kind))
        arguments = (initial_arrays, num_rounds, timeout, train_config, evaluate_config, evaluate_fn)
        if type(self.strategy).start is not Strategy.start:
            if "idle_s" in options and hasattr(self.strategy, "idle_s"):
                name = type(self.strategy).__name__
                raise ConfigError(f"idle_s belongs to {name}, which runs its own rounds: {name}(..., idle_s=...)")
            return self.strategy.start(layered, *arguments, **options)
        known = _known(options)
        idle_s = known.pop("idle_s", None)
        check_idle_s(idle_s)
        return drive(FlatWork(self.strategy, idle_s), layered, *arguments, **known)

    def session(self, grid: Grid) -> tuple[Strategy, LayeredGrid]:
        """The strategy inside and a layered Grid around `grid`, for whoever runs its rounds: an edge."""
        return self.strategy, LayeredGrid(grid, self.layers)

    def summary(self) -> None:
        """Log the strategy's configuration."""
        self.strategy.summary()

    def state_dict(self) -> dict[str, Any]:
        """State of the strategy inside. The layers' states belong to the Grid of the session."""
        return {"strategy": strategy_state(self.strategy)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        load_strategy_state(self.strategy, state["strategy"])


def _known(options: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := set(options) - {"run", "resume", "idle_s"}:
        raise ConfigError(
            f"Layered.start got {sorted(unknown)}; its options beside Flower's are run=, resume= and idle_s="
        )
    return dict(options)


def refuse_layered_inside(strategy: Strategy) -> None:
    """Refuse a wrapper that has a `Layered` inside.

    Raises:
        NestingError: says the right nesting.
    """
    inner: Any = getattr(strategy, "strategy", None)
    while isinstance(inner, Strategy):
        if isinstance(inner, Layered):
            name = type(strategy).__name__
            raise NestingError(f"{name} around Layered; put it inside: Layered({name}(strategy, ...), layers)")
        inner = getattr(inner, "strategy", None)


def _instead(given: object) -> str:
    """What to write for something that is no layer, and is meant as one."""
    if isinstance(given, type):
        return f"write {given.__name__}(...)"
    if hasattr(given, "encode") and hasattr(given, "decode"):
        return "a codec goes into one: Compressed(codec)"
    layer = {"Coverage": "Covered(coverage)", "Pipeline": "Selected(pipeline)"}.get(type(given).__name__)
    return "subclass flower_edge.strategies.Layer" if layer is None else f"it goes into one: {layer}"


def _made(given: object) -> str:
    return f"; write {given.__name__}(...)" if isinstance(given, type) else ""
