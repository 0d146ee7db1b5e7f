"""Faults of a worker: the executor of one of three nodes. The server, its strategy and its book are in the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from fault_nodes import FIRST_ID, Nodes
from fault_points import eventually, go_on, is_stopped, make_room, needs_small_disk, strike
from fault_roles import POT, paid
from fault_table import Case
from flwr.app import Array, ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg

from flower_edge.errors import NobodyContributed
from flower_edge.models import EvalResult
from flower_edge.rewards.budget import Budget
from flower_edge.runtime import GridProxy
from flower_edge.strategies import Layered
from flower_edge.strategies.rewards.rewarded import Rewarded

__all__ = ["check_worker"]

PATIENCE_S = 100.0
#: Of a round that is to end without a node. The second is for a machine so busy that others were late, too.
DEADLINES_S = (5.0, 60.0)


class Seeing(FedAvg):
    """FedAvg that tells who was merged, and calls somebody in between."""

    def __init__(self, before_merge: Callable[[int], None]) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        self._before_merge = before_merge
        self.merged: list[list[int]] = []
        #: What node 0 told of its rounds, and what it said when it could not.
        self.seen: list[int] = []
        self.said: list[str] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        self._before_merge(server_round)
        good = [reply for reply in replies if not reply.has_error()]
        self.merged.append(sorted(reply.metadata.src_node_id - FIRST_ID for reply in good))
        self.said += [reply.error.reason for reply in replies if reply.has_error()]
        self.seen += [
            int(reply.content["metrics"]["seen"])  # type: ignore[index, call-overload, arg-type]
            for reply in good
            if reply.metadata.src_node_id == FIRST_ID
        ]
        return super().aggregate_train(server_round, replies)


def _loss(arrays: Mapping[str, np.ndarray]) -> EvalResult:
    distance = float(np.mean((arrays["w"] - 100.0) ** 2))
    return EvalResult(distance, 0.0, 1)


EVERYBODY, OTHERS = [0, 1, 2], [1, 2]


def check_worker(case: Case, nodes: Nodes, folder: Path) -> None:
    """One case of the table."""
    if case.how == "disk_full":
        needs_small_disk()
    late = case.how == "sigstop" and case.when in ("before_offer", "mid_transfer")
    deadlines_s = DEADLINES_S if late else (PATIENCE_S,)
    for deadline_s in deadlines_s:
        try:
            strategy, stopped = _rounds(case, nodes, folder / f"{deadline_s:g}", deadline_s)
        except NobodyContributed:
            if deadline_s == deadlines_s[-1]:
                raise
            continue
        whole = [strategy.merged[0], strategy.merged[-1], sorted({0, *strategy.merged[1]})]
        if whole == [EVERYBODY] * 3:
            break  # else the machine is at its limits, and not only the one that was struck was late
    missing = late or (case.how, case.when) in (("kill", "mid_transfer"), ("disk_full", "before_offer"))
    expected = [EVERYBODY, OTHERS if missing else EVERYBODY, EVERYBODY]
    if case.how == "disk_full" and not missing:
        expected[2:] = [OTHERS, EVERYBODY]
    assert strategy.merged == expected, strategy.said
    if case.how == "disk_full":
        assert all("cannot be written (No space left on device)" in said for said in strategy.said), strategy.said
        assert strategy.said
    if case.how == "sigstop":
        assert stopped == [True]
    first, *later = strategy.seen
    # It goes on from what it remembered. Killed after its node has the reply and before it has the state, it is as
    # Flower knows it: with the memory of before that round.
    grown = [now - first for now in later]
    assert grown == sorted(grown), strategy.seen
    if (case.how, case.when) == ("kill", "after_ack"):
        assert grown[-1] in (1, 2)
    else:
        assert grown[-1] >= len(later), strategy.seen
    assert paid(folder / f"{deadline_s:g}" / "rewards.sqlite") == [
        (number, "server", POT) for number in range(1, len(expected) + 1)
    ]


def _rounds(case: Case, nodes: Nodes, folder: Path, deadline_s: float) -> tuple[Seeing, list[bool]]:
    folder.mkdir(parents=True)
    nodes.plan.path.with_suffix(".struck").unlink(missing_ok=True)
    eventually(lambda: all(node.idle for node in nodes.nodes), "all executors stand by")
    worker, stopped, booking = nodes.nodes[0], [], {"rows": False, "round": 0}

    def outside() -> None:
        strike(worker.pid, case.how, nodes.disk)

    def between(number: int, arrays: ArrayRecord) -> None:
        booking["round"] = number + 1
        if number == 1 and case.when == "before_offer":
            outside()
        elif number == 1 and case.when in ("mid_transfer", "after_ack"):
            nodes.plan.arm(case.when, case.how, nodes.disk)
        elif number == 2 and case.how == "sigstop":
            eventually(lambda: is_stopped(worker.pid), "it is stopped")
            stopped.append(True)
            go_on(worker.pid)
            eventually(lambda: worker.idle, "it has done what it was at")
        elif number == (2 if case.when == "before_offer" else 3) and case.how == "disk_full":
            make_room(nodes.disk)

    def before_merge(number: int) -> None:
        if number == 2 and case.when == "in_aggregation":
            outside()

    def in_transaction(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO rewards "):
            booking["rows"] = True
        elif statement == "COMMIT" and booking["rows"]:
            booking["rows"] = False
            if booking["round"] == 2 and case.when == "ledger_commit":
                outside()

    strategy = Seeing(before_merge)
    rewarded = Rewarded(_loss, budget=Budget(POT), book=folder / "rewards.sqlite", run=case.name, seed=1)
    model = ArrayRecord({"w": Array(np.zeros(20_000, np.float32))})
    sa.event.listen(sa.engine.Engine, "before_cursor_execute", in_transaction)
    try:
        with GridProxy(nodes, drain_s=0.0) as proxy:
            Layered(strategy, rewarded).start(
                proxy,
                model,
                num_rounds=4 if case.how == "disk_full" and case.when != "before_offer" else 3,
                timeout=deadline_s,
                evaluate_fn=between,
            )
    except NobodyContributed:
        # Neither is it to be struck later, nor to stay stopped: the same node is asked again.
        nodes.plan.path.unlink(missing_ok=True)
        if case.how == "sigstop" and not stopped:
            if nodes.plan.struck:
                eventually(lambda: is_stopped(worker.pid), "it is stopped")
            go_on(worker.pid)
        raise
    finally:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", in_transaction)
    return strategy, stopped
