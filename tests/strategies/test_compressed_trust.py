"""What a `Compressed` layer takes on trust: no number of another node's, and no promise that a code would break."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from coded import NODES, bench, coded_app
from flwr.app import Message
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideAdaptiveClipping,
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
)
from toy import initial_model, toy_app

from flower_edge.codecs.block import Block
from flower_edge.codecs.envelope import Envelope
from flower_edge.codecs.error_feedback import ErrorFeedback
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.shared_support import SharedSupport
from flower_edge.codecs.top_k import TopK
from flower_edge.errors import NestingError, RoundFailed
from flower_edge.runtime.codec_messages import blob_in, blob_record, replaced
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies import Compressed, Layered

TURN = NODES
LIAR = 1000 + 3


def as_node(reply: Message, number: int) -> None:
    """The same reply under another number."""
    found = blob_in(reply.content, sender="a test")
    assert found is not None
    envelope = replace(Envelope.from_bytes(found[1], sender="a test"), node=number)
    reply.content = replaced(reply.content, found[0], blob_record(envelope.to_bytes()))


@pytest.mark.parametrize("first", [True, False], ids=["before-it", "after-it"])
def test_nobody_leads_in_anothers_name(first: bool) -> None:
    """The leader of a round chooses everybody's places of the next: a node takes the turn of each by its number."""
    codec = ErrorFeedback(SharedSupport(0.3, 0.3, turn=TURN))
    taught: dict[bool, list[np.ndarray[Any, Any]]] = {True: [], False: []}
    for lies in (True, False):
        with bench(Compressed(codec), app=coded_app) as session:

            def up(replies: list[Message], lies: bool = lies, session: Any = session) -> list[Message]:
                last = [reply for reply in replies if reply.metadata.src_node_id == LIAR]
                others = [reply for reply in replies if reply.metadata.src_node_id != LIAR]
                turn = (-(session.number - 1)) % TURN
                if lies and session.number > 1 and turn != 3:
                    as_node(last[0], turn)
                return last + others if first else others + last

            session.tap.up = up
            for _ in range(6):
                session.train()
                taught[lies].append(session.state.teacher["places"])
                assert session.state.now.refused == 0
    for place, other in zip(taught[True], taught[False], strict=True):
        np.testing.assert_array_equal(place, other)


class Watched(TopK):
    """Remembers what the server decoded with. Nodes build a `TopK` of its config."""

    seen: ClassVar[list[Any]] = []

    def unpack(self, data: Any, layout: Any, state: Any, at: Any) -> Any:
        Watched.seen.append(at.public)
        return super().unpack(data, layout, state, at)


def test_replies_of_one_exchange_share_what_codecs_look_at() -> None:
    with bench(Compressed(Watched(0.5, support="context"))) as session:
        session.train()
        Watched.seen.clear()
        session.train()
    assert len(Watched.seen) >= NODES
    assert len(set(map(id, Watched.seen[-NODES:]))) == 1
    assert len(Watched.seen[-1].aggregates) == 1


def test_a_client_without_the_mod_is_asked_for_it_where_the_run_ends() -> None:
    with LocalGrid(toy_app(), 2) as grid, pytest.raises(RoundFailed, match=r"has its ClientApp mods=\[codec_mod\]"):
        Layered(FedAvg(), Compressed(Block(8), down=Block(8))).start(grid, initial_model())


def test_models_are_not_encoded_twice() -> None:
    with pytest.raises(NestingError, match="Compressed after Compressed: the models are encoded already"):
        Layered(FedAvg(), Compressed(Block(8)), Compressed(Block(4)))


@pytest.mark.parametrize("kind", ["Fixed", "Adaptive"])
def test_clipping_at_the_clients_is_refused_around_what_may_grow(kind: str) -> None:
    options = {"noise_multiplier": 0.1, "num_sampled_clients": 5}
    make = {
        "Fixed": lambda: DifferentialPrivacyClientSideFixedClipping(FedAvg(), clipping_norm=5.0, **options),
        "Adaptive": lambda: DifferentialPrivacyClientSideAdaptiveClipping(FedAvg(), **options),
    }[kind]
    with pytest.raises(NestingError, match=f"take DifferentialPrivacyServerSide{kind}Clipping"):
        Layered(make(), Compressed(Block(8)))
    Layered(make(), Compressed(Identity()))
    Layered(
        DifferentialPrivacyServerSideFixedClipping(FedAvg(), clipping_norm=5.0, **options),
        Compressed(Block(8)),
    )
