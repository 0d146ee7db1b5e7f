"""PieceService and converse over real channels: frames reach the neighbour, and what a lost terminal costs."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from piece_chains import (
    PATIENCE,
    PROFILE,
    ROUND,
    SESSION,
    Piece,
    begun,
    chain,
    run,
    settled_threads,
)

from flower_edge.clients.pieces_stream import broken_by, converse
from flower_edge.errors import ProtocolError, SplitError, TransportRefused
from flower_edge.pieces.order import PieceOrder
from flower_edge.pieces.said import Said
from flower_edge.runtime.pieces.channel import WINDOW, turns
from flower_edge.runtime.pieces.messages import PieceCall
from flower_edge.runtime.pieces.service import Patience, PieceService
from flower_edge.splitting.frame import Frame
from flower_edge.transport.credentials import Insecure
from flower_edge.transport.grpc_transport import GrpcTransport


@pytest.fixture
def service() -> Iterator[PieceService]:
    with PieceService(GrpcTransport(Insecure()), patience=PATIENCE) as made:
        yield made


@pytest.mark.parametrize("mode", ["exact", "decoupled"])
def test_every_frame_reaches_its_neighbour_and_no_other(service: PieceService, mode: Any) -> None:
    chains = [chain(4, number=0, mode=mode), chain(2, number=7, mode=mode, steps=2 * WINDOW)]
    found = run(service, chains, begun(service, *chains))
    outcomes = service.end([0, 7])
    for orders in chains:
        pieces = [found[order.work.number, order.place] for order in orders]
        for order, got in zip(orders, pieces, strict=True):
            assert not isinstance(got, Exception), got
            piece, figures = got
            heard = [turn for turn in turns(order) if not turn.says]
            sources = [order.place + (1 if turn.side == "next" else -1) for turn in heard]
            assert [(frame.kind, frame.step) for frame in piece.heard] == [(turn.kind, turn.step) for turn in heard]
            assert [frame.tensors[0][0, 0] for frame in piece.heard] == [
                100 * source + turn.step for source, turn in zip(sources, heard, strict=True)
            ]
            passed = outcomes[order.work.number].passed[order.place]
            assert (figures.up_bits, figures.down_bits) == (passed.up_bits, passed.down_bits)
            assert (figures.frames, passed.frames) == (len(list(turns(order))), piece.said)
            assert 0.0 <= passed.turn_s < 10.0
        assert (outcomes[orders[0].work.number].lost, outcomes[orders[0].work.number].places) == ("", ())


def test_nobody_says_a_gradient_in_decoupled_mode_so_about_half_the_bits_travel(service: PieceService) -> None:
    bits = {}
    for mode in ("exact", "decoupled"):
        orders = chain(mode=mode, steps=2)
        run(service, [orders], begun(service, orders))
        bits[mode] = sum(one.up_bits for one in service.end([0])[0].passed)
    assert bits["exact"] / 3 < bits["decoupled"] < 2 * bits["exact"] / 3


def test_a_fast_piece_does_not_flood_a_slow_one(service: PieceService) -> None:
    orders, ahead = chain(2, mode="decoupled", steps=5 * WINDOW), []
    made: dict[int, Piece] = {}

    class Watched(Piece):
        def take(self, frame: Frame | None) -> Sequence[Said]:
            if self.order.last:
                ahead.append(made[0].said - len(self.heard))
            return super().take(frame)

    def make(order: PieceOrder) -> Piece:
        made[order.place] = Watched(order, slow_s=0.02 if order.last else 0.0)
        return made[order.place]

    found = run(service, [orders], begun(service, orders), make)
    assert not any(isinstance(one, Exception) for one in found.values())
    # One more than the window is computed and waits for room, one has been taken.
    assert WINDOW <= max(ahead) <= WINDOW + 2


@pytest.mark.parametrize("mode", ["exact", "decoupled"])
def test_when_a_terminal_breaks_its_chain_is_told_who_and_the_other_chain_goes_on(
    service: PieceService, mode: Any
) -> None:
    before = threading.active_count()
    broken, whole = chain(mode=mode, steps=40), chain(2, number=4, mode=mode, steps=40)

    def make(order: PieceOrder) -> Piece:
        stops = 2 if (order.work.number, order.place) == (0, 1) else None
        return Piece(order, stops=stops, slow_s=0.0 if stops else 0.002)

    tokens = begun(service, broken, whole)
    begun_s = time.monotonic()
    found = run(service, [broken, whole], tokens, make)
    assert time.monotonic() - begun_s < 30.0
    outcomes = service.end([4])
    assert isinstance(found[0, 1], RuntimeError)
    for place in (0, 2):
        error = found[0, place]
        assert isinstance(error, TransportRefused)
        assert "chain 0 is lost: place 1" in str(error)
        assert broken_by(error, place) == 1
    assert outcomes[0].places == (1,)
    assert "place 1" in outcomes[0].lost
    assert outcomes[4].lost == ""
    assert not isinstance(found[4, 0], Exception)
    service.close()
    assert settled_threads(before) <= before


@pytest.mark.slow
def test_a_terminal_whose_process_is_killed_is_lost_within_seconds() -> None:
    before, orders = threading.active_count(), chain()
    with PieceService(GrpcTransport(Insecure()), patience=Patience(silence_s=60.0, dial_s=60.0)) as service:
        tokens = begun(service, orders)
        script, told = Path(__file__).with_name("piece_dialler.py"), [SESSION, tokens[0, 1], str(ROUND), "1"]
        victim = subprocess.Popen([sys.executable, script, str(service.port), *told], stdout=subprocess.PIPE)
        try:
            found: dict[tuple[int, int], Any] = {}
            others = threading.Thread(
                target=lambda: found.update(run(service, [(orders[0], orders[2])], tokens, within_s=90.0))
            )
            others.start()
            assert victim.stdout is not None
            assert victim.stdout.readline() == b"heard\n"
            victim.kill()
            killed_s = time.monotonic()
            others.join(60.0)
            assert time.monotonic() - killed_s < 30.0
        finally:
            victim.kill()
            victim.communicate()
        outcome = service.end([])[0]
    assert outcome.places == (1,)
    assert "place 1: TransportError" in outcome.lost
    assert [broken_by(found[0, place], place) for place in (0, 2)] == [1, 1]
    assert settled_threads(before) <= before


def test_a_terminal_that_cannot_make_its_work_loses_the_chain_at_once(service: PieceService) -> None:
    def make(order: PieceOrder) -> Piece:
        if order.last:
            raise SplitError("built here it is another model")
        return Piece(order)

    orders = chain()
    begun_s = time.monotonic()
    found = run(service, [orders], begun(service, orders), make)
    assert time.monotonic() - begun_s < 30.0
    assert isinstance(found[0, 2], SplitError)
    error = found[0, 0]
    assert isinstance(error, TransportRefused)
    assert broken_by(error, 0) == 2


def test_a_terminal_that_does_not_dial_is_not_waited_for_longer_than_patience_has() -> None:
    orders = chain()
    with PieceService(GrpcTransport(Insecure()), patience=Patience(silence_s=5.0, dial_s=0.4)) as hurried:
        found = run(hurried, [orders[:2]], begun(hurried, orders))
        outcome = hurried.end([])[0]
    assert outcome.places == (2,)
    assert "place 2 had not dialled 0.4 s after the first terminal did" in outcome.lost
    assert "LocalGrid(pool='threads'" in outcome.lost
    assert [broken_by(found[0, place], place) for place in (0, 1)] == [2, 2]  # type: ignore[arg-type]


def test_a_terminal_that_falls_silent_when_it_is_its_turn_is_the_one_that_is_lost() -> None:
    orders = chain()
    with PieceService(GrpcTransport(Insecure()), patience=Patience(silence_s=0.8, dial_s=5.0)) as hurried:
        found = run(hurried, [orders], begun(hurried, orders), lambda order: Piece(order, slow_s=2.0 * order.last))
        outcome = hurried.end([])[0]
    assert outcome.places == (2,)
    assert "has not said GRADIENT of step 5 for 0.8 s" in outcome.lost
    assert broken_by(found[0, 0], 0) == 2  # type: ignore[arg-type]
    assert broken_by(found[0, 2], 2) is None  # type: ignore[arg-type]


def test_a_work_that_says_another_frame_than_is_due_is_not_sent(service: PieceService) -> None:
    class Confused(Piece):
        def take(self, frame: Frame | None) -> Sequence[Said]:
            return [Said("previous", one.frame) for one in super().take(frame)]

    orders = chain(2)
    found = run(service, [orders], begun(service, orders), lambda o: (Confused if o.first else Piece)(o))
    error = found[0, 0]
    assert isinstance(error, ProtocolError)
    assert "to the previous; expected ACTIVATIONS of step 5 to the next" in str(error)


def test_one_piece_alone_needs_no_channel() -> None:
    (order,) = chain(1)
    piece = Piece(order)
    call = PieceCall(session=SESSION, piece=order, plane="stream", address="nobody.example:1")
    work, figures = converse(call, lambda: (piece, PROFILE))
    assert work is piece
    assert figures.frames == 0
