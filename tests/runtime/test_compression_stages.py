"""A session on stages that are processes of this machine, over shaped links, while requests flow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from compression_cases import MACHINES, settings, task
from stage_cases import wait_until

from flower_edge.fringe import Link
from flower_edge.runtime.compression.local_stages import LocalStages
from flower_edge.runtime.compression.session_torch import CompressionSession
from flower_edge.runtime.fringe.channels import Served

pytestmark = pytest.mark.slow

LINKS = (Link(1e5, 0.005), Link(2e5, 0.002))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStages]:
    folder = tmp_path_factory.mktemp("stages")
    with LocalStages(MACHINES, LINKS, folder=folder, options=("--batch", "1", "--keep-inputs", "128")) as running:
        yield running


@contextmanager
def traffic(session: CompressionSession) -> Iterator[list[tuple[int, Served]]]:
    """Two clients ask one request after the other; each answer has to come."""
    x, found, stop, errors = task().test[0].numpy(), list[tuple[int, Served]](), threading.Event(), list[Exception]()

    def ask(first: int) -> None:
        at = first
        while not stop.is_set():
            try:
                found.append((at, session.ask(x[at : at + 1]).result(60)))
            except Exception as error:
                errors.append(error)
            at = (at + 2) % len(x)

    clients = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for client in clients:
        client.start()
    try:
        yield found
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert not errors


def answered_by_one_version(session: CompressionSession, found: list[tuple[int, Served]]) -> set[int]:
    """Versions that answered; each answer is that of its version, run here."""
    run, serving, x = session._loop.run, session._loop.serving, task().test[0]
    assert run is not None
    assert run.controller is not None
    assert serving is not None
    versions = {}
    for at, one in found:
        number = serving.number_of(one.version)
        if number is None:  # of the run before
            continue
        if number not in versions:
            versions[number] = run.controller._kept.restored(number)
        expected = versions[number].run(x[at : at + 1]).numpy()
        assert np.allclose(one.output, expected, atol=1e-5), f"version {number}"
    return set(versions)


def test_it_compresses_under_traffic_is_restarted_and_follows_its_links(stages: LocalStages, tmp_path: Path) -> None:
    # A share of what it takes now: how many milliseconds that is depends on what else the machine does.
    wanted = settings(bandwidth=None, reduction="30 %", metric="loss", drop=0.5, live=True)
    first = CompressionSession(task(), stages, folder=tmp_path, follow_s=0.5, look_s=0.2)
    first.submit(settings(bandwidth="3x", metric="loss", drop=0.5))
    wait_until(lambda: first.phase not in ("idle", "preparing"))
    with traffic(first) as found:
        assert first.wait(60) == "goals met"
        wait_until(lambda: first.told()["requests"]["by_version"].get(str(len(first.told()["versions"]) - 1), 0) > 20)
    assert len(answered_by_one_version(first, found)) >= 2
    told = first.told()
    requests = told["requests"]
    assert requests is not None
    assert (requests["lost"], requests["refused"], requests["under_way"]) == (0, 0, 0)
    assert requests["swaps"] == len(told["versions"]) - 1
    assert requests["served"] == len(found)
    for one in told["connections"]:
        assert one["sent_bytes"] == pytest.approx(one["now_bytes"])
        assert one["measured"]
        assert one["measured_s"] is not None
    assert all(one["reachable"] and one["compute_s"] for one in told["machines"])
    assert {one["version"] for one in told["machines"]} == {told["versions"][-1]["number"]}
    first.close()

    with CompressionSession(task(), stages, folder=tmp_path, follow_s=0.5, look_s=0.2) as second:
        second.resume_kept()
        assert second.wait(60) == "goals met"
        again = second.told()
        assert again["iterations"] == told["iterations"]
        assert again["requests"] is not None
        assert again["requests"]["swaps"] == requests["swaps"]  # what served went on: nothing was loaded
        with traffic(second) as more:
            second.submit(wanted)
            wait_until(lambda: second.phase in ("goals met", "floor reached"))
            # So slow that it tells even where frames have become as short as they can.
            stages.relink("camera -> gateway", Link(3e3, 0.005))
            wait_until(lambda: any("has degraded" in one["text"] for one in second.told()["events"]))
            stages.relink(0, LINKS[0])
            wait_until(lambda: any("has recovered" in one["text"] for one in second.told()["events"]))
        answered_by_one_version(second, more)
        after = second.told()["requests"]
        assert after is not None
        assert after["lost"] == 0
        assert any("inputs that the entry saw" in one["text"] for one in second.told()["events"])


def test_other_machines_take_over_without_losing_a_request(stages: LocalStages) -> None:
    with CompressionSession(task(), stages, look_s=0.2) as session:
        session.submit(settings(bandwidth="3x"))
        assert session.wait(60) == "goals met"
        with traffic(session) as found:
            wait_until(lambda: len(found) > 10)
            session.submit(settings(machines=("camera", "server"), cuts=("1",), bandwidth="3x"))
            wait_until(lambda: session.phase == "goals met")
            done = len(found)
            wait_until(lambda: len(found) > done + 10)
        answered_by_one_version(session, found)
        told = session.told()
        assert told["requests"] is not None
        assert told["requests"]["lost"] == 0
        assert told["requests"]["served"] == len(found)
        assert [one["name"] for one in told["machines"]] == ["camera", "server"]


def test_a_machine_that_dies_is_named_and_the_session_lives_on(tmp_path: Path) -> None:
    with (
        LocalStages(("camera", "server"), folder=tmp_path) as own,
        CompressionSession(task(), own, look_s=0.2) as session,
    ):
        session.submit(settings(machines=("camera", "server"), cuts=("1",), bandwidth="2x"))
        assert session.wait(60) == "goals met"
        own._processes["server"].kill()
        wait_until(lambda: any("'server' cannot be reached" in one["text"] for one in session.told()["events"]))
        with pytest.raises(Exception, match="server"):
            session.ask(np.zeros((1, 16), np.float32)).result(60)
        told = session.told()
        assert told["requests"] is not None
        assert told["requests"]["lost"] == 1
        assert [one["reachable"] for one in told["machines"]] == [True, False]
        with pytest.raises(Exception, match="server"):
            session.roll_back(0)
