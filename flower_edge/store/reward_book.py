"""`RewardBook`: who was credited how much for which round, in a file or a database that is only ever added to.

A settlement is booked whole or not at all, and once: what is booked again, after a crash or a replay, is found. Rows
are chained by hashes, so that a row changed or taken out later is seen. Nothing here decides who earns what, pays
anybody, or knows a currency.

Source: [4], paragraphs 32, 71 and 72.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

import sqlalchemy as sa

from ..errors import RewardError
from .reward_chain import Chain
from .reward_engine import BookDatabase
from .reward_rows import (
    CORRECTION,
    NO_HASH,
    REVERSAL,
    SETTLED,
    Entry,
    Head,
    Settlement,
    Verified,
    canonical,
    checked,
    row_hash,
    text,
    whole,
)
from .reward_schema import REWARDS

__all__ = ["RewardBook"]

#: Rows fetched at a time, and parameters one statement of SQLite may have with room to spare.
_PAGE: Final = 1000


class RewardBook:
    """An append-only book of rewards.

    Args:
        where: path of a SQLite file, made where there is none, or a URL such as
            `postgresql://user@host/database`. A file's folder must be there.
        readonly: look only; nothing is made.

    Several processes may book into one book at the same time. A copy in another process opens the same book.

    Raises:
        RewardError: it cannot be opened, is damaged, or is something else.
    """

    def __init__(self, where: str | Path, *, readonly: bool = False) -> None:
        self._where = where
        self._database = BookDatabase(where, readonly=readonly)
        if self._database.path is not None:
            self._where = self._database.path

    @property
    def name(self) -> str:
        """Where it is: a path, or a URL without its password."""
        return self._database.name

    def settle(self, settlement: Settlement) -> Settlement:
        """Book one settlement, or find that it was booked.

        Returns:
            What stands in the book for this run, round, edge round, payer and kind. When it stood before, nothing is
            written, and what stands is returned also where it differs from what came: the first one was paid.

        Raises:
            RewardError: amounts that do not add up, or a database that refused; nothing of it is booked then.
        """
        clean = checked(settlement)
        with self._database.transaction(write=True) as connection:
            standing = _standing(connection, clean)
            if standing is None:
                _append(connection, _rows_of(clean))
        return clean if standing is None else standing

    def find(
        self, run: str, round: int, edge_round: int = 0, payer: str = "", kind: str = "training"
    ) -> Settlement | None:
        """The settlement that stands for these, None where none does: one that need not be computed again."""
        asked = Settlement(run, round, edge_round, payer, pot=0, carried=0, credits={}, kind=kind)
        with self._database.transaction() as connection:
            return _standing(connection, asked)

    def settlements(self, run: str | None = None) -> Iterator[Settlement]:
        """The settlements as they were booked, oldest first; of one run or of all. Reversals do not change them."""
        for entry in self.entries(node=SETTLED, run=run):
            found = self.find(entry.run, entry.round, entry.edge_round, entry.payer, entry.kind)
            assert found is not None
            yield found

    def balances(self, run: str | None = None) -> dict[str, int]:
        """What each node was credited with in all, micro-credits, reversals and corrections counted; by node, sorted.

        A sum of whole numbers: the order in which rounds were settled does not matter.
        """
        # Two sums of 32 bits each, for one of 64 may be more than 64 bits.
        high, low = (
            sa.func.sum(REWARDS.c.micro.op(operator)(sa.literal_column(number)))
            for operator, number in ((">>", "32"), ("&", "4294967295"))
        )
        query = sa.select(REWARDS.c.node, high, low).where(REWARDS.c.node != SETTLED).group_by(REWARDS.c.node)
        if run is not None:
            query = query.where(REWARDS.c.run == run)
        with self._database.transaction() as connection:
            found = connection.execute(query).all()
        return {node: (int(above) << 32) + int(below) for node, above, below in sorted(found)}

    def entries(self, node: str | None = None, run: str | None = None) -> Iterator[Entry]:
        """The rows up to now, oldest first, a thousand in memory at a time; of one node, or run, or of all.

        The rows of settlements themselves have the node "".
        """
        last, end = 0, self.head().rows
        while True:
            query = sa.select(REWARDS).where(REWARDS.c.seq > last, REWARDS.c.seq <= end)
            for column, value in ((REWARDS.c.node, node), (REWARDS.c.run, run)):
                if value is not None:
                    query = query.where(column == value)
            with self._database.transaction() as connection:
                page = [_entry(row) for row in connection.execute(query.order_by(REWARDS.c.seq).limit(_PAGE))]
            yield from page
            if len(page) < _PAGE:
                return
            last = page[-1].seq

    def reverse(self, seq: int, reason: str) -> Entry:
        """Take back what row `seq` credited, by a row of the opposite amount; it does not flow back to a pot.

        Returns:
            The reversing row.

        Raises:
            RewardError: there is no such row, it credited nothing, or it was reversed; or it is a reversal itself:
                `correct` books the amount anew.
        """
        seq = whole(seq, "the number of the row", least=1)
        details = canonical({"reason": text(reason, "reason")})
        with self._database.transaction(write=True) as connection:
            found = connection.execute(sa.select(REWARDS).where(REWARDS.c.seq == seq)).first()
            if found is None:
                raise RewardError(f"{self.name} has no row {seq}; it has {_head(connection).rows}")
            entry = _entry(found)
            if entry.node == SETTLED or entry.micro == 0:
                raise RewardError(f"row {seq} credited nothing; there is nothing to reverse")
            if entry.refers is not None:
                raise RewardError(f"row {seq} is itself a reversal, of row {entry.refers}; book a correction instead")
            back = replace(entry, kind=f"{REVERSAL}{seq}", micro=-entry.micro, refers=seq, details=details)
            earlier = connection.scalar(sa.select(REWARDS.c.seq).where(_same(back), REWARDS.c.node == back.node))
            if earlier is not None:
                raise RewardError(f"row {seq} was reversed by row {earlier}; a row is reversed once")
            return _append(connection, [back])[0]

    def correct(
        self, node: str, micro: int, reason: str, *, reference: str, run: str, payer: str, round: int = 0
    ) -> Entry:
        """Book an amount, of either sign, that no settlement told.

        Args:
            node: the node's key.
            micro: micro-credits.
            reason: for the statement.
            reference: yours, as the number of a complaint; what has one reference is booked once.
            run, payer, round: where it belongs.

        Returns:
            The correcting row, also where it stood before.

        Raises:
            RewardError: the reference stands for another amount.
        """
        micro = whole(micro, f"correction for {node}")
        if micro == 0:
            raise RewardError(f"a correction of 0 for {node} changes nothing")
        details = canonical({"reason": text(reason, "reason")})
        kind = f"{CORRECTION}{text(reference, 'reference')}"
        row = Entry(
            0,
            text(run, "run"),
            whole(round, "round", least=0),
            0,
            "",
            text(payer, "payer", empty=True),
            text(node, "node"),
            kind,
            micro,
            None,
            details,
            "",
            "",
        )
        with self._database.transaction(write=True) as connection:
            found = connection.execute(sa.select(REWARDS).where(_same(row), REWARDS.c.node == node)).first()
            if found is None:
                return _append(connection, [row])[0]
        if found.micro != micro:
            raise RewardError(f"{reference!r} stands for {found.micro} micro-credits of {node}, in row {found.seq}")
        return _entry(found)

    def head(self) -> Head:
        """The number of rows and the hash of the last one: note it elsewhere, and `verify` can tell a cut-off tail."""
        with self._database.transaction() as connection:
            return _head(connection)

    def verify(self, anchor: Head | None = None) -> Verified:
        """Read every row and see that it is as it was booked: numbers, hashes, sums of settlements, reversals.

        Args:
            anchor: a `head()` of earlier, kept elsewhere. Without one, a tail that was cut off, or a book written anew
                from some row on with all its hashes, cannot be told from a shorter book.
        """
        referred = sa.select(REWARDS.c.refers).where(REWARDS.c.refers.is_not(None))
        chain = Chain(anchor)
        try:
            with self._database.transaction() as connection:
                chain.expect(connection.scalars(referred))
            for entry in self.entries():
                if not chain.accept(entry):
                    return chain.result()
        except RewardError as error:
            return chain.broken(str(error))
        return chain.finish()

    def close(self) -> None:
        """Close it; a file is then one plain file, unless somebody else still has it open."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self._where, self._database.readonly)


def _reopened(where: str | Path, readonly: bool) -> RewardBook:
    return RewardBook(where, readonly=readonly)


def _same(of: Entry | Settlement) -> sa.ColumnElement[bool]:
    return sa.and_(*(REWARDS.c[name] == getattr(of, name) for name in ("run", "round", "edge_round", "payer", "kind")))


def _standing(connection: sa.Connection, asked: Settlement) -> Settlement | None:
    rows = [_entry(row) for row in connection.execute(sa.select(REWARDS).where(_same(asked)).order_by(REWARDS.c.seq))]
    if not rows:
        return None
    first, *credited = rows
    told = first.told()
    if first.node != SETTLED or "pot" not in told:
        raise RewardError(f"row {first.seq} stands where a settlement should begin; run `flower-edge rewards verify`")
    return Settlement(
        first.run,
        first.round,
        first.edge_round,
        first.payer,
        pot=told["pot"],
        carried=told["carried"],
        credits={row.node: row.micro for row in sorted(credited, key=lambda row: row.node)},
        details={row.node: row.told() for row in sorted(credited, key=lambda row: row.node)},
        kind=first.kind,
        cell=first.cell,
    )


def _rows_of(clean: Settlement) -> list[Entry]:
    """The row of the settlement, and then one for each node; seq, time and hashes are still to come."""
    told = {"pot": clean.pot, "paid": clean.paid, "carried": clean.carried, "nodes": len(clean.credits)}
    of = (clean.run, clean.round, clean.edge_round, clean.cell, clean.payer)
    return [
        Entry(0, *of, SETTLED, clean.kind, 0, None, canonical(told), "", ""),
        *(
            Entry(0, *of, node, clean.kind, micro, None, canonical(clean.details[node]), "", "")
            for node, micro in clean.credits.items()
        ),
    ]


def _append(connection: sa.Connection, rows: Sequence[Entry]) -> list[Entry]:
    head, now = _head(connection), datetime.now(UTC).isoformat(timespec="microseconds")
    booked = []
    for row in rows:
        row = replace(row, seq=head.rows + 1, booked_at=now, previous=head.hash)
        row = replace(row, hash=row_hash(row))
        head = Head(row.seq, row.hash)
        booked.append(row)
    connection.execute(sa.insert(REWARDS), [vars(row) for row in booked])
    return booked


def _head(connection: sa.Connection) -> Head:
    found = connection.execute(sa.select(REWARDS.c.seq, REWARDS.c.hash).order_by(REWARDS.c.seq.desc()).limit(1)).first()
    return Head(0, NO_HASH) if found is None else Head(*found)


def _entry(row: sa.Row[Any]) -> Entry:
    return Entry(**row._mapping)
