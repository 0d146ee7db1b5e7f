"""Turns: batches in the order of step and device, whoever comes first."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.errors import ProtocolError
from flower_edge.runtime.splitting.turns import Turns


def test_turns_come_in_the_order_of_step_and_number_whoever_asks_first() -> None:
    turns, seen = Turns([0, 3, 5]), []

    def device(number: int) -> None:
        for step in range(4):
            with turns.of(number, step, 30.0):
                seen.append((step, number))

    threads = [threading.Thread(target=device, args=(number,)) for number in (5, 3, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert seen == [(step, number) for step in range(4) for number in (0, 3, 5)]


@given(gone=st.sets(st.integers(0, 4), max_size=4), step=st.integers(0, 3))
def test_who_has_left_is_not_waited_for(gone: set[int], step: int) -> None:
    turns, seen = Turns(range(5)), []
    for i in range(5):
        if i == step:
            for number in gone:
                turns.leave(number)
        for number in sorted(set(range(5)) - (gone if i >= step else set())):
            with turns.of(number, i, 0.0):
                seen.append((i, number))
    assert len(seen) == 5 * step + (5 - len(gone)) * (5 - step)


def test_a_turn_that_fails_leaves_and_lets_the_others_go_on() -> None:
    turns = Turns([0, 1])
    with pytest.raises(RuntimeError, match="broke"), turns.of(0, 0, 0.0):
        raise RuntimeError("broke")
    with turns.of(1, 0, 0.0):
        pass
    with turns.of(1, 1, 0.0):
        pass
    with pytest.raises(ProtocolError, match="expected none: it has left"), turns.of(0, 1, 0.0):
        pass


def test_waiting_has_an_end_that_names_who_is_in_front() -> None:
    turns = Turns([0, 1])
    with pytest.raises(ProtocolError, match="device 0 is in front of it"), turns.of(1, 0, 0.01):
        pass


def test_a_turn_cannot_be_had_twice() -> None:
    turns = Turns([0])
    with turns.of(0, 0, 0.0):
        pass
    with pytest.raises(ProtocolError, match="asks for its turn 0; expected 1"), turns.of(0, 0, 0.0):
        pass


def test_a_device_that_leaves_while_it_waits_is_told() -> None:
    turns, told = Turns([0, 1]), []

    def second() -> None:
        try:
            with turns.of(1, 0, 30.0):
                pass
        except ProtocolError as error:
            told.append(str(error))

    thread = threading.Thread(target=second)
    with turns.of(0, 0, 0.0):
        thread.start()
        turns.leave(1)
    thread.join(30.0)
    assert len(told) == 1
    assert "device 1" in told[0]
