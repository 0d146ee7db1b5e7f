"""An edge's part and its result: what comes back is what was given, or is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import EdgeError, ModelMismatch, ProtocolError
from flower_edge.runtime.splitting.edge_part import EdgePart, pack_result, unpack_result
from flower_edge.splitting.order import ArchitectureSpec, WorkOrder
from flower_edge.splitting.results import WorkResult
from flower_edge.store.tree import tree_to_bytes

ORDER = WorkOrder(
    round=3,
    number=1,
    architecture=ArchitectureSpec(name="none", input_shape=(2,), num_classes=2),
    cut=1,
    steps=4,
    batch_size=2,
)
ARRAYS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7, np.int64)}
STATE = {"w::momentum_buffer": np.ones((2, 3), np.float32), "w::step": np.array(2.0, np.float32)}
PART = EdgePart(ORDER, 3, ARRAYS, STATE)
RESULT = WorkResult(ARRAYS, STATE, 4, flops=5.0, compute_s=0.25)


def test_a_part_and_a_result_arrive_as_they_were_sent() -> None:
    found = EdgePart.unpack(PART.pack())
    assert (found.order, found.stop) == (ORDER, 3)
    assert found.onward.cut == 3
    for arrays, expected in ((found.arrays, ARRAYS), (found.optimiser, STATE)):
        assert list(arrays) == list(expected)
        for name in expected:
            assert arrays[name].dtype == expected[name].dtype
            np.testing.assert_array_equal(arrays[name], expected[name])
    result = unpack_result(pack_result(RESULT), PART)
    assert (result.steps, result.flops, result.compute_s) == (4, 5.0, 0.25)
    np.testing.assert_array_equal(result.arrays["w"], ARRAYS["w"])


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"steps": 3}, ProtocolError),
        ({"flops": float("nan")}, ProtocolError),
        ({"compute_s": -1.0}, ProtocolError),
        ({"arrays": {"w": ARRAYS["w"]}}, ModelMismatch),
        ({"arrays": {**ARRAYS, "more": np.zeros(1)}}, ModelMismatch),
        ({"arrays": {**ARRAYS, "w": np.zeros((3, 2), np.float32)}}, ModelMismatch),
        ({"arrays": {**ARRAYS, "w": np.zeros((2, 3), np.float64)}}, ModelMismatch),
        ({"optimiser": {"other::step": np.array(1.0)}}, ModelMismatch),
        ({"optimiser": {"w::momentum_buffer": np.zeros(5)}}, ModelMismatch),
    ],
)
def test_a_result_of_something_else_is_refused(changed: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        unpack_result(pack_result(replace(RESULT, **changed)), PART)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "tree",
    [
        {},
        [1],
        {"form": "flower-edge.split-edge/1"},
        {"form": "flower-edge.split-edge/1", "order": "{}", "stop": 2, "arrays": {}, "optimiser": {}},
        {
            "form": "flower-edge.split-edge/1",
            "order": ORDER.model_dump_json(),
            "stop": 1,
            "arrays": {},
            "optimiser": {},
        },
        {
            "form": "flower-edge.split-edge/1",
            "order": ORDER.model_dump_json(),
            "stop": 2,
            "arrays": [],
            "optimiser": {},
        },
    ],
)
def test_a_part_that_is_none_is_refused(tree: object) -> None:
    with pytest.raises(ProtocolError):
        EdgePart.unpack(tree_to_bytes(tree))


@settings(max_examples=60)
@given(at=st.integers(0, 2000), byte=st.integers(0, 255), cut=st.integers(0, 2000))
def test_damaged_bytes_raise_nothing_but_our_own_errors(at: int, byte: int, cut: int) -> None:
    for good, read in ((PART.pack(), EdgePart.unpack), (pack_result(RESULT), lambda data: unpack_result(data, PART))):
        damaged = bytearray(good)
        damaged[at % len(good)] = byte
        for data in (bytes(damaged), good[: cut % len(good)]):
            try:
                read(data)
            except EdgeError:
                pass
            else:
                assert data == good
