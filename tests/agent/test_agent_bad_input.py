"""Whatever comes in, by whichever way: it is refused, nothing false arrives, and the next good letter does.

Letters that are none go through the server's relay, an agent and an agent that relays; offers that are none go to an
agent and to one that relays; frames that are none come from a program on the agent's own host; and three things can
only go wrong in a stream. 183 in all.
"""

from __future__ import annotations

import json
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from agent_cases import LIMITS, RUN, Group, eventually
from raw_peer import LABEL, RawPeer

from flower_edge.codecs import Delta, Half, Identity, TopK
from flower_edge.codecs.codec import label
from flower_edge.errors import CodecError, PeerError, WireError
from flower_edge.peers.agent_frames import read_head
from flower_edge.peers.mailbox import Mailbox
from flower_edge.peers.packet import Packet
from flower_edge.peers.relay import Delivery, Posted, RelayMailbox, RelayStore
from flower_edge.runtime.agent.headers import SignedHeader
from flower_edge.runtime.agent.letter_files import StoredLetter
from flower_edge.transport.signing import Signer

pytestmark = pytest.mark.slow

MODEL = {"w": np.arange(64, dtype=np.float32), "b": np.zeros(3, np.float32)}
IDENTITY, HALF, SPARSE = Identity(), Half(), Delta(TopK(0.1))
ROUND = 1_000  # replaced by each case's own


def packet(payload: bytes, codec: Any = IDENTITY, round: int = ROUND, sender: int = 1) -> bytes:
    return Packet(round, sender, 0, label(codec), payload).to_bytes()


def payload(codec: Any = IDENTITY) -> bytes:
    return bytes(codec.encode(MODEL, codec.init(MODEL))[0])


def repacked(data: bytes) -> bytes:
    """With a check sum that is right again: it was altered on purpose."""
    return data[:4] + struct.pack("<I", zlib.crc32(data[8:])) + data[8:]


def with_field(offset: int, form: str, value: int) -> Callable[[bytes], bytes]:
    return lambda good: repacked(good[:offset] + struct.pack(form, value) + good[offset + struct.calcsize(form) :])


def whole(codec: Any, change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """A packet in order, with a payload that is not."""

    def make(good: bytes) -> bytes:
        round_ = Packet.from_bytes(good).round
        return packet(change(payload(codec)), codec, round_)

    return make


def halves(value: float) -> Callable[[bytes], bytes]:
    return lambda good: np.full(len(good) // 2, value, "<f2").tobytes()


#: What becomes of a good packet of node 1 to node 0. Offsets are those of its header: see `peers.packet`.
LETTERS: dict[str, Callable[[bytes], bytes]] = {
    "one byte": lambda good: b"\0",
    "cut after the magic": lambda good: good[:4],
    "cut in the header": lambda good: good[:20],
    "cut before the codec": lambda good: good[:36],
    "cut in the middle": lambda good: good[: len(good) // 2],
    "cut at the end": lambda good: good[:-1],
    "a byte behind it": lambda good: good + b"\0",
    "a megabyte behind it": lambda good: good + bytes(1 << 20),
    "twice": lambda good: good + good,
    "another magic": lambda good: b"FEPX" + good[4:],
    "another version": with_field(8, "<H", 2),
    "a wrong check sum": lambda good: good[:4] + bytes(4) + good[8:],
    "a bit turned over": lambda good: good[:-5] + bytes([good[-5] ^ 1]) + good[-4:],
    "a codec of 65535 characters": with_field(10, "<H", 65535),
    "a payload of 2^63 bytes": with_field(28, "<Q", 1 << 63),
    "a payload of one byte more": with_field(28, "<Q", 268 + 1),
    "a payload of none": with_field(28, "<Q", 0),
    "a codec that is no text": lambda good: repacked(good.replace(b"identity", b"identit\xff")),
    "a round of 2^63": with_field(12, "<Q", 1 << 63),
    "another round": with_field(12, "<Q", 7),
    "another sender": with_field(20, "<I", 2),
    "the receiver as its sender": with_field(20, "<I", 0),
    "pickle": lambda good: b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93.",
    "a bomb": lambda good: zlib.compress(bytes(10_000_000), 9),
    "JSON": lambda good: b"[" * 100_000,
    "another codec": lambda good: packet(payload(), HALF, Packet.from_bytes(good).round),
    "a value less": whole(IDENTITY, lambda good: good[:-4]),
    "a value more": whole(IDENTITY, lambda good: good + bytes(4)),
    "no values": whole(IDENTITY, lambda good: b""),
    "a thousand times the values": whole(IDENTITY, lambda good: good * 1000),
    "values of twice the width": whole(IDENTITY, lambda good: np.frombuffer(good, "<f4").astype("<f8").tobytes()),
    "values of a byte": whole(IDENTITY, lambda good: bytes(len(good) // 4)),
    "a payload of pickle": whole(IDENTITY, lambda good: b"\x80\x04K\x01."),
    "a payload that is a bomb": whole(IDENTITY, lambda good: zlib.compress(bytes(10_000_000), 9)),
    "no number": whole(HALF, halves(float("nan"))),
    "endless": whole(HALF, halves(float("inf"))),
    "a sparse payload of ones": whole(SPARSE, lambda good: b"\xff" * len(good)),
}

WAYS = ("mailbox", "agent", "relay")


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with Group(tmp_path_factory.mktemp("agents"), [0, 1, 2], relay=True) as made:
        yield made


class Rounds:
    number = ROUND


@pytest.fixture
def round_(group: Group) -> int:
    """One for each case: a letter of another does not count."""
    Rounds.number += 1
    group.begin(Rounds.number)
    return Rounds.number


def arrived(group: Group, way: str, data: bytes, round_: int) -> Mailbox:
    """Node 0's mailbox after node 1 has sent this."""
    if way == "mailbox":
        return RelayMailbox(0, {1: Delivery(data)})
    peer = RawPeer(group, 1)
    to = group.relay if way == "relay" else group.agents[0]
    assert to is not None
    assert peer.send(to.card, peer.signed(peer.header(data, round_)), data) == "ok"
    return group.mailbox(0, round_, owed=[(round_, 1)])


def models_in(mailbox: Mailbox, round_: int) -> list[dict[str, Any]]:
    """What a worker would mix: what `clients.gossip_packets` does with a letter, for any codec of these tests."""
    found = []
    with mailbox:
        for letter in mailbox.collect(round_, [1]).values():
            for codec in (IDENTITY, HALF, SPARSE):
                if letter.packet.codec == label(codec):
                    try:
                        found.append(codec.decode(letter.packet.payload, codec.init(MODEL))[0])
                    except CodecError:
                        continue
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", LETTERS)
def test_a_letter_that_is_none_is_mixed_by_nobody(group: Group, round_: int, way: str, case: str) -> None:
    good = packet(payload(), round=round_)
    bad = LETTERS[case](good)
    assert bad != good
    assert models_in(arrived(group, way, bad, round_), round_) == []


@pytest.mark.parametrize("way", WAYS)
def test_a_letter_in_order_arrives_by_each_way(group: Group, round_: int, way: str) -> None:
    mailbox = arrived(group, way, packet(payload(), round=round_), round_)
    (found,) = models_in(mailbox, round_)
    np.testing.assert_array_equal(found["w"], MODEL["w"])


# -- offers ------------------------------------------------------------------------------------------------------------


def text(header: dict[str, Any], **values: str) -> bytes:
    """JSON with some values as they are written here: Python's writer would not write them."""
    data = json.dumps({**header, **{name: f"<{name}>" for name in values}})
    for name, value in values.items():
        data = data.replace(f'"<{name}>"', value)
    return data.encode()


#: From the header of a good letter: what is signed and offered, and the codes with which it may be refused.
Offer = tuple[Callable[[RawPeer, dict[str, Any]], bytes], set[str]]
OFFERS: dict[str, Offer] = {
    "of a round that is over": (lambda p, h: p.signed({**h, "round": 3}), {"not-neighbour", "stale-round"}),
    "of a round to come": (lambda p, h: p.signed({**h, "round": h["round"] + 1}), {"not-yet"}),
    "of an absurd round": (lambda p, h: p.signed({**h, "round": 1 << 62}), {"future-round"}),
    "of a round that is none": (lambda p, h: p.signed({**h, "round": -1}), {"bad-header"}),
    "of a round that is a text": (lambda p, h: p.signed({**h, "round": "1"}), {"bad-header"}),
    "of a round that is a truth": (lambda p, h: p.signed({**h, "round": True}), {"bad-header"}),
    "of another run": (lambda p, h: p.signed({**h, "run": "another"}), {"other-run"}),
    "of another node": (lambda p, h: p.signed({**h, "src": 2}), {"impersonation"}),
    "of a stranger": (lambda p, h: p.signed({**h, "src": 77}), {"not-neighbour"}),
    "to itself": (lambda p, h: p.signed({**h, "dst": 1}), {"self-loop"}),
    "to a stranger": (lambda p, h: p.signed({**h, "dst": 77}), {"other-node", "not-neighbour"}),
    "of no bytes": (lambda p, h: p.signed({**h, "size": 0}), {"bad-header"}),
    "of fewer than no bytes": (lambda p, h: p.signed({**h, "size": -5}), {"bad-header"}),
    "of a terabyte": (lambda p, h: p.signed({**h, "size": 10**12}), {"too-large"}),
    "with a digest that is none": (lambda p, h: p.signed({**h, "digest": "x" * 64}), {"bad-header"}),
    "with another's signature": (
        lambda p, h: Signer.fresh().sign(LABEL + json.dumps(h).encode()) + json.dumps(h).encode(),
        {"bad-signature"},
    ),
    "altered after it was signed": (
        lambda p, h: p.signed(h)[:64] + json.dumps({**h, "sequence": 9}).encode(),
        {"bad-signature"},
    ),
    "with a time before the beginning": (lambda p, h: p.signed({**h, "processing_s": -1.0}), {"bad-header"}),
    "with a time that is no number": (lambda p, h: p.signed(text(h, processing_s="NaN")), {"bad-header"}),
    "with more than is known": (lambda p, h: p.signed({**h, "x": 1}), {"bad-header"}),
    "of a megabyte": (lambda p, h: p.signed({**h, "run": "x" * (1 << 20)}), {"bad-offer", "too-large"}),
    "nested for ever": (lambda p, h: p.signed(b"[" * 1500), {"bad-header"}),
    "that is no UTF-8": (lambda p, h: p.signed(b"\xff\xfe" * 100), {"bad-header"}),
}


@pytest.mark.parametrize("way", ["agent", "relay"])
@pytest.mark.parametrize("case", OFFERS)
def test_an_offer_that_cannot_be_is_refused_with_its_code(group: Group, round_: int, way: str, case: str) -> None:
    make, codes = OFFERS[case]
    to = group.relay if way == "relay" else group.agents[0]
    assert to is not None
    peer, body = RawPeer(group, 1), packet(payload(), round=round_)
    assert peer.send(to.card, make(peer, peer.header(body, round_)), body) in codes
    # And the one that is in order is taken: nothing has stuck.
    code = peer.send(to.card, peer.signed(peer.header(body, round_)), body)
    assert code == "ok"


# -- frames of programs on the same host -------------------------------------------------------------------------------


def frame(head: Any, body: bytes = b"", **changed: Any) -> bytes:
    data = head if isinstance(head, bytes) else json.dumps({"body_bytes": len(body), **head, **changed}).encode()
    return struct.pack(">I", len(data)) + data + body


def posted(**changed: Any) -> bytes:
    head = {"do": "post", "run": RUN, "round": 1, "sequence": 0, "to": [1], "processing_s": None}
    return frame({**head, **changed}, b"data")


FRAMES: dict[str, bytes] = {
    "a length of nothing": struct.pack(">I", 0),
    "a length of everything": struct.pack(">I", 0xFFFFFFFF) + bytes(100),
    "no JSON": frame(b"hello there"),
    "no object": frame(b"[1, 2]"),
    "nested for ever": frame(b"[" * 100_000),
    "no UTF-8": frame(b"\xff\xfe\xff"),
    "without a body's length": frame(b'{"do": "status"}'),
    "a body of fewer than no bytes": frame(b'{"do": "status", "body_bytes": -1}'),
    "a body that is a text": frame(b'{"do": "status", "body_bytes": "4"}'),
    "nothing that is known": frame({"do": "fly"}),
    "nothing to do": frame({}),
    "a list to do": frame({"do": ["post"]}),
    "no run": posted(run=None),
    "another run": posted(run="another"),
    "a round that is none": posted(round=-1),
    "a round that is a truth": posted(round=True),
    "a sequence of 2^40": posted(sequence=1 << 40),
    "to nobody": posted(to=[]),
    "to a text": posted(to="1"),
    "to what is no index": posted(to=[1.5]),
    "a time before the beginning": posted(processing_s=-1.0),
    "a packet of no bytes": frame({"do": "post", "run": RUN, "round": 1, "sequence": 0, "to": [1]}),
    "a table that is none": frame({"do": "round", "table": '{"run": "7", "round": -1}'}),
}


@pytest.mark.parametrize("case", FRAMES)
def test_a_frame_that_cannot_be_is_refused_with_a_sentence(group: Group, round_: int, case: str) -> None:
    agent = group.agents[0]
    before = agent.status()["runs"][0]["pending"]
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(60.0)
        channel.connect(str(agent.socket))
        channel.sendall(FRAMES[case])
        answer = read_head(channel)
    assert answer is not None
    assert len(answer["error"]) > 20
    assert agent.status()["runs"][0]["pending"] == before
    with group.mailbox(0, round_) as mailbox:
        assert mailbox.collect(round_, []) == {}


# -- what only a stream can do -----------------------------------------------------------------------------------------


def test_a_piece_longer_than_agreed_ends_the_connection(group: Group, round_: int) -> None:
    peer, body = RawPeer(group, 1), bytes(4_000_000)
    signed = peer.signed(peer.header(body[:3_000_000], round_))
    assert peer.send(group.cards[0], signed, body, pieces=1 << 20) in {"bad-piece", "ended"}
    assert group.agents[0].run(RUN).fetch(round_, 1) is None


def test_pieces_of_one_byte_make_the_same_letter(group: Group, round_: int) -> None:
    peer, body = RawPeer(group, 1), packet(payload(), round=round_)
    assert peer.send(group.cards[0], peer.signed(peer.header(body, round_)), body, pieces=1) == "ok"
    (found,) = models_in(group.mailbox(0, round_), round_)
    np.testing.assert_array_equal(found["w"], MODEL["w"])


def test_a_sender_that_stops_is_given_up(tmp_path: Path) -> None:
    limits = LIMITS.__class__(spare_bytes=1, keepalive_s=2.0, chunk_s=0.3)
    with Group(tmp_path, [0, 1], limits=limits) as group:
        group.begin(1)
        peer, body = RawPeer(group, 1), b"x" * 1000
        signed = peer.signed(peer.header(body, 1))
        connection = peer.dial(group.cards[0])
        connection.send(b"O" + struct.pack(">d", 0.0) + signed)
        assert b'"go"' in connection.receive(30.0)
        connection.send(body[:10])
        with pytest.raises(Exception, match="gave up"):
            connection.receive(60.0)
        connection.close()
        assert eventually(lambda: group.agents[0].status()["connections"] == 0)


# -- the server's relay, and files -------------------------------------------------------------------------------------


def test_there_are_183_of_them() -> None:
    assert len(LETTERS) * len(WAYS) + len(OFFERS) * 2 + len(FRAMES) + 3 == 183


def test_a_reply_cannot_post_for_another_or_for_another_round() -> None:
    store = RelayStore()
    for data in (packet(b"x", sender=2), packet(b"x", round=9)):
        with pytest.raises(WireError):
            store.put(1, [Posted(data, (0,))], round=ROUND)
    with pytest.raises(PeerError):
        RelayMailbox(1).post(Packet(1, 1, 0, "identity", b"x"), [1])
    assert store.letters(0, round=ROUND, senders=[1, 2]) == {}


def test_a_letter_is_kept_with_the_header_that_its_node_has_signed(group: Group, round_: int) -> None:
    peer, body = RawPeer(group, 1), packet(payload(), round=round_)
    signed = peer.signed(peer.header(body, round_))
    assert peer.send(group.cards[0], signed, body) == "ok"
    stored = group.agents[0].run(RUN).fetch(round_, 1)
    assert isinstance(stored, StoredLetter)
    assert stored.signed.to_bytes() == signed
    assert stored.path.read_bytes()[stored.payload_at :][: len(body)] == body
    SignedHeader.from_bytes(signed).check(group.cards[1].key)
    # Again is once; another one of the same sequence is not believed; a later one counts.
    assert peer.send(group.cards[0], signed, body) == "have"
    other = packet(payload(), HALF, round_)
    assert peer.send(group.cards[0], peer.signed(peer.header(other, round_)), other) == "conflict"
    assert peer.send(group.cards[0], peer.signed(peer.header(other, round_, sequence=1)), other) == "ok"
    assert peer.send(group.cards[0], signed, body) == "superseded"
    wrong = peer.signed(peer.header(other, round_, sequence=2, digest="0" * 64))
    assert peer.send(group.cards[0], wrong, other) == "bad-digest"
