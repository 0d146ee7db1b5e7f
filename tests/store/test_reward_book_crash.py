"""What was acknowledged is there after any death of a writer, on a full disk, and with several writers at a time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flower_edge.errors import RewardError
from flower_edge.store.reward_book import RewardBook
from flower_edge.store.reward_rows import Head, Settlement

pytestmark = pytest.mark.slow

#: Before and after each statement of a settlement: BEGIN, what stands, the head, INSERT, COMMIT.
POINTS = 10


class Writers:
    """The process that forks writers."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("reward_writer.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *jobs: dict[str, Any], kill_after_s: float | None = None, booked_first: int = 0) -> list[list[str]]:
        """What the writers of these jobs said, in words.

        With `kill_after_s` the only one is killed so soon after it has opened its book and booked so much.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        common = {"payer": "server", "first": 0, "nodes": 3}
        self.process.stdin.write(json.dumps([{**common, **job} for job in jobs]) + "\n")
        self.process.stdin.flush()
        said: list[list[str]] = []
        pids: list[int] = []
        killer = None
        for line in self.process.stdout:
            words = line.split(" ")
            words[-1] = words[-1].rstrip("\n")
            if words[0] == "done":
                break
            if words[0] == "pids":
                pids = [int(word) for word in words[1:]]
            said.append(words)
            opened = pids and any(one[0] == "open" for one in said)
            if kill_after_s is not None and killer is None and opened and len(booked(said)) >= booked_first:
                killer = threading.Timer(kill_after_s, os.kill, (pids[0], signal.SIGKILL))
                killer.start()
        if killer is not None:
            killer.join()
        return said

    def close(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def writers() -> Iterator[Writers]:
    writers = Writers()
    yield writers
    writers.close()


def booked(said: list[list[str]]) -> set[int]:
    return {int(words[1]) for words in said if words[0] == "booked"}


def ended(said: list[list[str]]) -> list[int]:
    return [int(words[1]) for words in said if words[0] == "ended"]


def look(place: str, acknowledged: set[int], anchor: Head) -> Head:
    """Everything that was acknowledged is there, whole and once; the head, to be the next anchor."""
    with RewardBook(place) as book:
        there = [one for one in book.settlements() if one.payer == "server"]
        assert acknowledged <= {one.round for one in there}
        assert all(one.credits == {"0": 0, "1": 1, "2": 2} for one in there)
        assert book.balances() == ({"0": 0, "1": len(there), "2": 2 * len(there)} if there else {})
        found = book.verify(anchor)
        assert found.ok, found.why
        return found.head


def test_killed_thirty_times_at_any_moment_it_loses_nothing_that_was_acknowledged(
    writers: Writers, tmp_path: Path
) -> None:
    place, moments = str(tmp_path / "rewards.sqlite"), random.Random(6)
    acknowledged: set[int] = set()
    first, anchor, in_vain = 0, Head(0, "0" * 64), 0
    for number in range(30):
        # Thirty are acknowledged in all, on whatever machine, and some writers are killed before their first.
        job = {"place": place, "first": first, "count": 100_000}
        said = writers.run(job, kill_after_s=moments.uniform(0.0, 0.08), booked_first=number % 3)
        assert ended(said) == [-signal.SIGKILL]
        acknowledged |= booked(said)
        in_vain += not booked(said)
        first = max(acknowledged, default=-1) + 1
        if number % 3:  # else the next writer is the one that finds the log
            anchor = look(place, acknowledged, anchor)
    look(place, acknowledged, anchor)
    assert len(acknowledged) == first >= 30
    assert os.listdir(tmp_path) == ["rewards.sqlite"]
    assert in_vain < 30


@pytest.mark.parametrize("calm", [0, 3])
def test_killed_before_and_after_every_statement_of_a_commit(writers: Writers, tmp_path: Path, calm: int) -> None:
    place = str(tmp_path / "rewards.sqlite")
    acknowledged: set[int] = set()
    anchor = Head(0, "0" * 64)
    left = []
    for point in range(POINTS):
        first = 10 * point
        said = writers.run({"place": place, "first": first, "count": 4, "calm": calm, "die_at": point})
        assert ended(said) == [-signal.SIGKILL]
        assert booked(said) == set(range(first, first + calm))
        acknowledged |= booked(said)
        # Whoever only looks sees what stands, too, though nobody has opened it for writing since.
        with RewardBook(place, readonly=True) as book:
            left.append(book.find("demo", first + calm, 0, "server") is not None)
            assert book.verify(anchor).ok
        anchor = look(place, acknowledged, anchor)
        # It comes back and does it again: once, whether or not it was there.
        said = writers.run({"place": place, "first": first + calm, "count": 1})
        assert ended(said) == [0]
        acknowledged |= booked(said)
        anchor = look(place, acknowledged, anchor)
    assert left == [False] * (POINTS - 1) + [True]  # it stands after COMMIT, and never in part


def test_cut_at_any_byte_that_a_commit_writes(writers: Writers, tmp_path: Path) -> None:
    place, bytes_of = str(tmp_path / "rewards.sqlite"), random.Random(7)
    acknowledged: set[int] = set()
    first, anchor = 0, Head(0, "0" * 64)
    for _ in range(30):
        job = {"place": place, "first": first, "count": 40, "calm": 2, "limit": bytes_of.randrange(1, 20_000)}
        said = writers.run({**job, "cut": True})
        assert ended(said) == [-signal.SIGXFSZ]
        acknowledged |= booked(said)
        first = max(acknowledged) + 1
        anchor = look(place, acknowledged, anchor)
    assert len(acknowledged) >= 60


def test_a_file_that_may_not_grow_refuses_clearly_and_goes_on_once_it_may(writers: Writers, tmp_path: Path) -> None:
    place, bytes_of = str(tmp_path / "rewards.sqlite"), random.Random(8)
    acknowledged: set[int] = set()
    for number in range(6):
        job = {"place": place, "first": 40 * number, "count": 40, "calm": 2, "limit": bytes_of.randrange(1, 20_000)}
        said = writers.run({**job, "cut": False, "again": True})
        assert ended(said) == [0]
        (refused,) = [" ".join(words) for words in said if words[0] == "refused"]
        assert "nothing of it was booked" in refused
        assert "room" in refused
        assert booked(said) == set(range(40 * number, 40 * number + 40))
        acknowledged |= booked(said)
        look(place, acknowledged, Head(0, "0" * 64))


def test_a_full_disk_refuses_clearly_loses_nothing_and_goes_on_once_there_is_room() -> None:
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder], capture_output=True)
        if mounted.returncode:
            pytest.skip("a small disk cannot be mounted here: that takes the rights of root")
        try:
            place, room = f"{folder}/rewards.sqlite", Path(folder, "room")
            room.write_bytes(bytes(100_000))
            with RewardBook(place) as book:
                acknowledged, refused = 0, ""
                while not refused:
                    try:
                        book.settle(Settlement("demo", acknowledged, 0, "server", 3, 0, {"1": 1, "2": 2}))
                        acknowledged += 1
                    except RewardError as error:
                        refused = str(error)
                assert "full; nothing of it was booked: make room and book again" in refused
                assert acknowledged > 10
                assert book.balances() == {"1": acknowledged, "2": 2 * acknowledged}
                assert book.verify().ok
                room.unlink()
                book.settle(Settlement("demo", acknowledged, 0, "server", 3, 0, {"1": 1, "2": 2}))
            with RewardBook(place) as book:
                assert book.balances() == {"1": acknowledged + 1, "2": 2 * acknowledged + 2}
                assert book.verify().ok
        finally:
            subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("reopen", [False, True])
def test_four_processes_book_at_once_into_a_book_that_none_of_them_found(
    writers: Writers, tmp_path: Path, reopen: bool
) -> None:
    place = str(tmp_path / "rewards.sqlite")
    job = {"place": place, "count": 20, "reopen": reopen}
    own = [{**job, "payer": f"edge-{number}"} for number in range(2)]
    same = [{**job, "payer": "both", "nodes": nodes} for nodes in (2, 3)]
    said = writers.run(*own, *same)
    assert ended(said) == [0] * 4, said
    assert sum(words[0] == "booked" for words in said) == 80
    with RewardBook(place) as book:
        settled = list(book.settlements())
        assert len(settled) == len({(one.round, one.payer) for one in settled}) == 60
        assert book.verify().ok
        assert book.balances()["1"] == 60
    assert os.listdir(tmp_path) == ["rewards.sqlite"]


def test_a_writer_waits_for_another_one(tmp_path: Path) -> None:
    place = tmp_path / "rewards.sqlite"
    with RewardBook(place) as book, RewardBook(place) as other:
        with book._database.transaction(write=True):
            waiting = threading.Thread(target=other.settle, args=(Settlement("demo", 1, 0, "", 1, 0, {"a": 1}),))
            waiting.start()
            time.sleep(0.2)
            assert waiting.is_alive()
        waiting.join()
        assert book.balances() == {"a": 1}
