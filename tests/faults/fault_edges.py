"""Faults of an edge: `edge-0` is a process, `edge-1` a thread, the centre is in the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bridge_cases import edge_at, edge_hosts, members
from fault_nursery import Nursery
from fault_points import Plan, eventually, go_on, is_stopped, make_room, small_disk, strike
from fault_roles import POT, ROUNDS, RUN, adam, centre, paid, terminals, told, untroubled
from fault_table import Case
from flwr.app import ArrayRecord
from toy import initial_model

from flower_edge.clients import bridge_app
from flower_edge.errors import EdgeError, RoundFailed
from flower_edge.runtime import GridProxy, LocalGrid
from flower_edge.runtime.bridge.caller import edge_status
from flower_edge.runtime.bridge.messages import Status
from flower_edge.runtime.bridge.place import BridgePlace
from flower_edge.store import RunFolder

__all__ = ["EdgeProcess", "check_edge", "sweep_edge"]

BOTH = ["edge-0", "edge-1"]
EACH_ONCE = [(number, "edge-0", POT) for number in range(1, ROUNDS + 1)]
#: Nothing here takes so long; what is waited for comes.
PATIENCE_S = 100.0
#: Of a round that is to end without an edge. The second is for a machine so busy that the other edge was late, too.
DEADLINES_S = (4.0, 40.0)


class EdgeProcess:
    """`edge-0`."""

    def __init__(self, nursery: Nursery, folder: Path, disk: Path) -> None:
        self.nursery, self.folder, self.disk = nursery, folder, disk
        self.plan = Plan(folder / "plan.json")
        self.place = BridgePlace(disk / "bridge")
        self.pid = 0

    def start(self, **options: Any) -> None:
        self.pid = self.nursery.start(
            "edge", self.folder / "edge.log", folder=str(self.place.folder), plan=str(self.plan.path), **options
        )
        eventually(lambda: (status := self.status()) is not None and status.pid == self.pid, "the edge listens")

    def status(self) -> Status | None:
        try:
            return edge_status(self.place)
        except EdgeError:
            return None

    def ended(self) -> None:
        """Wait until it has been killed by its plan."""
        eventually(lambda: self.plan.struck, "the fault has struck")
        assert self.nursery.wait(self.pid) == -9


@contextmanager
def edges(nursery: Nursery, folder: Path, *, disk: bool = False) -> Iterator[EdgeProcess]:
    """Both, where `edge_hosts` looks for them."""
    with (
        small_disk(folder / "edge-0", 600, needed=disk) as room,
        edge_at(folder / "edge-1", members(1), factory=adam, app=terminals()),
    ):
        edge = EdgeProcess(nursery, folder, room)
        try:
            edge.start()
            yield edge
        finally:
            nursery.end(edge.pid)


def rounds(folder: Path, between: Any, *, timeout_s: float = PATIENCE_S) -> tuple[str, list[list[str]]]:
    """Three rounds of the centre: the model, and which edges counted in each of them."""
    hosts = edge_hosts(folder)
    hosts[0]["bridge"] = str(folder / "edge-0" / "bridge")
    with (
        RunFolder.create("centre", config={}, seed=1, root=folder / "runs") as run,
        LocalGrid(bridge_app(), hosts, run_config=RUN, pool="threads") as local,
    ):
        proxy = GridProxy(local)
        done = centre().start(
            proxy, initial_model(), num_rounds=ROUNDS, timeout=timeout_s, evaluate_fn=between, run=run
        )
        rows = [(row.round, row.cell) for row in run.rows("train") if row.cell and row.values.get("num-examples")]
    return told(done.arrays), [sorted(cell for at, cell in rows if at == number) for number in range(1, ROUNDS + 1)]


def check_edge(case: Case, nursery: Nursery, folder: Path) -> None:
    """One case of the table."""
    if case.how == "kill":
        _killed(case, nursery, folder)
    elif case.how == "disk_full":
        _no_room(case, nursery, folder)
    else:
        try:
            in_time = _stopped(case, nursery, folder / "short", DEADLINES_S[0])
        except RoundFailed:
            in_time = False
        if not in_time:
            assert _stopped(case, nursery, folder / "long", DEADLINES_S[1])


def _arm(edge: EdgeProcess, case: Case) -> None:
    if case.when == "before_offer":
        strike(edge.pid, case.how, edge.disk)
    else:
        edge.plan.arm(case.when, case.how, edge.disk)


def _killed(case: Case, nursery: Nursery, folder: Path) -> None:
    with edges(nursery, folder) as edge:
        restarts: list[threading.Thread] = []

        def again() -> None:
            if case.when == "before_offer":
                assert nursery.wait(edge.pid) == -9
            else:
                edge.ended()
            edge.start()

        def between(number: int, arrays: ArrayRecord) -> None:
            if number == 1:
                _arm(edge, case)
                # As whoever keeps it going does.
                restarts.append(threading.Thread(target=again, daemon=True))
                restarts[0].start()

        model, counted = rounds(folder, between)
        restarts[0].join()
        assert (model, counted) == (untroubled(), [BOTH] * ROUNDS)
        status = edge.status()
        assert status is not None
        assert (status.cell, status.run) == ("edge-0", "faults")
    assert paid(edge.place.folder / "rewards.sqlite") == EACH_ONCE


def _stopped(case: Case, nursery: Nursery, folder: Path, deadline_s: float) -> bool:
    """Whether all that were not stopped were in time."""
    with edges(nursery, folder) as edge:
        stopped: list[bool] = []

        def between(number: int, arrays: ArrayRecord) -> None:
            if number == 1:
                _arm(edge, case)
            elif number == 2:
                # The round is over, and it is stopped still. Was it too late for that, it is not to be in the next one.
                edge.plan.path.unlink(missing_ok=True)
                if case.when == "before_offer" or edge.plan.struck:
                    eventually(lambda: is_stopped(edge.pid), "it is stopped")
                    stopped.append(True)
                    go_on(edge.pid)
                eventually(lambda: (now := edge.status()) is not None and now.state == "waiting", "it goes on")

        model, counted = rounds(folder, between, timeout_s=deadline_s)
        if stopped != [True]:
            return False
        assert "edge-0" not in counted[1]
        if counted != [BOTH, ["edge-1"], BOTH]:
            return False
        if case.when in ("before_offer", "mid_transfer"):
            # Nobody waits for what it was to begin when it goes on: it has not begun it.
            assert model == untroubled(("edge-0 in 2",))
    paid_in = [number for number, *_ in paid(edge.place.folder / "rewards.sqlite")]
    assert paid_in in ([1, 3], [1, 2, 3])
    return True


def _no_room(case: Case, nursery: Nursery, folder: Path) -> None:
    # Its terminals are paid before anything is saved.
    books_first = case.when in ("in_aggregation", "ledger_commit")
    with edges(nursery, folder, disk=True) as edge:
        said: list[str] = []
        waits: list[threading.Thread] = []

        def says_so() -> None:
            def trouble() -> str:
                status = edge.status()
                return "" if status is None else status.trouble

            eventually(trouble, "it says that it has no room")
            said.append(trouble())
            make_room(edge.disk)

        def between(number: int, arrays: ArrayRecord) -> None:
            if number == 1:
                _arm(edge, case)
                if not books_first:
                    waits.append(threading.Thread(target=says_so, daemon=True))
                    waits[0].start()
            elif number == 2 and not waits:
                says_so()

        model, counted = rounds(folder, between)
        for waiting in waits:
            waiting.join()
        assert "make room" in said[0], said
        if books_first:
            assert counted == [BOTH, ["edge-1"], BOTH]
            assert model == untroubled(("edge-0 in 2",))
            assert paid(edge.place.folder / "rewards.sqlite") == [(number, "edge-0", POT) for number in (1, 3)]
        else:
            assert (model, counted) == (untroubled(), [BOTH] * ROUNDS)
            assert paid(edge.place.folder / "rewards.sqlite") == EACH_ONCE
        status = edge.status()
        assert status is not None
        assert (status.pid, status.trouble) == (edge.pid, "")


def sweep_edge(nursery: Nursery, folder: Path) -> int:
    """Kill it at its first call to the disk in a round, at the second, … until there is none; how many there are."""
    nth = 1
    while _killed_at(nursery, folder / str(nth), nth):
        nth += 1
        assert nth < 200, "there is no end to it"
    return nth - 1


def _killed_at(nursery: Nursery, folder: Path, nth: int) -> bool:
    with edges(nursery, folder) as edge:
        nursery.end(edge.pid)
        edge.start(sweep=True)
        over = threading.Event()
        keeper = threading.Thread(target=_restart_if_killed, args=(edge, over), daemon=True)

        def between(number: int, arrays: ArrayRecord) -> None:
            if number == 1:
                edge.plan.arm("disk", "kill", nth=nth)
                keeper.start()

        model, counted = rounds(folder, between)
        over.set()
        keeper.join()
        assert (model, counted) == (untroubled(), [BOTH] * ROUNDS), nth
    assert paid(edge.place.folder / "rewards.sqlite") == EACH_ONCE, nth
    return edge.plan.struck


def _restart_if_killed(edge: EdgeProcess, over: threading.Event) -> None:
    eventually(lambda: edge.plan.struck or over.is_set(), "the fault has struck, or the run is over")
    if edge.plan.struck:
        assert edge.nursery.wait(edge.pid) == -9
        edge.start()
