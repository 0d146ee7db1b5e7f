"""`MailboxLaws`: what every way for packets to reach neighbours owes. Subclass, give `open_office`, get every law.

class TestMyMailbox(MailboxLaws):
    def open_office(self, tmp_path):
        return MyOffice()

An `Office` is the world around the mailboxes of one test: nodes 0 to `NODES` − 1, all neighbours of one another. A
mailbox lives as long as one message to its node, as it does in a run.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from flower_edge.errors import PeerError
from flower_edge.peers.mailbox import MOST_BYTES, Letter, Mailbox
from flower_edge.peers.packet import Packet

NODES = 5


class Office(ABC):
    """Mailboxes of `NODES` nodes that reach one another."""

    @abstractmethod
    def mailbox(self, node: int, round: int, *, most_bytes: int = MOST_BYTES) -> Mailbox:
        """The mailbox of a node, as it is opened for a message in which letters of that round are collected."""

    def hand_over(self, mailbox: Mailbox) -> None:  # noqa: B027
        """The node has answered: what it posted leaves now, where it has not left already."""

    @abstractmethod
    def inject(self, data: bytes, *, round: int, sender: int, receiver: int) -> None:
        """Put bytes in the place of the packet that the sender posts to the receiver in that round."""

    def close(self) -> None:  # noqa: B027
        """End it."""


def packet(sender: int, round: int = 1, sequence: int = 0, payload: bytes = b"model") -> Packet:
    return Packet(round, sender, sequence, "identity", payload)


def post(office: Office, one: Packet, to: Sequence[int], processing_s: float | None = None) -> None:
    with office.mailbox(one.sender, one.round) as mailbox:
        mailbox.post(one, to, processing_s=processing_s)
        office.hand_over(mailbox)


def collect(office: Office, node: int, round: int, senders: Sequence[int]) -> Mapping[int, Letter]:
    with office.mailbox(node, round) as mailbox:
        return mailbox.collect(round, senders)


class MailboxLaws(ABC):
    """Laws of a mailbox."""

    @abstractmethod
    def open_office(self, tmp_path: Path) -> Office:
        """The world under test."""

    @pytest.fixture
    def office(self, tmp_path: Path) -> Iterator[Office]:
        office = self.open_office(tmp_path)
        yield office
        office.close()

    @pytest.mark.parametrize("length", [0, 1, 257, 70_000])
    def test_what_is_posted_arrives_bit_for_bit(self, office: Office, length: int) -> None:
        sent = Packet(
            2**40, 4, 2**32 - 1, "q8-0123456789ab", bytes(range(256)) * (length // 256) + b"x" * (length % 256)
        )
        post(office, sent, [0], processing_s=1.25)
        letter = collect(office, 0, 2**40, [4])[4]
        assert letter.packet == sent
        assert letter.processing_s == 1.25
        assert letter.link_s is None or 0 <= letter.link_s < 60
        assert letter.via

    def test_a_time_that_nobody_told_is_not_invented(self, office: Office) -> None:
        post(office, packet(1), [0])
        assert collect(office, 0, 1, [1])[1].processing_s is None

    def test_letters_come_by_sender_in_the_order_asked_whatever_order_they_were_posted_in(self, office: Office) -> None:
        for sender in (3, 1, 4, 2):
            post(office, packet(sender, payload=bytes([sender])), [0])
        letters = collect(office, 0, 1, [1, 2, 3, 4])
        assert [(sender, letter.packet.payload) for sender, letter in letters.items()] == [
            (sender, bytes([sender])) for sender in (1, 2, 3, 4)
        ]

    def test_a_sender_that_posted_nothing_is_absent_and_the_others_are_there(self, office: Office) -> None:
        post(office, packet(2), [0])
        assert list(collect(office, 0, 1, [1, 2, 3])) == [2]
        assert collect(office, 0, 1, []) == {}

    def test_two_rounds_do_not_mix(self, office: Office) -> None:
        post(office, packet(1, round=1, payload=b"one"), [0])
        assert collect(office, 0, 2, [1]) == {}
        post(office, packet(1, round=2, payload=b"two"), [0])
        assert collect(office, 0, 1, [1])[1].packet.payload == b"one"
        assert collect(office, 0, 2, [1])[1].packet.payload == b"two"

    def test_only_those_a_packet_is_addressed_to_get_it(self, office: Office) -> None:
        post(office, packet(1), [0, 3, 3])
        assert [node for node in (0, 2, 3, 4) if collect(office, node, 1, [1])] == [0, 3]

    def test_a_packet_to_nobody_reaches_nobody(self, office: Office) -> None:
        post(office, packet(1), [])
        assert not any(collect(office, node, 1, [1]) for node in (0, 2, 3, 4))

    def test_two_packets_of_one_round_to_different_neighbours_reach_each_its_own(self, office: Office) -> None:
        post(office, packet(1, sequence=0, payload=b"for 0"), [0])
        post(office, packet(1, sequence=1, payload=b"for 2"), [2])
        assert collect(office, 0, 1, [1])[1].packet.payload == b"for 0"
        assert collect(office, 2, 1, [1])[1].packet.payload == b"for 2"

    def test_the_same_post_twice_is_one_letter(self, office: Office) -> None:
        for _ in range(2):
            post(office, packet(1), [0])
        assert collect(office, 0, 1, [1])[1].packet == packet(1)

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_of_two_packets_of_one_round_the_later_sequence_counts(
        self, office: Office, order: tuple[int, ...]
    ) -> None:
        for sequence in order:
            post(office, packet(1, sequence=sequence, payload=bytes([sequence])), [0])
        assert collect(office, 0, 1, [1])[1].packet.sequence == 1

    def test_asking_again_gives_the_same_letters(self, office: Office) -> None:
        post(office, packet(1), [0])
        with office.mailbox(0, 1) as mailbox:
            first = {sender: letter.packet for sender, letter in mailbox.collect(1, [1, 2]).items()}
            assert {sender: letter.packet for sender, letter in mailbox.collect(1, [1, 2]).items()} == first != {}

    def test_what_all_have_forgotten_is_gone_and_later_rounds_stay(self, office: Office) -> None:
        for round_ in (1, 2, 3):
            for sender in (1, 2):
                post(office, packet(sender, round=round_), [0])
        for node in range(NODES):
            with office.mailbox(node, 3) as mailbox:
                mailbox.forget(3)
                office.hand_over(mailbox)
        with office.mailbox(0, 3) as mailbox:
            mailbox.forget(3)
            assert [list(mailbox.collect(round_, [1, 2])) for round_ in (1, 2, 3)] == [[], [], [1, 2]]

    def test_a_packet_of_forty_megabytes_arrives(self, office: Office) -> None:
        payload = np.random.default_rng(0).bytes(40_000_000)
        post(office, packet(1, payload=payload), [0, 2])
        assert collect(office, 0, 1, [1])[1].packet.payload == payload

    def test_posts_at_the_same_time_all_arrive_whole(self, office: Office) -> None:
        payloads = {sender: np.random.default_rng(sender).bytes(200_000) for sender in range(1, NODES)}
        begin, torn = threading.Barrier(NODES), list[str]()

        def node(sender: int) -> None:
            begin.wait()
            for round_ in range(1, 6):
                post(office, packet(sender, round=round_, payload=payloads[sender]), [0])

        threads = [threading.Thread(target=node, args=(sender,)) for sender in payloads]
        for thread in threads:
            thread.start()
        begin.wait()
        while any(thread.is_alive() for thread in threads):
            with office.mailbox(0, 3) as mailbox:
                for sender, letter in mailbox.collect(3, list(payloads)).items():
                    if letter.packet.payload != payloads[sender] or mailbox.refused:
                        torn.append(f"a torn letter of node {sender}")
        for thread in threads:
            thread.join()
        assert torn == []
        for round_ in range(1, 6):
            letters = collect(office, 0, round_, list(payloads))
            assert {sender: letter.packet.payload for sender, letter in letters.items()} == payloads

    # -- what comes in is not believed -----------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "damage",
        [
            lambda good: b"",
            lambda good: good[:20],
            lambda good: good[:-1],
            lambda good: good + b"\0",
            lambda good: good[:-1] + bytes([good[-1] ^ 1]),
            lambda good: good[:12] + bytes([good[12] ^ 128]) + good[13:],
            lambda good: b"\x80\x04pickle" + good[8:],
            lambda good: packet(3).to_bytes(),
        ],
        ids=[
            "empty",
            "header cut",
            "cut",
            "longer",
            "payload flipped",
            "header flipped",
            "no packet",
            "of another node",
        ],
    )
    def test_a_letter_that_is_damaged_is_refused_and_counted_and_the_others_arrive(
        self, office: Office, damage
    ) -> None:  # type: ignore[no-untyped-def]
        office.inject(damage(packet(1).to_bytes()), round=1, sender=1, receiver=0)
        post(office, packet(2), [0])
        with office.mailbox(0, 1) as mailbox:
            assert list(mailbox.collect(1, [1, 2])) == [2]
            assert list(mailbox.collect(1, [1, 2])) == [2]
            assert mailbox.refused == 1

    def test_whatever_bytes_come_nothing_raises_and_nothing_false_arrives(self, office: Office) -> None:
        rng = np.random.default_rng(5)
        good = packet(1, payload=rng.bytes(100)).to_bytes()
        for _ in range(60):
            bad = bytearray(good)
            for _ in range(int(rng.integers(1, 8))):
                bad[int(rng.integers(len(bad)))] = int(rng.integers(256))
            office.inject(bytes(bad), round=1, sender=1, receiver=0)
            letters = collect(office, 0, 1, [1])
            assert not letters or letters[1].packet.to_bytes() == good

    def test_a_letter_longer_than_agreed_is_refused(self, office: Office) -> None:
        post(office, packet(1, payload=b"x" * 5000), [0])
        post(office, packet(2, payload=b"x" * 500), [0])
        with office.mailbox(0, 1, most_bytes=1000) as mailbox:
            assert list(mailbox.collect(1, [1, 2])) == [2]
            assert mailbox.refused == 1

    # -- what is asked of the caller ---------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("one", "to", "processing_s", "words"),
        [
            (packet(2), [0], None, "node 1 posts a packet of node 2"),
            (packet(1), [0, 1], None, r"posts to \[1\]"),
            (packet(1), [-1], None, r"posts to \[-1\]"),
            (packet(1), [0], -1.0, "processing_s = -1.0"),
            (packet(1), [0], float("nan"), "processing_s = nan"),
            (packet(1, payload=b"x" * 2000), [0], None, "2000 bytes in a mailbox for letters of 1000"),
        ],
    )
    def test_a_post_that_cannot_be_meant_is_refused(
        self, office: Office, one: Packet, to: list[int], processing_s: float | None, words: str
    ) -> None:
        with office.mailbox(1, 1, most_bytes=1000) as mailbox, pytest.raises(PeerError, match=words):
            mailbox.post(one, to, processing_s=processing_s)

    def test_closing_twice_is_closing_once(self, office: Office) -> None:
        mailbox = office.mailbox(0, 1)
        mailbox.close()
        mailbox.close()
