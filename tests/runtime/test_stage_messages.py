"""What comes in over a channel is an answer or a ProtocolError; what waits is bounded and keeps its order."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_cases import TRANSPORT, pipeline

from flower_edge.errors import ConfigError, FringeError, ProtocolError
from flower_edge.fringe.wire import unchecked_head
from flower_edge.runtime.fringe.deployment_torch import Deployment
from flower_edge.runtime.fringe.jobs import Batch, Job, Jobs
from flower_edge.runtime.fringe.messages import (
    Answer,
    Failed,
    Output,
    Received,
    pack_answer,
    unpack_answer,
    unpack_tree,
)
from flower_edge.runtime.fringe.settings import ServingLimits
from flower_edge.runtime.fringe.stage import StageServer
from flower_edge.runtime.fringe.versions import Held, Versions

NUMBERS = st.integers(0, 2**64 - 1)
VERSIONS = st.integers(0, 2**32 - 1)


@given(
    st.builds(Received, NUMBERS)
    | st.builds(Output, NUMBERS, VERSIONS, st.binary(max_size=20))
    | st.builds(Failed, NUMBERS, VERSIONS, st.text(max_size=9), st.text(max_size=9), st.text(max_size=99))
)
def test_answers_come_back_as_they_were(answer: Answer) -> None:
    assert unpack_answer(pack_answer(answer)) == answer


@settings(max_examples=200)
@given(st.binary(max_size=60), st.sampled_from([b"", b"\x01", b"\x02", b"\x03"]))
def test_whatever_bytes_come_they_are_an_answer_or_a_protocol_error(data: bytes, begin: bytes) -> None:
    try:
        answer = unpack_answer(begin + data)
    except ProtocolError:
        return
    if isinstance(answer, Output):
        with pytest.raises(ProtocolError, match="cannot be read"):
            answer.tensor()
    with pytest.raises(ProtocolError):
        unpack_tree(data)


def test_a_head_that_was_cut_is_no_head() -> None:
    with pytest.raises(ProtocolError, match="3 bytes, expected 24 or more"):
        unchecked_head(b"abc")


def held(number: int = 1) -> Held:
    made = pipeline()
    return Held(number, made.parts[0], made.wires[0], None, None, "")


def job(request: int, size: int = 1, of: Held | None = None, told: list[Answer] | None = None) -> Job:
    arrays = (np.full((size, 2), request, np.float32),)
    return Job(request, arrays, (told if told is not None else []).append, of)


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=20), st.integers(1, 8))
def test_jobs_leave_in_their_order_in_batches_no_larger_than_allowed(
    sizes: list[tuple[int, bool]], most_samples: int
) -> None:
    jobs, one = Jobs(len(sizes)), held()
    for number, (size, from_before) in enumerate(sizes):
        assert jobs.put(job(number, size, one if from_before else None), wait=False)
    assert not jobs.put(job(99), wait=False)
    left = []
    while len(jobs):
        taken = jobs.take(most_samples, 0.0)
        assert len(taken) == 1 or sum(each.samples for each in taken) <= most_samples
        assert len(taken) == 1 or all(each.held is None for each in taken)
        left += [each.request for each in taken]
    assert left == list(range(len(sizes)))


def test_who_waits_for_room_goes_on_when_there_is_some_or_when_it_closes() -> None:
    jobs, put = Jobs(1), []
    jobs.put(job(0), wait=False)
    waiting = threading.Thread(target=lambda: put.append(jobs.put(job(1), wait=True)))
    waiting.start()
    assert [one.request for one in jobs.take(1, 0.0)] == [0]
    waiting.join(60)
    again = threading.Thread(target=lambda: put.append(jobs.put(job(2), wait=True)))
    again.start()
    assert [one.request for one in jobs.close()] == [1]
    again.join(60)
    assert put == [True, False]
    assert jobs.take(1, 0.0) == []


def test_each_job_of_a_batch_gets_its_own_rows_or_the_same_error() -> None:
    told: list[Answer] = []
    ended: list[bool] = []
    batch = Batch(held(3), [job(7, 2, told=told), job(8, 1, told=told)], lambda _, served: ended.append(served))
    whole = batch.arrays()[0]
    with pytest.raises(ProtocolError, match="2 samples to 3"):
        batch.output(Output.of(0, 3, whole[:2]))
    assert (told, ended) == ([], [])
    batch.output(Output.of(0, 3, whole))
    assert [(one.request, one.tensor().tolist()) for one in told] == [  # type: ignore[union-attr]
        (7, [[7, 7], [7, 7]]),
        (8, [[8, 8]]),
    ]
    batch.failed("lost", "cloud", "it went away")
    assert told[2:] == [Failed(n, 3, "lost", "cloud", "it went away") for n in (7, 8)]
    assert ended == [True, False]


def test_a_version_drains_when_its_last_batch_has_ended_and_one_that_is_served_stays() -> None:
    versions = Versions(2)
    for number in (1, 2):
        versions.put(held(number))
    with pytest.raises(FringeError, match="2 versions are held"):
        versions.put(held(3))
    assert versions.flip(1) is None
    first, second = versions.begin(), versions.begin()
    assert versions.flip(2) == 1
    with pytest.raises(FringeError, match="version 2 is served"):
        versions.drop(2)
    assert first is not None
    assert second is not None
    versions.end(first)
    assert not versions.drained(1, 0.0)
    versions.end(second)
    assert versions.drained(1, 0.0)
    versions.drop(1)
    with pytest.raises(FringeError, match="version 1 is not here"):
        versions.flip(1)


@pytest.mark.parametrize(
    "change", [{"waiting": 0}, {"answer_s": -1.0}, {"batch_samples": 1.5}, {"retry_s": float("inf")}]
)
def test_limits_that_cannot_be_are_refused_by_name(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        ServingLimits(**change)  # type: ignore[arg-type]


def test_a_deployment_of_nothing_or_with_a_way_to_nobody_is_refused() -> None:
    with pytest.raises(FringeError, match="0 machines"):
        Deployment({}, TRANSPORT)
    with pytest.raises(FringeError, match=r"'cloud'.*expected one of camera"):
        Deployment({"camera": "127.0.0.1:1"}, TRANSPORT, via={"cloud": "127.0.0.1:2"})
    with pytest.raises(ConfigError, match="name it has in the pipeline"):
        StageServer("", TRANSPORT)
