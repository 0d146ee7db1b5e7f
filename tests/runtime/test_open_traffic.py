"""Requests at random times: as many as asked for whatever becomes of them, each told once, none forgotten."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from flower_edge.errors import FringeError, NotServed
from flower_edge.runtime.fringe.channels import Served
from flower_edge.runtime.fringe.open_traffic import Answer, OpenTraffic

SAMPLES = np.arange(6.0, dtype=np.float32).reshape(3, 2)


def at_once(x: Any) -> Future[Served]:
    future: Future[Served] = Future()
    future.set_result(Served(2 * x, 7, 0.001))
    return future


def test_each_request_is_told_once_with_its_answer_and_arrivals_are_those_of_the_seed() -> None:
    told: list[Answer] = []
    traffic = OpenTraffic(at_once, SAMPLES, 400.0, seed=3, told=told.append)
    with traffic:
        time.sleep(0.25)
    assert traffic.stop()
    assert [one.number for one in told] == list(range(1, traffic.sent + 1))
    assert (traffic.answered, traffic.lost) == (traffic.sent, 0)
    assert all(np.array_equal(one.served.output[0], 2 * SAMPLES[one.sample]) for one in told if one.served)
    drawn = np.random.default_rng(3)
    samples = [(drawn.exponential(1 / 400.0), int(drawn.integers(3)))[1] for _ in told]
    assert [one.sample for one in told] == samples


def test_it_does_not_wait_for_answers_and_stops_when_all_have_come() -> None:
    waiting: list[Future[Served]] = []
    several = threading.Event()

    def never(x: Any) -> Future[Served]:
        waiting.append(Future())
        if len(waiting) >= 5:
            several.set()
        return waiting[-1]

    traffic = OpenTraffic(never, SAMPLES, 500.0)
    traffic.start()
    with pytest.raises(FringeError, match="runs already"):
        traffic.start()
    assert several.wait(30.0)
    assert not traffic.stop(0.05)
    for future in waiting[1:]:
        future.set_result(Served(SAMPLES, 1, 0.1))
    waiting[0].cancel()
    waiting[0].set_running_or_notify_cancel()
    assert traffic.stop(30.0)
    assert (traffic.answered, traffic.lost) == (len(waiting) - 1, 1)


def test_what_fails_is_told_with_its_code_and_the_rest_goes_on() -> None:
    told: list[Answer] = []

    def refuses(x: Any) -> Future[Served]:
        if len(told) == 0:
            raise FringeError("nothing serves yet")
        future: Future[Served] = Future()
        future.set_exception(NotServed("as many wait as may", "busy"))
        return future

    with OpenTraffic(refuses, SAMPLES, 500.0, told=told.append) as traffic:
        while traffic.sent < 3:
            time.sleep(0.01)
    assert [one.code for one in told[:2]] == ["FringeError", "busy"]
    assert traffic.lost == traffic.sent


@pytest.mark.parametrize(("samples", "rate"), [(SAMPLES[:0], 1.0), (SAMPLES, 0.0), (SAMPLES, float("inf"))])
def test_no_samples_or_no_rate_is_refused(samples: Any, rate: float) -> None:
    with pytest.raises(FringeError, match="requests per second above 0"):
        OpenTraffic(at_once, samples, rate)
