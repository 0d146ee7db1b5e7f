"""PieceService over real channels: who is not let in, and what is not passed on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from piece_chains import (
    PATIENCE,
    PROFILE,
    ROUND,
    STEPS,
    WIDTHS,
    Piece,
    begun,
    call_of,
    chain,
    dial,
    frame_of,
    run,
)

from flower_edge.clients.pieces_stream import broken_by, converse
from flower_edge.errors import ProtocolError, SplitError, TransportError, TransportRefused
from flower_edge.pieces.order import PieceOrder
from flower_edge.runtime.pieces.channel import WINDOW, taken
from flower_edge.runtime.pieces.job import ChainJob
from flower_edge.runtime.pieces.messages import coder_at
from flower_edge.runtime.pieces.progress import Progress
from flower_edge.runtime.pieces.service import PieceService
from flower_edge.splitting.frame import Kind
from flower_edge.transport.certificates import issue, make_authority
from flower_edge.transport.credentials import Insecure, ServerTls
from flower_edge.transport.grpc_transport import GrpcTransport


@pytest.fixture
def service() -> Iterator[PieceService]:
    with PieceService(GrpcTransport(Insecure()), patience=PATIENCE) as made:
        yield made


def test_a_chain_nobody_dialled_is_lost_and_so_is_who_comes_afterwards(service: PieceService) -> None:
    orders = chain(2)
    tokens = begun(service, orders)
    outcome = service.end([])[0]
    assert (outcome.lost, outcome.places) == ("places 0 and 1 did not dial", (0, 1))
    with pytest.raises(TransportRefused) as refused:
        dial(service, orders[0], tokens[0, 0])
    assert refused.value.code == "no-round"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"token": ""}, "bad-token"),
        ({"node": 1}, "other-node"),
        ({"node": 99}, "other-node"),
        ({"run": "another"}, "other-run"),
        ({"purpose": "split"}, "other-purpose"),
        ({"data": {"round": 1, "place": 0}}, "other-round"),
        ({"data": {"round": ROUND, "place": 1}}, "other-purpose"),
        ({"data": {"round": ROUND, "place": 2**70}}, "other-purpose"),
        ({"data": {"round": ROUND, "place": True}}, "other-purpose"),
        ({"data": {}}, "other-round"),
    ],
)
def test_who_has_no_token_for_this_place_chain_and_round_is_refused(
    service: PieceService, changes: dict[str, Any], code: str
) -> None:
    orders = chain()
    tokens = begun(service, orders, chain(number=1))
    with pytest.raises(TransportRefused) as refused:
        dial(service, orders[0], tokens[0, 0], **changes)
    assert refused.value.code == code


def test_a_token_of_an_earlier_attempt_or_one_that_was_used_is_refused(service: PieceService) -> None:
    orders = chain()
    old = begun(service, orders)
    new = begun(service, orders)
    with pytest.raises(TransportRefused) as refused:
        dial(service, orders[0], old[0, 0])
    assert refused.value.code == "other-purpose"
    with dial(service, orders[0], new[0, 0]), pytest.raises(TransportRefused) as again:
        dial(service, orders[0], new[0, 0])
    assert again.value.code == "dialled-before"


def encoded(order: PieceOrder, kind: Kind, step: int, to: Any) -> bytes:
    return coder_at(order, PROFILE, to).encode(frame_of(order, kind, step, to))


def hostile(kind: str, orders: Sequence[PieceOrder]) -> list[bytes]:
    first = encoded(orders[0], Kind.ACTIVATIONS, 5, "next")
    nan = np.full((2, WIDTHS[1]), np.nan, np.float32)
    return {
        "garbage": [b"\x00" * 100],
        "empty": [b""],
        "truncated": [first[:-1]],
        "another-step": [encoded(orders[0], Kind.ACTIVATIONS, 6, "next")],
        "of-another-place": [encoded(orders[1], Kind.ACTIVATIONS, 5, "next")],
        "a-gradient": [encoded(orders[1], Kind.GRADIENT, 5, "previous")],
        "not-finite": [first[: -4 * nan.size] + nan.tobytes()],
        "too-early": [first, encoded(orders[0], Kind.ACTIVATIONS, 6, "next")],
        "taken": [taken(5)],
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "garbage",
        "empty",
        "truncated",
        "another-step",
        "of-another-place",
        "a-gradient",
        "not-finite",
        "too-early",
        "taken",
    ],
)
def test_what_a_terminal_should_not_say_loses_it_and_reaches_nobody(service: PieceService, kind: str) -> None:
    orders = chain(2)
    tokens = begun(service, orders)
    with dial(service, orders[0], tokens[0, 0]) as liar, dial(service, orders[1], tokens[0, 1]) as honest:
        sent = hostile(kind, orders)
        for payload in sent:
            liar.send(payload)
        came = [honest.receive(5.0) for _ in sent[1:]]
        with pytest.raises(TransportRefused) as told:
            honest.receive(5.0)
    assert broken_by(told.value, 1) == 0
    assert came == sent[:-1]
    assert service.end([])[0].places == (0,)


def test_a_piece_may_not_say_it_took_what_it_was_not_sent_nor_go_ahead_of_the_window(service: PieceService) -> None:
    orders = chain(2, mode="decoupled", steps=3 * WINDOW)
    tokens = begun(service, orders)
    with dial(service, orders[0], tokens[0, 0]) as fast, dial(service, orders[1], tokens[0, 1]) as slow:
        for step in range(5, 5 + WINDOW + 1):
            fast.send(encoded(orders[0], Kind.ACTIVATIONS, step, "next"))
        with pytest.raises(TransportRefused, match=f"{WINDOW} frames of it are waiting to be taken"):
            fast.receive(5.0)
        for _ in range(WINDOW):
            slow.receive(5.0)
    assert service.end([])[0].places == (0,)
    tokens = begun(service, orders)
    with dial(service, orders[0], tokens[0, 0]) as first, dial(service, orders[1], tokens[0, 1]) as greedy:
        greedy.send(taken(5))
        with pytest.raises(TransportRefused, match="it took 1 frames; it was sent 0"):
            first.receive(5.0)
    assert service.end([])[0].places == (1,)


def test_over_tls_another_authority_is_not_believed() -> None:
    authority, rogue = make_authority("test"), make_authority("rogue")
    pair = issue(authority, ["127.0.0.1"])
    orders = chain(2)
    with PieceService(GrpcTransport(ServerTls(pair.certificate_pem, pair.key_pem)), patience=PATIENCE) as service:
        tokens = begun(service, orders)
        call = call_of(service, orders[0], tokens[0, 0], certificate=rogue.certificate_pem.decode())
        with pytest.raises(TransportError):
            converse(call, lambda: (Piece(orders[0]), PROFILE), dial_s=5.0)
        found = run(service, [orders], tokens, certificate=authority.certificate_pem.decode())
        assert not any(isinstance(one, Exception) for one in found.values())
        assert service.end([0])[0].lost == ""


def test_orders_that_are_no_chain_are_refused() -> None:
    orders = chain(3)
    with pytest.raises(SplitError, match="place 0 of a chain of 2"):
        ChainJob(orders[:2], PROFILE)
    with pytest.raises(SplitError, match="place 0 of a chain of 3 has an order for place 1"):
        ChainJob((orders[1], orders[0], orders[2]), PROFILE)
    with pytest.raises(SplitError, match="place 1 begins at unit 2; expected 1"):
        ChainJob((orders[0], orders[1].model_copy(update={"start": 2}), orders[2]), PROFILE)
    with pytest.raises(SplitError, match="ends at unit 1 of a model of 4"):
        ChainJob(
            (orders[0].model_copy(update={"pieces": 1}),),
            PROFILE,
        )
    with pytest.raises(SplitError, match="no pieces"):
        ChainJob((), PROFILE)


def test_progress_owes_a_frame_only_when_all_it_needs_is_there() -> None:
    middle = Progress(chain()[1])
    said = []
    for _ in range(2 * STEPS):
        assert not middle.owes
        with pytest.raises(ProtocolError, match="has not been sent to it"):
            middle.say()
        middle.put()
        assert middle.owes
        said.append(middle.say().kind)
    assert said == [Kind.ACTIVATIONS, Kind.GRADIENT] * STEPS
    assert not middle.over
    for _ in range(2 * STEPS):
        middle.arrived()
    assert middle.over
    with pytest.raises(ProtocolError, match="after all frames"):
        middle.say()
