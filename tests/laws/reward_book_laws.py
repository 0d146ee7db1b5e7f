"""What holds for every reward book, whichever database it is in."""

from __future__ import annotations

import pickle
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa

from flower_edge.errors import RewardError
from flower_edge.store.reward_book import RewardBook
from flower_edge.store.reward_rows import NO_HASH, Head, Settlement, row_hash

FIRST = Settlement(
    "demo", 1, 0, "edge-0", pot=100, carried=10, credits={"b": 60, "a": 30}, details={"a": {"why": "ü", "size": 0.5}}
)


class RewardBookLaws:
    """Subclasses have a fixture `place`: where there is no book yet."""

    @pytest.fixture
    def book(self, place: str) -> Any:
        with RewardBook(place) as book:
            yield book

    def raw(self, place: str, *statements: str) -> None:
        """Run statements past the book."""
        engine = sa.create_engine(place if "://" in place else f"sqlite:///{place}")
        try:
            with engine.begin() as connection:
                for statement in statements:
                    connection.exec_driver_sql(statement)
        finally:
            engine.dispose()

    # --- settlements ---

    def test_an_empty_book_is_a_book(self, book: RewardBook) -> None:
        assert (book.balances(), list(book.entries()), list(book.settlements())) == ({}, [], [])
        assert book.head() == Head(0, NO_HASH)
        assert book.verify(book.head()).ok

    def test_what_was_settled_is_found(self, book: RewardBook) -> None:
        assert book.find("demo", 1, 0, "edge-0") is None
        settled = book.settle(FIRST)
        assert settled.details == {"a": {"why": "ü", "size": 0.5}, "b": {}}
        assert book.find("demo", 1, 0, "edge-0") == settled
        assert list(book.settlements()) == [settled]
        assert book.balances() == {"a": 30, "b": 60}
        assert [(row.seq, row.node, row.micro) for row in book.entries()] == [(1, "", 0), (2, "a", 30), (3, "b", 60)]

    def test_a_round_is_paid_once_also_when_it_comes_back_with_other_shares(self, book: RewardBook) -> None:
        settled = book.settle(FIRST)
        head = book.head()
        assert book.settle(FIRST) == settled
        assert book.settle(replace(FIRST, credits={"a": 100}, carried=0, details={})) == settled
        assert book.head() == head

    @pytest.mark.parametrize("other", [{"run": "x"}, {"round": 2}, {"edge_round": 1}, {"payer": "x"}, {"kind": "x"}])
    def test_another_run_round_payer_or_kind_is_another_settlement(
        self, book: RewardBook, other: dict[str, Any]
    ) -> None:
        book.settle(FIRST)
        book.settle(replace(FIRST, **other))
        assert book.balances() == {"a": 60, "b": 120}
        assert book.balances("demo") == ({"a": 30, "b": 60} if "run" in other else {"a": 60, "b": 120})
        assert [row.seq for row in book.entries(node="a")] == [2, 5]
        assert [row.seq for row in book.entries(run="x")] == ([4, 5, 6] if "run" in other else [])

    def test_a_settlement_in_which_nobody_earned_stands_too(self, book: RewardBook) -> None:
        nobody = replace(FIRST, credits={}, details={}, carried=100)
        refused = replace(FIRST, round=2, credits={"a": 0}, details={"a": {"refused": "norm"}}, carried=100)
        assert [book.settle(nobody), book.settle(refused)] == list(book.settlements())
        assert book.balances() == {"a": 0}
        assert book.verify().ok

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"credits": {"a": 90.0, "b": 0}}, "credit of a is 90.0; expected a whole number"),
            ({"credits": {"a": True, "b": 89}}, "credit of a is True; expected a whole number"),
            ({"credits": {"a": 91, "b": -1}}, "credit of b is -1; expected 0 to"),
            ({"credits": {"a": 90}}, "details of b without a credit; give a credit of 0"),
            ({"pot": 101}, "paid 90 and carried 10 are 100, not the pot of 101"),
            ({"pot": 2**63, "carried": 2**63 - 90}, "pot is 9223372036854775808; expected 0 to"),
            ({"credits": {"": 90, "b": 0}}, "node is ''; expected a text that is not empty"),
            ({"run": ""}, "run is ''; expected a text that is not empty"),
            ({"payer": "a\0b"}, "holds no zero bytes"),
            ({"run": "\ud800"}, "no halves of characters"),
            ({"round": -1}, "round is -1"),
            ({"kind": "reversal of 3"}, "take another"),
            ({"details": {"b": {"x": object()}}}, "details.x is <object"),
        ],
    )
    def test_what_cannot_be_booked_is_refused_and_leaves_nothing(
        self, book: RewardBook, wrong: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(RewardError, match=words.replace("(", r"\(")):
            book.settle(replace(FIRST, **{"details": {"b": {}}, **wrong}))
        assert book.head().rows == 0

    def test_numpy_integers_and_any_float_in_details_are_taken(self, book: RewardBook) -> None:
        given = replace(FIRST, credits={"a": np.int64(90)}, details={"a": {"loss": np.float64("nan")}})  # type: ignore[dict-item]
        assert book.settle(given).details == {"a": {"loss": "NaN"}}
        assert book.settle(given) == book.find("demo", 1, 0, "edge-0")

    def test_balances_are_exact_beyond_sixty_four_bits(self, book: RewardBook) -> None:
        most = 2**63 - 1
        for at in range(3):
            book.settle(Settlement("demo", at, 0, "", most, 0, {"a": most}))
        book.correct("b", -most, "a", reference="1", run="demo", payer="")
        book.correct("b", -most, "a", reference="2", run="demo", payer="")
        assert book.balances() == {"a": 3 * most, "b": -2 * most}
        assert book.verify().ok

    def test_rows_come_in_order_and_whole_beyond_a_page(self, book: RewardBook) -> None:
        book.settle(Settlement("demo", 1, 0, "", 2500, 0, {f"{at:04}": 1 for at in range(2500)}))
        assert [row.seq for row in book.entries()] == list(range(1, 2502))
        assert book.verify().rows == 2501

    def test_threads_take_turns(self, book: RewardBook) -> None:
        def settle(payer: str) -> None:
            for at in range(8):
                book.settle(replace(FIRST, round=at, payer=payer))
                book.settle(replace(FIRST, round=at, payer="both"))

        threads = [threading.Thread(target=settle, args=(payer,)) for payer in ("x", "y")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert book.balances() == {"a": 30 * 24, "b": 60 * 24}
        assert book.verify() == (True, 72, book.head(), None, "")

    def test_it_goes_on_where_it_was_left(self, place: str) -> None:
        with RewardBook(place) as book:
            book.settle(FIRST)
            head = book.head()
        with RewardBook(place) as book:
            assert book.head() == head
            book.settle(replace(FIRST, round=2))
            assert book.verify(head).ok

    def test_a_copy_opens_the_same_book(self, book: RewardBook) -> None:
        with pickle.loads(pickle.dumps(book)) as copy:  # noqa: S301
            copy.settle(FIRST)
        assert book.balances() == {"a": 30, "b": 60}

    def test_one_that_is_open_for_reading_shows_and_books_nothing(self, place: str, book: RewardBook) -> None:
        book.settle(FIRST)
        with RewardBook(place, readonly=True) as looking:
            book.settle(replace(FIRST, round=2))
            assert looking.balances() == {"a": 60, "b": 120}
            assert looking.verify().ok
            with pytest.raises(RewardError, match="open for reading only"):
                looking.settle(replace(FIRST, round=3))

    def test_a_closed_book_says_so(self, book: RewardBook) -> None:
        book.close()
        book.close()
        with pytest.raises(RewardError, match="is closed; open it again"):
            book.balances()

    # --- only ever added to ---

    def test_a_row_cannot_be_changed_taken_out_or_put_in_out_of_turn(self, place: str, book: RewardBook) -> None:
        book.settle(FIRST)
        head = book.head()
        copied = "SELECT {}, run, round, edge_round, cell, payer, node, kind, 9, refers, details, booked_at, '{}', hash"
        for statement in (
            "UPDATE rewards SET micro = 31 WHERE seq = 2",
            "DELETE FROM rewards WHERE seq = 3",
            "DELETE FROM rewards",
            f"INSERT INTO rewards {copied.format(5, head.hash)} FROM rewards WHERE seq = 2",
            f"INSERT INTO rewards {copied.format(4, head.hash)} FROM rewards WHERE seq = 2",
            f"INSERT INTO rewards {copied.format(4, NO_HASH)} FROM rewards WHERE seq = 2",
        ):
            with pytest.raises(sa.exc.SQLAlchemyError, match=r"only ever added|follow the last one|unique"):
                self.raw(place, statement)
        assert book.verify(head) == (True, 3, head, None, "")

    # --- reversals and corrections ---

    def test_a_reversal_takes_back_what_a_row_credited_once(self, book: RewardBook) -> None:
        book.settle(FIRST)
        back = book.reverse(2, "not its data")
        assert (back.node, back.micro, back.refers, back.told()) == ("a", -30, 2, {"reason": "not its data"})
        assert book.balances() == {"a": 0, "b": 60}
        assert book.verify().ok
        for seq, words in (
            (2, "row 2 was reversed by row 4; a row is reversed once"),
            (4, "row 4 is itself a reversal, of row 2; book a correction instead"),
            (1, "row 1 credited nothing"),
            (9, "has no row 9; it has 4"),
            (0, "expected 1 to"),
        ):
            with pytest.raises(RewardError, match=words):
                book.reverse(seq, "again")
        assert book.find("demo", 1, 0, "edge-0") == book.settle(FIRST)
        assert book.balances() == {"a": 0, "b": 60}

    def test_a_correction_is_booked_once_by_its_reference(self, book: RewardBook) -> None:
        book.settle(FIRST)
        row = book.correct("a", -5, "told twice", reference="case 7", run="demo", payer="edge-0")
        assert book.correct("a", -5, "told twice", reference="case 7", run="demo", payer="edge-0") == row
        with pytest.raises(RewardError, match="'case 7' stands for -5 micro-credits of a, in row 4"):
            book.correct("a", -6, "told twice", reference="case 7", run="demo", payer="edge-0")
        with pytest.raises(RewardError, match="changes nothing"):
            book.correct("a", 0, "told twice", reference="case 8", run="demo", payer="edge-0")
        book.reverse(row.seq, "no, once")
        assert book.balances() == {"a": 30, "b": 60}
        assert book.verify().ok

    # --- the chain ---

    def test_the_hashes_are_those_of_the_rows(self, book: RewardBook) -> None:
        book.settle(FIRST)
        rows = list(book.entries())
        assert [row.hash for row in rows] == [row_hash(row) for row in rows]
        assert [row.previous for row in rows] == [NO_HASH, rows[0].hash, rows[1].hash]
