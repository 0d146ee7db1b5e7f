"""A reward book in a file: what it promises, what it shows when it was tampered with, and what is no book."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.reward_book_laws import FIRST, RewardBookLaws

from flower_edge.errors import RewardError
from flower_edge.store.reward_book import RewardBook
from flower_edge.store.reward_chain import Chain
from flower_edge.store.reward_rows import NO_HASH, Entry, Head, Settlement, row_hash

TRIGGERS = ("rewards_no_UPDATE", "rewards_no_DELETE", "rewards_in_turn")


class TestInSQLite(RewardBookLaws):
    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        return str(tmp_path / "rewards.sqlite")

    def test_also_or_replace_replaces_nothing(self, place: str, book: RewardBook) -> None:
        book.settle(FIRST)
        columns = "run, round, edge_round, cell, payer, node, kind, 9, refers, details, booked_at"
        for seq in (2, 4):
            with pytest.raises(Exception, match="follow the last one"):
                self.raw(
                    place,
                    f"INSERT OR REPLACE INTO rewards SELECT {seq}, {columns}, '{book.head().hash}', hash FROM rewards "
                    "WHERE seq = 2",
                )
        assert book.verify().ok

    def test_it_is_as_durable_as_sqlite_can_be(self, place: str, book: RewardBook) -> None:
        with book._database.transaction() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
            tables = connection.exec_driver_sql("SELECT name, strict FROM pragma_table_list WHERE name LIKE 'rewards%'")
            assert {row[0]: row[1] for row in tables} == {"rewards": 1, "rewards_format": 1}

    def test_a_url_is_the_same_book_as_its_path(self, place: str, book: RewardBook) -> None:
        book.settle(FIRST)
        with RewardBook(f"sqlite:///{place}") as same:
            assert same.name == book.name == place
            assert same.balances() == {"a": 30, "b": 60}

    def test_closed_it_is_one_plain_file(self, tmp_path: Path, place: str, book: RewardBook) -> None:
        book.settle(FIRST)
        with RewardBook(place, readonly=True) as looking:
            looking.balances()
        book.close()
        assert os.listdir(tmp_path) == ["rewards.sqlite"]

    def test_a_fork_does_not_share_the_connection(self, book: RewardBook) -> None:
        book.settle(FIRST)
        first = book._database._open()
        book._database._pid -= 1
        assert book._database._open() is not first
        assert book.settle(FIRST) == book.find("demo", 1, 0, "edge-0")
        first.dispose()


# --- totals ---

SETTLEMENTS = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(["x", "y"]), st.dictionaries(st.sampled_from("abc"), st.integers(0, 2**62))
    ),
    max_size=5,
    unique_by=lambda of: of[:2],
)


@settings(max_examples=12, deadline=None)
@given(st.data(), SETTLEMENTS)
def test_totals_do_not_depend_on_the_order_nor_on_what_comes_twice(
    data: st.DataObject, given: list[tuple[int, str, dict[str, int]]]
) -> None:
    of = [
        Settlement("demo", at, 0, payer, sum(credits.values()) % 2**63, 0, credits)
        for at, payer, credits in given
        if sum(credits.values()) < 2**63
    ]
    totals: dict[str, int] = {}
    for settlement in of:
        for node, micro in settlement.credits.items():
            totals[node] = totals.get(node, 0) + micro
    with tempfile.TemporaryDirectory() as folder, RewardBook(f"{folder}/rewards.sqlite") as book:
        for settlement in data.draw(st.permutations(of)) + of[:1]:
            book.settle(settlement)
        assert book.balances() == totals
        assert book.verify().ok


# --- tampering ---


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A book of ten rows, three of them of a second run, closed."""
    path = tmp_path / "rewards.sqlite"
    with RewardBook(path) as book:
        book.settle(FIRST)
        book.settle(replace(FIRST, round=2))
        book.reverse(5, "wrong")
        book.settle(replace(FIRST, run="other"))
    return path


def tamper(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for name in TRIGGERS:
        connection.execute(f"DROP TRIGGER IF EXISTS {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def rewrite(path: Path, *statements: str) -> None:
    """Tamper, and then compute all hashes anew."""
    tamper(path, *statements)
    with RewardBook(path) as book:
        rows = list(book.entries())
    previous, changes = NO_HASH, []
    for row in rows:
        digest = row_hash(replace(row, previous=previous))
        changes.append(f"UPDATE rewards SET previous = '{previous}', hash = '{digest}' WHERE seq = {row.seq}")
        previous = digest
    tamper(path, *changes)


@pytest.mark.parametrize(
    "change",
    [
        "run = 'x'", "round = 9", "edge_round = 9", "cell = 'x'", "payer = 'x'", "node = 'x'", "kind = 'x'",
        "micro = 31", "refers = 2", "details = '{}'", "booked_at = ''", "hash = 'x'", "previous = 'x'",
    ],
)  # fmt: skip
def test_a_changed_row_is_found(path: Path, change: str) -> None:
    with RewardBook(path) as book:
        assert book.verify().rows == 10
    tamper(path, f"UPDATE rewards SET {change} WHERE seq = 2")
    with RewardBook(path) as book:
        found = book.verify()
    assert (found.ok, found.rows, found.first_bad) == (False, 1, 2)
    assert found.why


def test_a_row_taken_out_is_found(path: Path) -> None:
    tamper(path, "DELETE FROM rewards WHERE seq = 6")
    with RewardBook(path) as book:
        assert book.verify()[:2] + book.verify()[3:] == (False, 5, 6, "row 6 is missing; row 7 comes instead")


def test_a_row_taken_out_and_the_numbers_closed_up_is_found(path: Path) -> None:
    tamper(
        path,
        "DELETE FROM rewards WHERE seq = 6",
        *(f"UPDATE rewards SET seq = {n - 1} WHERE seq = {n}" for n in (7, 8, 9, 10)),
    )
    with RewardBook(path) as book:
        assert book.verify().why == "row 6 does not follow row 5: it was booked after another one"


def test_a_tail_cut_off_between_settlements_needs_an_anchor(path: Path) -> None:
    with RewardBook(path) as book:
        anchor = book.head()
    tamper(path, "DELETE FROM rewards WHERE seq > 7")
    with RewardBook(path) as book:
        assert book.verify().ok
        found = book.verify(Head.parse(str(anchor)))
    assert (found.ok, found.first_bad) == (False, 8)
    assert found.why == "the anchor knows 10 rows, and the book ends after 7"


def test_a_tail_cut_off_within_a_settlement_is_found(path: Path) -> None:
    tamper(path, "DELETE FROM rewards WHERE seq > 9")
    with RewardBook(path) as book:
        assert book.verify().why == "the settlement of row 8 lacks 1 rows"


def test_a_book_written_anew_with_all_its_hashes_needs_an_anchor(path: Path) -> None:
    with RewardBook(path) as book:
        anchor = book.head()
    rewrite(path, "UPDATE rewards SET micro = 31 WHERE seq = 2", "UPDATE rewards SET micro = 59 WHERE seq = 3")
    with RewardBook(path) as book:
        assert book.verify().ok
        assert book.verify(anchor).why == "row 10 is not the one that the anchor knows: the book was written anew"


@pytest.mark.parametrize(
    ("statements", "first_bad", "why"),
    [
        (["UPDATE rewards SET micro = 31 WHERE seq = 2"], 3, "row 3 ends a settlement, of row 1, whose credits miss"),
        (["UPDATE rewards SET micro = -1 WHERE seq = 2"], 2, "row 2 credits less than nothing"),
        (["UPDATE rewards SET micro = -1 WHERE seq = 7"], 7, "row 7 does not reverse row 5"),
        (["UPDATE rewards SET node = 'x' WHERE seq = 7"], 7, "row 7 does not reverse row 5"),
        (["UPDATE rewards SET refers = 6 WHERE seq = 7"], 7, "row 7 does not reverse row 6"),
        (["UPDATE rewards SET cell = 'x' WHERE seq = 3"], 3, "the settlement of row 1 lacks 1 rows"),
        (["UPDATE rewards SET refers = NULL, kind = 'x' WHERE seq = 7"], 7, "row 7 credits a outside of a settlement"),
        (["UPDATE rewards SET details = '{}' WHERE seq = 4"], 4, "row 4 tells no settlement"),
        (["UPDATE rewards SET details = '[]' WHERE seq = 4"], 4, "row 4: its details are no JSON object"),
        (["UPDATE rewards SET details = replace(details, ':10,', ':11,') WHERE seq = 4"], 4, "row 4: paid and carried"),
        (["UPDATE rewards SET details = replace(details, 'nodes\":2', 'nodes\":0') WHERE seq = 4"], 4, "row 4: paid"),
    ],
)  # fmt: skip
def test_what_is_chained_and_cannot_be_is_found_too(
    path: Path, statements: list[str], first_bad: int, why: str
) -> None:
    rewrite(path, *statements)
    with RewardBook(path) as book:
        found = book.verify()
    assert found.why.startswith(why)
    assert (found.ok, found.first_bad) == (False, first_bad)


def test_a_row_reversed_twice_is_found(path: Path) -> None:
    with RewardBook(path) as book:
        rows = list(book.entries())
    again = replace(rows[6], seq=11, previous=rows[-1].hash, payer="x")
    chain = Chain()
    chain.expect([5])
    assert all(chain.accept(row) for row in rows)
    assert not chain.accept(replace(again, hash=row_hash(again)))
    assert chain.result().why == "row 11 does not reverse row 5, or row 5 was reversed before"


# --- the hash ---


def test_the_hash_of_a_row_is_the_one_that_was_always_written() -> None:
    row = Entry(
        2, "demo", 1, 0, "", "edge-0", "ü", "training", 30, None, '{"size":0.5}', "2026-01-02T03:04:05.000006+00:00",
        "ab" * 32,
    )  # fmt: skip
    assert row_hash(row) == "dc2e6d39d8a65af107d8406f4c1faefb99646d8ee4e3adf1754b00fe5dae980d"


def test_a_head_that_is_none_says_what_one_looks_like() -> None:
    assert Head.parse(f" 12:{NO_HASH}\n") == Head(12, NO_HASH)
    for text in ("", "12", f"x:{NO_HASH}", f"-1:{NO_HASH}", "1:abc", f"1:{'G' * 64}", f"²:{NO_HASH}"):
        with pytest.raises(RewardError, match="expected ROWS:HASH"):
            Head.parse(text)


# --- what is no book ---


def test_looking_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"no reward book at .*none\.sqlite; give the path or URL of one"):
        RewardBook(tmp_path / "none.sqlite", readonly=True)
    assert os.listdir(tmp_path) == []


def test_an_empty_file_becomes_a_book_but_not_by_looking(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(RewardError, match="has no table of rewards"):
        RewardBook(tmp_path / "empty", readonly=True)
    with RewardBook(tmp_path / "empty") as book:
        assert book.settle(FIRST)


@pytest.mark.parametrize("readonly", [False, True])
def test_another_file_is_left_as_it_is(tmp_path: Path, readonly: bool) -> None:
    text = tmp_path / "text"
    text.write_text("a text that is long enough to be no header of SQLite" * 100)
    metrics = tmp_path / "metrics.sqlite"
    connection = sqlite3.connect(metrics)
    connection.execute("CREATE TABLE metrics (x)")
    connection.close()
    for path, words in (
        (text, "not a database; it is no reward book, or damaged"),
        (metrics, "is no reward book: it has"),
    ):
        before = path.read_bytes()
        with pytest.raises(RewardError, match=words):
            RewardBook(path, readonly=readonly)
        assert path == metrics or path.read_bytes() == before


def test_a_later_form_and_a_half_book_are_not_opened(path: Path) -> None:
    tamper(path, "UPDATE rewards_format SET format = 2")
    with pytest.raises(RewardError, match="of form 2, and this version knows 1; update flower-edge"):
        RewardBook(path)
    tamper(path, "DROP TABLE rewards_format")
    with pytest.raises(RewardError, match="only a part of a reward book"):
        RewardBook(path)


def test_a_damaged_file_does_not_verify_and_says_so(path: Path) -> None:
    with RewardBook(path) as book:
        book.settle(Settlement("big", 1, 0, "", 1000, 0, {f"{at:04}": 1 for at in range(1000)}))
    data = bytearray(path.read_bytes())
    # Leaves of the table, somewhere in the midst, and the schema as it was.
    data[5 * 4096 :] = b"\xff" * (len(data) - 5 * 4096)
    path.write_bytes(data)
    with RewardBook(path, readonly=True) as book:
        found = book.verify()
        with pytest.raises(RewardError, match="restore it from a copy"):
            book.balances()
    assert not found.ok
    assert "restore it from a copy" in found.why


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("", "is no place for a reward book"),
        (":memory:", "is no place for a reward book"),
        ("sqlite://", "is no place for a reward book"),
        ("mysql://host/db", r"mysql://…: no database that a reward book knows; expected a path, sqlite:///"),
        ("://", "no URL of a database"),
        ("/no/such/folder/rewards.sqlite", "there is no folder /no/such/folder; make it first"),
        ("/", "see that it is a file"),
    ],
)
def test_a_place_that_is_none_is_told(where: str, words: str) -> None:
    with pytest.raises(RewardError, match=words):
        RewardBook(where)


def test_a_password_is_not_told() -> None:
    with pytest.raises(RewardError, match=r"see that the server runs") as caught:
        RewardBook("postgresql://me:secret@127.0.0.1:1/db")
    assert "secret" not in str(caught.value)


def test_an_old_sqlite_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(RewardError, match=r"needs SQLite 3\.37"):
        RewardBook(tmp_path / "rewards.sqlite")
