"""`Shared`: a cell's terminals share training data: the edge collects from the willing and hands on to the others.

    Layered(FedAvg(), Shared("anonymous and size_bytes <= 1e6", share=0.05, spec=SetSpec((784,), classes=10)))

Terminals of a cell cannot address each other, so every set goes through the edge, in messages of its own, before a
round's training. Two must agree: the owner's policy on the device and this one. Terminals answer with
`flower_edge.clients.sharing`; those that do not know the question train as before. Nothing here trains, and no message
of the strategy is changed.

What it does not do: make data anonymous, or take back what a model has learned of a set.

Source: [4] ¶60-64; Y. Zhao et al., "Federated Learning with Non-IID Data", 2018, for the common set of a few per cent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from flower_edge.errors import ConfigError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.rules import Rule
from flower_edge.runtime.abilities import now_s
from flower_edge.runtime.sharing_messages import SHARED_RECORD, Told, Wanted
from flower_edge.sharing import SetSpec, ShareBook, SharePolicy, TrainingSet

from ..layers import Layer
from .collecting import collect
from .handing import drop, hand
from .shared_state import EDGE, SharedState
from .talk import Line
from .work import Work, share_event

__all__ = ["Shared"]


class Shared(Layer[SharedState]):
    """Collects samples from willing terminals into a common pool and hands it to the terminals of the cell.

    Args:
        policy: the edge's: may a set go to a receiver. A rule over the set's `DataCard` and the receiver, as
            `SharePolicy` has it; None hands on public sets and no others.
        share: of an owner's samples that is asked for, 0 to 1; 0 asks for none.
        most_samples: the most samples of one owner; None is no limit.
        spec: which arrays are taken; default: those of `provided`.
        provided: a set of the edge's own, handed to every terminal that takes sets; the policy is not asked.
        every: after how many training rounds a terminal is asked again; 0 asks each of them once, when it comes.
        pool_bytes: the most the edge holds of others.
        piece_bytes: the most that one message carries of sets.
        timeout_s: how long answers are waited for; None as long as it takes.
        watch: called with the cell's name and its book whenever that has changed: `write_csv` for a run folder.
        clock: seconds, for ages where there is no virtual clock.

    It acts where nodes are looked up, before the strategy samples, and shows all of them. Behind a layer that narrows
    (`Layered(strategy, Selected(...), Shared(...))`) only the chosen are asked and handed anything.

    A set stays in the pool when its owner leaves. Where an owner withdraws it, or no longer agrees when it is asked
    again, it is dropped here, and every terminal of the cell that has it is told to drop it.

    Raises:
        ConfigError: an argument out of its range, or nothing that says what arrays are taken.

    >>> Shared("anonymous", share=0.05, spec=SetSpec((784,), classes=10))
    Shared('anonymous', share=0.05)
    """

    def __init__(
        self,
        policy: SharePolicy | Rule | str | None = None,
        *,
        share: float = 0.05,
        most_samples: int | None = None,
        spec: SetSpec | None = None,
        provided: TrainingSet | None = None,
        every: int = 0,
        pool_bytes: float = 256e6,
        piece_bytes: int = 4_000_000,
        timeout_s: float | None = 30.0,
        watch: Callable[[str, ShareBook], object] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not 0.0 <= share <= 1.0:
            raise ConfigError(f"Shared(share={share}): expected a part of an owner's samples, 0 to 1")
        whole = {
            "most_samples": (most_samples, 1),
            "every": (every, 0),
            "piece_bytes": (piece_bytes, 1),
        }
        for name, (value, least) in whole.items():
            if value is not None and (type(value) is not int or value < least):
                raise ConfigError(f"Shared({name}={value!r}): expected a whole number from {least}")
        if not pool_bytes >= 0:
            raise ConfigError(f"Shared(pool_bytes={pool_bytes}): expected 0 or more")
        self.policy = policy if isinstance(policy, SharePolicy) else SharePolicy(policy)
        self.share, self.most_samples, self.every = share, most_samples, every
        self.pool_bytes, self.piece_bytes, self.timeout_s = pool_bytes, piece_bytes, timeout_s
        self.watch, self.clock, self.provided = watch, clock, provided
        if spec is None and provided is None and share:
            raise ConfigError(
                "Shared(share=…) without spec: say what is taken, such as spec=SetSpec((784,), classes=10)"
            )
        self.spec = SetSpec.like(provided) if spec is None and provided is not None else spec
        if provided is not None and self.spec is not None and (why := self.spec.wrong(provided.x, provided.y)):
            raise ConfigError(f"Shared(provided=…) is not of its own spec: {why}")

    def init(self) -> SharedState:
        """Nobody was asked."""
        return SharedState()

    # -- before a round

    def narrow(self, state: SharedState, round: Round, grid: Grid, nodes: list[int]) -> tuple[list[int], SharedState]:
        """Collects and hands over; everybody goes on being shown."""
        if round.kind != "train" or self.spec is None:
            return nodes, state
        if (round.cloud, round.edge) != state.round:
            state = replace(state, number=state.number + 1, round=(round.cloud, round.edge))
        virtual_s = now_s(grid)
        line = Line(grid, self.timeout_s, self.piece_bytes)
        work = Work(state, round, line, self.spec, self.policy, self.clock() if virtual_s is None else virtual_s)
        wanted = Wanted(self.share, -1 if self.most_samples is None else self.most_samples, round.cell)
        due = [
            node
            for node in nodes
            if node not in state.asked or (self.every and state.number - state.asked[node] >= self.every)
        ]
        collect(work, due, wanted, self.pool_bytes)
        drop(work, nodes)
        hand(work, nodes, self.provided)
        if self.watch is not None and work.state.book is not state.book:
            self.watch(round.cell, work.state.book)
        down_bits, up_bits = state.down_bits + line.down_bits, state.up_bits + line.up_bits
        return nodes, replace(work.state, down_bits=down_bits, up_bits=up_bits)

    # -- after a round

    def inbound(self, state: SharedState, round: Round, replies: list[Message]) -> tuple[list[Message], SharedState]:
        """Learns what terminals hold, use and withdraw, and takes that out of their replies."""
        before = state.book
        for reply in replies:
            if reply.has_error() or not reply.has_content() or SHARED_RECORD not in reply.content:
                continue
            node, record = reply.metadata.src_node_id, reply.content[SHARED_RECORD]
            if isinstance(record, ConfigRecord):
                state = self._heard(state, round, node, Told.read(dict(record)))
            reply.content = RecordDict({name: one for name, one in reply.content.items() if name != SHARED_RECORD})
        if self.watch is not None and state.book is not before:
            self.watch(round.cell, state.book)
        return replies, state

    def _heard(self, state: SharedState, round: Round, node: int, told: Told) -> SharedState:
        held = tuple(key for key in state.held.get(node, ()) if key in told.held)
        # Sets that are or were here, and no others: a book of names that a stranger makes up would grow without end.
        known = {*state.pool, *held, *self._own()}
        uses = {key: count for key, count in told.held.items() if key in known}
        own = state.given_by(str(node))
        uses |= dict.fromkeys(own, told.own_uses)
        if held != state.held.get(node, ()):
            state = replace(state, held={**state.held, node: held})
        if {key: state.book.uses.get(key, {}).get(str(node), 0) for key in uses} != uses:
            state = replace(state, book=state.book.used(str(node), uses))
        if told.withdrawn and own:
            text = f"terminal {node} has withdrawn {', '.join(own)}"
            event = share_event("withdrawn", text, round, str(node), {"sets": len(own)})
            state = state.without_sets(own).with_event(event)
        return state

    def withdraw(self, state: SharedState, key: str) -> SharedState:
        """The state without a set, by its key in the book: handed to nobody any more, dropped by whoever has it.

        For whoever runs the rounds; a terminal withdraws its own set with `clients.sharing.withdraw_data`.

        Raises:
            ConfigError: there is no such set.
        """
        keys = [*state.pool, *self._own()]
        if key not in keys:
            raise ConfigError(f"withdraw({key!r}): the pool has {', '.join(keys[:20]) or 'no set'}")
        return state.without_sets([key])

    def _own(self) -> list[str]:
        """Key of the edge's own set."""
        return [] if self.provided is None else [f"{EDGE}/{self.provided.card.name}"]

    # -- what is told and kept

    def hand_over(self, state: SharedState, node_id: int) -> tuple[Any, SharedState]:
        """What a terminal holds goes with it, and what of it is still to be dropped; its own set stays in this pool."""
        if node_id not in state.asked:
            return None, state
        held, unsure = state.held.get(node_id, ()), state.unsure.get(node_id, ())
        drop = [key for key in dict.fromkeys((*held, *unsure)) if key in state.withdrawn]
        parcel = {"held": list(held), "unsure": list(unsure), "drop": drop}
        after = replace(
            state,
            asked={node: number for node, number in state.asked.items() if node != node_id},
            takers=state.takers - {node_id},
            held={node: keys for node, keys in state.held.items() if node != node_id},
            unsure={node: keys for node, keys in state.unsure.items() if node != node_id},
            declined={node: keys for node, keys in state.declined.items() if node != node_id},
        )
        return parcel, after

    def take_over(self, state: SharedState, node_id: int, parcel: Any) -> SharedState:
        """Inverse of `hand_over`; here it is asked anew what it offers."""
        held = {**state.held, node_id: tuple(parcel["held"])}
        unsure = {**state.unsure, node_id: tuple(parcel["unsure"])}
        return replace(state, held=held, unsure=unsure).without_sets(
            [key for key in parcel["drop"] if key not in state.pool]
        )

    def events(self, state: SharedState) -> tuple[list[Event], SharedState]:
        """What was collected, shared, refused, withdrawn and dropped since the last call."""
        return list(state.untold), replace(state, untold=())

    def metrics(self, state: SharedState) -> Mapping[str, float]:
        """Sets and samples in the pool, refusals so far, and bits of sharing so far."""
        if self.spec is None:
            return {}
        return {
            "pool_sets": len(state.pool),
            "pool_samples": sum(len(one.data) for one in state.pool.values()),
            "share_refused": state.book.refusals,
            "share_down_bits": state.down_bits,
            "share_up_bits": state.up_bits,
        }

    def dump(self, state: SharedState) -> Any:
        """As plain values and arrays; the pool is part of it."""
        return state.dump()

    def load(self, saved: Any) -> SharedState:
        """Inverse of `dump`."""
        return SharedState.load(saved)

    def __repr__(self) -> str:
        return f"Shared({str(self.policy.rule)!r}, share={self.share:g})"
