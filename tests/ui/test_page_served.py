"""The page as it is served: a process of its own, reached over real sockets, ended with Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from page_cases import small_session
from page_process import page_process

pytest.importorskip("nicegui", reason="flower-edge[ui] is not installed")

import httpx

from flower_edge.errors import ConfigError
from flower_edge.ui import ControlPage

HERE = Path(__file__).parent
TOKEN = "a-token-nobody-guesses"


@pytest.mark.slow
def test_without_the_token_nothing_that_is_served_answers() -> None:
    with (
        page_process("page_host.py", TOKEN) as url,
        httpx.Client(base_url=url, timeout=60) as client,
        httpx.Client(base_url=url, timeout=60) as without,
    ):
        let_in = client.get("/", params={"token": TOKEN}, follow_redirects=True)
        assert let_in.status_code == 200
        assert "token" not in str(let_in.url)
        paths = {part.split("'")[0].split('"')[0].split(")")[0] for part in let_in.text.split(url[:-1])[0].split('"/')}
        files = sorted(f"/{path}" for path in paths if path.startswith("_nicegui/"))
        assert len(files) > 5
        socket_io = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"
        ways = [*files, "/", "/export/iterations.csv", "/export/session.json", socket_io, "/docs", "/openapi.json"]
        assert client.get(socket_io).status_code < 500
        assert client.get(files[0]).status_code == 200
        for way in ways:
            assert without.get(way).status_code == 401, way
            assert without.post(way).status_code == 401, way
        for way in ("/_nicegui_ws/socket.io/?EIO=4&transport=websocket", "/"):
            assert " 403 " in upgraded(url, way), way  # uvicorn's answer to a websocket that is closed unopened
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert " 101 " in upgraded(
            url, "/_nicegui_ws/socket.io/?EIO=4&transport=websocket", f"Authorization: Bearer {TOKEN}"
        )
        assert without.get("/export/session.json", headers=bearer).json()["told"]["phase"] == "idle"


def upgraded(url: str, way: str, *more: str) -> str:
    """The first line that a server answers to who asks for a websocket."""
    at = httpx.URL(url)
    lines = [
        f"GET {way} HTTP/1.1", f"Host: {at.host}:{at.port}", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *more, "", "",
    ]  # fmt: skip
    with socket.create_connection((at.host, at.port or 80), timeout=60) as connected:
        connected.sendall("\r\n".join(lines).encode())
        return connected.recv(200).decode(errors="replace").split("\r\n")[0]


@pytest.mark.slow
def test_ctrl_c_ends_it_cleanly() -> None:
    code = (  # who runs these tests in the background has it ignored, and children inherit that
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from page_cases import small_session\nfrom flower_edge.ui import serve\n"
        "with small_session() as session:\n    serve(session, port=0)\nprint('closed')"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("control page: http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        out, wrong = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, out.split("\n")[-2], wrong) == (0, "closed", "")


@pytest.mark.slow
def test_exports_are_the_sessions_own_and_a_second_page_is_refused() -> None:
    # A process of its own: NiceGUI has one application per process, and other tests take this one's.
    code = (
        "import json, httpx\nfrom page_cases import settings, small_session\n"
        "from flower_edge.errors import ConfigError\nfrom flower_edge.ui import ControlPage\n"
        "with small_session() as session, ControlPage(session, port=0) as page:\n"
        "    session.submit(settings())\n    session.wait(120)\n"
        "    assert httpx.get(f'{page.url}export/iterations.csv').text == session.csv()\n"
        "    exported = httpx.get(f'{page.url}export/session.json')\n"
        "    assert json.loads(exported.text) == json.loads(session.json())\n"
        "    assert 'session.json' in exported.headers['content-disposition']\n"
        "    try:\n        ControlPage(session, port=0)\n"
        "    except ConfigError as error:\n        print(error)\n"
        "print(page.ended)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True, text=True, cwd=HERE, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "one per process" in done.stdout
    assert done.stdout.endswith("True\n")


def test_a_port_that_is_taken_is_said_with_another_to_try() -> None:
    with small_session() as session, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"in use.*--port \d+"):
            ControlPage(session, port=taken.getsockname()[1])


def test_a_token_of_any_characters_survives_the_address() -> None:
    token = "a+token/of&any=characters#?%"
    page = ControlPage.__new__(ControlPage)
    page._host, page._port, page._scheme, page._token = "127.0.0.1", 8808, "http", token
    assert httpx.URL(page.entrance).params["token"] == token


def test_half_a_certificate_is_refused() -> None:
    with small_session() as session, pytest.raises(ConfigError, match="expected both"):
        ControlPage(session, port=0, certificate="page.pem")


def test_without_nicegui_it_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with small_session() as session, pytest.raises(ConfigError, match=r"pip install 'flower-edge\[ui\]'"):
        ControlPage(session, port=0)
