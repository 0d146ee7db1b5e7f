"""`Handover` as records of a message: itself after travelling, and refused by the field that is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from flower_edge.errors import ConfigError, WireError
from flower_edge.store.tree import tree_to_bytes
from flower_edge.strategies.coverage import handover
from flower_edge.strategies.coverage.handover import HANDOVER_RECORD, PARCELS_RECORD, Handover
from flower_edge.wire import packet_record, round_trip

HANDOVER = Handover(
    "7",
    2**63 + 5,
    "edge-0",
    "edge-1",
    12.5,
    "edge-0/3",
    3,
    4,
    20,
    80.0,
    parcels=[("Selected", {"loss": np.arange(3.0)})],
)


def test_a_handover_is_itself_after_travelling() -> None:
    back = Handover.from_record(round_trip(HANDOVER.to_record()), sender="edge-0")
    assert back.parcels[0][1]["loss"].tolist() == [0.0, 1.0, 2.0]
    assert {**vars(back), "parcels": None} == {**vars(HANDOVER), "parcels": None}
    assert PARCELS_RECORD not in Handover("7", 1, "a", "b").to_record()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "flower-edge.handover/9"}, "handover/9"),
        ({"step": -1}, "step = -1"),
        ({"step": 1.5}, "expected a value of type int"),
        ({"credited": math.inf}, "credited = inf"),
        ({"terminal": "x" * 2000}, "2000 characters"),
        ({"node_id": "seven"}, "node_id = 'seven'"),
        ({"time_s": math.nan}, "time_s = nan"),
    ],
)
def test_a_handover_that_is_not_one_is_refused_by_its_field(change: dict[str, Any], words: str) -> None:
    content = HANDOVER.to_record()
    content[HANDOVER_RECORD] = ConfigRecord({**content[HANDOVER_RECORD], **change})
    with pytest.raises(WireError, match=words):
        Handover.from_record(content, sender="edge-0")


def test_parcels_that_are_damaged_or_something_else_are_refused() -> None:
    for payload in (b"nonsense", tree_to_bytes({"other": 1}), tree_to_bytes([1])):
        content = HANDOVER.to_record()
        content[PARCELS_RECORD] = packet_record(payload)
        with pytest.raises(WireError, match="parcels"):
            Handover.from_record(content, sender="edge-0")
    with pytest.raises(WireError, match="no ConfigRecord"):
        Handover.from_record(RecordDict(), sender="edge-0")


def test_parcels_beyond_the_limit_are_neither_sent_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    content = HANDOVER.to_record()
    monkeypatch.setattr(handover, "MOST_PARCEL_BYTES", 100)
    with pytest.raises(ConfigError, match="let the layer's hand_over give less"):
        HANDOVER.to_record()
    with pytest.raises(WireError, match="at most 100 are read"):
        Handover.from_record(content, sender="edge-0")
