"""The relay: one byte string for all receivers, both hub legs and the edges counted, nothing believed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from flower_edge.errors import PeerError, WireError
from flower_edge.peers.packet import Packet
from flower_edge.peers.relay import Delivery, Posted, RelayMailbox, RelayStore, RelayTraffic
from flower_edge.store import tree_from_bytes, tree_to_bytes


def packet(sender: int, round: int = 1, sequence: int = 0, payload: bytes = b"abc") -> Packet:
    return Packet(round, sender, sequence, "identity", payload)


def posted(sender: int, to: tuple[int, ...], round: int = 1, sequence: int = 0) -> Posted:
    return Posted(packet(sender, round, sequence).to_bytes(), to, 0.5)


def test_all_receivers_get_the_very_same_bytes() -> None:
    store, one = RelayStore(), posted(0, (1, 2, 3))
    store.put(0, [one])
    assert all(store.letters(node, round=1, senders=[0])[0].data is one.data for node in (1, 2, 3))


def test_a_packet_counts_once_up_and_once_per_receiver_down_and_as_an_edge() -> None:
    store = RelayStore()
    store.put(0, [posted(0, (1, 2, 3))])
    bits = 8 * len(packet(0).to_bytes())
    assert bits == 8 * (36 + len("identity") + 3)
    assert store.traffic == RelayTraffic(up_bits=bits, up_letters=1)
    for node in (1, 2, 4):
        store.letters(node, round=1, senders=[0])
    assert store.traffic == RelayTraffic(bits, 2 * bits, 2 * bits, 1, 2)


def test_the_server_stamps_what_it_knows_of_each_link() -> None:
    store = RelayStore()
    store.put(0, [posted(0, (2,))])
    store.put(1, [posted(1, (2,))])
    letters = store.letters(2, round=1, senders=[0, 1], link_s={1: 0.25})
    collected = RelayMailbox(2, letters).collect(1, [0, 1])
    assert [(letter.processing_s, letter.link_s, letter.via) for letter in collected.values()] == [
        (0.5, None, "relay"),
        (0.5, 0.25, "relay"),
    ]


def test_an_older_letter_stands_in_only_where_staleness_is_allowed() -> None:
    store = RelayStore()
    store.put(0, [posted(0, (9,), round=3), posted(0, (9,), round=4)])
    assert store.letters(9, round=6, senders=[0]) == {}
    assert store.letters(9, round=6, senders=[0], most_stale=1) == {}
    (found,) = store.letters(9, round=6, senders=[0], most_stale=3).values()
    assert Packet.from_bytes(found.data).round == 4
    assert store.letters(9, round=2, senders=[0], most_stale=5) == {}


def test_a_node_posts_only_for_itself_and_the_good_ones_are_kept() -> None:
    store = RelayStore()
    with pytest.raises(WireError, match=r"node 0 posted what is refused: .*it is of node 5"):
        store.put(0, [posted(5, (1,)), posted(0, (1,))])
    assert list(store.letters(1, round=1, senders=[0, 5])) == [0]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Posted(b"junk" * 20, (1,)), "are no packet"),
        (Posted(packet(0, payload=b"x" * 999).to_bytes(), (1,)), "at most 500 are kept"),
        (posted(0, (1,), round=2), "a packet of round 2, expected one of round 1"),
        (Posted(packet(0).to_bytes(), (1,), float("inf")), "processing_s = inf"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_its_bits_count_all_the_same(bad: Posted, words: str) -> None:
    store = RelayStore(most_bytes=500)
    with pytest.raises(WireError, match=words):
        store.put(0, [bad], round=1)
    assert store.letters(1, round=bad.data[12], senders=[0]) == {}
    assert store.traffic == RelayTraffic(up_bits=8 * len(bad.data), up_letters=1)


def test_a_letter_under_another_senders_name_is_refused_by_the_node() -> None:
    mailbox = RelayMailbox(2, {1: Delivery(packet(0).to_bytes())})
    assert mailbox.collect(1, [0, 1]) == {}
    assert mailbox.refused == 1


def test_letters_that_are_collected_one_by_one_are_not_held_together() -> None:
    size, senders = 1_000_000, range(1, 9)
    mailbox = RelayMailbox(0, {sender: Delivery(packet(sender, payload=bytes(size)).to_bytes()) for sender in senders})
    tracemalloc.start()
    for sender in senders:
        assert len(mailbox.collect(1, [sender])[sender].packet.payload) == size
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * size
    assert list(mailbox.collect(1, list(senders))) == list(senders)


def test_forgetting_drops_what_has_not_left_and_letters_that_are_damaged() -> None:
    mailbox = RelayMailbox(
        0, {1: Delivery(packet(1).to_bytes()), 2: Delivery(b"junk"), 3: Delivery(packet(3, 5).to_bytes())}
    )
    for round_ in (1, 5):
        mailbox.post(packet(0, round_), [1])
    mailbox.forget(5)
    assert [Packet.from_bytes(left.data).round for left in mailbox.outbox] == [5]
    assert (list(mailbox.collect(1, [1, 2, 3])), list(mailbox.collect(5, [1, 2, 3]))) == ([], [3])
    assert mailbox.refused == 0


def test_a_store_out_of_a_checkpoint_goes_on_as_the_store_itself() -> None:
    store = RelayStore()
    store.put(0, [posted(0, (1, 2)), posted(0, (2,), sequence=1), posted(0, (1,), round=2)])
    store.put(3, [Posted(packet(3).to_bytes(), (1,))])
    store.letters(2, round=1, senders=[0])
    again = RelayStore()
    again.put(7, [posted(7, (1,))])
    again.load_state_dict(tree_from_bytes(tree_to_bytes(store.state_dict())))
    for node in (1, 2):
        for round_ in (1, 2):
            wanted = store.letters(node, round=round_, senders=[0, 3, 7])
            assert again.letters(node, round=round_, senders=[0, 3, 7]) == wanted
    assert again.traffic == store.traffic


def test_a_checkpoint_holds_each_packet_once() -> None:
    store = RelayStore()
    store.put(0, [Posted(packet(0, payload=b"x" * 10_000).to_bytes(), tuple(range(1, 50)))])
    assert len(tree_to_bytes(store.state_dict())) < 20_000


def test_a_packet_that_all_its_receivers_have_a_later_one_of_is_not_kept() -> None:
    store = RelayStore()
    for sequence in range(20):
        store.put(0, [posted(0, (1, 2), sequence=sequence)])
    assert len(store.state_dict()["kept"]) == 1


@pytest.mark.parametrize("receiver", [True, 1.5, "1", -1, 1 << 32, 0, np.float64(1.0)])
def test_a_receiver_that_is_no_other_nodes_index_is_refused(receiver: object) -> None:
    mailbox = RelayMailbox(0)
    with pytest.raises(PeerError, match="expected indices of other nodes"):
        mailbox.post(packet(0), [2, receiver])  # type: ignore[list-item]
    assert mailbox.outbox == ()


def test_indices_out_of_an_array_are_plain_numbers_afterwards() -> None:
    mailbox = RelayMailbox(np.int64(0))  # type: ignore[arg-type]
    mailbox.post(packet(0), np.array([3, 1, 3]))  # type: ignore[arg-type]
    assert mailbox.outbox[0].to == (1, 3)
    assert {type(node) for node in (mailbox.node, *mailbox.outbox[0].to)} == {int}
