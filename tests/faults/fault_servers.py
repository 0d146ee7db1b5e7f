"""Faults of the server: the centre is a process, its two edges are threads of the test."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bridge_cases import two_edges
from fault_edges import BOTH, PATIENCE_S
from fault_nursery import Nursery
from fault_points import Plan, eventually, go_on, is_stopped, make_room, small_disk
from fault_roles import POT, ROUNDS, adam, paid, terminals, untroubled
from fault_table import Case

from flower_edge.store import RunFolder

__all__ = ["check_server", "sweep_server"]


class CentreProcess:
    """The centre: it begins a run, and goes on with it."""

    def __init__(self, nursery: Nursery, folder: Path, disk: Path) -> None:
        self.nursery, self.folder, self.disk = nursery, folder, disk
        self.plan, self.result = Plan(folder / "plan.json"), folder / "result.json"
        self.pid = 0

    def start(self, *, resume: bool = False, **options: object) -> None:
        given = {name: str(self.folder / name) for name in ("there", "go", "edges", "result")}
        self.pid = self.nursery.start(
            "centre", self.log, folder=str(self.disk), plan=str(self.plan.path), seed=999 if resume else 7,
            timeout_s=PATIENCE_S, resume=resume, **given, **options,
        )  # fmt: skip

    @property
    def log(self) -> Path:
        return self.folder / "centre.log"

    def strike(self, point: str, how: str, *, nth: int = 1) -> None:
        """After its first round; it goes on into it."""
        eventually(lambda: (self.folder / "there").exists() or self.code() is not None, "it has done a round")
        assert self.code() is None, self.log.read_text()
        self.plan.arm(point, how, self.disk, nth=nth)
        (self.folder / "go").touch()

    def code(self) -> int | None:
        return self.nursery.code(self.pid)

    def done(self, rounds: int = ROUNDS) -> None:
        """It has ended well, with the model of a run without a fault; every round was paid once."""
        assert self.nursery.wait(self.pid) == 0, self.log.read_text()
        found = json.loads((self.folder / "result").read_text())
        assert found["model"] == untroubled(rounds=rounds)
        assert found["counted"] == [[number, edge] for number in range(1, rounds + 1) for edge in BOTH]
        assert paid(self.disk / "rewards.sqlite") == [(number, "centre", POT) for number in range(1, rounds + 1)]


@contextmanager
def centre_of(nursery: Nursery, folder: Path, *, disk: bool = False) -> Iterator[CentreProcess]:
    """One that can be started, and its edges."""
    with (
        two_edges(folder / "edges", factory=adam, app=terminals()),
        small_disk(folder / "disk", 2000, needed=disk) as room,
    ):
        centre = CentreProcess(nursery, folder, room)
        try:
            yield centre
        finally:
            nursery.end(centre.pid)


def check_server(case: Case, nursery: Nursery, folder: Path) -> None:
    """One case of the table."""
    with centre_of(nursery, folder, disk=case.how == "disk_full") as centre:
        centre.start()
        # The checkpoint of the round that is just over comes first.
        centre.strike(case.when, case.how, nth=2 if case.when == "after_ack" else 1)
        if case.how == "sigstop":
            eventually(lambda: is_stopped(centre.pid), "it is stopped")
            go_on(centre.pid)
        else:
            code = nursery.wait(centre.pid)
            if case.how == "kill":
                assert code == -9, centre.log.read_text()
            else:
                assert code == 1
                *_, last = centre.log.read_text().splitlines()
                assert "make room" in last, last
                make_room(centre.disk)
            # It is seen that nobody goes on with it, also where there was no room to say so.
            assert RunFolder.open("latest", root=centre.disk).status in ("interrupted", "failed")
            centre.start(resume=True)
        centre.done()


def sweep_server(nursery: Nursery, folder: Path) -> int:
    """Kill it at its first call to the disk in a round, at the second, … until there is none; how many there are."""
    for nth in range(1, 400):
        with centre_of(nursery, folder / str(nth)) as centre:
            centre.start(sweep=True, rounds=2)
            centre.strike("disk", "kill", nth=nth)
            if (code := nursery.wait(centre.pid)) == -9:
                centre.start(resume=True, rounds=2)
            else:
                assert code == 0, centre.log.read_text()
            centre.done(rounds=2)
            if not centre.plan.struck:
                return nth - 1
    raise AssertionError("there is no end to it")
