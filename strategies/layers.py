"""The `Layer` promise: one concern, put around any Flower strategy.

A layer sees what passes between a strategy and its nodes, and may change it. It holds no state of its own: state is
handed in and handed back, so that it can live in a checkpoint. Every hook has a neutral default; a layer overrides
the ones it is about. Nothing here runs a round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from itertools import combinations, pairwise
from typing import Any, ClassVar, Generic, TypeVar

from flwr.app import ArrayRecord, Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import NestingError
from flower_edge.events import Event
from flower_edge.rounds import Round

__all__ = ["Identity", "Layer", "Stage", "check_order"]

State = TypeVar("State")


class Stage(IntEnum):
    """What a layer works on. From the strategy to the wire, stages never go back."""

    REWARD = 1  # what is merged: rewards
    MODEL = 2  # plain models: selection, filtering
    ADMIT = 3  # what was decoded, before anybody looks at its numbers: the admission gate
    BYTES = 4  # what travels: codecs; replies that are folded go on as one, which layers of models then see
    COUNT = 5  # what left: meters


class Layer(Generic[State]):
    """One concern on any Flower strategy. All hooks take the layer's state and hand it back.

    Subclasses are values: they keep what they were configured with and nothing else.
    """

    stage: ClassVar[Stage] = Stage.MODEL
    #: Whether it looks at what every single node has sent, so that no layer below may make one reply of several.
    singly: ClassVar[bool] = False

    def init(self) -> State:
        """The state before the first round."""
        return None  # type: ignore[return-value]

    def check(self, strategy: Strategy) -> None:
        """Refuse a strategy that cannot work with this layer: raise `NestingError`, before anything is sent."""

    def opened(self, state: State, grid: Grid) -> State:
        """A session begins, or goes on from a checkpoint, on this Grid: what is below the layer."""
        return state

    def narrow(self, state: State, round: Round, grid: Grid, nodes: list[int]) -> tuple[list[int], State]:
        """Who can be sampled in this round: some of `nodes`, asked once per exchange and set of nodes.

        Narrowing happens before the strategy samples. Dropping messages afterwards would break its own minimums.
        """
        return nodes, state

    def outbound(self, state: State, round: Round, messages: list[Message]) -> tuple[list[Message], State]:
        """Messages on their way to the nodes. They share one content: assign a new one, never change it in place."""
        return messages, state

    def inbound(self, state: State, round: Round, replies: list[Message]) -> tuple[list[Message], State]:
        """Replies on their way to the strategy, errors among them; as many calls as there were batches of them."""
        return replies, state

    def merged(self, state: State, round: Round, before: ArrayRecord, after: ArrayRecord) -> tuple[ArrayRecord, State]:
        """The model before a round's merge and after it; what is returned goes on."""
        return after, state

    def cut_off(self, state: State, round: Round) -> int | None:
        """After how many usable replies this exchange need not wait longer; `None` waits for all of them."""
        return None

    def scored(self, state: State, round: Round, metrics: Mapping[str, float]) -> State:
        """What an evaluation found after the round's merge: the centre's own where there is one, else the clients'."""
        return state

    def stop(self, state: State, round: Round) -> str | None:
        """A reason to end the training after this round, or `None`."""
        return None

    def events(self, state: State) -> tuple[list[Event], State]:
        """What happened since the last call, to be recorded; taken once per round."""
        return [], state

    def hand_over(self, state: State, node_id: int) -> tuple[Any, State]:
        """What this layer knows of a terminal that goes to another edge, in plain values; it may forget it here.

        `None` is nothing. The layer of the same class and place at the other edge is given it in `take_over`.
        """
        return None, state

    def take_over(self, state: State, node_id: int, parcel: Any) -> State:
        """Inverse of `hand_over`, at the edge where the terminal has come to."""
        return state

    def metrics(self, state: State) -> Mapping[str, float]:
        """Numbers to record after this round."""
        return {}

    def dump(self, state: State) -> Any:
        """The state as nested dicts and lists of plain values and arrays, for a checkpoint.

        Override it, and `load`, where the state is anything else; a checkpoint refuses it by its place.
        """
        return state

    def load(self, saved: Any) -> State:
        """Inverse of `dump`."""
        return saved  # type: ignore[no-any-return]

    @property
    def narrows(self) -> bool:
        """Whether this layer has a say in who can be sampled."""
        return type(self).narrow is not Layer.narrow

    @property
    def folds(self) -> bool:
        """Whether it makes one reply of several."""
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Identity(Layer[None]):
    """Changes nothing. Every Flower strategy is bit for bit itself with it."""


def check_order(layers: Sequence[Layer[Any]]) -> None:
    """Refuse layers that would see what they cannot work on.

    Raises:
        NestingError: names the two layers and the right order.
    """
    for first, second in combinations(layers, 2):
        if first.singly and second.folds:
            one, two = type(first).__name__, type(second).__name__
            raise NestingError(
                f"{two}(..., fold=True) below {one}: it makes one reply of all, and {one} looks at every single one; "
                f"leave fold=True out: Layered(strategy, {one}(...), {two}(codec))"
            )
    for first, second in pairwise(layers):
        one, two = type(first).__name__, type(second).__name__
        if first.stage is second.stage is Stage.BYTES:
            raise NestingError(f"{two} after {one}: the models are encoded already; leave one of the two out")
        if second.stage >= first.stage:
            continue
        why = {
            Stage.COUNT: f"{one} counts what leaves, and {two} changes it afterwards",
            Stage.BYTES: f"{two} works on plain models, and {one} has already encoded them",
            Stage.ADMIT: f"{one} lets in what {two} then works on, so it is nearer to the wire",
            Stage.MODEL: f"{two} pays for what is merged, and {one} may still drop some of it",
        }[first.stage]
        right = ", ".join(f"{type(layer).__name__}(...)" for layer in sorted(layers, key=lambda layer: layer.stage))
        raise NestingError(f"{two} after {one}: {why}; write Layered(strategy, {right})")
