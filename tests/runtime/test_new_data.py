"""What an edge's policy writes for a terminal that is to train on new data is what the terminal's function reads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.new_data import NEW_DATA, wants_new_data


def message(config: dict[str, str | int]) -> Message:
    return Message(RecordDict({"other": ConfigRecord(), "config": ConfigRecord(config)}), 1, "train")


@pytest.fixture(autouse=True)
def grid() -> Iterator[LocalGrid]:
    """Flower makes messages only where there is a run."""
    with LocalGrid(ClientApp(), 1) as local:
        yield local


def test_it_is_read_as_it_is_written_and_nothing_else_is() -> None:
    assert wants_new_data(message({"local-steps": 4, **NEW_DATA}))
    for config in ({}, {"training-data": "all"}, {"training-data": 1}, {"data": "new"}):
        assert not wants_new_data(message(config))
    assert not wants_new_data(Message(Error(0), reply_to=message({**NEW_DATA})))
