"""Whichever way packets take, a mailbox obeys the same laws, and the same seed gives the same models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from laws.mailbox_laws import NODES, MailboxLaws, Office
from offices import RelayOffice, SharedMemoryOffice
from socket_mailbox import SocketOffice

from flower_edge.codecs.codec import label
from flower_edge.codecs.identity import Identity
from flower_edge.errors import PeerError
from flower_edge.peers.mailbox import Mailbox
from flower_edge.peers.opening import RELAY, open_mailbox
from flower_edge.peers.packet import Packet
from flower_edge.peers.shared_folder import SharedFolder


class TestRelay(MailboxLaws):
    def open_office(self, tmp_path: Path) -> Office:
        return RelayOffice()


class TestSharedMemory(MailboxLaws):
    def open_office(self, tmp_path: Path) -> Office:
        return SharedMemoryOffice()


class TestSharedMemoryOnDisk(MailboxLaws):
    def open_office(self, tmp_path: Path) -> Office:
        return SharedMemoryOffice(tmp_path)


class TestDirect(MailboxLaws):
    def open_office(self, tmp_path: Path) -> Office:
        return SocketOffice()


def gossip(office: Office, rounds: int = 4) -> bytes:
    """A ring of nodes that draw a step and average with both neighbours; the bytes of all models at the end."""
    codec = Identity()
    models = [{"w": np.full(3, node, np.float32)} for node in range(NODES)]
    state = codec.init(models[0])
    for round_ in range(1, rounds + 1):
        for node, model in enumerate(models):
            neighbours = [(node - 1) % NODES, (node + 1) % NODES]
            with office.mailbox(node, round_ - 1) as mailbox:
                letters = mailbox.collect(round_ - 1, neighbours)
                others = [codec.decode(letter.packet.payload, state)[0]["w"] for letter in letters.values()]
                mixed = np.mean([model["w"], *others], axis=0, dtype=np.float32)
                step = np.random.default_rng([node, round_]).normal(size=3).astype(np.float32)
                model["w"] = mixed + step
                payload, state = codec.encode(model, state)
                mailbox.post(Packet(round_, node, round_, label(codec), payload), neighbours)
                mailbox.forget(round_ - 1)
                office.hand_over(mailbox)
    return b"".join(model["w"].tobytes() for model in models)


@pytest.mark.parametrize("make", [SharedMemoryOffice, SocketOffice])
def test_the_same_seed_gives_the_same_models_through_each(make: Callable[[], Office]) -> None:
    results = []
    for office in (RelayOffice(), make()):
        try:
            results.append(gossip(office))
        finally:
            office.close()
    assert results[0] == results[1]
    assert len(set(results[0])) > 20


@pytest.mark.parametrize("node", [-1, 2**32, True, "0"])
def test_a_node_is_named_by_its_index(node: object) -> None:
    with pytest.raises(PeerError, match="expected its index"):
        open_mailbox(RELAY, node)  # type: ignore[arg-type]


def test_a_mailbox_for_letters_of_no_length_is_refused() -> None:
    with pytest.raises(PeerError, match="most_bytes = 0"):
        open_mailbox(RELAY, 0, most_bytes=0)


@pytest.mark.parametrize("config", [{}, {"kind": "pigeon"}, {"kind": 3}])
def test_another_kind_of_mailbox_is_refused_by_name(config: dict[str, str]) -> None:
    with pytest.raises(PeerError, match="expected 'relay', 'shared-memory' or 'direct'"):
        open_mailbox(config, 0)


def test_each_kind_is_rebuilt_from_plain_values() -> None:
    with SharedFolder(1) as folder:
        for config in (RELAY, folder.config()):
            assert all(isinstance(value, bool | int | float | str) for value in config.values())
            mailbox: Mailbox = open_mailbox(config, 2)
            assert (mailbox.node, mailbox.via) == (2, config["kind"])
