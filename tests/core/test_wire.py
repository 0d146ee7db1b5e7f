"""What travels: arrays, small values and packets survive the way, are counted, checked, and never executed."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flower_edge.errors import ModelMismatch, WireError
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.wire import (
    PACKET_SCHEMA,
    array_of,
    arrays_of,
    cast_like,
    check_model,
    copy_content,
    error_reason,
    model_spec,
    packet_bytes,
    packet_record,
    payload_bits,
    record_of,
    records_from_tree,
    records_to_tree,
    round_trip,
    server_round_of,
    weight_of,
    wire_bits,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
# Flower writes text as UTF-8, which has no lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
DTYPES = st.sampled_from(["float32", "float64", "float16", "int8", "int64", "uint8", "bool", "complex64"])
arrays = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
)
array_records = st.dictionaries(TEXT, arrays, max_size=3).map(record_of)
numbers = INT64 | st.floats() | st.lists(INT64, max_size=3) | st.lists(st.floats(), max_size=3)
metric_records = st.dictionaries(TEXT, numbers, max_size=3).map(MetricRecord)
values = (
    numbers
    | TEXT
    | st.booleans()
    | st.binary(max_size=8)
    | st.lists(TEXT, max_size=3)
    | st.lists(st.booleans(), max_size=3)
    | st.lists(st.binary(max_size=4), max_size=3)
)
config_records = st.dictionaries(TEXT, values, max_size=3).map(ConfigRecord)
contents = st.dictionaries(TEXT, array_records | metric_records | config_records, max_size=4).map(RecordDict)


@pytest.fixture(autouse=True, scope="module")
def _identity() -> Any:
    """Messages can be built while a grid is there."""
    with LocalGrid(lambda: None, 1) as grid:  # type: ignore[arg-type,return-value]
        yield grid


def fingerprint(content: RecordDict) -> list[Any]:
    """Everything in a content, types and order included; NaN equals NaN."""
    found: list[Any] = []
    for name, record in content.items():
        for key, value in record.items():
            if isinstance(value, Array):
                found.append((name, key, value.dtype, tuple(value.shape), value.stype, value.data))
            else:
                found.append((name, type(record).__name__, key, type(value).__name__, repr(value)))
        found.append((name, type(record).__name__))
    return found


# -- round trips -----------------------------------------------------------------------------------------------------


@given(contents)
def test_records_survive_flowers_serialisation(content: RecordDict) -> None:
    assert sorted(map(repr, fingerprint(round_trip(content)))) == sorted(map(repr, fingerprint(content)))


@given(contents)
def test_a_message_survives_flowers_serialisation_with_its_metadata(content: RecordDict) -> None:
    message = Message(content, 1000, "train", ttl=50.0, group_id="3")
    again = round_trip(message)
    assert sorted(map(repr, fingerprint(again.content))) == sorted(map(repr, fingerprint(content)))
    assert (again.metadata.dst_node_id, again.metadata.ttl, again.metadata.group_id) == (1000, 50.0, "3")
    assert again.metadata.message_type == "train"


@given(contents)
def test_records_survive_the_tree_of_a_checkpoint_in_their_order(content: RecordDict) -> None:
    assert fingerprint(records_from_tree(records_to_tree(content))) == fingerprint(content)


@given(st.dictionaries(TEXT, arrays, max_size=4))
def test_arrays_come_back_from_a_record_with_their_bytes_names_and_order(given_arrays: dict[str, Any]) -> None:
    back = arrays_of(record_of(given_arrays))
    assert list(back) == list(given_arrays)
    for name, array in given_arrays.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape)
        assert back[name].tobytes() == array.tobytes()


def test_arrays_taken_out_of_a_record_are_copies() -> None:
    record = record_of({"w": np.zeros(2)})
    arrays_of(record)["w"][0] = 5.0
    np.testing.assert_array_equal(arrays_of(record)["w"], [0.0, 0.0])


# -- isolation -------------------------------------------------------------------------------------------------------


@given(contents)
def test_a_copied_content_is_equal_and_emptying_it_empties_nothing_else(content: RecordDict) -> None:
    before = fingerprint(content)
    copied = copy_content(content)
    assert fingerprint(copied) == before
    for record in copied.values():
        for value in record.values():
            if isinstance(value, list):
                value.clear()
            elif isinstance(value, Array):
                value.data, value.stype = b"", "gone"
        record.clear()
    copied.clear()
    assert fingerprint(content) == before


# -- counting --------------------------------------------------------------------------------------------------------


def test_bits_of_a_payload_are_those_of_its_npy_bytes_and_names() -> None:
    array = Array(np.zeros(10, np.float32))
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(10, np.float32))
    assert len(buffer.getvalue()) == 128 + 40
    content = RecordDict({"arrays": ArrayRecord({"weight": array})})
    assert payload_bits(content) == 8 * (168 + len("weight"))
    content["metrics"] = MetricRecord({"loss": 0.5})
    assert payload_bits(content) == 8 * (168 + len("weight") + 8 + len("loss"))
    assert payload_bits(RecordDict()) == 0


def serialised_parts(part: Any) -> dict[str, int]:
    """Bytes of every different object Flower would send, by its id."""
    found = {part.object_id: len(part.deflate())}
    for child in (part.children or {}).values():
        found |= serialised_parts(child)
    return found


@given(contents)
@settings(max_examples=50)
def test_bits_on_the_wire_are_all_that_flower_serialises(content: RecordDict) -> None:
    message = Message(content, 1000, "train")
    assert wire_bits(message) == 8 * sum(serialised_parts(message).values())


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=4, unique=True))
def test_the_wire_carries_at_least_the_payload(blobs: list[bytes]) -> None:
    content = RecordDict({f"packet-{i}": packet_record(blob) for i, blob in enumerate(blobs)})
    message = Message(content, 1000, "train")
    assert wire_bits(message) > payload_bits(content) >= 8 * sum(map(len, blobs))


def test_equal_chunks_travel_once() -> None:
    one = Message(RecordDict({"a": record_of({"w": np.ones(5000)})}), 1000, "train")
    two = Message(RecordDict({"a": record_of({"w": np.ones(5000), "v": np.ones(5000)})}), 1000, "train")
    assert wire_bits(two) - wire_bits(one) < 8 * 1000
    assert payload_bits(two.content) > 1.9 * payload_bits(one.content)


# -- packets ---------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_a_packet_brings_back_its_bytes_also_through_flowers_serialisation(payload: bytes) -> None:
    assert packet_bytes(packet_record(payload), sender="node 7") == payload
    travelled = round_trip(RecordDict({"arrays": packet_record(payload)}))
    assert packet_bytes(travelled["arrays"], sender="node 7") == payload


def test_a_packet_nobody_decoded_is_loud() -> None:
    with pytest.raises(TypeError, match="Unsupported serialization type"):
        packet_record(b"abc")["packet"].numpy()


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (record_of({"w": np.zeros(1), "b": np.zeros(1)}), r"node 7 sent plain arrays \(w, b\).*ClientApp\(mods="),
        (record_of({}), "plain arrays"),
        (record_of({"packet": np.zeros(3, np.uint8)}), r"'numpy.ndarray', this side reads 'flower-edge.packet/1'"),
        (ArrayRecord({"packet": Array("uint8", (3,), "flower-edge.packet/2", b"abc")}), "'flower-edge.packet/2'"),
        (ArrayRecord({"packet": Array("uint8", (3,), "flower-edge.packet/x", b"abc")}), "same flower-edge version"),
        (ArrayRecord({"packet": Array("uint8", (4,), PACKET_SCHEMA, b"abc")}), r"shape \(4,\) and sent 3 bytes"),
        (ArrayRecord({"packet": Array("uint8", (3, 1), PACKET_SCHEMA, b"abc")}), r"shape \(3, 1\)"),
    ],
    ids=["plain", "empty", "plain of that name", "newer", "no version", "length", "axes"],
)
def test_what_is_no_packet_of_this_version_is_refused_with_what_came(record: ArrayRecord, words: str) -> None:
    with pytest.raises(WireError, match=words):
        packet_bytes(record, sender="node 7")


# -- models ----------------------------------------------------------------------------------------------------------

MODEL = {"w": ((2, 3), "float32"), "b": ((3,), "float32"), "steps": ((), "int64")}


def model(**changes: Any) -> ArrayRecord:
    made = {"w": np.zeros((2, 3), np.float32), "b": np.zeros(3, np.float32), "steps": np.array(0)}
    return record_of({name: array for name, array in {**made, **changes}.items() if array is not None})


def test_the_spec_of_a_record_is_read_without_reading_an_array() -> None:
    broken = ArrayRecord({"w": Array("float32", (2, 3), "numpy.ndarray", b"not an array")})
    assert model_spec(broken) == {"w": ((2, 3), "float32")}
    assert model_spec(model()) == MODEL


def test_order_and_dtype_are_free_and_so_is_the_length_of_a_byte_string() -> None:
    check_model(model(), MODEL, sender="node 7")
    check_model(record_of(dict(reversed(list(arrays_of(model()).items())))), MODEL, sender="node 7")
    check_model(model(steps=np.array(0.5), b=np.zeros(3)), MODEL, sender="node 7")
    check_model(record_of({"0": np.zeros(9, np.uint8)}), {"0": ((0,), "uint8")}, sender="node 7")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"w": None}, "node 7 sent .*: 'w' is missing;"),
        ({"x": np.zeros(1)}, "'x' is not in the model"),
        ({"b": np.zeros(4)}, r"'b' has shape \(4,\), expected \(3,\)"),
        ({"steps": np.zeros(1, np.int64)}, r"'steps' has shape \(1,\), expected \(\)"),
        ({"w": None, "x": np.zeros(1), "b": np.zeros(())}, "'w' is missing; 'x' is not in the model; 'b' has shape"),
    ],
)
def test_arrays_that_are_not_the_models_are_refused_by_name(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelMismatch, match=words):
        check_model(model(**changes), MODEL, sender="node 7")


def test_a_long_list_of_wrong_arrays_is_cut_and_counted() -> None:
    with pytest.raises(ModelMismatch, match="'5' is missing; and 4 more; build the model"):
        check_model(record_of({}), {str(i): ((1,), "float32") for i in range(10)}, sender="node 7")


def test_casting_rounds_integers_to_the_nearest_and_keeps_the_dtype_of_the_model() -> None:
    cast = arrays_of(cast_like(model(steps=np.array(2.6), b=np.array([0.5, 1.5, -0.25])), MODEL))
    assert cast["steps"] == 3
    assert {name: array.dtype.name for name, array in cast.items()} == {
        "w": "float32",
        "b": "float32",
        "steps": "int64",
    }
    np.testing.assert_array_equal(cast["b"], np.array([0.5, 1.5, -0.25], np.float32))
    below = cast_like(record_of({"n": np.array([-0.6, 0.4, 1e3 - 0.1])}), {"n": ((3,), "int32")})
    np.testing.assert_array_equal(arrays_of(below)["n"], [-1, 0, 1000])


def test_an_array_in_its_dtype_is_not_touched() -> None:
    given_model = model()
    cast = cast_like(given_model, MODEL)
    assert all(cast[name].data is given_model[name].data for name in MODEL)


# -- nothing is ever unpickled ---------------------------------------------------------------------------------------


class Bomb:
    """Pickles as a call that would be noticed."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (pytest.fail, ("a payload was executed",))


def test_an_array_of_python_objects_is_refused_before_its_pickle_is_opened() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    record = ArrayRecord({"w": Array("object", (1,), "numpy.ndarray", buffer.getvalue())})
    for read in (arrays_of, lambda r: cast_like(r, {"w": ((1,), "float64")})):
        with pytest.raises(ValueError, match="allow_pickle=False"):
            read(record)
    travelled = round_trip(RecordDict({"arrays": record}))
    assert records_from_tree(records_to_tree(travelled)).array_records["arrays"]["w"].data == buffer.getvalue()


def test_bytes_in_a_config_or_packet_stay_bytes() -> None:
    bomb = pickle.dumps(Bomb())
    travelled = round_trip(RecordDict({"config": ConfigRecord({"b": bomb}), "arrays": packet_record(bomb)}))
    assert travelled["config"]["b"] == bomb
    assert packet_bytes(travelled["arrays"], sender="node 7") == bomb


# -- small readings --------------------------------------------------------------------------------------------------


def reply_with(*records: Any) -> Message:
    return Message(RecordDict({str(i): record for i, record in enumerate(records)}), 1000, "train")


def test_the_server_round_is_found_in_any_config_and_absent_where_nobody_put_one() -> None:
    assert server_round_of(reply_with(ConfigRecord({"lr": 0.1}), ConfigRecord({"server-round": 4}))) == 4
    assert server_round_of(reply_with(ConfigRecord({"server-round": True}))) is None
    assert server_round_of(reply_with(MetricRecord({"server-round": 4}))) is None
    failed = Message(Error(2), reply_to=reply_with())
    assert server_round_of(failed) is None


def test_a_weight_is_one_number_under_its_key_or_refused() -> None:
    assert weight_of(reply_with(MetricRecord({"loss": 1.0}), MetricRecord({"num-examples": 12}))) == 12.0
    assert weight_of(reply_with(MetricRecord({"w": 0.5})), "w") == 0.5
    for record in (MetricRecord({"num-examples": [1, 2]}), MetricRecord(), ConfigRecord({"num-examples": 3})):
        with pytest.raises(WireError, match="sent no number 'num-examples'; put it in the reply's MetricRecord"):
            weight_of(reply_with(record))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Error(2, "OSError: disk full"), "OSError: disk full"),
        (Error(2, "\nfirst line\nTraceback ..."), "first line"),
        (Error(5), "error code 5"),
        (Error(5, "  "), "error code 5"),
    ],
)
def test_the_reason_of_an_error_is_its_first_line(error: Error, text: str) -> None:
    assert error_reason(Message(error, reply_to=reply_with())) == text


def test_bits_are_counted_where_a_text_or_a_list_is_empty() -> None:
    full = RecordDict({"config": ConfigRecord({"note": "abc", "on": True, "n": 3, "raw": b"xy", "list": [1.0, 2.0]})})
    assert payload_bits(full) == 8 * full.config_records["config"].count_bytes()
    empty = RecordDict({"config": ConfigRecord({"note": "", "raw": b"", "list": []})})
    assert payload_bits(empty) == 8 * len("noterawlist")


@pytest.mark.parametrize(
    "values",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=">i4").reshape(2, 3)),
        np.float16(2.5),
        np.zeros((0, 4), np.float32),
        np.array([True, False]),
        np.array(["a", "bcd"]),
        np.array(["", ""]),
        np.array([1 + 2j], np.complex64),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.zeros(1, dtype=[(f"a_long_name_of_field_{i}", "f4") for i in range(40)]),
    ],
    ids=lambda values: f"{np.asarray(values).dtype.str}-{np.shape(values)}",
)
def test_an_array_comes_back_as_flower_itself_would_give_it(values: Any) -> None:
    array = Array(np.asarray(values))
    for _ in range(2):  # its head is known the second time
        found, theirs = array_of(array), array.numpy()
        assert (found.dtype, found.shape, found.strides) == (theirs.dtype, theirs.shape, theirs.strides)
        assert np.array_equal(found, theirs)
        assert found.flags.writeable
        if found.size and found.dtype.kind == "f":
            found[...] = 9
            assert not np.array_equal(array_of(array), found)


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", Array(np.arange(4)).data[:-1], Array(np.arange(4)).data + b"1"])
def test_what_is_no_whole_array_is_left_to_numpy(data: bytes) -> None:
    array = Array("int64", (4,), "numpy.ndarray", data)
    try:
        expected = array.numpy()
    except Exception as error:
        with pytest.raises(type(error)):
            array_of(array)
    else:
        assert np.array_equal(array_of(array), expected)


def test_an_array_of_objects_is_never_unpickled() -> None:
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        array_of(Array("object", (1,), "numpy.ndarray", pickled.getvalue()))


def test_a_head_is_read_once_whoever_else_reads_python_source_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """cpython#106905: on 3.11 before 3.11.8 a head that is read while another thread reads one may not be readable."""
    arrays_of(record_of({"w": np.zeros((3, 5, 7))}))

    def disturbed(*_: Any) -> Any:
        raise SystemError("AST constructor recursion depth mismatch (before=54, after=51)")

    monkeypatch.setattr("ast.literal_eval", disturbed)
    again = record_of({"w": np.ones((3, 5, 7))})
    with pytest.raises(SystemError):
        again["w"].numpy()
    assert np.array_equal(arrays_of(again)["w"], np.ones((3, 5, 7)))
