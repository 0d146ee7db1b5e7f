"""An agent that has as many runs as it may have gives the oldest up for a newer one, once that one is there."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from agent_cases import LIMITS, Group

from flower_edge.errors import PeerError
from flower_edge.peers.agent_client import AgentClient
from flower_edge.runtime.agent.run import Run
from flower_edge.runtime.agent.tables import Standing


def told(group: Group) -> list[str]:
    return [run["run"] for run in group.agents[0].status()["runs"]]


def folders(group: Group) -> set[str]:
    return {str(path) for path in (group.folder / "0" / "runs").rglob("*")}


def test_a_run_that_cannot_be_made_costs_no_other_and_one_that_can_takes_the_place_of_the_oldest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(standing: Standing, path: Path) -> None:
        path.with_suffix(".new").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Group(tmp_path, [0], limits=replace(LIMITS, runs=2)) as group, AgentClient(str(group.agents[0].socket)) as own:
        for run in ("first", "second"):
            group.begin(run=run)
        kept, before = group.agents[0].run("first"), folders(group)
        with monkeypatch.context() as disk:
            disk.setattr(Standing, "save", full)
            for _ in range(3):
                with pytest.raises(PeerError, match=r"No space left on device.*make room there, and ask again"):
                    own.call({"do": "round", "table": group.table(0, run="third").to_json()})
        assert told(group) == ["first", "second"]
        assert folders(group) == before
        assert not kept.closing
        own.call({"do": "round", "table": group.table(0, run="third").to_json()})
        assert told(group) == ["second", "third"]
        assert kept.closing
        assert not kept.folder.exists()


def test_a_run_that_begins_again_while_its_older_self_is_being_removed_keeps_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removing, go_on = threading.Event(), threading.Event()
    remove = Run.remove

    def slowly(run: Run) -> None:
        removing.set()
        assert go_on.wait(60.0)
        remove(run)

    with Group(tmp_path, [0], limits=replace(LIMITS, runs=1)) as group:
        group.begin(run="first")
        monkeypatch.setattr(Run, "remove", slowly)
        newer = threading.Thread(target=group.begin, kwargs={"run": "second"})
        again = threading.Thread(target=group.begin, kwargs={"run": "first"})
        newer.start()
        assert removing.wait(60.0)
        again.start()
        # Without order between the two it is there by now, and what is removed next is its folder.
        again.join(1.0)
        go_on.set()
        for thread in (newer, again):
            thread.join(60.0)
        assert told(group) == ["first"]
        assert Standing.load(group.agents[0].run("first").folder / "table.json", LIMITS.rounds) is not None
