"""The page without a browser: NiceGUI's own user fills in the form and presses the buttons of a real session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from page_cases import CUTS, MACHINES, settings, small_session

pytest.importorskip("nicegui", reason="flower-edge[ui] is not installed")

from nicegui import ElementFilter, ui
from nicegui.storage import Storage
from nicegui.testing import User
from nicegui.testing.user_simulation import user_simulation

from flower_edge.fringe import Link
from flower_edge.runtime.compression.session_torch import CompressionSession
from flower_edge.ui import words
from flower_edge.ui.compression.page import draw
from flower_edge.ui.compression.watch import Watch


@pytest.fixture
def session() -> Iterator[CompressionSession]:
    with small_session() as made:
        yield made


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NiceGUI would keep what it knows of its users in the current folder."""
    monkeypatch.setattr(Storage, "path", tmp_path)


@asynccontextmanager
async def opened(session: CompressionSession) -> AsyncIterator[User]:
    watch = Watch(session)

    async def root() -> None:
        await draw(session, watch)

    async with user_simulation(root=root) as user:
        await user.open("/")
        yield user
    watch.close()


def by_hand(session: CompressionSession, steps: Callable[[User], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(session) as user:
            await steps(user)

    asyncio.run(run())


async def until(true: Callable[[], bool], user: User) -> None:
    """The page looks at the session every second; of a machine that is busy no haste is asked."""
    latest_s = time.monotonic() + 120.0
    while time.monotonic() < latest_s:
        with user:
            if true():
                return
        await asyncio.sleep(0.1)
    raise AssertionError("it never came")


def shown(user: User) -> str:
    """All HTML of the page."""
    with user:
        return " ".join(str(one.content) for one in ElementFilter(kind=ui.html)).replace("\u00a0", " ")


def button(user: User, text: str) -> Any:
    with user:
        return next(one for one in ElementFilter(kind=ui.button) if one.text == text)


def labelled(user: User, label: str) -> Any:
    with user:
        return next(one for one in ElementFilter() if one.props.get("label") == label)


def switch(user: User, text: str) -> Any:
    with user:
        return next(one for one in ElementFilter(kind=ui.switch) if one.text.startswith(text))


def submit(user: User) -> None:
    """As a browser does it with a button of the kind "submit"."""
    with user:
        form = next(one for one in ElementFilter() if one.tag == "form")
        for listener in form._event_listeners.values():
            form._handle_event({"listener_id": listener.id, "args": {}})


def test_before_the_first_submission_nothing_can_be_paused_resumed_or_stopped(session: CompressionSession) -> None:
    async def steps(user: User) -> None:
        assert "Nothing was submitted yet." in shown(user)
        assert "own teacher" in shown(user)
        assert [button(user, text).enabled for text in ("Pause", "Resume", "Stop")] == [False, False, False]
        assert button(user, "Submit").enabled

    by_hand(session, steps)


def test_what_is_reachable_follows_the_form(session: CompressionSession) -> None:
    async def steps(user: User) -> None:
        with user:
            switch(user, "automatic: where").set_value(False)
        for place, cut in enumerate(CUTS):
            with user:
                labelled(user, f"{MACHINES[place]} ends after").set_value(cut)
            labelled(user, "bandwidth, less by").set_value(3)
        await until(lambda: "at most reachable: −85.7 % of 336 B, 7 times less" in shown(user), user)
        with user:
            labelled(user, "latency, at most").set_value(12)
        await until(lambda: "at most reachable: 15 ms" in shown(user) and "ask for less" in shown(user), user)

    by_hand(session, steps)


def test_the_form_is_submitted_and_curves_versions_and_proof_appear(session: CompressionSession) -> None:
    async def steps(user: User) -> None:
        with user:
            switch(user, "automatic: where").set_value(False)
        for place, cut in enumerate(CUTS):
            with user:
                labelled(user, f"{MACHINES[place]} ends after").set_value(cut)
        with user:
            labelled(user, "value").set_value(20)
            labelled(user, "bandwidth, less by").set_value(3)
        submit(user)
        await until(lambda: "Goals met:" in shown(user), user)
        assert session.told()["settings"]["cuts"] == list(CUTS)
        page = shown(user)
        for said in ("goal met", "floor kept", "equal", "camera -&gt; gateway", "Nothing serves"):
            assert said in page
        with user:
            charts = list(ElementFilter(kind=ui.echart))
        assert len(charts) == 4
        told = session.told()
        assert len(charts[0].options["series"][1]["data"]) == len(told["iterations"]) + 1
        assert charts[0].props["aria-label"].startswith("bytes, camera -> gateway: from 216 to")
        assert told["frozen"] is not None
        assert told["frozen"]["digest"][:12] in page

    by_hand(session, steps)


def test_what_is_refused_is_said_in_the_words_of_the_library(session: CompressionSession) -> None:
    async def steps(user: User) -> None:
        with user:
            labelled(user, "bandwidth, less by").set_value(0.5)
        submit(user)
        await until(lambda: "a factor of 0.5: expected above 1" in shown(user), user)
        with user:
            labelled(user, "bandwidth, less by").set_value(1e6)
        submit(user)
        await until(lambda: "ask for less" in shown(user), user)
        assert "Traceback" not in shown(user)
        assert session.phase == "idle"
        with user:
            errors = [one for one in ElementFilter(kind=ui.html) if "fe-error" in one.classes]
        await until(lambda: any("ask for less" in one.content for one in errors), user)
        with user:  # what was refused is no longer what stands there
            labelled(user, "bandwidth, less by").set_value(3)
        await until(lambda: not any(one.content for one in errors), user)

    by_hand(session, steps)


def test_a_version_is_rolled_back_to_and_iterating_resumes(session: CompressionSession) -> None:
    session.submit(settings())
    assert session.wait(120) == "goals met"

    async def steps(user: User) -> None:
        with user:
            to_zero = next(
                one for one in ElementFilter(kind=ui.button) if one.props.get("aria-label") == "Roll back to version 0"
            )
        with user:
            to_zero._handle_event({"listener_id": next(iter(to_zero._event_listeners)), "args": {}})
        await until(lambda: "0, current" in shown(user), user)
        assert session.told()["connections"][0]["now_bytes"] == 216
        await until(lambda: button(user, "Resume").enabled, user)
        user.find(content="Resume").click()
        await until(lambda: "Goals met:" in shown(user), user)

    by_hand(session, steps)


def test_a_button_stays_where_it_is_while_links_are_measured_anew(session: CompressionSession) -> None:
    session.submit(settings())
    session.wait(120)

    async def steps(user: User) -> None:
        def to_zero() -> Any:
            with user:
                return next(
                    one
                    for one in ElementFilter(kind=ui.button)
                    if one.props.get("aria-label") == "Roll back to version 0"
                )

        before, latency = to_zero(), session.told()["versions"][0]["latency_s"]
        session.override_link(0, Link(2e5, 0.012))
        now = session.told()["versions"][0]["latency_s"]
        assert now != latency
        await until(lambda: words.seconds(now).replace("\u00a0", " ") in shown(user), user)
        assert to_zero() is before

    by_hand(session, steps)


def test_a_submission_is_found_in_the_form_of_a_page_that_is_opened_later(session: CompressionSession) -> None:
    session.submit(settings("2.5x"))
    session.wait(120)

    async def steps(user: User) -> None:
        assert labelled(user, "bandwidth, less by").value == 2.5
        assert labelled(user, "camera ends after").value == CUTS[0]
        assert labelled(user, "optimise at gateway").value == 1
        assert labelled(user, "value").value == 20

    by_hand(session, steps)


def test_a_link_is_set_by_hand_and_taken_back(session: CompressionSession) -> None:
    session.submit(settings())
    session.wait(120)

    async def steps(user: User) -> None:
        assert not button(user, "Take it back").enabled
        user.find(content="Set by hand").click()
        await until(lambda: "a link is set by both" in shown(user), user)
        with user:
            labelled(user, "goodput").set_value(5)
            labelled(user, "delay, one way").set_value(2)
        user.find(content="Set by hand").click()
        await until(lambda: ">set by hand<" in shown(user), user)
        assert session.told()["connections"][0]["goodput_bps"] == 5e6
        await until(lambda: button(user, "Take it back").enabled, user)
        user.find(content="Take it back").click()
        await until(lambda: ">set by hand<" not in shown(user), user)

    by_hand(session, steps)


def test_the_switch_shows_and_sets_whether_links_are_followed(session: CompressionSession) -> None:
    session.submit(settings())
    session.wait(120)
    session.override_link(0, Link(1e6, 0.01))

    async def steps(user: User) -> None:
        assert switch(user, "Automatic").value is True
        with user:
            switch(user, "Automatic").set_value(False)
        await until(lambda: not session.is_automatic, user)
        session.automatic(True)
        await until(lambda: switch(user, "Automatic").value is True, user)

    by_hand(session, steps)


def test_a_name_of_a_task_is_text_on_the_page() -> None:
    with small_session("<script>alert(1)</script>") as made:

        async def steps(user: User) -> None:
            assert "<script>alert" not in shown(user)
            assert "&lt;script&gt;alert" in shown(user)

        by_hand(made, steps)
