"""A session on machines that are only modelled: what is submitted, told, paused, rolled back, kept and gone on with."""

from __future__ import annotations

import csv
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compression_cases import LINKS, MACHINES, modelled, settings, task
from stage_cases import wait_until

from flower_edge.errors import FringeError, StateError
from flower_edge.fringe import Link
from flower_edge.runtime.compression.fleets import Modelled
from flower_edge.runtime.compression.kept import FILE
from flower_edge.runtime.compression.session_torch import CompressionSession
from flower_edge.store import save_tree


@pytest.fixture
def opened() -> Iterator[Callable[..., CompressionSession]]:
    """Makes sessions, and closes them."""
    made: list[CompressionSession] = []

    def session(fleet: Modelled | None = None, **options: Any) -> CompressionSession:
        made.append(CompressionSession(task(), fleet or modelled(), **{"look_s": 0.05, "follow_s": 0.05, **options}))
        return made[-1]

    yield session
    for one in made:
        one.close()


Opened = Callable[..., CompressionSession]


@pytest.fixture(scope="module")
def ended() -> Iterator[CompressionSession]:
    """One whose goals are met; for tests that change nothing."""
    with CompressionSession(task(), modelled()) as session:
        session.submit(settings())
        assert session.wait(120) == "goals met"
        yield session


def test_before_anything_is_submitted_it_is_idle_and_tells_what_there_is(opened: Opened) -> None:
    session = opened()
    told = session.told()
    assert (told["phase"], told["known"], told["total"]) == ("idle", list(MACHINES), None)
    assert told["task"]["units"] == ["0", "1", "2", "3"]
    for press in (session.pause, session.resume, session.stop, lambda: session.roll_back(0), session.report):
        with pytest.raises(FringeError, match="submit first"):
            press()
    with pytest.raises(FringeError, match="nothing serves"):
        session.ask(np.zeros((1, 16), np.float32))


def test_goals_are_met_and_all_that_is_told_is_plain_json(ended: CompressionSession) -> None:
    told = json.loads(json.dumps(ended.told(), allow_nan=False))
    total = told["total"]
    assert total["goals_met"]
    assert total["score"] >= total["floor"]
    assert total["now_bytes"] * 6 <= total["before_bytes"]
    assert total["now_bytes"] == sum(one["now_bytes"] for one in told["connections"])
    assert told["frozen"]["equal"]
    assert told["frozen"]["checked"] == len(told["iterations"])
    assert [one["current"] for one in told["versions"]] == [False] * (len(told["versions"]) - 1) + [True]
    assert told["requests"] is None


def test_points_follow_the_version_that_is_current(ended: CompressionSession) -> None:
    told = ended.told()
    sizes = {one["number"]: one["size_bytes"] for one in told["versions"]}
    for before, after in zip([{"version": 0}, *told["iterations"]], told["iterations"], strict=False):
        assert (after["version"] != before["version"]) == after["accepted"]
    for at in range(len(told["iterations"])):
        points = [one["points"][at + 1] for one in told["connections"]]
        assert sum(point["size_bytes"] for point in points) == sizes[told["iterations"][at]["version"]]
        assert [point["here"] for point in points].count(True) == 1


def test_each_iteration_is_an_event(ended: CompressionSession) -> None:
    texts = [one["text"] for one in ended.told()["events"]]
    assert texts[0] == "submitted: bandwidth 6x, drop 0.05"
    for one in ended.told()["iterations"]:
        assert sum(text.startswith(f"{one['number']}: {one['method']} to {one['amount']}") for text in texts) == 1
    assert texts[-1].startswith("goals met, after")


def test_the_report_has_both_equations_and_the_test_set(ended: CompressionSession) -> None:
    report = ended.report()
    saved = [one["bytes_saved"] for one in report["connections"]]
    assert report["all"]["bytes_saved"] == sum(saved) > 0
    assert report["all"]["seconds_saved"] == pytest.approx(sum(one["seconds_saved"] for one in report["connections"]))
    assert report["saved_bps"] == pytest.approx(8 * sum(saved) * report["rate_per_s"])
    assert report["test_before"] > 0.9
    assert report["test_lost"] == pytest.approx(report["test_before"] - report["test_score"])
    assert report["all"]["measured_before_bytes"] is None  # nothing served
    assert report["frozen"]["equal"]


def test_files_hold_the_iterations_and_the_report(ended: CompressionSession, tmp_path: Path) -> None:
    lines = ended.save_csv(tmp_path / "out" / "iterations.csv").read_text().splitlines()
    assert [int(row["number"]) for row in csv.DictReader(lines)] == [
        one["number"] for one in ended.told()["iterations"]
    ]
    whole = json.loads(ended.save_json(tmp_path / "out" / "all.json").read_text())
    assert whole["report"]["version"] == whole["told"]["versions"][-1]["number"]
    (tmp_path / "a file").write_text("")
    with pytest.raises(StateError, match="cannot be written"):
        ended.save_csv(tmp_path / "a file" / "iterations.csv")


def test_a_proposal_names_what_would_be_chosen_and_the_most_that_could_go(opened: Opened) -> None:
    session = opened()
    told = session.propose(settings(machines=(), cuts=None, depth=None, methods=(), reduction="10%"))
    assert told["machines"][0] == "camera"
    assert told["machines"][-1] == "server"
    assert len(told["cuts"]) == len(told["connections"]) == len(told["machines"]) - 1
    assert told["why"]
    assert 0 < told["attainable_time_share"] < 1
    assert told["attainable_s"] == pytest.approx(0.015)
    assert session.phase == "idle"


def test_a_proposal_that_would_go_on_tells_of_the_pipeline_that_there_is_and_each_end_is_said(opened: Opened) -> None:
    session = opened()
    session.submit(settings(bandwidth="3x"))
    assert session.wait(120) == "goals met"
    total = session.told()["total"]
    assert total is not None
    # Asked for half, other machines and cuts would be chosen: what is reachable is that of those which there are.
    told = session.propose(settings(bandwidth="2x"))
    assert (told["before_bytes"], told["cuts"]) == (total["before_bytes"], ["1", "3"])
    assert told["from_version"] == session.told()["versions"][-1]["number"]
    assert session.propose(settings(metric="loss"))["from_version"] is None
    session.submit(settings(bandwidth="2x"))
    assert session.wait(120) == "goals met"
    said = [one["text"].partition(",")[0] for one in session.told()["events"]]
    assert said.count("goals met") == 2, said


def test_a_goal_that_delays_make_impossible_is_refused_and_the_most_is_named(opened: Opened) -> None:
    session = opened()
    wanted = settings(latency="14 ms")
    with pytest.raises(FringeError, match=r"15\.00 ms"):
        session.propose(wanted)
    assert "15.00 ms" in session.propose(wanted, refuse=False)["refused"]
    chosen = session.propose(settings(latency="14 ms", machines=(), cuts=None, methods=()), refuse=False)
    assert chosen["refused"]
    assert chosen["machines"]
    with pytest.raises(FringeError, match=r"15\.00 ms"):
        session.submit(wanted)
    assert session.phase == "idle"
    assert "15.00 ms" in str(session.told()["error"])


def test_a_floor_that_does_not_hold_uncompressed_is_refused(opened: Opened) -> None:
    with pytest.raises(FringeError, match=r"expected a floor that it keeps"):
        opened().submit(settings(drop=None, floor=1.01))


def test_other_goals_are_aimed_at_from_where_it_is(opened: Opened) -> None:
    session = opened()
    session.submit(settings(bandwidth="3x"))
    assert session.wait(120) == "goals met"
    before = session.told()
    session.submit(settings(bandwidth="6x", machines=MACHINES))
    assert session.wait(120) == "goals met"
    after = session.told()
    assert after["iterations"][: len(before["iterations"])] == before["iterations"]
    assert len(after["iterations"]) > len(before["iterations"])


def test_other_machines_begin_anew(opened: Opened) -> None:
    session = opened()
    session.submit(settings(bandwidth="3x"))
    assert session.wait(120) == "goals met"
    session.submit(settings(machines=("camera", "server"), cuts=("1",), bandwidth="3x"))
    assert session.wait(120) == "goals met"
    told = session.told()
    assert [one["name"] for one in told["connections"]] == ["camera -> server"]
    assert told["iterations"][0]["number"] == 1
    assert told["versions"][0]["size_bytes"] == told["connections"][0]["before_bytes"]


def test_any_version_is_rolled_back_to_byte_for_byte_and_iterating_pauses(opened: Opened) -> None:
    session = opened()
    session.submit(settings())
    assert session.wait(120) == "goals met"
    first, last = (session.told()["versions"][at] for at in (1, -1))
    session.roll_back(first["number"])
    told = session.told()
    assert [one["number"] for one in told["versions"] if one["current"]] == [first["number"]]
    assert told["phase"] == "paused"
    assert not told["automatic"]
    session.roll_back(last["number"])
    assert session.told()["versions"][-1] == last
    with pytest.raises(FringeError, match="version 99: expected one of 0, 1"):
        session.roll_back(99)
    session.roll_back(0)
    session.resume()
    assert session.wait(120) == "goals met"


def test_it_pauses_goes_on_and_stops(opened: Opened) -> None:
    session = opened()
    session.submit(settings(bandwidth="14x", drop=0.3))
    wait_until(lambda: bool(session.told()["iterations"]))
    session.pause()
    wait_until(lambda: session.phase == "paused")
    done = len(session.told()["iterations"])
    session.resume()
    wait_until(lambda: len(session.told()["iterations"]) > done)
    session.stop()
    assert session.wait(120) == "stopped"
    assert session.told()["total"]["test_score"] is not None


def test_it_may_be_stopped_before_it_is_prepared(opened: Opened) -> None:
    pressed = threading.Event()

    class Waiting(Modelled):
        def deployed(self, *arguments: Any) -> None:
            assert pressed.wait(60)
            super().deployed(*arguments)

    session = opened(Waiting(MACHINES, LINKS))
    session.submit(settings())
    session.stop()
    pressed.set()
    assert session.wait(120) == "stopped"


def test_what_fails_in_the_thread_is_said_and_another_submission_begins_anew(opened: Opened) -> None:
    session = opened()
    session.submit(settings(depth=0))
    assert session.wait(120) == "failed"
    assert "no layer touches a cut" in str(session.told()["error"])
    with pytest.raises(FringeError, match="submit anew"):
        session.pause()
    session.submit(settings(bandwidth="3x"))
    assert session.wait(120) == "goals met"
    assert session.told()["error"] is None


def test_a_link_that_is_set_worse_by_hand_makes_it_compress_on(opened: Opened) -> None:
    session = opened()
    session.submit(settings(bandwidth=None, latency="36 ms", metric="loss", drop=0.5))
    assert session.wait(120) == "goals met"
    before = session.told()["versions"][-1]["number"]
    session.override_link("camera -> gateway", Link(3e4, 0.010))
    wait_until(lambda: session.told()["versions"][-1]["number"] > before and session.phase == "goals met")
    told = session.told()
    assert told["connections"][0]["overridden"]
    wait_until(lambda: any("gateway has degraded" in one["text"] for one in session.told()["events"]))
    session.override_link(0, Link(1e6, 0.001))
    wait_until(lambda: any("has recovered" in one["text"] for one in session.told()["events"]), 20)
    session.override_link(0, None)
    assert session.told()["connections"][0]["goodput_bps"] == LINKS[0].goodput_bps
    with pytest.raises(FringeError, match="expected 0 to 1"):
        session.override_link(2, None)


def test_nothing_is_followed_while_automatic_is_off(opened: Opened) -> None:
    session = opened()
    session.submit(settings(bandwidth=None, latency="36 ms", drop=0.2, follow=False))
    assert session.wait(120) == "goals met"
    before = len(session.told()["iterations"])
    session.override_link(0, Link(3e4, 0.010))
    wait_until(lambda: any("has degraded" in one["text"] for one in session.told()["events"]))
    assert (len(session.told()["iterations"]), session.phase) == (before, "goals met")
    assert not session.told()["total"]["goals_met"]
    session.automatic(True)
    wait_until(lambda: len(session.told()["iterations"]) > before)


def test_a_policy_learns_from_what_earlier_runs_recorded(opened: Opened) -> None:
    session = opened()
    session.submit(settings(policy="learned"))
    assert session.wait(120) == "goals met"
    session.submit(settings(policy="learned", cuts=("1", "2")))
    assert session.wait(120) in ("goals met", "floor reached")
    assert session.told()["iterations"]


def rows(session: CompressionSession) -> list[dict[str, Any]]:
    """Iterations but for the seconds they took."""
    return [{name: value for name, value in one.items() if name != "seconds_s"} for one in session.told()["iterations"]]


def test_after_a_restart_it_goes_on_with_the_same_iterations(opened: Opened, tmp_path: Path) -> None:
    whole = opened()
    whole.submit(settings())
    whole.wait(60)
    first = opened(folder=tmp_path)
    assert not first.continued()
    first.submit(settings())
    wait_until(lambda: len(first.told()["iterations"]) >= 2)
    first.close()
    done = first.told()
    second = opened(folder=tmp_path)
    assert second.continued()
    with pytest.raises(StateError, match="resume_kept"):
        second.submit(settings())
    second.resume_kept()
    assert second.wait(60) == "goals met"
    assert rows(second) == rows(whole)
    assert rows(second)[: len(rows(first))] == rows(first)
    assert [one["digest"] for one in second.told()["versions"]] == [one["digest"] for one in whole.told()["versions"]]
    assert second.told()["events"][: len(done["events"])] == done["events"]


def test_a_damaged_or_foreign_file_is_refused_and_left_as_it_is(opened: Opened, tmp_path: Path) -> None:
    kept = opened(folder=tmp_path / "own")
    kept.submit(settings(bandwidth="3x"))
    kept.wait(60)
    kept.close()
    good = (tmp_path / "own" / FILE).read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for name, data in (("cut", good[:-9]), ("flipped", bytes(flipped))):
        (tmp_path / name).mkdir()
        (tmp_path / name / FILE).write_bytes(data)
    (tmp_path / "foreign").mkdir()
    save_tree(tmp_path / "foreign" / FILE, {"form": "somebody's"})
    for name in ("cut", "flipped", "foreign"):
        before = (tmp_path / name / FILE).read_bytes()
        session = opened(folder=tmp_path / name)
        with pytest.raises(StateError, match=FILE):
            session.resume_kept()
        with pytest.raises(StateError, match="holds a compression"):
            session.submit(settings())
        assert (tmp_path / name / FILE).read_bytes() == before


def test_a_kept_session_of_another_model_is_refused(opened: Opened, tmp_path: Path) -> None:
    kept = opened(folder=tmp_path)
    kept.submit(settings(bandwidth="3x"))
    kept.wait(60)
    kept.close()
    other = task()
    model = torch.nn.Sequential(torch.nn.Linear(16, 9), torch.nn.ReLU(), torch.nn.Linear(9, 4))
    made = type(other)("bumps", model, other.learn, other.validation, other.test)
    with CompressionSession(made, modelled(), folder=tmp_path) as session, pytest.raises(FringeError, match="own task"):
        session.resume_kept()


def test_a_closed_session_takes_no_submission(opened: Opened) -> None:
    session = opened()
    session.close()
    with pytest.raises(FringeError, match="is closed"):
        session.submit(settings())
    for press in (session.pause, session.stop, session.resume, lambda: session.roll_back(0)):
        with pytest.raises(FringeError, match="is closed"):
            press()


def test_who_waits_for_a_session_that_is_closed_does_not_wait_for_ever(opened: Opened) -> None:
    session = opened()
    session.submit(settings(bandwidth="14x", drop=0.3))
    ends: list[str] = []
    waiting = threading.Thread(target=lambda: ends.append(session.wait()))
    waiting.start()
    closing = [threading.Thread(target=session.close) for _ in range(2)]
    for one in closing:
        one.start()
    for one in (*closing, waiting):
        one.join(120)
    assert len(ends) == 1


def test_what_is_told_while_it_iterates_is_of_one_moment(opened: Opened) -> None:
    session = opened()
    session.submit(settings(bandwidth="6x"))
    looked = 0
    going_on = True
    while going_on:
        # Read before, so that it is also looked at once afterwards: a busy machine may iterate between two looks.
        going_on = session.phase in ("preparing", "running")
        time.sleep(0.002)
        told = session.told()
        if told["total"] is None:
            continue
        looked += 1
        assert told["total"]["now_bytes"] == sum(one["now_bytes"] for one in told["connections"])
        assert [one["size_bytes"] for one in told["versions"] if one["current"]] == [told["total"]["now_bytes"]]
        assert {len(one["points"]) for one in told["connections"]} == {len(told["iterations"]) + 1}
        assert {one["version"] for one in told["iterations"]} <= {one["number"] for one in told["versions"]}
    assert looked


def test_a_version_is_there_before_the_iteration_that_made_it(opened: Opened) -> None:
    session = opened()
    session.submit(settings(bandwidth="3x"))
    assert session.wait(120) == "goals met"
    controller = session._loop.run.controller  # type: ignore[union-attr]
    made = controller.iterations.pop()  # type: ignore[union-attr]  # as between the two
    told = session.told()
    assert told["versions"][-1]["current"]
    assert len(told["connections"][0]["points"]) == made.number


def test_a_version_that_there_is_not_pauses_nothing(opened: Opened) -> None:
    session = opened()
    session.submit(settings(bandwidth="14x", drop=0.3))
    wait_until(lambda: bool(session.told()["iterations"]))
    with pytest.raises(FringeError, match="version 99: expected one of 0"):
        session.roll_back(99)
    assert session.phase != "paused"


def test_a_restart_with_other_goals_goes_on_from_what_was_kept(opened: Opened, tmp_path: Path) -> None:
    first = opened(folder=tmp_path)
    first.submit(settings(bandwidth="3x"))
    assert first.wait(120) == "goals met"
    first.close()
    second = opened(folder=tmp_path)
    second.resume_kept()
    second.submit(settings(bandwidth="6x"))  # at once, while what was kept is taken up
    assert second.wait(120) == "goals met"
    assert rows(second)[: len(rows(first))] == rows(first)
    assert len(rows(second)) > len(rows(first))
    with pytest.raises(StateError, match="goes on already"):
        second.resume_kept()


def test_what_was_kept_and_cannot_be_gone_on_with_stays_as_it_is(opened: Opened, tmp_path: Path) -> None:
    first = opened(folder=tmp_path)
    first.submit(settings(bandwidth="3x"))
    assert first.wait(120) == "goals met"
    first.close()
    before = (tmp_path / FILE).read_bytes()
    whole = task()
    other = type(whole)("bumps", whole.model, whole.learn[:50], whole.validation, whole.test)  # learns from others
    with CompressionSession(other, modelled(), folder=tmp_path) as second:
        second.resume_kept()
        assert second.wait(120) == "failed"
        with pytest.raises(StateError, match=r"could not be gone on with.*other_samples"):
            second.submit(settings(bandwidth="3x"))
    assert (tmp_path / FILE).read_bytes() == before


def test_what_was_pressed_is_kept(opened: Opened, tmp_path: Path) -> None:
    first = opened(folder=tmp_path)
    first.submit(settings(bandwidth="14x", drop=0.3))
    wait_until(lambda: bool(first.told()["iterations"]))
    first.pause()
    first.automatic(False)
    first.close()
    second = opened(folder=tmp_path)
    second.resume_kept()
    wait_until(lambda: second.phase == "paused")
    assert not second.is_automatic
    told = [one["text"] for one in second.told()["events"]]
    # What was being tried when it was pressed may still be told in between.
    assert told.index("automatic off") < told.index("goes on after a restart")


def test_a_folder_that_cannot_be_written_is_said_and_compressing_goes_on(opened: Opened, tmp_path: Path) -> None:
    session = opened(folder=tmp_path / "kept")
    (tmp_path / "kept").write_text("a file where the folder should be")
    session.submit(settings(bandwidth="3x"))
    assert session.wait(120) == "goals met"
    assert "cannot be written" in str(session.told()["error"])
    assert sum(one["text"].startswith("not kept: ") for one in session.told()["events"]) == 1
    (tmp_path / "kept").unlink()
    session.automatic(False)
    wait_until(lambda: session.told()["error"] is None)
    assert (tmp_path / "kept" / FILE).exists()


def test_other_goals_are_gone_for_in_their_own_order(opened: Opened) -> None:
    session = opened()
    session.submit(settings(bandwidth="3x"))
    assert session.wait(120) == "goals met"
    session.submit(settings(bandwidth=None, latency="40 ms"))
    assert session.wait(120) == "goals met"
    assert type(session._loop.run.controller.policy).__name__ == "SlowestFirst"  # type: ignore[union-attr]
