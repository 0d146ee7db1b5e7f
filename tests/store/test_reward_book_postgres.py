"""The same laws in a real PostgreSQL, with several clients, and after the death of a client and of the server."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from laws.reward_book_laws import FIRST, RewardBookLaws

from flower_edge.errors import RewardError
from flower_edge.store.reward_book import RewardBook
from flower_edge.store.reward_rows import Settlement

pytestmark = pytest.mark.slow


class Cluster:
    """One server, that listens in its own folder only."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        # It refuses to run as root.
        self.user: dict[str, Any] = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        if self.user:
            shutil.chown(folder, "postgres", "postgres")
        command = [programs / "initdb", "-D", folder / "data", "-U", "me", "-A", "trust", "--no-sync", "--no-locale"]
        subprocess.run([*map(str, command), "-E", "UTF8"], check=True, capture_output=True, cwd=folder, **self.user)
        self.start()

    def start(self) -> None:
        command = [str(self.programs / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder), "-h", ""]
        # What a server acknowledges before it wrote it, a book must not; that the machine stays up is known here.
        command += ["-c", "synchronous_commit=off", "-c", "fsync=off"]
        self.process = subprocess.Popen(command, cwd=self.folder, stderr=subprocess.DEVNULL, **self.user)
        until = time.monotonic() + 60
        while True:
            try:
                self.run("SELECT 1")
            except sa.exc.OperationalError:
                assert self.process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(how)
        self.process.wait(60)

    def url(self, schema: str) -> str:
        return f"postgresql://me@/postgres?host={self.folder}&options=-csearch_path%3D{schema}"

    def run(self, statement: str) -> None:
        url = self.url("public").replace("postgresql:", "postgresql+psycopg:")
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.exec_driver_sql(statement)
        finally:
            engine.dispose()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    found = [Path(path).parent for path in [shutil.which("initdb")] if path]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if not found:
        pytest.skip("there is no PostgreSQL server here: no initdb on the path or below /usr/lib/postgresql")
    if os.getuid() == 0 and "postgres" not in [user.pw_name for user in pwd.getpwall()]:
        pytest.skip("a PostgreSQL server does not run as root, and there is no user postgres")
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        cluster = Cluster(found[0], Path(folder))
        yield cluster
        cluster.stop()


NUMBERS = iter(range(1_000_000))


@pytest.fixture
def place(cluster: Cluster) -> str:
    name = f"book{next(NUMBERS)}"
    cluster.run(f"CREATE SCHEMA {name}")
    return cluster.url(name)


class TestInPostgreSQL(RewardBookLaws):
    def raw(self, place: str, *statements: str) -> None:
        super().raw(place.replace("postgresql:", "postgresql+psycopg:"), *statements)

    def test_nor_can_all_rows_be_taken_out_at_once(self, place: str, book: RewardBook) -> None:
        book.settle(FIRST)
        with pytest.raises(sa.exc.SQLAlchemyError, match="only ever added"):
            self.raw(place, "TRUNCATE rewards")

    def test_a_changed_row_is_found(self, place: str, book: RewardBook) -> None:
        book.settle(FIRST)
        self.raw(place, "ALTER TABLE rewards DISABLE TRIGGER USER", "UPDATE rewards SET micro = 31 WHERE seq = 2")
        assert (book.verify().ok, book.verify().first_bad) == (False, 2)

    def test_looking_makes_no_tables(self, place: str) -> None:
        with pytest.raises(RewardError, match="has no table of rewards"):
            RewardBook(place, readonly=True)
        with RewardBook(place):
            pass
        with RewardBook(place, readonly=True) as book:
            assert book.verify().ok

    def test_other_tables_may_lie_beside_it(self, place: str) -> None:
        self.raw(place, "CREATE TABLE other (x INT)")
        with RewardBook(place) as book:
            assert book.settle(FIRST)

    def test_the_form_of_a_later_version_is_not_opened(self, place: str, book: RewardBook) -> None:
        self.raw(place, "UPDATE rewards_format SET format = 2")
        with pytest.raises(RewardError, match="of form 2"):
            RewardBook(place)

    def test_four_clients_at_once_make_the_tables_and_book(self, place: str) -> None:
        failures: list[BaseException] = []

        def client(payer: str) -> None:
            try:
                with RewardBook(place) as book:
                    for at in range(10):
                        book.settle(Settlement("demo", at, 0, payer, 1, 0, {"a": 1}))
                        book.settle(Settlement("demo", at, 0, "all", 1, 0, {payer: 1}))
            except BaseException as error:
                failures.append(error)

        clients = [threading.Thread(target=client, args=(f"edge-{number}",)) for number in range(4)]
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        assert failures == []
        with RewardBook(place) as book:
            assert len(list(book.settlements())) == 50
            assert book.balances()["a"] == 40
            assert book.verify() == (True, 100, book.head(), None, "")

    def test_a_server_killed_and_started_again_has_what_was_acknowledged(
        self, cluster: Cluster, place: str, book: RewardBook
    ) -> None:
        for at in range(3):
            with RewardBook(place) as fresh:
                fresh.settle(Settlement("demo", at, 0, "", 1, 0, {"a": 1}))
            # Immediate shutdown: no checkpoint, as after a crash.
            cluster.stop(signal.SIGQUIT)
            if at == 0:
                with pytest.raises(RewardError, match="may be booked again, and stands once"):
                    book.settle(FIRST)
            cluster.start()
            # The connection of before is gone; the book finds another one.
            assert book.balances() == {"a": at + 1}
        assert book.settle(FIRST).paid == 90
        assert book.verify().ok


def test_without_its_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(RewardError, match=r"needs psycopg: pip install 'flower-edge\[postgres\]'"):
        RewardBook("postgresql://me@127.0.0.1/db")
