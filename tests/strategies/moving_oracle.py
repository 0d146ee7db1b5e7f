"""What a hierarchy with moving terminals must have merged, worked out from the messages alone.

A log of every exchange between the edges' strategies and the sliced grid, and HierFAVG by hand on it. Knows nothing of
coverage, layers or tiers: who was where does not matter for what must be counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from flower_edge.rounds import Round
from flower_edge.runtime.flower_private import clone_message
from flower_edge.runtime.steps.messages import LATE_RECORD
from flower_edge.runtime.wrapped_grid import WrappedGrid
from flower_edge.wire import arrays_of, copy_content, server_round_of, weight_of


@dataclass(frozen=True)
class Reply:
    """A usable reply as it came: whose, from which round's model, and what it brought."""

    message_id: str
    node: int
    base: int
    w: np.ndarray
    examples: float


@dataclass(frozen=True)
class Exchange:
    """One training exchange of one edge: the model it sent and the replies in their order."""

    round: Round
    number: int
    w: np.ndarray
    replies: tuple[Reply, ...]


class Log(WrappedGrid):
    """Keeps every training exchange, in the order in which they ended."""

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self.exchanges: list[Exchange] = []
        # Edges run side by side, and while one asks its terminals another may begin a round.
        self._round: ContextVar[Round] = ContextVar("round")

    def announced(self, round: Round) -> None:
        self._round.set(round)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        sent = list(messages)
        if not sent or sent[0].metadata.message_type != "train":
            return self.inner.send_and_receive(sent, timeout=timeout)
        round, number = self._round.get(), server_round_of(sent[0]) or 0
        w = arrays_of(sent[0].content["arrays"])["w"]  # type: ignore[arg-type]
        replies = list(self.inner.send_and_receive(sent, timeout=timeout))
        good = tuple(_reply(reply, number) for reply in replies if not reply.has_error())
        self.exchanges.append(Exchange(round, number, w, good))
        return replies


def _reply(reply: Message, number: int) -> Reply:
    late = reply.content.get(LATE_RECORD)
    base = number if late is None else int(late["base-round"])  # type: ignore[arg-type, index, call-overload]
    w = arrays_of(reply.content["arrays"])["w"]  # type: ignore[arg-type]
    return Reply(reply.metadata.message_id, reply.metadata.src_node_id, base, w, weight_of(reply))


class Doubling(WrappedGrid):
    """A transport that gives some replies twice: at once, or again with the next exchange."""

    def __init__(self, inner: Grid, share: float, seed: int) -> None:
        super().__init__(inner)
        self._share, self._rng = share, np.random.default_rng(seed)
        self.doubled = 0

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        given: list[Message] = []
        for reply in self.inner.send_and_receive(list(messages), timeout=timeout):
            given.append(reply)
            training = reply.metadata.message_type == "train" and not reply.has_error()
            if training and self._rng.random() < self._share:
                given.append(clone_message(reply, copy_content(reply.content)))
                self.doubled += 1
        return given


@dataclass(frozen=True)
class Merge:
    """One cloud merge: n_e by edge, the terminals counted in it, and the model."""

    examples: dict[str, float]
    counted: dict[str, set[int]]
    w: np.ndarray | None


def merges(
    log: Log, clouds: int, max_staleness: int, *, in_turn: bool = False
) -> tuple[list[Merge], dict[tuple[str, int], list[tuple[int, int]]]]:
    """HierFAVG by hand: what each cloud round must have merged, and the (node, base) of each edge round's updates.

    With `in_turn` edges ran one after the other, and their n-th edge rounds count as at the same time: of two updates
    of a terminal, the one of the later edge round is the last.
    """
    base = {(exchange.round.cell, exchange.number): exchange.w for exchange in log.exchanges}
    seen: set[tuple[str, int, int]] = set()
    merged_in: dict[tuple[str, int], list[tuple[int, int]]] = {}
    found = []
    for cloud in range(1, clouds + 1):
        models: dict[str, np.ndarray] = {}
        last: dict[int, tuple[str, float]] = {}
        # Sorting keeps the order of what is equal.
        for exchange in sorted(log.exchanges, key=lambda one: one.round.edge if in_turn else 0):
            cell = exchange.round.cell
            if exchange.round.cloud != cloud:
                continue
            taken: list[tuple[Reply, np.ndarray]] = []
            for reply in exchange.replies:
                behind = exchange.number - reply.base
                if (cell, reply.node, reply.base) in seen or behind > max_staleness:
                    continue
                seen.add((cell, reply.node, reply.base))
                w = reply.w if not behind else exchange.w + (reply.w - base[cell, reply.base]) / np.sqrt(1 + behind)
                taken.append((reply, w))
            if not taken:
                continue
            total = sum(reply.examples for reply, _ in taken)
            models[cell] = sum(reply.examples * w for reply, w in taken) / total
            merged_in[cell, exchange.number] = [(reply.node, reply.base) for reply, _ in taken]
            for reply, _ in taken:
                last[reply.node] = (cell, reply.examples)
        examples: dict[str, float] = {}
        counted: dict[str, set[int]] = {}
        for node, (cell, number) in last.items():
            examples[cell] = examples.get(cell, 0.0) + number
            counted.setdefault(cell, set()).add(node)
        total_examples = sum(examples.values())
        model: Any = sum(n * models[cell] for cell, n in examples.items()) / total_examples if examples else None
        found.append(Merge(examples, counted, model))
    return found, merged_in
