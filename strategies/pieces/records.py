"""Who trained which units, in which round, with whom, and what it cost: rows, metrics, events. Nothing here decides."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flower_edge.events import Event
from flower_edge.splitting.budgets import History

from .plane import ChainTask
from .seating import Chain, spell

__all__ = ["PieceRecords"]

Value = int | float | str


@dataclass
class PieceRecords:
    """Of a run.

    Attributes:
        rows: one per piece and attempt, plain values, always of the same names: round, chain, attempt, place, pieces,
            terminal, edge, start, stop (units start .. stop-1), steps, samples, loss, compute_s (all steps), flops,
            up_bits, down_bits (of frames), piece_bits (of the piece, there and back), merged (1: it is in the round's
            model), lost (why, or empty).
        histories: what was measured of each terminal, by number.
        events: since they were taken.
    """

    rows: list[dict[str, Value]] = field(default_factory=list)
    histories: dict[int, History] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def tell(self, what: str, text: str, node: str = "", **values: Value) -> None:
        """Something worth telling happened."""
        self.events.append(Event(what, text, node=node, values=values))

    def seated(self, round: int, chains: Sequence[Chain], spares: int) -> None:
        """Who trains what in a round."""
        for chain in chains:
            shown = ", ".join(
                f"terminal {one.number}: {spell(start, stop)}"
                for one, (start, stop) in zip(chain.terminals, chain.spans, strict=True)
            )
            self.tell("pieces", f"round {round}: chain {chain.number}: {shown}", chain=chain.number, spares=spares)

    def attempted(self, round: int, chain: Chain, task: ChainTask) -> None:
        """An attempt of a chain is over; each of its pieces gets a row."""
        for terminal, one in zip(chain.terminals, task.tasks, strict=True):
            report, order = one.report, one.order
            if report is not None and report.flops_per_s is not None and not one.lost:
                history = self.histories.get(terminal.number, History())
                self.histories[terminal.number] = history.add(flops_per_s=report.flops_per_s)
            sent = (one.arrays, one.optimiser, one.head, one.head_optimiser)
            back = (one.new_arrays, one.new_optimiser, one.new_head, one.new_head_optimiser)
            self.rows.append(
                {
                    "round": round,
                    "chain": chain.number,
                    "attempt": one.call.attempt,
                    "place": order.place,
                    "pieces": order.pieces,
                    "terminal": terminal.number,
                    "edge": terminal.edge,
                    "start": order.start,
                    "stop": order.stop,
                    "steps": report.steps if report else 0,
                    "samples": report.samples if report else 0,
                    "loss": math.nan if report is None or report.loss is None else report.loss,
                    "compute_s": report.compute_s if report else math.nan,
                    "flops": report.flops if report else 0.0,
                    "up_bits": one.up_bits,
                    "down_bits": one.down_bits,
                    "piece_bits": 8 * sum(array.nbytes for part in (*sent, *back) for array in part.values()),
                    "merged": int(task.done and not task.lost),
                    "lost": one.lost,
                }
            )
            if one.lost:
                self.tell(
                    "piece-lost",
                    f"round {round}: terminal {terminal.number} at place {order.place} of chain {chain.number} is "
                    f"lost: {one.lost}",
                    str(terminal.number),
                    chain=chain.number,
                    place=order.place,
                )

    def metrics(self, round: int, dropped: int) -> dict[str, float]:
        """Numbers of a round."""
        rows = [row for row in self.rows if row["round"] == round]
        good = [row for row in rows if row["merged"]]
        ends = [row for row in good if row["place"] == int(row["pieces"]) - 1]
        weights = {row["chain"]: float(row["samples"]) for row in good if row["place"] == 0}
        total = sum(weights.values())
        found: dict[str, float] = {
            "chains": len(ends),
            "dropped": dropped,
            "lost": sum(1 for row in rows if row["lost"]),
            "reassigned": len({(row["chain"], row["attempt"]) for row in good if row["attempt"]}),
            **{name: float(sum(float(row[name]) for row in rows)) for name in ("up_bits", "down_bits", "piece_bits")},
        }
        if total:
            found["loss"] = sum(weights[row["chain"]] * float(row["loss"]) for row in ends) / total
        return found

    def take_events(self) -> list[Event]:
        """What happened since the last call."""
        told, self.events = self.events, []
        return told

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "rows": [dict(row) for row in self.rows],
            "histories": {str(number): history.state_dict() for number, history in self.histories.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.rows, self.events = [dict(row) for row in state["rows"]], []
        self.histories = {int(number): History.from_state(saved) for number, saved in state["histories"].items()}
