"""The row that a worker keeps itself: it sees delays, tells what it requires, and moves its row by the server's step.

The worker's half of `signalling="requirements"` and `"scalars"`, see `flower_edge.strategies.Gossip`. The arithmetic is
the controller's. Nothing here mixes, trains or sends.

Source: [1] ¶43, ¶47, FIGS. 5 and 12.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from flower_edge.control.controller import Control, Observation
from flower_edge.control.dcent import Dcent
from flower_edge.control.decision import Decision, Report
from flower_edge.control.link_memory import Known
from flower_edge.errors import ProtocolError
from flower_edge.runtime.gossip_messages import Order, from_json, to_json
from flower_edge.topology.topology import Topology

__all__ = ["OwnRow"]

Tree = dict[str, Any]


class OwnRow:
    """One worker's row for a round: read from the order and what was kept, moved, and kept again.

    Args:
        order: the server's; its `row` tells what was seen and decided.
        kept: what `tree()` returned in the round before; nothing for a worker that begins.

    Raises:
        ProtocolError: the server has handed out no row, and none is kept.
    """

    def __init__(self, order: Order, kept: Tree | None) -> None:
        told = from_json(order.row, sender="the server")
        try:
            self._read(told, kept)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ProtocolError(
                f"the server's order says too little about this worker's row ({error!r}); "
                "install the same flower-edge version on both sides"
            ) from None

    def _read(self, told: Tree, kept: Tree | None) -> None:
        self._controller = Dcent(**told["controller"])
        self._scalars = bool(told["scalars"])
        self.senders: list[int] = [int(sender) for sender in told["senders"]]
        degree = len(self.senders)
        self._topology = Topology(degree + 1, np.zeros(degree, np.int64), np.arange(1, degree + 1))
        self._told: Report | None = None
        if (row := told.get("row")) is not None:
            self._budget_hz = np.concatenate([[row["budget_hz"]], np.zeros(degree)])
            own = np.concatenate([[row["self_weight"]], np.zeros(degree)])
            self._control = Control(row["weights"], own, row["bandwidth_hz"])
            known = row["memory"]
            self._memory = self._controller.memory(self._topology) if known is None else known
        elif kept is None:
            raise ProtocolError(
                "the server moves a row that this worker does not hold; was its state lost? Gossip hands the row out "
                "again when it has missed a reply"
            )
        else:
            self._budget_hz, self._memory = kept["budget_hz"], kept["memory"]
            self._control = Control(kept["weights"], kept["self_weights"], kept["bandwidth_hz"])
            if (decision := told.get("decision")) is not None and kept["report"] is not None:
                report = _report_from(kept["report"])
                self._control = self._controller.apply(
                    self._topology, self._control, self._budget_hz, report, Decision.from_plain(decision)
                )
        if (seen := told.get("seen")) is not None:
            self._told, self._memory = self._controller.require(
                self._memory, self._topology, self._control, self._budget_hz, Observation(**seen)
            )

    def share(self) -> dict[int, float]:
        """The row of W, by sender."""
        return dict(zip(self.senders, self._control.weights.tolist(), strict=True))

    def requirements(self) -> str:
        """What is told to the server: all requirement values, or the signals among them; empty before any delay."""
        if self._told is None:
            return ""
        return to_json(self._told.signals.to_plain() if self._scalars else self._told.to_plain())

    def tree(self) -> Tree:
        """What is kept until the next round."""
        return {
            "budget_hz": self._budget_hz,
            "weights": self._control.weights,
            "self_weights": self._control.self_weights,
            "bandwidth_hz": self._control.bandwidth_hz,
            "memory": self._memory,
            "report": None if self._told is None else _report_tree(self._told),
        }


def _report_tree(report: Report) -> Tree:
    known = report.known
    return {
        **report.to_plain(),
        "known": None if known is None else {f.name: getattr(known, f.name) for f in fields(known)},
    }


def _report_from(tree: Tree) -> Report:
    known = tree["known"]
    told = Report.from_plain(tree)
    return Report(told.requirements, told.signals, None if known is None else Known(**known))
