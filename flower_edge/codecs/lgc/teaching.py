"""`LgcTeacher`: at the server, between rounds: leader, training and gate of `Lgc`, from decoded updates alone.

    learn   values in bfloat16 at shared or own places  ->  held-out nodes: measured; the others: trained on
    tell    leader's places, each round; the codebook where the gate has opened, nothing (empty bytes) where it has shut

What came through the autoencoder teaches nothing about it and is not looked at: that is why whoever leads sends half
precision. Raw data never comes here. Torch is imported where training begins (training_torch.py).

Source: training at the server as in FLAC and docs/codecs_shared.md; three phases as in LGC, see lgc.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import CodecError
from ..layout import Floats, Layout
from ..leader import LaggedLeader, Places, leads, share_of, used_places
from ..sparse import Sparse, Update, dense
from ..teacher import Told
from .code import Learned
from .codebook import Codebook, codebook_bytes, read_codebook
from .gate import Gate, Measured, compared
from .lgc import Lgc
from .model import Autoencoder, first_weights
from .values import Batch

__all__ = ["LgcTeacher"]

State = dict[str, Any]


@dataclass(frozen=True)
class LgcTeacher:
    """Trains an autoencoder, and publishes it while it pays.

    Attributes:
        codec: whose teacher this is.
        gate: when it pays; not asked where the codec is not gated.
        learning_rate: of Adam.
        steps: per round.
        memory: rounds whose values are trained on.
        held_out: of so many nodes, by their numbers, the last is only measured.
    """

    codec: Lgc
    gate: Gate = field(default_factory=Gate)
    learning_rate: float = 1e-3
    steps: int = 20
    memory: int = 6
    held_out: int = 4

    def init(self, layout: Layout) -> State:
        """Weights drawn from the codec's seed, no leader, gate shut."""
        return {
            "names": list(layout.names),
            "shapes": [list(shape) for shape in layout.shapes],
            "leader": self._leader.init(self._middle(layout)[0]),
            "weights": first_weights(self.codec.code.shape, self.codec.seed),
            "optimiser": {},
            "batches": [],
            "aggregate": np.zeros(0, np.float32),
            "gate": self.gate.init(),
            "codebook": np.zeros(0, np.uint8),
            "published": 0,
        }

    def learn(self, state: State, round: int, updates: Mapping[int, Update]) -> State:
        """Measure, train, and take the leader's places. Nodes that sent nothing are no matter."""
        layout = _layout(state)
        middle, begin = self._middle(layout)
        parts = {node: _part(update, begin, middle.size) for node, update in sorted(updates.items())}
        after = {**state, "leader": self._leader.learn(state["leader"], round, parts)}
        if not parts:
            return after
        if round >= self.codec.full:
            common = state["aggregate"] if state["aggregate"].size else None
            batches = self._batches(state["leader"]["places"], round, parts, middle, common)
            after["gate"] = self.gate.see(state["gate"], self._measured(state, round, parts, batches, middle))
            after |= self._trained(after, round, batches)
        total = np.zeros(middle.size, np.float64)
        for part in parts.values():
            if isinstance(part, Sparse):
                total[part.indices] += part.values
            else:
                total += part
        after["aggregate"] = (total / len(parts)).astype(np.float32)
        return after

    def tell(self, state: State, round: int) -> tuple[Told, State]:
        """Leader's places in the whole vector, and the codebook where it changes."""
        layout = _layout(state)
        leader = self._leader.tell(state["leader"], round)[0].leader
        leader = None if leader is None else leader + self._middle(layout)[1]
        if round < self.codec.full + self.codec.taught:
            return Told(leader), state
        out = bool(state["codebook"].size)
        wanted = self._wanted(state)
        if wanted == out:
            return Told(leader), state
        book = codebook_bytes(self._rounded(state).model, state["published"]) if wanted else b""
        after = {**state, "codebook": np.frombuffer(book, np.uint8), "published": state["published"] + int(wanted)}
        return Told(leader, book), after

    def metrics(self, state: State) -> Mapping[str, float]:
        """What the gate decided and on what: `lgc_gate_open` (0 or 1), its means, bytes and number of codebooks."""
        return {
            **self._leader.metrics(state["leader"]),
            **self.gate.metrics(state["gate"]),
            "lgc_gate_open": float(state["codebook"].size > 0),
            "lgc_codebook_bytes": float(self._book_bytes),
            "lgc_codebooks": float(state["published"]),
        }

    @property
    def _leader(self) -> LaggedLeader:
        return LaggedLeader(self.codec.fraction, self.codec.turn)

    @property
    def _book_bytes(self) -> int:
        return 26 + 2 * self.codec.code.shape.params

    def _wanted(self, state: State) -> bool:
        if self.codec.gated:
            return self.gate.decide(state["gate"], self._book_bytes, out=bool(state["codebook"].size))
        return bool(state["optimiser"])

    def _middle(self, layout: Layout) -> tuple[Layout, int]:
        """The arrays that the autoencoder codes, and where their vector begins in the whole one."""
        first, end = self.codec.middle(layout)
        return layout.select(range(first, end)), sum(layout.sizes[:first])

    def _batches(
        self, shared: Places, round: int, parts: Mapping[int, Update], layout: Layout, common: Floats | None
    ) -> list[tuple[Batch, Places]]:
        """Values that came in bfloat16: of all nodes while it is taught, of whoever leads at its own places."""
        turn, taught = self.codec.turn, round < self.codec.full + self.codec.taught
        own = [node for node in parts if leads(node, round, turn) or (taught and not shared.size)]
        found = []
        for node in own:
            places = used_places(parts[node], share_of(self.codec.fraction, layout.size))
            found.append((Batch.of({node: dense(parts[node])}, places, layout, common), places))
        together = {node: dense(part) for node, part in parts.items() if taught and node not in own}
        if together:
            found.append((Batch.of(together, shared, layout, common), shared))
        return [(batch, places) for batch, places in found if batch.nodes]

    def _measured(
        self,
        state: State,
        round: int,
        parts: Mapping[int, Update],
        batches: list[tuple[Batch, Places]],
        layout: Layout,
    ) -> list[Measured]:
        """Held-out nodes, coded as they would be: with rounded weights and latents."""
        coder = Learned(self.codec.code, self._rounded(state))
        common = state["aggregate"] if state["aggregate"].size else None
        if not state["optimiser"] or (common is None and not self.codec.code.ring):
            return []
        measured = []
        for batch, places in batches:
            known = None if common is None else common[places]
            for node in batch.nodes:
                if self._is_held_out(node):
                    values = dense(parts[node])[places]
                    data = coder.pack(values, places, layout, known)
                    decoded = coder.unpack([memoryview(data)], places, layout, known)
                    measured.append(compared(values, decoded, len(data)))
        return measured

    def _trained(self, state: State, round: int, batches: list[tuple[Batch, Places]]) -> State:
        seen = [batch.only([node for node in batch.nodes if not self._is_held_out(node)]) for batch, _ in batches]
        fresh = [_plain(batch) for batch in seen if batch.nodes]
        kept = [*state["batches"], *([{"round": round, "of": fresh}] if fresh else [])][-self.memory :]
        memory = [
            Batch(tuple(entry["nodes"]), entry["values"], entry.get("common")) for old in kept for entry in old["of"]
        ]
        # The server's variant decodes from what all knew before: without it there is nothing to learn yet.
        memory = [batch for batch in memory if self.codec.code.ring or batch.common is not None]
        if not memory:
            return {"batches": kept}
        try:
            from .training_torch import Training, train
        except ImportError as error:
            raise CodecError(
                "training LGC's autoencoder needs torch at the server: pip install 'flower-edge[torch]'"
            ) from error
        code = self.codec.code
        how = Training(code.shape, code.ring, True, code.detail, self.learning_rate, self.steps, self.codec.seed)
        weights, optimiser = train(how, state["weights"], state["optimiser"], memory, round)
        return {"batches": kept, "weights": weights, "optimiser": optimiser}

    def _rounded(self, state: State) -> Codebook:
        """What would be published, or is: measured is what is out."""
        shape = self.codec.code.shape
        if state["codebook"].size:
            return read_codebook(state["codebook"].tobytes(), shape)
        return read_codebook(codebook_bytes(Autoencoder(shape, state["weights"]), state["published"]), shape)

    def _is_held_out(self, node: int) -> bool:
        return node % self.held_out == self.held_out - 1


def _layout(state: State) -> Layout:
    return Layout(tuple(state["names"]), tuple(tuple(shape) for shape in state["shapes"]))


def _plain(batch: Batch) -> State:
    """As it lies in a checkpoint."""
    entry: State = {"nodes": list(batch.nodes), "values": batch.values}
    return entry if batch.common is None else {**entry, "common": batch.common}


def _part(update: Update, begin: int, size: int) -> Update:
    """Part of an update, from a place on."""
    if not isinstance(update, Sparse):
        return update[begin : begin + size]
    low, high = np.searchsorted(update.indices, [begin, begin + size])
    return Sparse(update.indices[low:high] - begin, update.values[low:high], size)
