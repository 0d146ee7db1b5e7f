"""An edge and a centre as processes of their own, and a federation in which each round depends on all before it.

The edge is an `EdgeHost` on its bridge, with terminals in its process; the centre is `Hierarchical` over `BridgeTier`,
whose nodes are the apps of the edge hosts in its process. What is between the two, their disks, their books and their
run folder are real. Terminals draw by partition and round, and FedAdam's moments lie at the edges: a round that was
lost, or done twice, gives another model.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from bridge_cases import edge_hosts, members
from fault_points import Plan
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, Strategy
from toy import DIMENSION, initial_model, toy_app

import flower_edge.runtime.bridge.channel as channel
import flower_edge.runtime.bridge.edge_disk as edge_disk
import flower_edge.runtime.bridge.host as host
from flower_edge.clients import answer_properties, bridge_app
from flower_edge.models import EvalResult
from flower_edge.rewards.budget import Budget
from flower_edge.runtime import GridProxy, LocalGrid
from flower_edge.runtime.bridge.counting import stable_key
from flower_edge.runtime.bridge.place import BridgePlace
from flower_edge.store import RunFolder
from flower_edge.store.checkpoints import Checkpoints
from flower_edge.store.reward_book import RewardBook
from flower_edge.strategies import BridgeTier, Hierarchical, Layered, blocks
from flower_edge.strategies.hierarchy import cloud_rounds
from flower_edge.strategies.rewards.rewarded import Rewarded
from flower_edge.wire import arrays_of

ROUNDS, POT = 3, 900
RUN = {"run-name": "faults"}
_X = np.random.default_rng(9).normal(size=(60, DIMENSION)) + 0.5
_Y = _X @ np.arange(1.0, DIMENSION + 1) + 0.5


def forgets(message: Message, context: Context, call_next: Callable[[Message, Context], Message]) -> Message:
    """A terminal here has no memory: it would be another process, and has not died."""
    context.state.clear()
    return call_next(message, context)


def terminals() -> ClientApp:
    return answer_properties(toy_app([forgets]))


def evaluate(arrays: Mapping[str, np.ndarray]) -> EvalResult:
    """The toy's held-out data."""
    error = _X @ arrays["weight"].astype(float) + float(arrays["bias"][0]) - _Y
    return EvalResult(float(np.mean(error**2)), float(np.mean(np.abs(error) < 1.0)), len(_X))


def rewarded(book: Path) -> Rewarded:
    return Rewarded(evaluate, budget=Budget(POT), book=book, run="faults", seed=1)


def adam(cell: str) -> Strategy:
    return FedAdam(eta=0.05, fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)


def paying(book: Path) -> Callable[[str], Strategy]:
    return lambda cell: Layered(adam(cell), rewarded(book))


def centre(**options: Any) -> Hierarchical:
    return Hierarchical(**{"tier": BridgeTier(), "edge_rounds": 1, "seed": 5, **options})


@cache
def untroubled(without: tuple[str, ...] = (), rounds: int = ROUNDS) -> str:
    """The model of a run without a fault, in one process; `without`: `"edge-0 in 2"` takes no part there."""
    order = blocks(2)

    def cells(grid: Any, round: Any) -> dict[str, list[int]]:
        names = zip(("edge-0", "edge-1"), order(grid, round).values(), strict=True)
        return {name: nodes for name, nodes in names if f"{name} in {round.cloud}" not in without}

    with LocalGrid(terminals(), 6) as grid:
        strategy = centre(tier=None, edge=adam, cells=cells)
        return told(strategy.start(grid, initial_model(), num_rounds=rounds).arrays)


def told(arrays: ArrayRecord) -> str:
    """All bits of a model."""
    return " ".join(f"{name} {array.dtype} {array.tobytes().hex()}" for name, array in arrays_of(arrays).items())


def paid(book: Path) -> list[tuple[int, str, int]]:
    """Round, payer and amount of each settlement of a book that is in order."""
    with RewardBook(book) as opened:
        assert opened.verify().ok
        found = [(one.round, one.payer, sum(one.credits.values())) for one in opened.settlements()]
        assert sum(opened.balances().values()) == sum(amount for *_, amount in found)
    return found


# -- the processes -------------------------------------------------------------------------------------------------


def be_edge(job: dict[str, Any]) -> None:
    """`edge-0`, until it is killed."""
    plan, folder = Plan(Path(job["plan"])), Path(job["folder"])
    _before(FedAdam, "aggregate_train", plan, "in_aggregation")
    _before(edge_disk, "save_tree", plan, "after_ack")
    _before_pieces(plan)
    _before_booking(plan)
    if job.get("sweep"):
        _before_disk_calls(plan)
    with LocalGrid(terminals(), members(0)) as grid:
        proxy = GridProxy(grid)
        settings = host.HostSettings(alone_rounds=0)
        edge = paying(folder / "rewards.sqlite")
        host.EdgeHost(BridgePlace(folder), edge, proxy, settings=settings, stable=stable_key(proxy)).run()


def be_centre(job: dict[str, Any]) -> None:
    """Begins a run, or goes on with the one that is there; its model goes to `result`."""
    plan, folder = Plan(Path(job["plan"])), Path(job["folder"])
    _before(BridgeTier, "deliver", plan, "before_offer")
    _before(cloud_rounds, "merge_edges", plan, "in_aggregation")
    _before(Checkpoints, "save", plan, "after_ack")
    _before_pieces(plan)
    _before_booking(plan)
    if job.get("sweep"):
        _before_disk_calls(plan)
    random.seed(job["seed"])
    strategy = Layered(centre(), rewarded(folder / "rewards.sqlite"))
    earlier = RunFolder.open("latest", root=folder) if job["resume"] else None

    def between(number: int, arrays: ArrayRecord) -> None:
        """After the first round: whoever strikes prepares it now."""
        if number == 1 and earlier is None:
            Path(job["there"]).touch()
            while not Path(job["go"]).exists():
                time.sleep(0.01)

    with (
        RunFolder.create("faults", config={}, seed=1, root=folder) as run,
        LocalGrid(bridge_app(), edge_hosts(Path(job["edges"])), run_config=RUN, pool="threads") as local,
    ):
        if earlier is not None:
            run.continue_from(earlier)
        options: dict[str, Any] = {"timeout": job["timeout_s"], "evaluate_fn": between, "resume": earlier is not None}
        options["num_rounds"] = job.get("rounds", ROUNDS)
        done = strategy.start(GridProxy(local), initial_model(), run=run, **options)
        rounds = [[row.round, row.cell] for row in run.rows("train") if row.cell]
        run.finish({"rounds": ROUNDS})
    Path(job["result"]).write_text(json.dumps({"model": told(done.arrays), "counted": rounds}))


def _before(owner: Any, name: str, plan: Plan, point: str) -> None:
    """This is a point: just before that function."""
    stock = getattr(owner, name)

    def struck_first(*positional: Any, **named: Any) -> Any:
        plan.here(point)
        return stock(*positional, **named)

    setattr(owner, name, struck_first)


def _before_pieces(plan: Plan) -> None:
    """Between two pieces of what comes over the bridge."""
    channel._PIECE = 400  # type: ignore[misc]
    stock = channel._take

    def take(stream: Any, count: int, latest_s: float) -> bytearray:
        if count <= 2 * 400:
            return stock(stream, count, latest_s)
        first = stock(stream, 400, latest_s)
        plan.here("mid_transfer")
        return first + stock(stream, count - 400, latest_s)

    channel._take = take


def _before_booking(plan: Plan) -> None:
    """In a transaction of a reward book, when its rows are written and not yet committed."""
    wrote = {"rows": False}

    def before(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO rewards "):
            wrote["rows"] = True
        elif statement == "COMMIT" and wrote["rows"]:
            wrote["rows"] = False
            plan.here("ledger_commit")

    sa.event.listen(sa.engine.Engine, "before_cursor_execute", before)


def _before_disk_calls(plan: Plan) -> None:
    """Every call that makes something durable is a point: flushes, renames, each statement of a database."""
    for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (os, "link")):
        _before(owner, name, plan, "disk")
    sa.event.listen(sa.engine.Engine, "before_cursor_execute", lambda *_: plan.here("disk"))
    sa.event.listen(sa.engine.Engine, "after_cursor_execute", lambda *_: plan.here("disk"))
