"""`Compressed`: codes travel instead of models. A layer around any Flower strategy, with `codec_mod` at the nodes.

    Layered(FedAvg(), Compressed(stc(0.01)))                                updates go up as codes
    Layered(FedAvg(), Compressed(stc(0.01), down=TopK(0.05), first=Half()))  and models go down as codes

A node sends by how much its training moved the model it was given; the strategy sees ordinary replies with whole
models. Which codec is worth it is in docs/codecs.md. How models go down is in `downlink`, how replies are read in
`uplink`; nothing here encodes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    Strategy,
)

from flower_edge.codecs.codec import Codec
from flower_edge.codecs.delta import Delta
from flower_edge.codecs.error_feedback import ErrorFeedback
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.vector_codec import VectorCodec
from flower_edge.errors import ConfigError, NestingError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.wrapped_grid import find

from ..layers import Layer, Stage
from .downlink import Downlink
from .folding import check_folds, foldable, folded
from .measured import ratios
from .state import CompressedState, Tally
from .uplink import Read, Uplink, by_number

__all__ = ["Compressed"]

_CLIPPED_BY_CLIENTS = (DifferentialPrivacyClientSideFixedClipping, DifferentialPrivacyClientSideAdaptiveClipping)


class Compressed(Layer[CompressedState]):
    """Codes up, and models or codes down.

    Args:
        codec: of updates, for the way up. With `Identity()` the models themselves travel, as one blob, and every Flower
            strategy is bit for bit itself.
        down: of the change from one version of the model to the next, for the way down; `None` sends plain models, and
            the metrics say so. What it leaves out is coded again with the next version, so it takes no `ErrorFeedback`
            (one around it is left away). A codec whose error can exceed what it codes needs
            `Delta(codec, step=...)`. `Identity()` sends whole models, as one blob.
        first: of whole models, for nodes that hold none, where `down` is a codec. What it makes of the very first model
            is what nodes begin with; afterwards it is used where it changes nothing, else models travel exactly.
        keep: how many versions a node may be behind, or answer late; the server holds one model more than that.
        public: for how many of the last rounds both ends keep by how much the model moved, for codecs that look at it
            (contexts of `TopK`, `Predicted`): a vector each, and at nodes a model more where plain ones go down. At
            most, and by default, as many as the codec looks at; 0 for nodes with little memory.
        fold: hand the strategy one reply, the weighted mean of all: for strategies that make nothing else of them.
            Layers nearer to the strategy see that one reply, too. Sparse updates are then added in time and memory of
            what they name, without a model per node.
        weighted_by: the reply's metric that weighs it, where replies are folded.

    Raises:
        ConfigError: an argument out of its range, or a codec that cannot travel like this.
    """

    stage: ClassVar[Stage] = Stage.BYTES

    def __init__(
        self,
        codec: Codec,
        *,
        down: Codec | None = None,
        first: Codec | None = None,
        keep: int = 4,
        public: int | None = None,
        fold: bool = False,
        weighted_by: str = "num-examples",
    ) -> None:
        if not isinstance(codec, VectorCodec):
            raise ConfigError(
                f"Compressed({codec!r}): expected a codec of updates such as Eden(bits=1) or stc(0.01); "
                "a Delta is for the way down, and for gossip"
            )
        if type(keep) is not int or not 1 <= keep <= 1000:
            raise ConfigError(f"keep = {keep!r}: expected a whole number from 1 to 1000, the versions that are kept")
        if fold and codec.exact:
            raise ConfigError(f"fold=True with {codec!r}: whole models come up and are not folded; leave fold out")
        if public is not None and (type(public) is not int or not 0 <= public <= 255):
            raise ConfigError(f"public = {public!r}: expected a whole number from 0 to 255, or None")
        self.codec, self.keep, self.fold, self.weighted_by = codec, keep, fold, weighted_by
        self.public = codec.public_rounds if public is None else min(public, codec.public_rounds)
        self.first = Identity() if first is None else first
        self.down = _downward(down, self.first)
        configs: dict[str, Any] = {"up": codec.config()}
        if self.down is not None:
            configs["down"] = self.down.config()
        if self.public != codec.public_rounds:
            configs["public"] = self.public
        self._config = json.dumps(configs, sort_keys=True, separators=(",", ":"))

    @property
    def folds(self) -> bool:
        """With `fold`."""
        return self.fold

    def init(self) -> CompressedState:
        """Nobody holds anything."""
        return CompressedState()

    def check(self, strategy: Strategy) -> None:
        """Refuse strategies that code what they send themselves, those whose promise a code would break, and with
        `fold` those that look at single replies.

        Raises:
            NestingError: names the strategy.
        """
        if getattr(strategy, "codec", None) is not None:
            name = type(strategy).__name__
            raise NestingError(f"Compressed around {name}, which codes what it sends by itself: {name}(codec=...)")
        if self.fold:
            check_folds(strategy)
        if isinstance(strategy, _CLIPPED_BY_CLIENTS) and not self.codec.exact:
            name = type(strategy).__name__
            raise NestingError(
                f"Compressed({self.codec!r}) around {name}: clients clip what they then code, and what is decoded may "
                f"be larger than that, so its noise would be too small; take {name.replace('Client', 'Server')}, "
                "which clips what was decoded"
            )

    def opened(self, state: CompressedState, grid: Grid) -> CompressedState:
        """Refuse a Grid below that changes what a message asks for.

        Raises:
            NestingError: a `SteppedGrid`, whose later slices bring no model that a code could be against.
        """
        if find(grid, SteppedGrid) is not None:
            raise NestingError(
                "Compressed on a SteppedGrid: a task in slices comes back against a model that only the first slice "
                "brought; take a GridProxy with a deadline instead, or leave Compressed out"
            )
        return state

    # -- messages ----------------------------------------------------------------------------------------------------

    def outbound(
        self, state: CompressedState, round: Round, messages: list[Message]
    ) -> tuple[list[Message], CompressedState]:
        """Orders in place of models, or beside them. Messages that are neither to train nor to evaluate go on."""
        training = round.kind == "train"
        if training and messages and round.edge <= 1:
            state = replace(state, now=Tally(), before=state.before + state.now)
        ours = [message for message in messages if _kind(message) in ("train", "evaluate")]
        _, state = Downlink(self.codec, self.down, self.keep, self.public, self._config).send(
            state, ours, training=training
        )
        return messages, state

    def inbound(
        self, state: CompressedState, round: Round, replies: list[Message]
    ) -> tuple[list[Message], CompressedState]:
        """Ordinary replies, and errors in place of what is refused."""
        uplink = Uplink(self.codec, state, round, self.public)
        read = [uplink.read(reply) if _kind(reply) in ("train", "evaluate") else reply for reply in replies]
        taken = [one for one in read if isinstance(one, Read)]
        state = uplink.state
        if round.kind == "train" and (teacher := self.codec.teacher()) is not None and state.teacher is not None:
            state = replace(state, teacher=teacher.learn(state.teacher, state.round - 1, by_number(taken, state)))
        if not self.fold:
            return [one.ordinary() if isinstance(one, Read) else one for one in read], state
        together = [one for one in taken if foldable(one, self.weighted_by)]
        gone = set(map(id, together))
        out = [one.ordinary() if isinstance(one, Read) else one for one in read if id(one) not in gone]
        return ([folded(together, self.weighted_by)] if together else []) + out, state

    # -- nodes that move, records ------------------------------------------------------------------------------------

    def hand_over(self, state: CompressedState, node_id: int) -> tuple[Any, CompressedState]:
        """The terminal's next edge has models of its own: nothing of this one's is any use there."""
        return {}, state.without_node(node_id)

    def take_over(self, state: CompressedState, node_id: int, parcel: Any) -> CompressedState:
        """The terminal was at another edge: what it held of this one's models is gone."""
        return state.without_node(node_id)

    def events(self, state: CompressedState) -> tuple[list[Event], CompressedState]:
        """Replies that were refused, and nodes that had lost what they held, since the last call."""
        return list(state.untold), replace(state, untold=())

    def metrics(self, state: CompressedState) -> Mapping[str, float]:
        """Bits and ratios of this round and of the run, and what the codec's teacher has to tell.

        Ratios are float32 over what travelled. `up_ratio`, `down_ratio` and `round_trip_ratio`, of both together: a
        plain model down holds that at 2, whatever goes up.
        """
        teacher = self.codec.teacher()
        told = {} if teacher is None or state.teacher is None else dict(teacher.metrics(state.teacher))
        return {**ratios(state), **told}

    def dump(self, state: CompressedState) -> Any:
        """As nested plain values and arrays."""
        return state.to_tree()

    def load(self, saved: Any) -> CompressedState:
        """Inverse of `dump`."""
        return CompressedState.from_tree(saved)

    def __repr__(self) -> str:
        down = "" if self.down is None else f", down={self.down!r}"
        return f"Compressed({self.codec!r}{down})"


def _downward(down: Codec | None, first: Codec) -> Delta | VectorCodec | None:
    """The codec of the main line: a `Delta` around what was given, or an exact codec."""
    if down is None or isinstance(down, Delta):
        return down
    while isinstance(down, ErrorFeedback):
        down = down.inner
    if not isinstance(down, VectorCodec):
        raise ConfigError(f"down = {down!r}: expected a codec of updates such as TopK(0.05), or None for plain models")
    return down if down.exact else Delta(down, first)


def _kind(message: Message) -> str:
    return message.metadata.message_type.partition(".")[0]
