"""Metric rows in SQLite, to ask questions of.

Table `metrics` has one line per value, so that
`SELECT round, value FROM metrics WHERE kind = 'central' AND name = 'accuracy'` is a curve. `record` numbers the rows,
values keep their type, and NaN is NULL, which AVG and MAX leave out. Nothing here decides what happens when the
database fails; callers get SQLAlchemy's errors.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.pool import StaticPool
from sqlalchemy.types import UserDefinedType

from .rows import Row

__all__ = ["Database", "DatabaseError", "read_database"]

#: What everything here raises when the file is damaged, locked or on a disk that cannot lock.
DatabaseError = sa.exc.SQLAlchemyError


class _Untyped(UserDefinedType[Any]):
    """A column that keeps integers, floats and texts as they are (SQLite's BLOB affinity changes nothing)."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "BLOB"


_TABLE: Final = sa.Table(
    "metrics",
    sa.MetaData(),
    sa.Column("record", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("edge_round", sa.Integer, nullable=False),
    sa.Column("cell", sa.Text, nullable=False),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("wall_s", sa.Float),
    sa.Column("virtual_s", sa.Float),
    sa.Column("value", _Untyped),
    sa.Index("metrics_by_name", "kind", "name", "round"),
)


class Database:
    """The writing end. Readers see whole rows only; rows in it survive the death of the process."""

    def __init__(self, path: Path) -> None:
        self._engine = _engine(path)
        try:
            self._connection = self._engine.connect()
            self._connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            self._connection.exec_driver_sql("PRAGMA synchronous=NORMAL")
            _TABLE.metadata.create_all(self._connection)
            last = self._connection.scalar(sa.select(sa.func.max(_TABLE.c.record)))
            self._connection.commit()
        except DatabaseError:
            self._engine.dispose()
            raise
        self._next = 0 if last is None else last + 1

    def append(self, rows: Sequence[Row]) -> None:
        """Add clean rows, all or none."""
        cells = [cell for at, row in enumerate(rows, self._next) for cell in _to_cells(at, row)]
        self._connection.execute(sa.insert(_TABLE), cells)
        self._connection.commit()
        self._next += len(rows)

    def close(self) -> None:
        """Close it, as one plain file that is readable also from a read-only disk."""
        # Where a reader has it open it stays in WAL mode, as readable as before.
        with contextlib.suppress(DatabaseError):
            self._connection.exec_driver_sql("PRAGMA busy_timeout=500")
            self._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.exec_driver_sql("PRAGMA journal_mode=DELETE")
        self.abandon()

    def abandon(self) -> None:
        """Let go of the file as it is."""
        self._connection.close()
        self._engine.dispose()


def _to_cells(record: int, row: Row) -> Iterator[dict[str, Any]]:
    for name, value in row.values.items():
        yield {
            "record": record,
            "name": name,
            "kind": row.kind,
            "round": row.round,
            "edge_round": row.edge_round,
            "cell": row.cell,
            "node": row.node,
            "wall_s": row.wall_s,
            "virtual_s": row.virtual_s,
            "value": value,
        }


def read_database(path: Path, kind: str | None = None) -> list[Row]:
    """The rows in the order they were recorded; all kinds or one."""
    engine = _engine(path)
    try:
        query = sa.select(_TABLE).order_by(_TABLE.c.record, sa.literal_column("rowid"))
        if kind is not None:
            query = query.where(_TABLE.c.kind == kind)
        with engine.connect() as connection:
            found: dict[int, Row] = {}
            for cell in connection.execute(query):
                row = found.setdefault(
                    cell.record,
                    Row(cell.kind, cell.round, {}, cell.cell, cell.node, cell.edge_round, cell.wall_s, cell.virtual_s),
                )
                assert isinstance(row.values, dict)
                row.values[cell.name] = math.nan if cell.value is None else cell.value
            return list(found.values())
    finally:
        engine.dispose()


def _engine(path: Path) -> sa.Engine:
    return sa.create_engine(
        sa.URL.create("sqlite+pysqlite", database=str(path)),
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "timeout": 30},
    )
