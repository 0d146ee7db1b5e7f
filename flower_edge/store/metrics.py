"""Metric rows of one run, kept twice: `metrics.jsonl` to follow and to survive, `metrics.sqlite` to ask questions.

One process writes, any number read, also while it writes. How a row looks in each is in `rows.py` and `database.py`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .atomic import told_what_to_do
from .rows import Row, Value, clean, parse_lines, to_line

if TYPE_CHECKING:
    from .database import Database

__all__ = ["MetricLog", "Row", "Value", "parse_lines", "read_rows"]

log = logging.getLogger(__name__)


class MetricLog:
    """The writing end of one run's metrics.

    The JSON lines are the ones that must not fail. If the database cannot be written (some network file systems
    cannot lock it), it is given up with a warning and readers use the lines.
    """

    def __init__(self, lines: Path, database: Path) -> None:
        # Imported here: SQLAlchemy takes as long as all the rest of the command line together.
        from .database import Database, DatabaseError

        self._lock = threading.Lock()
        # Without a buffer: what could not be written would stay in it, to be written twice or at the wrong time.
        self._file = lines.open("ab", buffering=0)
        self._lines = lines
        self._path = database
        self._errors = DatabaseError
        self._database: Database | None = None
        try:
            self._database = Database(database)
        except DatabaseError as error:
            self._give_up(error)

    def append(self, rows: Iterable[Row]) -> None:
        """Write rows; when it returns, a killed process no longer loses them. A row without values is left out.

        Raises:
            ConfigError: a value is no number and no text; nothing is written.
            StateError: the disk is full; nothing of these rows is kept.
        """
        cleaned = [clean(row) for row in rows if row.values]
        if not cleaned:
            return
        with self._lock:
            self._write("".join(to_line(row) + "\n" for row in cleaned).encode())
            if self._database is None:
                return
            try:
                self._database.append(cleaned)
            except self._errors as error:
                self._give_up(error)

    def close(self) -> None:
        """Flush and close both files."""
        with self._lock:
            self._file.close()
            if self._database is not None:
                self._database.close()
                self._database = None

    def _write(self, data: bytes) -> None:
        end = self._file.seek(0, os.SEEK_END)
        with told_what_to_do(self._lines):
            try:
                while data:
                    data = data[self._file.write(data) :]
            except OSError:
                # The rows of another one may follow: half a line in front of them would be damage.
                self._file.truncate(end)
                raise

    def _give_up(self, error: Exception) -> None:
        log.warning("%s cannot be written (%s); metrics go to the .jsonl beside it only", self._path, error)
        if self._database is not None:
            self._database.abandon()
            self._database = None
        # Half a database would be believed; no database sends readers to the lines.
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)


def read_rows(lines: Path, database: Path, kind: str | None = None) -> list[Row]:
    """Every row in the order it was recorded, from the database or, where that is missing or damaged, the lines.

    Raises:
        DataError: a line other than the last one is damaged and there is no database to read instead.
    """
    if database.exists():
        from .database import DatabaseError, read_database

        try:
            return read_database(database, kind)
        except (DatabaseError, ValueError, TypeError) as error:
            log.warning("%s cannot be read (%s); reading %s instead", database, error, lines.name)
    if not lines.exists():
        return []
    # A killed writer leaves a torn last line: what follows the last line feed was never whole.
    whole, _, _torn = lines.read_bytes().rpartition(b"\n")
    return [row for row in parse_lines(whole, source=str(lines)) if kind is None or row.kind == kind]
