"""Pieces over channels: the same models as with frames in messages, whoever is late or lost."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from pieces_toy import STEPS, number_of, oracle, pieces, run, segment, terminals
from split_toy import SPEC, start
from toy import same_model

from flower_edge.clients.properties import answer_properties
from flower_edge.codecs.affine import Affine
from flower_edge.codecs.block import Block
from flower_edge.errors import ConfigError, NobodyContributed, ProtocolError
from flower_edge.runtime import GridProxy
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.pieces.messages import PIECE_RECORD, PieceCall
from flower_edge.runtime.splitting.job import Patience
from flower_edge.strategies import Hierarchical
from flower_edge.strategies.hierarchy.cells import blocks
from flower_edge.strategies.pieces.pieces import Pieces
from flower_edge.strategies.pieces.stream_plane import PieceStream
from flower_edge.transport.credentials import Insecure
from flower_edge.transport.grpc_transport import GrpcTransport
from flower_edge.transport.transport import Hello, Limits

PATIENCE = Patience(silence_s=60.0, dial_s=60.0)


def stream(**options: Any) -> PieceStream:
    return PieceStream(**{"credentials": Insecure(), "patience": PATIENCE, **options})


def streamed(strategy: Pieces, count: int, rounds: int = 2, **options: Any) -> ArrayRecord:
    return run(strategy, count, rounds, **{"pool": "threads", "workers": count, **options})


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"pieces": 3}, 3),
        ({"pieces": 3, "mode": "decoupled", "keep_optimiser": True}, 6),
        ({"cuts": (1, 2, 5), "up": Affine(4).config(), "down": Block(8).config()}, 4),
        ({"pieces": {"edge-1": 2}, "edges": blocks(2), "data": "segments", "chains": 1}, 4),
    ],
    ids=["exact", "decoupled", "quantised", "edges"],
)
def test_over_channels_and_in_messages_pieces_give_equal_models(options: dict[str, Any], count: int) -> None:
    app = terminals(segment) if options.get("data") == "segments" else terminals()
    over, inside = pieces(plane=stream(), **options), pieces(**options)
    assert same_model(streamed(over, count, app=app), run(inside, count, 2, app=app))
    for key in ("up_bits", "down_bits", "steps", "lost"):
        assert [row[key] for row in over.history] == [row[key] for row in inside.history]
    assert {row["lost"] for row in over.history} == {""}


def test_with_dropout_both_planes_draw_the_same() -> None:
    spec = SPEC.model_copy(update={"options": {"drop": 0.4}})
    begin = ArrayRecord({name.replace("5.", "6."): array for name, array in start().items()})
    found = []
    for plane in (stream(), None):
        strategy = pieces(architecture=spec, cuts=(2, 5), plane=plane)
        with LocalGrid(terminals(), 3, pool="threads", workers=3) as grid:
            found.append(strategy.start(grid, begin, 1).arrays)
    assert same_model(*found)


def test_over_tls_with_messages_serialised_it_equals_training_the_whole_model() -> None:
    before = threading.active_count()
    plane = PieceStream(patience=PATIENCE)
    assert same_model(streamed(pieces(pieces=3, plane=plane), 3, serialise=True), oracle([0], 2))
    until_s = time.monotonic() + 60.0
    while threading.active_count() > before and time.monotonic() < until_s:
        time.sleep(0.02)
    assert threading.active_count() <= before
    passed = plane.passed[0, 1]
    assert (passed.frames, plane.passed[0, 0].frames) == (2 * STEPS, STEPS)
    assert passed.turn_s > 0.0


class Quits(ClientApp):
    """Terminals of which one breaks in the first round, when it has `heard` a frame or before it says one."""

    def __init__(self, inner: ClientApp, number: int, heard: bool = True) -> None:
        super().__init__()
        self.inner, self.number, self.heard = inner, number, heard

    def __call__(self, message: Message, context: Context) -> Message:
        if message.metadata.message_type != "train.piece" or number_of(context) != self.number:
            return self.inner(message, context)
        call = PieceCall.read(message.content.config_records[PIECE_RECORD], sender="the test")
        if call.piece.work.round != 1:
            return self.inner(message, context)
        work, place = call.piece.work, call.piece.place
        data = {"round": work.round, "place": place}
        hello = Hello(purpose="pieces", run=call.session, node=work.number, token=call.token, data=data)
        with GrpcTransport(Insecure()).dial(call.address, hello) as connection:
            if self.heard:
                connection.receive(10.0)
        raise RuntimeError("somebody pulled the plug")


@pytest.mark.parametrize("mode", ["exact", "decoupled"])
def test_a_terminal_lost_in_mid_round_is_replaced_within_seconds_and_the_model_is_as_without(mode: Any) -> None:
    whole = streamed(pieces(pieces=3, mode=mode, chains=1, plane=stream()), 4)
    strategy = pieces(pieces=3, mode=mode, chains=1, plane=stream())
    begun_s = time.monotonic()
    found = streamed(strategy, 4, app=Quits(terminals(), 1))
    assert time.monotonic() - begun_s < 45.0
    assert same_model(found, whole)
    rows = [row for row in strategy.history if row["round"] == 1]
    lost = [(row["attempt"], row["terminal"]) for row in rows if row["lost"]]
    assert lost == [(0, 1)]
    assert "somebody pulled the plug" in next(str(row["lost"]) for row in rows if row["lost"])
    assert [row["terminal"] for row in rows if row["attempt"] == 1] == [0, 3, 2]


def test_a_chain_that_loses_its_samples_is_dropped_and_the_other_goes_on() -> None:
    strategy = pieces(pieces=2, plane=stream())
    found = streamed(strategy, 4, rounds=1, app=Quits(terminals(), 0, heard=False))
    lost = {(row["chain"], row["terminal"]) for row in strategy.history if row["lost"]}
    (other,) = {int(row["chain"]) for row in strategy.history if row["merged"]}
    assert lost == {(0, 0)}
    assert same_model(found, oracle([other], 1))


def test_terminals_that_cannot_run_at_the_same_time_are_told_how() -> None:
    strategy = pieces(pieces=2, plane=stream(patience=Patience(silence_s=5.0, dial_s=0.3)))
    found = run(strategy, 2, 1)
    lost = [str(row["lost"]) for row in strategy.history if row["lost"]]
    assert len(lost) == 1
    assert "LocalGrid(pool='threads', workers=<terminals>)" in lost[0]
    # Its neighbour took its piece, which needs no channel.
    assert same_model(found, oracle([0], 1))


def test_when_nobody_can_take_a_piece_the_round_says_why() -> None:
    strategy = pieces(pieces=2, plane=stream())
    with pytest.raises(NobodyContributed, match="somebody pulled the plug"):
        streamed(strategy, 2, 1, app=Quits(terminals(), 0, heard=False))


def test_more_terminals_than_channels_are_refused_before_anything_is_sent() -> None:
    strategy = pieces(pieces=3, plane=stream(limits=Limits(connections=2)))
    with pytest.raises(ConfigError, match="3 terminals in a round and 2 channels"):
        streamed(strategy, 3, 1)


def test_a_plane_nobody_can_dial_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot dial .0\.0\.0\.0"):
        PieceStream("0.0.0.0")
    with pytest.raises(ConfigError, match="belong together"):
        PieceStream(authority=b"a certificate")


def test_at_the_edges_of_a_hierarchy_channels_are_closed_when_the_run_is_over() -> None:
    before, planes = threading.active_count(), list[PieceStream]()

    def edge(cell: str) -> Pieces:
        planes.append(stream())
        return pieces(pieces=2, plane=planes[-1])

    with LocalGrid(answer_properties(terminals()), 4, pool="threads", workers=4) as grid:
        found = Hierarchical(edge=edge, cells=blocks(2)).start(GridProxy(grid), start(), 1)
    assert found.arrays is not None
    assert len(planes) == 2
    for plane in planes:
        with pytest.raises(ProtocolError, match="not open"):
            _ = plane.address
    until_s = time.monotonic() + 60.0
    while threading.active_count() > before and time.monotonic() < until_s:
        time.sleep(0.02)
    assert threading.active_count() <= before
