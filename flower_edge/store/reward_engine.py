"""Opening the database of a reward book: a file or a URL, its tables made or looked at, its errors in our words.

Every transaction here is begun by name, for SQLite must take its write lock before the last row is read. Nothing here
knows what is in the rows.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from ..errors import RewardError
from .reward_schema import FORMAT, FORMATS, SCHEMA

__all__ = ["BookDatabase"]

#: How long a writer waits for another one, s.
_PATIENCE_S: Final = 30.0
#: The first one with STRICT tables, in which a number stays a number.
_SQLITE: Final = (3, 37)
#: What PostgreSQL books are made under: only one process makes the tables. Any number that nobody else takes.
_MAKING: Final = 4_606_601


class BookDatabase:
    """One database with the two tables in it.

    Args:
        where: path of a SQLite file, or a URL as `postgresql://user@host/database` or `sqlite:///rewards.sqlite`.
        readonly: change nothing and make nothing; what is not there is an error.
    """

    def __init__(self, where: str | Path, *, readonly: bool = False) -> None:
        self.path, url = _place(where)
        self.readonly = readonly
        self.name = str(self.path) if self.path is not None else url.render_as_string(hide_password=True)
        self._url = url
        self._engine: sa.Engine | None = None
        self._pid = os.getpid()
        if self.path is not None and not self.path.exists():
            if readonly:
                raise RewardError(f"no reward book at {self.path}; give the path or URL of one")
            if not self.path.parent.is_dir():
                raise RewardError(f"{self.path}: there is no folder {self.path.parent}; make it first")
        try:
            self._engine = self._make_engine()
            self._prepare()
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def transaction(self, *, write: bool = False) -> Iterator[sa.Connection]:
        """All that is done within stands afterwards, on the disk, or none of it. One writer at a time.

        Raises:
            RewardError: the database refused; whether a commit that failed on the way to another host stands is not
                known then, but what is booked again is booked once.
        """
        if write and self.readonly:
            raise RewardError(f"{self.name} is open for reading only; open it as RewardBook({self.name!r})")
        with self._translated(), self._open().connect() as connection:
            connection.exec_driver_sql(self._begin(write=write))
            try:
                if write and self.path is None:
                    # A server may be set to acknowledge before its disk does, and to several writers at once.
                    connection.exec_driver_sql("SET LOCAL synchronous_commit TO on")
                    connection.exec_driver_sql("LOCK TABLE rewards IN EXCLUSIVE MODE")
                yield connection
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                # After some errors SQLite has rolled back by itself, and a lost connection cannot.
                with contextlib.suppress(sa.exc.SQLAlchemyError):
                    connection.exec_driver_sql("ROLLBACK")
                raise

    def close(self) -> None:
        """Let go of it. The last one to close a SQLite book leaves one plain file, without a log beside it."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        if self.path is not None and not self.readonly and self._pid == os.getpid():
            with contextlib.suppress(sa.exc.SQLAlchemyError), engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA busy_timeout=500")
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                connection.exec_driver_sql("PRAGMA journal_mode=DELETE")
        engine.dispose()

    def _open(self) -> sa.Engine:
        if self._engine is None:
            raise RewardError(f"{self.name} is closed; open it again as RewardBook({self.name!r})")
        if self._pid != os.getpid():
            # A connection must not be used on both sides of a fork.
            self._engine.dispose(close=False)
            self._engine, self._pid = self._make_engine(), os.getpid()
        return self._engine

    def _begin(self, *, write: bool) -> str:
        if self.path is not None:
            return "BEGIN IMMEDIATE" if write else "BEGIN"
        return "BEGIN" if write else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

    def _make_engine(self) -> sa.Engine:
        # One connection, that threads take turns with: there is one writer anyway.
        if self.path is None:
            try:
                return sa.create_engine(
                    self._url, isolation_level="AUTOCOMMIT", pool_pre_ping=True, pool_size=1, max_overflow=0
                )
            except ModuleNotFoundError as error:
                raise RewardError(f"{self.name} needs {error.name}: pip install 'flower-edge[postgres]'") from None
        if sqlite3.sqlite_version_info < _SQLITE:
            raise RewardError(
                f"{self.name} needs SQLite 3.37, and here is {sqlite3.sqlite_version}; update it, or use PostgreSQL"
            )
        return sa.create_engine(
            self._url,
            creator=self._connect,
            isolation_level="AUTOCOMMIT",
            poolclass=QueuePool,
            pool_size=1,
            max_overflow=0,
        )

    def _connect(self) -> sqlite3.Connection:
        assert self.path is not None
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode={'ro' if self.readonly else 'rwc'}",
            uri=True,
            timeout=_PATIENCE_S,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            if not self.readonly:
                _set_wal(connection)
                connection.execute("PRAGMA synchronous=FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self) -> None:
        """The tables are there and of our form, or are made where nothing is."""
        with self._translated():
            found = self._tables()
            if not found & _OURS:
                if self.readonly:
                    raise RewardError(f"{self.name} is no reward book: it has no table of rewards")
                if self.path is not None and found:
                    raise RewardError(
                        f"{self.name} is no reward book: it has {', '.join(sorted(found)[:3])}; give a file of its own"
                    )
                self._make_tables()
                found = self._tables()
            form = None
            if found >= _OURS:
                with self._open().connect() as connection:
                    form = connection.scalar(sa.select(sa.func.max(FORMATS.c.format)))
        if form is None:
            raise RewardError(f"{self.name} has only a part of a reward book; restore it from a copy, or give another")
        if form > FORMAT:
            raise RewardError(
                f"{self.name} is a reward book of form {form}, and this version knows {FORMAT}; update flower-edge"
            )

    def _tables(self) -> set[str]:
        with self._open().connect() as connection:
            return set(sa.inspect(connection).get_table_names())

    def _make_tables(self) -> None:
        with self._open().connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if self.path is not None else "BEGIN")
            try:
                if self.path is None:
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MAKING})")
                # Another process may have made them in between.
                if not _OURS & set(sa.inspect(connection).get_table_names()):
                    for statement in SCHEMA[connection.dialect.name]:
                        connection.exec_driver_sql(statement)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                with contextlib.suppress(sa.exc.SQLAlchemyError):
                    connection.exec_driver_sql("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            said = " ".join(str(getattr(error, "orig", None) or error).split())
            raise RewardError(f"{self.name}: {said}; {_advice(said)}") from error
        except (sqlite3.Error, OSError) as error:
            raise RewardError(f"{self.name}: {error}; {_advice(str(error))}") from error


_OURS: Final = frozenset({"rewards", "rewards_format"})


def _set_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait, as it else does, for others who open or close the file at the same moment."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return


def _place(where: str | Path) -> tuple[Path | None, sa.URL]:
    """The file, absolute, if it is one, and the URL."""
    if isinstance(where, Path) or "://" not in where:
        if not str(where) or str(where) == ":memory:":
            raise RewardError(f"{str(where)!r} is no place for a reward book; give the path of a file, or a URL")
        path = Path(where).expanduser().absolute()
        return path, sa.URL.create("sqlite+pysqlite", database=str(path))
    try:
        url = sa.make_url(where)
    except sa.exc.ArgumentError:
        raise RewardError(f"{where.partition('://')[0]}://…: no URL of a database; {_KNOWN}") from None
    kind = url.get_backend_name()
    if kind == "sqlite":
        return _place(url.database or "")
    if kind == "postgresql":
        return None, url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
    raise RewardError(f"{kind}://…: no database that a reward book knows; {_KNOWN}")


_KNOWN: Final = "expected a path, sqlite:///rewards.sqlite or postgresql://user@host/database"


_AGAIN: Final = "what was not acknowledged may be booked again, and stands once"


def _advice(said: str) -> str:
    """What to do about what a database said."""
    for words, advice in (
        ("disk is full", "nothing of it was booked: make room and book again"),
        ("disk I/O", "nothing of it was booked: see that the disk has room and works, and book again"),
        ("locked", f"another process has held it for more than {_PATIENCE_S:.0f} s"),
        ("not a database", "it is no reward book, or damaged: give another, or restore it from a copy"),
        ("malformed", "it is damaged: restore it from a copy"),
        ("readonly", "it cannot be written here: give a place that can"),
        ("unable to open", "see that it is a file that you may read and write, in a folder where you may write"),
        ("only ever added", "a row that stands is never changed"),
        ("connect", f"see that the server runs and that the URL is right; {_AGAIN}"),
    ):
        if words in said:
            return advice
    return _AGAIN
