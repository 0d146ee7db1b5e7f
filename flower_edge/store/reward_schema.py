"""The tables of a reward book, in SQLite and PostgreSQL, and the triggers that let rows be added and nothing else.

Triggers keep programs from mistakes; whoever owns the file can drop them. What was changed then, the hash chain shows.
Nothing here opens a database.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa

__all__ = ["FORMAT", "FORMATS", "REWARDS", "SCHEMA"]

#: The form of the tables and of the hash; a book of a later one is not opened.
FORMAT: Final = 1

_META: Final = sa.MetaData()
REWARDS: Final = sa.Table(
    "rewards",
    _META,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("round", sa.BigInteger, nullable=False),
    sa.Column("edge_round", sa.BigInteger, nullable=False),
    sa.Column("cell", sa.Text, nullable=False),
    sa.Column("payer", sa.Text, nullable=False),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("micro", sa.BigInteger, nullable=False),
    sa.Column("refers", sa.BigInteger),
    sa.Column("details", sa.Text, nullable=False),
    sa.Column("booked_at", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)
#: One row that says the form.
FORMATS: Final = sa.Table("rewards_format", _META, sa.Column("format", sa.BigInteger, primary_key=True))

_ONLY_ADDED: Final = "rewards are only ever added: book a reversal or a correction"
_OUT_OF_TURN: Final = "a reward row must follow the last one, once per settlement and node"


def _columns(integer: str, collate: str) -> str:
    text = f"TEXT{collate}"
    return f"""
    seq {integer} PRIMARY KEY, run {text} NOT NULL, round {integer} NOT NULL, edge_round {integer} NOT NULL,
    cell {text} NOT NULL, payer {text} NOT NULL, node {text} NOT NULL, kind {text} NOT NULL,
    micro {integer} NOT NULL, refers {integer}, details {text} NOT NULL, booked_at {text} NOT NULL,
    previous {text} NOT NULL, hash {text} NOT NULL,
    UNIQUE (run, round, edge_round, payer, node, kind)"""


# OR REPLACE would delete a row without its trigger, so the same row twice is refused before SQLite gets there.
_SQLITE: Final = (
    f"CREATE TABLE rewards ({_columns('INTEGER', '')}) STRICT",
    "CREATE INDEX rewards_by_node ON rewards (node, seq)",
    "CREATE TABLE rewards_format (format INTEGER PRIMARY KEY) STRICT",
    f"INSERT INTO rewards_format VALUES ({FORMAT})",
    *(
        f"CREATE TRIGGER rewards_no_{word} BEFORE {word} ON rewards BEGIN SELECT RAISE(ABORT, '{_ONLY_ADDED}'); END"
        for word in ("UPDATE", "DELETE")
    ),
    f"""CREATE TRIGGER rewards_in_turn BEFORE INSERT ON rewards
    WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM rewards)
      OR NEW.previous <> coalesce((SELECT hash FROM rewards ORDER BY seq DESC LIMIT 1), NEW.previous)
      OR EXISTS (SELECT 1 FROM rewards WHERE run = NEW.run AND round = NEW.round AND edge_round = NEW.edge_round
                 AND payer = NEW.payer AND node = NEW.node AND kind = NEW.kind)
    BEGIN SELECT RAISE(ABORT, '{_OUT_OF_TURN}'); END""",
)

#: The order of texts must not depend on the server's language.
_BYTES: Final = ' COLLATE "C"'
_POSTGRESQL: Final = (
    f"CREATE TABLE rewards ({_columns('BIGINT', _BYTES)})",
    "CREATE INDEX rewards_by_node ON rewards (node, seq)",
    "CREATE TABLE rewards_format (format BIGINT PRIMARY KEY)",
    f"INSERT INTO rewards_format VALUES ({FORMAT})",
    f"""CREATE FUNCTION rewards_only_added() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION '{_ONLY_ADDED}'; END $$""",
    """CREATE TRIGGER rewards_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON rewards
    FOR EACH STATEMENT EXECUTE FUNCTION rewards_only_added()""",
    f"""CREATE FUNCTION rewards_in_turn() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM rewards)
        OR NEW.previous <> coalesce((SELECT hash FROM rewards ORDER BY seq DESC LIMIT 1), NEW.previous) THEN
        RAISE EXCEPTION '{_OUT_OF_TURN}';
      END IF;
      RETURN NEW;
    END $$""",
    "CREATE TRIGGER rewards_in_turn BEFORE INSERT ON rewards FOR EACH ROW EXECUTE FUNCTION rewards_in_turn()",
)

#: By SQLAlchemy's name of the dialect: the statements that make an empty book, in one transaction.
SCHEMA: Final[Mapping[str, tuple[str, ...]]] = {"sqlite": _SQLITE, "postgresql": _POSTGRESQL}
