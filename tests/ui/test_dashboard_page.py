"""The dashboard without a browser, and as it is served: it follows runs, survives their end, and does what it may."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dashboard_cases import EVIL, a_run, add_round
from page_process import page_process

pytest.importorskip("nicegui", reason="flower-edge[ui] is not installed")

import httpx
from nicegui import ElementFilter, ui
from nicegui.storage import Storage
from nicegui.testing import User
from nicegui.testing.user_simulation import user_simulation

from flower_edge.store import RunFolder
from flower_edge.ui.dashboard.application import pages
from flower_edge.ui.dashboard.device_table import DeviceLine
from flower_edge.ui.dashboard.watched import Watched

HERE = Path(__file__).parent
TOKEN = "a-token-nobody-guesses"
DEMO = "20260101-000000-demo"
Devices = Callable[[], list[DeviceLine]] | None


@pytest.fixture(autouse=True)
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NiceGUI would keep what it knows of its users in the current folder."""
    monkeypatch.setattr(Storage, "path", tmp_path / "nicegui")


@pytest.fixture(autouse=True)
def modules_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """NiceGUI forgets the modules of simulated pages, and their packages; the tests after these have them already."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "flower_edge"]:
        monkeypatch.setitem(sys.modules, name, sys.modules[name])


@asynccontextmanager
async def opened(place: Path, path: str, may_stop: bool, devices: Devices = None) -> AsyncIterator[User]:
    watched = Watched(place, devices)
    async with user_simulation() as user:
        pages(watched, may_stop=may_stop)
        await user.open(path)
        yield user
    watched.close()


def by_hand(
    place: Path,
    steps: Callable[[User], Awaitable[None]],
    path: str = f"/run/{DEMO}",
    may_stop: bool = False,
    devices: Devices = None,
) -> None:
    async def run() -> None:
        async with opened(place, path, may_stop, devices) as user:
            await steps(user)

    asyncio.run(run())


def shown(user: User) -> str:
    with user:
        return " ".join(str(one.content) for one in ElementFilter(kind=ui.html)).replace("\u00a0", " ")


def button(user: User) -> list[Any]:
    with user:
        return list(ElementFilter(kind=ui.button))


async def until(true: Callable[[], bool]) -> None:
    """The page looks at the run every second."""
    for _ in range(300):
        if true():
            return
        await asyncio.sleep(0.2)
    raise AssertionError("it never came")


def test_a_run_is_followed_while_it_is_written_ended_and_removed(tmp_path: Path) -> None:
    run = a_run(tmp_path / DEMO, rounds=1)

    async def steps(user: User) -> None:
        assert "Running: round 1 of 9, accuracy 50.0 %." in shown(user)
        with user:
            charts = len(list(ElementFilter(kind=ui.echart)))
        assert charts == 5
        add_round(run, 2)
        await until(lambda: "Running: round 2 of 9, accuracy 75.0 %." in shown(user))
        with user:
            accuracy = next(iter(ElementFilter(kind=ui.echart)))
        assert accuracy.options["series"][0]["data"] == [[1.0, 0.5], [2.0, 0.75]]
        assert accuracy.props["aria-label"].startswith("accuracy: accuracy from 0.5 in round 1 to 0.75 in 2")
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write('{"kind": "central", "round": 3, "val')  # cut off in mid-word
        run.finish({})
        run.close()
        await until(lambda: "Finished: round 2, accuracy 75.0 %." in shown(user))
        shutil.rmtree(run.path)
        await until(lambda: "Its folder is gone; below is what was read before." in shown(user))
        assert "edge-10" in shown(user)

    by_hand(tmp_path, steps)


def test_without_a_token_there_is_nothing_to_press(tmp_path: Path) -> None:
    a_run(tmp_path / DEMO).close()

    async def steps(user: User) -> None:
        assert button(user) == []

    by_hand(tmp_path, steps)


def test_who_may_asks_a_run_to_stop_and_sees_that_it_was_asked(tmp_path: Path) -> None:
    run = a_run(tmp_path / DEMO)

    async def steps(user: User) -> None:
        (stop,) = button(user)
        assert stop.enabled
        user.find(content="Stop after this round").click()
        await until(lambda: "Asked to stop after this round: by the dashboard" in shown(user))
        assert run.stop_asked() == "by the dashboard"
        run.finish({})
        run.close()
        await until(lambda: not stop.enabled)

    by_hand(tmp_path, steps, may_stop=True)


def test_the_list_shows_every_run_and_those_that_come(tmp_path: Path) -> None:
    a_run(tmp_path / DEMO).close()
    (tmp_path / "20260102-000000-damaged").mkdir()
    (tmp_path / "20260102-000000-damaged" / "run.json").write_text('{"half')

    async def steps(user: User) -> None:
        assert f"/run/{DEMO}" in shown(user)
        assert "20260102-000000-damaged" in shown(user)
        a_run(tmp_path / "20260103-000000-later", name="later").close()
        await until(lambda: "/run/20260103-000000-later" in shown(user))

    by_hand(tmp_path, steps, path="/")


def test_a_servers_devices_are_shown_as_they_come_and_go_and_their_names_are_text(tmp_path: Path) -> None:
    a_run(tmp_path / DEMO).close()
    devices = [DeviceLine(EVIL, 2**63, "joined", 1.7e9, 12.3, online=True)]

    async def steps(user: User) -> None:
        assert "1 online" in shown(user)
        assert "12.0 s ago" in shown(user)
        assert str(2**63) in shown(user)
        assert f"/run/{DEMO}" in shown(user)
        assert EVIL not in shown(user)
        assert "&lt;script&gt;" in shown(user)
        devices[0] = replace(devices[0], seen_s_ago=None, online=False)
        devices.append(DeviceLine("lost", 7, "removed", 1.7e9, None, online=False))
        await until(lambda: "1 away, 1 removed" in shown(user))

    by_hand(tmp_path, steps, path="/", devices=lambda: list(devices))


def test_where_there_is_no_server_nothing_is_said_of_devices_and_before_the_first_how_to_invite_one(
    tmp_path: Path,
) -> None:
    async def none(user: User) -> None:
        assert "evice" not in shown(user)

    async def empty(user: User) -> None:
        assert "No device has joined yet; `flower-edge devices invite` makes a join line." in shown(user)

    by_hand(tmp_path, none, path="/")
    by_hand(tmp_path, empty, path="/", devices=list)


@pytest.mark.parametrize("name", ["nobody", "..", "%2e%2e%2fsecret", f"{DEMO}%2f..%2f{DEMO}"])
def test_an_address_is_a_name_of_the_list_and_never_a_path(tmp_path: Path, name: str) -> None:
    a_run(tmp_path / "runs" / DEMO).close()
    a_run(tmp_path / "secret").close()

    async def steps(user: User) -> None:
        assert "accuracy" not in shown(user)

    async def run() -> None:
        watched = Watched(tmp_path / "runs")
        async with user_simulation() as user:
            pages(watched, may_stop=False)
            response = await user.http_client.get(f"/run/{name}")
            assert "edge-10" not in response.text
            assert not await watched.knows(name)
        watched.close()

    asyncio.run(run())


def test_one_run_is_the_whole_dashboard_where_it_was_asked_for(tmp_path: Path) -> None:
    a_run(tmp_path / DEMO).close()

    async def steps(user: User) -> None:
        assert "Running: round 3" in shown(user)
        assert "All runs" not in shown(user)

    by_hand(tmp_path / DEMO, steps, path="/")


def test_of_runs_that_have_ended_and_nobody_opened_only_a_line_is_kept(tmp_path: Path) -> None:
    ended = a_run(tmp_path / DEMO)
    ended.finish({})
    ended.close()
    running = a_run(tmp_path / "20260102-000000-later")

    async def run() -> None:
        watched = Watched(tmp_path)
        first = await watched.entries()
        assert [entry.status for entry in first] == ["running", "finished"]
        assert set(watched._followers) == {running.path.name}
        assert await watched.seen(DEMO, lambda follower, state: state.round) == 3
        shutil.rmtree(ended.path)
        assert await watched.knows(DEMO)
        await asyncio.sleep(0.5)
        assert [entry.folder for entry in await watched.entries()] == [running.path.name]
        watched.close()

    asyncio.run(run())
    running.close()


# --- served ---


@pytest.mark.slow
def test_nothing_is_told_without_the_token_and_nobody_else_can_ask(tmp_path: Path) -> None:
    a_run(tmp_path / DEMO).close()
    with (
        page_process("dashboard_cases.py", str(tmp_path), TOKEN) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        for way in ("/", f"/run/{DEMO}", "/docs", "/openapi.json", "/_nicegui_ws/socket.io/?EIO=4&transport=polling"):
            assert client.get(way).status_code == 401, way
            assert client.post(way).status_code == 401, way
        assert client.get("/", headers={"host": "attacker.example"}).status_code == 421
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert DEMO in client.get("/", headers=bearer).text
        assert "Stop after this round" in client.get(f"/run/{DEMO}", headers=bearer).text
        assert client.get(f"/run/{DEMO}", headers=bearer | {"origin": "http://attacker.example"}).status_code == 403


@pytest.mark.slow
def test_the_verb_serves_until_ctrl_c_and_ends_cleanly(tmp_path: Path) -> None:
    run = a_run(tmp_path / DEMO)
    code = (  # who runs these tests in the background has it ignored, and children inherit that
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.argv = ['flower-edge', 'dashboard', {str(tmp_path)!r}, '--port', '0', '--json']\n"
        "from flower_edge.cli.main import main\nmain()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["place"] == str(tmp_path)
        assert told["may_stop"] is False
        page = httpx.get(told["url"] + f"run/{DEMO}", timeout=60).text
        assert "Running: round 3 of 9" in page
        assert "Stop after this round" not in page
        process.send_signal(signal.SIGINT)
        out, wrong = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, out, wrong) == (0, "", "")
    assert RunFolder.open(run.path).stop_asked() is None
    run.close()
