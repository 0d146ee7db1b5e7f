"""Owners that lie about what they share, terminals that lie about what they hold: refused by name, and no one else."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.errors import WireError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.sharing_messages import SHARED_RECORD, Told, Wanted, read_rows, rows_record
from flower_edge.sharing import SetSpec, TrainingSet
from flower_edge.strategies import LayeredGrid
from flower_edge.strategies.sharing.shared import Shared

SPEC = SetSpec((3,), classes=8)
GOOD = {"takes": True, "agreed": True, "why": "", "name": "own", "samples": 2}
X, Y = np.ones((2, 3), np.float32), np.zeros(2, np.int64)


def npy(shape: str, dtype: str = "<f4", body: bytes = b"\0" * 24) -> bytes:
    """An npy file whose header says what it likes."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (117 - len(header)) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


def record(x: Array) -> ArrayRecord:
    return ArrayRecord({"x": x, "y": Array(Y)})


ROWS: dict[str, tuple[Any, str]] = {
    "none": (None, "sent no rows"),
    "other names": (ArrayRecord({"a": Array(X)}), "sent no rows"),
    "too many": (rows_record(np.ones((9, 3), np.float32), np.zeros(9, np.int64)), r"\(9, 3\); expected"),
    "another shape": (rows_record(np.ones((2, 4), np.float32), Y), r"\(2, 4\)"),
    "another dtype": (rows_record(X.astype(np.float64), Y), "float64"),
    "not finite": (rows_record(X * np.nan, Y), "not finite"),
    "no class": (rows_record(X, Y + 8), "targets 8..8"),
    "a pickle": (record(Array("float32", (2, 3), "numpy.ndarray", pickle.dumps([1]))), "not an npy file"),
    "a header that lies": (record(Array("float32", (2, 3), "numpy.ndarray", npy("(2000000000000, 3)"))), "bytes say"),
    "objects": (record(Array("float32", (2, 3), "numpy.ndarray", npy("(2, 3)", "|O"))), "bytes say"),
    "a long body": (record(Array("float32", (2, 3), "numpy.ndarray", npy("(2, 3)", body=b"\0" * 10_000))), "bytes"),
}
CARDS: dict[str, tuple[dict[str, Any], str]] = {
    "more samples than asked for": ({"samples": 10**9}, "1000000000 samples offered, 5 asked for"),
    "no samples": ({"samples": 0}, "it has no samples"),
}


def app(card: dict[str, Any], rows: Any) -> ClientApp:
    """Terminal 0 answers as it is told here, the others well."""
    bad = ClientApp()

    @bad.query("share")
    def share(message: Message, context: Context) -> Message:
        request = message.content.config_records["request"]
        mine = int(context.node_config["partition-id"]) == 0
        content = RecordDict({"share": ConfigRecord({**GOOD, **(card if mine else {})})})
        if request["ask"] == "rows":
            found = rows if mine else rows_record(X, Y)
            if found is not None:
                content["rows"] = found
        if request["ask"] == "take":
            content["share"] = ConfigRecord({"taken": list(request["keys"]), "refused": [], "why": []})
        return Message(content, reply_to=message)

    return bad


def shared_once(bad: ClientApp, **options: Any) -> tuple[LayeredGrid, list[Event]]:
    layer = Shared("1", spec=SPEC, most_samples=5, clock=lambda: 0.0, **options)
    with LocalGrid(bad, 3) as grid:
        session = LayeredGrid(grid, [layer])
        session.announced(Round(1, kind="train"))
        assert list(session.get_node_ids()) == [1000, 1001, 1002]
    return session, session.events()


@pytest.mark.parametrize("case", ROWS)
def test_bad_rows_are_refused_by_name_and_the_others_share(case: str) -> None:
    rows, why = ROWS[case]
    session, events = shared_once(app({}, rows))
    assert list(session.states[0].pool) == ["1001/own", "1002/own"]
    refused = [event for event in events if event.what == "share-refused"]
    assert [event.node for event in refused] == ["1000"]
    with pytest.raises(WireError, match=why):
        read_rows(rows, SPEC, 2, sender="node 1000")


@pytest.mark.parametrize("case", CARDS)
def test_a_card_that_is_not_what_was_asked_for_is_refused(case: str) -> None:
    card, why = CARDS[case]
    session, events = shared_once(app(card, rows_record(X, Y)))
    assert list(session.states[0].pool) == ["1001/own", "1002/own"]
    assert why in next(event.text for event in events if event.what == "share-refused")


def test_without_a_limit_of_samples_the_pool_is_the_limit() -> None:
    layer = Shared("1", spec=SPEC, pool_bytes=1e4)
    with LocalGrid(app({"samples": 10**9}, None), 2) as grid:
        session = LayeredGrid(grid, [layer])
        session.announced(Round(1, kind="train"))
        session.get_node_ids()
    assert list(session.states[0].pool) == ["1001/own"]


@pytest.mark.parametrize("told", [{"name": 7}, {"samples": "many"}, {"takes": "yes", "name": ""}, {"name": "x" * 999}])
def test_an_answer_that_cannot_be_read_is_no_offer(told: dict[str, Any]) -> None:
    session, events = shared_once(app(told, rows_record(X, Y)))
    assert list(session.states[0].pool) == ["1001/own", "1002/own"]
    assert not [event for event in events if event.what == "share-refused"]


def test_nobody_can_give_in_anothers_name_or_as_the_edge() -> None:
    session, _ = shared_once(app({"owner": "edge", "name": "own", "public": True}, rows_record(X, Y)))
    assert [one.data.card.owner for one in session.states[0].pool.values()] == ["1000", "1001", "1002"]


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"keys": ["edge/made up"], "uses": [5]},
        {"keys": "x", "uses": 3},
        {"keys": ["nobody/own"], "uses": [-5], "own-uses": "a"},
    ],
)
def test_what_a_terminal_tells_of_its_uses_never_raises_and_counts_known_sets_only(record: dict[str, Any]) -> None:
    layer = Shared("1", spec=SPEC, clock=lambda: 0.0)
    with LocalGrid(app({}, rows_record(X, Y)), 2) as grid:
        session = LayeredGrid(grid, [layer])
        session.announced(Round(1, kind="train"))
        session.get_node_ids()
        question = Message(RecordDict(), 1000, "train")
        content = RecordDict({"metrics": MetricRecord({"num-examples": 1}), SHARED_RECORD: ConfigRecord(record)})
        question.metadata.__dict__["_message_id"] = "1"
        reply = Message(content, reply_to=question)
        replies, state = layer.inbound(session.states[0], Round(1, kind="train"), [reply])
    assert set(replies[0].content) == {"metrics"}
    assert set(state.book.uses) <= {"1000/own"}
    assert state.book.total_uses("1000/own") == 0


def test_an_owner_that_has_nothing_any_more_takes_back_what_it_gave() -> None:
    card: dict[str, Any] = {}
    layer = Shared("1", spec=SPEC, every=1, clock=lambda: 0.0)
    with LocalGrid(app(card, rows_record(X, Y)), 2) as grid:
        session = LayeredGrid(grid, [layer])
        for number in (1, 2):
            session.announced(Round(number, kind="train"))
            session.get_node_ids()
            card.update(name="", agreed=False)
    assert list(session.states[0].pool) == ["1001/own"]
    assert session.states[0].withdrawn == ("1000/own",)


@pytest.mark.parametrize("odd", [{"share": np.nan}, {"share": -0.5}, {"share": 2.0}, {"most": -2}, {"start": 5}])
def test_a_question_out_of_its_range_is_refused(odd: dict[str, float]) -> None:
    with pytest.raises(WireError, match="rows from 0 on"):
        Wanted.read({**dict(Wanted(0.5, 1, "edge-0", 3, 4).request()), **odd})


def test_a_question_without_its_fields_is_named() -> None:
    with pytest.raises(WireError, match="cell"):
        Wanted.read({"share": 0.5, "most": 1, "start": 0, "stop": 0})
    wanted = Wanted(0.5, 1, "edge-0", 3, 4)
    assert Wanted.read(dict(wanted.request())) == wanted
    assert Told.read(dict(Told({"a": 2}, 3, True).record())) == Told({"a": 2}, 3, True)


def test_a_policy_of_the_edge_alone_cannot_make_an_owner_give() -> None:
    unwilling = app({"agreed": False, "why": "no"}, None)
    session, events = shared_once(unwilling, provided=TrainingSet.of(X, Y, name="common", classes=8))
    assert "1000/own" not in session.states[0].pool
    assert "its owner does not agree: no" in next(event.text for event in events if event.what == "share-refused")
    assert session.states[0].held[1000] == ("edge/common", "1001/own", "1002/own")
