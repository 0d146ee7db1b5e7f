"""What travels in a gradient exchange: it comes back as it was, and nothing that came in breaks a reader."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.codecs.sections import join
from flower_edge.codecs.teacher import Told
from flower_edge.errors import CodecError, ProtocolError, WireError
from flower_edge.runtime.gradient_messages import SCHEMA, Order, Report, Sealed, bytes_in, order_in, record_with
from flower_edge.runtime.gradient_setup import Setup, WeightedSum
from flower_edge.runtime.gradient_told import read_told, told_bytes


def test_orders_and_reports_come_back_and_defaults_do_not_travel() -> None:
    order = Order(3, 2, 1, begin=False, heard=3, rate=0.1, commit=[0, 2], mailbox="{}")
    assert Order.read(order.write(), sender="it") == order
    report = Report(3, 1, version=2, digest=2**32 - 1, refused=[4])
    assert Report.read(report.write(), sender="it") == report
    assert Order(3, 2, 1).write()[SCHEMA] == '{"step":3,"version":2,"index":1}'


@given(st.text() | st.sampled_from(['{"step":true}', "[]", '{"step":1}', '{"step":-1,"version":0,"index":0}', "1e999"]))
def test_any_text_is_an_order_or_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        Order.read(ConfigRecord({SCHEMA: text}), sender="it")


def test_a_message_without_an_order_has_none() -> None:
    assert order_in(RecordDict({"config": ConfigRecord({"lr": 0.1})})) is None


@given(st.binary(max_size=200), st.integers(0, 199), st.integers(1, 255))
def test_a_sealed_gradient_comes_back_or_is_refused(payload: bytes, place: int, change: int) -> None:
    sealed = Sealed(5, 1, payload, 7.0, 4, 99)
    data = sealed.to_bytes()
    assert Sealed.from_bytes(data, step=5, sender=1) == sealed
    torn = bytearray(data)
    torn[place % len(data)] ^= change
    for bad in (bytes(torn), data[:place], data + b"x"):
        if bad != data:
            with pytest.raises(WireError):
                Sealed.from_bytes(bad, step=5, sender=1)
    for step, sender in ((4, 1), (5, 2)):
        with pytest.raises(WireError, match=f"expected step {step} from node {sender}"):
            Sealed.from_bytes(data, step=step, sender=sender)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_weight_that_cannot_be_is_refused(weight: float) -> None:
    with pytest.raises(WireError, match="weight"):
        Sealed.from_bytes(Sealed(0, 0, b"", weight).to_bytes(), step=0, sender=0)


@pytest.mark.parametrize("size", [10, 600_000])
def test_few_bytes_travel_in_a_config_and_many_in_chunks_and_come_back(size: int) -> None:
    content = RecordDict({"it": record_with(bytes(size))})
    assert bytes_in(content, "it", sender="node 1") == bytes(size)
    assert bytes_in(content, "other", sender="node 1") is None
    assert (len(content.array_records) == 1) == (size > 500_000)


def test_a_record_without_bytes_is_refused() -> None:
    with pytest.raises(WireError, match="node 1"):
        bytes_in(RecordDict({"it": ConfigRecord({"bytes": 3})}), "it", sender="node 1")


@given(st.sets(st.integers(0, 5_000_000), max_size=40), st.none() | st.binary(max_size=20))
def test_what_a_teacher_tells_comes_back(places: set[int], book: bytes | None) -> None:
    size = max(places, default=0) + 1
    leader = np.array(sorted(places), np.int64)
    found = read_told(told_bytes(Told(leader, book)), size)
    np.testing.assert_array_equal(found.leader, leader)
    assert found.codebook == book
    if len(places) > 1:
        with pytest.raises(CodecError):
            read_told(told_bytes(Told(leader, book)), size - 1)


@given(st.binary(max_size=60))
def test_any_bytes_are_told_or_refused(data: bytes) -> None:
    try:
        told = read_told(data, 50)
    except CodecError:
        return
    assert told.leader is None or (np.diff(told.leader, prepend=-1) > 0).all()


def test_more_places_than_the_vector_has_are_refused() -> None:
    with pytest.raises(CodecError, match="a vector of 50"):
        read_told(join([b"\x01" + bytes(10_000_000), b""]), 50)


def test_a_set_up_comes_back_and_anything_else_is_refused() -> None:
    setup = Setup({"kind": "identity"}, {"kind": "identity"}, frozen=("a*",), momentum=0.9, history=2)
    assert setup.codec_made == setup.down_made
    assert Setup.of(setup.text()) == setup
    for text in ("", "[]", '{"codec": {}}', '{"frozen": [], "codec": {}, "down": {}, "more": 1}'):
        with pytest.raises(ProtocolError, match="set-up"):
            Setup.of(text)


def test_gradients_of_no_weight_move_nothing() -> None:
    total = WeightedSum(2, "float32")
    total.add(np.ones(2, np.float32), 0.0)
    assert total.mean() is None
