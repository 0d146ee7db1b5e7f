"""A piece whose terminal leaves, or says what cannot be, goes to another; nothing is merged of what was made before."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from pieces_toy import STEPS, number_of, oracle, own, pieces, run, segment, terminals
from split_toy import CLASSES, start
from toy import same_model

from flower_edge.errors import NobodyContributed
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.pieces.messages import ARRAYS_RECORD, FRAME_RECORD, OPTIMISER_RECORD, PIECE_RECORD, PieceReport
from flower_edge.splitting.capacity import Capacity
from flower_edge.splitting.frames import HEADER_BYTES
from flower_edge.strategies.hierarchy.cells import blocks
from flower_edge.strategies.pieces.pieces import Pieces
from flower_edge.wire import packet_bytes, packet_record

#: Messages of a terminal before its first of training: a question.
BEFORE = 1


def told(strategy: Pieces, what: str) -> list[str]:
    """Texts of events, in order."""
    return [event.text for event in strategy._known.records.events if event.what == what]


def quiet(strategy: Pieces) -> Pieces:
    """Whose events the loop does not take, so that a test can read them."""
    strategy.events = list  # type: ignore[method-assign]
    return strategy


@pytest.mark.parametrize(("kind", "at"), [("raise", 1), ("silent", 2), ("raise", 3)])
def test_a_spare_terminal_takes_the_piece_and_the_model_is_the_same(kind: Any, at: int) -> None:
    strategy = quiet(pieces(cuts=(2, 4), chains=1))
    found = run(strategy, 4, script=[Fault(node=1, kind=kind, at=BEFORE + at)])
    assert same_model(found, oracle([0]))
    assert "spare terminal 3 takes units 2 to 3 of 1" in told(strategy, "piece-reassigned")[0]
    last = [row for row in strategy.history if row["attempt"] == 1]
    assert [(row["terminal"], row["steps"]) for row in last] == [(0, STEPS), (3, STEPS), (2, STEPS)]
    assert [row["merged"] for row in strategy.history[:3]] == [0, 0, 0]


@pytest.mark.parametrize(("gone", "spans"), [(1, [(0, 4), (4, 6)]), (2, [(0, 2), (2, 6)])])
def test_without_a_spare_a_neighbour_holds_both_pieces(gone: int, spans: list[tuple[int, int]]) -> None:
    def as_fast(context: Context, round: int) -> Capacity:
        return Capacity(1e9 if number_of(context) == 0 else 1e6)

    strategy = pieces(cuts=(2, 4))
    app = terminals(capacity=as_fast)
    found = run(strategy, 3, app=app, script=[Fault(node=gone, kind="raise", at=BEFORE + 2)])
    assert same_model(found, oracle([0]))
    assert [(row["start"], row["stop"]) for row in strategy.history if row["merged"]] == spans


def test_with_nobody_to_take_it_the_chain_is_dropped_and_the_others_go_on() -> None:
    def small(context: Context, round: int) -> Capacity:
        return Capacity(1e6, memory_bytes=2000)

    strategy = quiet(pieces(cuts=(3,)))
    found = run(strategy, 4, app=terminals(capacity=small), script=[Fault(node=3, kind="raise", at=BEFORE + 1)])
    assert same_model(found, oracle([0]))
    assert "no neighbour with the memory" in told(strategy, "chain-dropped")[0]


def test_samples_of_its_own_go_with_a_terminal_and_its_chain_says_so() -> None:
    strategy = quiet(pieces(cuts=(3,)))
    found = run(strategy, 5, script=[Fault(node=2, kind="drop-out", at=BEFORE + 1)])
    assert same_model(found, oracle([0]))
    assert "its samples were terminal 2's, which is gone" in told(strategy, "chain-dropped")[0]


def test_a_segment_is_loaded_by_another_terminal() -> None:
    strategy = quiet(pieces(edges=blocks(2), data="segments", chains=1))
    fault = Fault(node=0, kind="raise", at=BEFORE + 2)
    found = run(strategy, 4, app=terminals(segment), script=[fault])
    assert same_model(found, oracle([0]))
    # Of its own edge, before the other edge's spare.
    assert "spare terminal 1 takes units" in told(strategy, "piece-reassigned")[0]


def test_one_after_the_other_may_leave() -> None:
    strategy = pieces(cuts=(2, 4))
    script = [Fault(node=1, kind="raise", at=BEFORE + 2), Fault(node=3, kind="raise", at=BEFORE + 1)]
    script += [Fault(node=2, kind="silent", at=BEFORE + 3)]
    found = run(strategy, 4, script=script)
    assert same_model(found, oracle([0]))
    assert sum(1 for row in strategy.history if row["lost"]) == 3


@pytest.mark.parametrize("gone", [0, 1])
def test_who_leaves_when_the_round_is_made_takes_nothing_with_it(gone: int) -> None:
    # A question, the piece, and a message for each frame that comes: two steps of place 0, two of the last one.
    assert same_model(run(pieces(cuts=(3,)), 2, script=[Fault(node=gone, kind="drop-out", at=BEFORE + 4)]), oracle([0]))


def test_between_rounds_a_terminal_keeps_nothing_even_of_a_chain_that_broke() -> None:
    with LocalGrid(terminals(), 5, script=[Fault(node=2, kind="raise", at=BEFORE + 2)]) as grid:
        strategy = pieces(cuts=(2,))
        strategy.start(grid, start(), 1)
        assert strategy._known.records.metrics(1, 0)["chains"] == 1
        kept = {place: list(grid.context_of(node).state) for place, node in enumerate(grid.get_node_ids())}
    assert {place for place, names in kept.items() if names} <= {2}  # it is gone, and cannot be told


def test_when_all_chains_are_dropped_the_error_says_why() -> None:
    with pytest.raises(NobodyContributed, match=r"all 1 chains were dropped.*terminal 0's.*disk full"):
        run(pieces(cuts=(3,)), 2, script=[Fault(node=0, kind="raise", at=BEFORE + 1, reason="disk full")])


def test_a_terminal_that_answers_no_question_takes_no_part_and_is_back_in_the_next_round() -> None:
    strategy = pieces(cuts=(3,))
    run(strategy, 3, rounds=2, script=[Fault(node=1, kind="raise", at=1)])
    assert [row["terminal"] for row in strategy.history] == [0, 2, 0, 1]


# -- what a terminal says that cannot be -------------------------------------------------------------------------------


#: By a terminal's number, what becomes of its replies while `spoiling` lasts.
SPOILED: dict[int, Callable[[Message], None]] = {}


def spoil(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """A mod: one terminal sends something else."""
    reply = call_next(message, context)
    if message.metadata.message_type == "train.piece" and (change := SPOILED.get(number_of(context))):
        change(reply)
    return reply


#: Made once: what it keeps of models need not be made for every test.
APP = terminals(segment, app=ClientApp(mods=[spoil]))


def spoiled(number: int, change: Callable[[Message], None], cuts: tuple[int, ...] = (3,)) -> Pieces:
    """A run with a spare of which one terminal sends something else; its model is that of an undisturbed one."""
    strategy = pieces(cuts=cuts, chains=1, data="segments")
    SPOILED[number] = change
    try:
        found = run(strategy, len(cuts) + 2, app=APP)
    finally:
        SPOILED.clear()
    assert same_model(found, oracle([0]))
    assert [row["terminal"] for row in strategy.history if row["lost"]] == [number]
    return strategy


def garbage(reply: Message) -> None:
    for name in [name for name in reply.content if name.startswith(FRAME_RECORD)]:
        reply.content[name] = packet_record(b"garbage")


def no_frame(reply: Message) -> None:
    for name in [name for name in reply.content if name.startswith(FRAME_RECORD)]:
        del reply.content[name]


def wrong_way(reply: Message) -> None:
    reply.content[f"{FRAME_RECORD}-previous"] = reply.content.pop(f"{FRAME_RECORD}-next", packet_record(b""))


def not_finite(reply: Message) -> None:
    if ARRAYS_RECORD in reply.content:
        record = reply.content.array_records[ARRAYS_RECORD]
        name = next(iter(record))
        record[name] = Array(np.full(record[name].shape, np.nan, np.float32))


def another_piece(reply: Message) -> None:
    if ARRAYS_RECORD in reply.content:
        reply.content[ARRAYS_RECORD] = ArrayRecord({"0.weight": Array(np.zeros(3, np.float32))})


def strange_state(reply: Message) -> None:
    if ARRAYS_RECORD in reply.content:
        reply.content[OPTIMISER_RECORD] = ArrayRecord({"what": Array(np.zeros(3, np.float32))})


def says(**changes: Any) -> Callable[[Message], None]:
    def change(reply: Message) -> None:
        report = PieceReport.read(reply.content.config_records[PIECE_RECORD], sender="the test")
        reply.content[PIECE_RECORD] = report.model_copy(update=changes).write()

    return change


def silence(reply: Message) -> None:
    del reply.content[PIECE_RECORD]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (garbage, "bytes"),
        (no_frame, "replied without a frame, and one was due"),
        (wrong_way, "nobody waits for"),
        (not_finite, "not finite"),
        (another_piece, "'0.bias' is missing"),
        (strange_state, "what"),
        (says(attempt=7), "attempt"),
        (says(steps=99), "99 steps of 2"),
        (says(done=True), "says it is done"),
        (says(lost="my memory is gone"), "cannot go on: my memory is gone"),
        (silence, "flower-edge.pieces/1"),
        (says(done=False), "replied without a frame, and one was due"),
    ],
)
def test_a_terminal_that_says_what_cannot_be_loses_its_place_to_a_spare(
    change: Callable[[Message], None], why: str
) -> None:
    assert why in str(spoiled(0, change).history[0]["lost"])


def rewritten(side: str, change: Callable[[bytearray], None]) -> Callable[[Message], None]:
    """A frame to one side, with other bytes."""

    def rewrite(reply: Message) -> None:
        if (name := f"{FRAME_RECORD}-{side}") in reply.content:
            data = bytearray(packet_bytes(reply.content.array_records[name], sender="the test"))
            change(data)
            reply.content[name] = packet_record(bytes(data))

    return rewrite


def other_label(data: bytearray) -> None:
    data[HEADER_BYTES] = (data[HEADER_BYTES] + 1) % CLASSES


def other_loss(data: bytearray) -> None:
    data[HEADER_BYTES - 8 : HEADER_BYTES] = struct.pack("<d", 0.25)


def no_number(data: bytearray) -> None:
    data[-4:] = struct.pack("<f", math.nan)


@pytest.mark.parametrize(
    ("side", "change", "why"),
    [
        ("next", other_label, "other labels"),
        ("previous", other_loss, "with loss 0.25, and the last place said"),
        ("next", no_number, "holds nan"),
        ("previous", no_number, "holds nan"),
    ],
)
def test_a_frame_that_does_not_go_with_what_it_is_computed_from_loses_who_said_it_not_who_would_hear_it(
    side: str, change: Callable[[bytearray], None], why: str
) -> None:
    assert why in str(spoiled(1, rewritten(side, change), (2, 4)).history[1]["lost"])


def test_a_last_piece_that_never_says_it_is_done_is_lost_and_not_waited_for() -> None:
    lost = spoiled(1, says(done=False)).history[1]["lost"]
    assert "it has said fewer frames than its steps need" in str(lost)


def test_a_terminal_that_lost_its_memory_in_mid_round_says_so() -> None:
    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if message.metadata.message_type == "train.piece" and number_of(context) == 1:
            context.state.clear()
        return call_next(message, context)

    strategy = pieces(cuts=(3,), chains=1)
    found = run(strategy, 3, app=terminals(own, app=ClientApp(mods=[mod])))
    assert same_model(found, oracle([0]))
    assert "it remembers no round; was it restarted" in str(strategy.history[1]["lost"])


def test_messages_of_a_round_are_as_many_as_the_plane_says() -> None:
    counted: list[str] = []

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        counted.append(message.metadata.message_type)
        return call_next(message, context)

    for mode, expected in (("exact", 3 + 4 * STEPS), ("decoupled", 3 + 3 * STEPS - 1)):
        counted.clear()
        with LocalGrid(terminals(app=ClientApp(mods=[mod])), 3) as grid:
            pieces(cuts=(2, 4), mode=mode).start(grid, start(), 1)
        assert counted.count("train.piece") == expected + 3  # and one for each that ends the round
        assert counted.count("query.pieces") == 3


def test_a_chain_whose_terminals_have_not_the_memory_sits_out_and_the_others_go_on() -> None:
    def small(context: Context, round: int) -> Capacity:
        return Capacity(1e6, memory_bytes=100 if number_of(context) == 3 else None)

    strategy = quiet(pieces(pieces=2))
    assert same_model(run(strategy, 4, app=terminals(capacity=small)), oracle([0]))
    assert "chain 2 sits out: 2 machines with memory for any, 100 bytes" in told(strategy, "chain-dropped")[0]
