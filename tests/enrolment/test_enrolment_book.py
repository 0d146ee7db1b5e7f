"""The enrolment book: a token lets in as many as it says and no more, whoever asks at the same time."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from flower_edge.enrolment.book import EnrolmentBook
from flower_edge.errors import ConfigError, EnrolmentError, EnrolmentRefused


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> EnrolmentBook:
    return EnrolmentBook(tmp_path / "book.sqlite", clock=clock)


def refused(book: EnrolmentBook, token: str | None, key: str) -> str:
    with pytest.raises(EnrolmentRefused) as caught:
        book.admit(token, key, "pi")
    return caught.value.code


def test_a_token_lets_in_as_many_as_it_says_and_the_same_device_again(book: EnrolmentBook) -> None:
    token = book.invite(uses=2)
    first = book.admit(token, "key-1", "pi")
    assert (first.state, first.node_id) == ("pending", None)
    assert book.admit(token, "key-1", "other") == first  # a join that broke off costs no second use
    assert book.admit(token, "key-2", "pi").name == "pi-2"
    assert refused(book, token, "key-3") == "token-used"
    assert book.admit(token, "key-1", "pi") == first
    assert book.admit(None, "key-1", "pi") == first


def test_no_token_a_wrong_one_and_an_old_one_are_refused_by_name(book: EnrolmentBook, clock: Clock) -> None:
    token = book.invite(valid_s=60.0)
    assert refused(book, None, "key") == "no-token"
    assert refused(book, token[:-1] + ("0" if token[-1] != "0" else "1"), "key") == "bad-token"
    assert refused(book, "", "key") == "bad-token"
    clock.now_s += 60.0
    assert refused(book, token, "key") == "token-expired"
    assert book.devices() == []


def test_a_removed_key_is_not_let_in_again_and_its_name_is_free(book: EnrolmentBook) -> None:
    token = book.invite(uses=3)
    book.admit(token, "key-1", "pi")
    assert book.joined("key-1", 2**64 - 1).node_id == 2**64 - 1
    book.removed("key-1")
    assert refused(book, token, "key-1") == "removed"
    with pytest.raises(EnrolmentRefused, match="not taken again"):
        book.joined("key-1", 7)
    assert book.admit(token, "key-2", "pi").name == "pi"
    assert [device.public_key for device in book.devices()] == ["key-2"]


def test_devices_are_found_by_name_and_by_node_id(book: EnrolmentBook) -> None:
    book.admit(book.invite(), "key", "pi")
    book.joined("key", 77)
    assert book.called("pi") == book.called("77") == book.device("key")
    with pytest.raises(ConfigError, match=r"no device 'pj' has joined; there are: pi"):
        book.called("pj")


def test_what_is_kept_is_not_the_token(book: EnrolmentBook, tmp_path: Path) -> None:
    token = book.invite()
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert token.encode() not in kept
    assert bytes.fromhex(token) not in kept


def test_of_many_at_once_a_token_lets_in_just_one(tmp_path: Path) -> None:
    token = EnrolmentBook(tmp_path / "book").invite()
    codes: list[str] = []

    def one(number: int) -> None:
        try:
            EnrolmentBook(tmp_path / "book").admit(token, f"key-{number}", "pi")
            codes.append("in")
        except EnrolmentRefused as error:
            codes.append(error.code)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == ["in", *["token-used"] * 7]


@pytest.mark.parametrize(("uses", "valid_s"), [(0, 1.0), (-1, 1.0), (1, 0.0), (1, float("nan")), (1, 1e9)])
def test_an_invitation_that_makes_no_sense_is_refused(book: EnrolmentBook, uses: int, valid_s: float) -> None:
    with pytest.raises(ConfigError, match="a token"):
        book.invite(uses=uses, valid_s=valid_s)


def test_a_file_that_is_no_book_is_named(tmp_path: Path) -> None:
    (tmp_path / "book").write_bytes(b"not a database, whatever its name may be" * 100)
    with pytest.raises(EnrolmentError, match=r"book: file is not a database"):
        EnrolmentBook(tmp_path / "book")


def fill(book: EnrolmentBook) -> None:
    for number in range(1000):
        book.invite(uses=number + 1)


def test_a_full_disk_loses_no_token_that_was_told(tmp_path: Path) -> None:
    book = EnrolmentBook(tmp_path / "book")
    token = book.invite()
    with sqlite3.connect(tmp_path / "book") as other:
        pages = other.execute("PRAGMA page_count").fetchone()[0]
    other.close()
    real = sqlite3.connect

    def narrow(*arguments: object, **options: object) -> sqlite3.Connection:
        made = real(*arguments, **options)  # type: ignore[call-overload]
        made.execute(f"PRAGMA max_page_count = {pages}")
        return made  # type: ignore[no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", narrow)
        with pytest.raises(EnrolmentError, match="is the disk full"):
            fill(book)
    assert book.admit(token, "key", "pi").name == "pi"


def test_certificates_of_devices_that_are_out_are_revoked_until_they_expire(book: EnrolmentBook, clock: Clock) -> None:
    token = book.invite(uses=3, valid_s=1e6)
    for number in range(3):
        book.admit(token, f"key-{number}", "pi")
        book.joined(f"key-{number}", 2**63 + number)
        book.certified(f"key-{number}", f"{number}a" * 32, clock.now_s + 100.0 * (number + 1))
    book.certified("key-1", "1b" * 32, clock.now_s + 500.0)  # it joined again, and was given another one
    assert book.revoked() == []
    book.removed("key-0")
    clock.now_s += 1.0
    book.removed("key-1")
    assert book.revoked() == ["1a" * 32, "1b" * 32, "0a" * 32]
    clock.now_s += 1.0
    book.removed("key-0")  # twice is once
    assert book.revoked() == ["1a" * 32, "1b" * 32, "0a" * 32]
    clock.now_s += 100.0
    assert book.revoked() == ["1a" * 32, "1b" * 32]
    assert [device.name for device in book.devices()] == ["pi-3"]
    assert [device.name for device in book.devices(removed=True)] == ["pi-3", "pi-2", "pi"]


def test_who_is_out_is_remembered_until_flower_was_told(book: EnrolmentBook) -> None:
    token = book.invite(uses=2)
    for key in ("key-1", "key-2"):
        book.admit(token, key, "pi")
    book.joined("key-1", 7)
    for key in ("key-1", "key-2", "nobody"):
        book.removed(key)
    # Of the other it may know: its join broke off.
    assert [(device.name, device.node_id) for device in book.untold()] == [("pi", 7), ("pi-2", None)]
    book.told("key-1")
    book.told("key-2")
    assert book.untold() == []
    book.has_node("key-2", 8)
    book.has_node("nobody", 9)
    assert [(device.name, device.node_id) for device in book.untold()] == [("pi-2", 8)]


def test_how_many_may_still_join_is_counted_without_what_has_expired(book: EnrolmentBook, clock: Clock) -> None:
    assert book.uses_left() == 0
    book.invite(uses=3, valid_s=10.0)
    token = book.invite(uses=2, valid_s=100.0)
    book.admit(token, "key", "pi")
    assert book.uses_left() == 4
    clock.now_s += 10.0
    assert book.uses_left() == 1
