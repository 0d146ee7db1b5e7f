"""What an edge says to terminals about sets, and what it makes of their answers. It decides nothing and keeps nothing.

Whatever comes back is read within bounds: rows only in the number, shape and dtype that were asked for. Who does not
answer, or answers badly, is out, with a reason where it had something to give.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from logging import getLogger
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from flower_edge.conditions import plain_values
from flower_edge.errors import EdgeError
from flower_edge.runtime.abilities import now_s
from flower_edge.runtime.queries import NOW_S, REQUEST
from flower_edge.runtime.sharing_messages import ANSWER, SHARE, Wanted, read_rows, take_request, texts_in
from flower_edge.sharing import DataCard, SetSpec, TrainingSet, waves
from flower_edge.wire import error_reason, payload_bits

__all__ = ["Given", "Line", "Offer", "Taken"]

log = getLogger(__name__)


@dataclass(frozen=True)
class Offer:
    """What a terminal answered: whether it takes sets, what it has, whether its own policy gives it, why not."""

    takes: bool
    card: DataCard | None
    agreed: bool
    why: str


@dataclass(frozen=True)
class Given:
    """What came of asking for sets: the sets by node, and why others did not come."""

    sets: Mapping[int, TrainingSet]
    refused: Mapping[int, str]


@dataclass
class Taken:
    """Which sets a terminal has now, which it may have for it fell silent, and which it refused and why."""

    whole: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


@dataclass
class Line:
    """A conversation of one round; counts its bits.

    Attributes:
        grid: where the nodes are.
        timeout_s: the most to wait for one exchange.
        piece_bytes: the most that one message carries of sets.
        down_bits, up_bits: counted from the records.
    """

    grid: Grid
    timeout_s: float | None
    piece_bytes: int
    down_bits: int = 0
    up_bits: int = 0

    def offers(self, nodes: list[int], wanted: Wanted) -> dict[int, Offer]:
        """What terminals offer; those that do not know the question are not in it."""
        answers = self._exchange({node: RecordDict({REQUEST: wanted.request()}) for node in nodes})
        found = {}
        for node, content in answers.items():
            told, _ = plain_values(content.config_records.get(ANSWER))
            why = told.get("why")
            found[node] = Offer(
                takes=told.get("takes") is True,
                card=DataCard.read(told),
                agreed=told.get("agreed") is True,
                why=str(why)[:300] if why else "",
            )
        return found

    def collect(self, cards: Mapping[int, DataCard], wanted: Wanted, spec: SetSpec) -> Given:
        """The samples of those cards, piece by piece."""
        plans = {
            node: waves({str(node): card.samples}, spec.row_bytes, self.piece_bytes) for node, card in cards.items()
        }
        parts: dict[int, list[Any]] = {node: [] for node in cards}
        refused: dict[int, str] = {}
        for place in range(max(map(len, plans.values()), default=0)):
            due = {node: plan[place][0] for node, plan in plans.items() if place < len(plan) and node not in refused}
            answers = self._exchange(
                {
                    node: RecordDict({REQUEST: replace(wanted, start=part.start, stop=part.stop).request()})
                    for node, part in due.items()
                }
            )
            for node, part in due.items():
                answer = answers.get(node)
                if answer is None:
                    refused[node] = "no answer"
                    continue
                told, _ = plain_values(answer.config_records.get(ANSWER))
                if told.get("agreed") is not True:
                    refused[node] = str(told.get("why") or "changed its mind")[:300]
                    continue
                try:
                    sender = f"node {node}"
                    rows = read_rows(answer.array_records.get("rows"), spec, part.stop - part.start, sender=sender)
                    parts[node].append(rows)
                except EdgeError as error:
                    refused[node] = str(error)
        sets = {}
        for node, card in cards.items():
            if node in refused:
                continue
            x, y = (np.concatenate([rows[place] for rows in parts[node]]) for place in (0, 1))
            try:
                sets[node] = TrainingSet(x, y, card, spec.columns).measured(spec.quasi_identifiers)
            except EdgeError as error:
                refused[node] = str(error)
        return Given(sets, refused)

    def hand(
        self, wanted: Mapping[int, list[str]], sets: Mapping[str, TrainingSet], row_bytes: int
    ) -> dict[int, Taken]:
        """Give each node the sets named, piece by piece; whoever does not answer has none of them."""
        plans = {
            node: waves({key: len(sets[key]) for key in keys}, row_bytes, self.piece_bytes)
            for node, keys in wanted.items()
        }
        found = {node: Taken() for node in wanted}
        silent: set[int] = set()
        for place in range(max(map(len, plans.values()), default=0)):
            due = {}
            for node, plan in plans.items():
                parts = (
                    [part for part in plan[place] if part.key not in found[node].refused] if place < len(plan) else []
                )
                if parts and node not in silent:
                    due[node] = parts
            answers = self._exchange({node: take_request(parts, sets) for node, parts in due.items()})
            for node, parts in due.items():
                if (answer := answers.get(node)) is None:
                    silent.add(node)
                    # It may be the answer that was lost. A part of a set that came before counts too.
                    sent = [part.key for wave in plans[node][: place + 1] for part in wave]
                    done = {*found[node].whole, *found[node].refused}
                    found[node].unsure = [key for key in dict.fromkeys(sent) if key not in done]
                    continue
                told = dict(answer.config_records.get(ANSWER) or {})
                taken, refused = texts_in(told, "taken"), texts_in(told, "refused")
                why = dict(zip(refused, texts_in(told, "why"), strict=False))
                for part in parts:
                    if part.key in refused or part.key not in taken:
                        found[node].refused[part.key] = why.get(part.key, "not taken")
                    elif part.stop == part.samples:
                        found[node].whole.append(part.key)
        return {node: taken for node, taken in found.items() if taken.whole or taken.unsure or taken.refused}

    def drop(self, wanted: Mapping[int, list[str]]) -> dict[int, list[str]]:
        """Tell nodes to forget sets; what each said it has forgotten."""
        answers = self._exchange(
            {
                node: RecordDict({REQUEST: ConfigRecord({"ask": "drop", "keys": list(keys)})})
                for node, keys in wanted.items()
            }
        )
        told = {node: texts_in(dict(one.config_records.get(ANSWER) or {}), "dropped") for node, one in answers.items()}
        return {node: [key for key in wanted[node] if key in keys] for node, keys in told.items()}

    def _exchange(self, contents: Mapping[int, RecordDict]) -> dict[int, RecordDict]:
        """Contents of the good answers, in the order of the questions."""
        if not contents:
            return {}
        time_s = now_s(self.grid)
        messages = []
        for node, content in contents.items():
            if time_s is not None:
                content.config_records[REQUEST][NOW_S] = time_s
            self.down_bits += payload_bits(content)
            messages.append(Message(content, node, f"query.{SHARE}"))
        found: dict[int, RecordDict] = {}
        for reply in self.grid.send_and_receive(messages, timeout=self.timeout_s):
            node = reply.metadata.src_node_id
            if reply.has_error():
                log.debug("node %s did not answer query.share: %s", node, error_reason(reply))
            elif node in contents:
                self.up_bits += payload_bits(reply.content)
                found[node] = reply.content
        return {node: found[node] for node in contents if node in found}
