"""Nobody gets past the gate who may not: hosts, origins, tokens, for requests and for websockets alike."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flower_edge.errors import ConfigError
from flower_edge.ui.access import HEADERS, Access, Gate

TOKEN = "a-token-nobody-guesses"


async def inner(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Something to be guarded: answers everything."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    kind = b"text/html" if scope["path"] == "/" else b"text/javascript"
    headers = [(b"content-type", kind), (b"cache-control", b"public, max-age=9")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"inside"})


def sent(access: Access, path: str = "/", kind: str = "http", query: str = "", **headers: str) -> list[dict[str, Any]]:
    """What goes back for one request; the Host is this machine's unless given."""
    given = {"host": "127.0.0.1:8808"} | {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {
        "type": kind,
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        messages.append(message)

    asyncio.run(Gate(inner, access)(scope, receive, send))  # type: ignore[arg-type]
    return messages


def status(access: Access, path: str = "/", query: str = "", **headers: str) -> int:
    return int(sent(access, path, query=query, **headers)[0]["status"])


def header(message: dict[str, Any], name: str) -> str:
    return next(value.decode() for key, value in message["headers"] if key == name.encode())


def test_a_host_that_others_reach_needs_a_token_and_the_error_offers_one() -> None:
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0.*--token \S{20}"):
        Access("0.0.0.0")
    assert Access("0.0.0.0", TOKEN).host == "0.0.0.0"


@pytest.mark.parametrize(
    "token", ["", "short", " a-token-nobody-guesses", "a token nobody guesses", "ein-schöner-schlüssel"]
)
def test_a_token_that_could_be_guessed_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="expected 16 or more"):
        Access(token=token)


@pytest.mark.parametrize("host", ["127.0.0.1:8808", "localhost:8808", "[::1]:8808", "localhost"])
def test_on_this_machine_nothing_but_its_name_is_asked_for(host: str) -> None:
    assert status(Access(), host=host) == 200


@pytest.mark.parametrize("host", ["attacker.example:8808", "127.0.0.1.attacker.example", "", "[::1"])
def test_a_name_that_was_made_to_point_here_is_refused(host: str) -> None:
    assert status(Access(), host=host) == 421
    assert sent(Access(), kind="websocket", host=host)[0]["type"] == "websocket.close"


def test_a_proxy_may_ask_by_a_name_that_was_given() -> None:
    assert status(Access(names=("edge.example",)), host="edge.example") == 200


def test_a_page_of_another_site_reaches_neither_files_nor_websocket() -> None:
    assert status(Access(), origin="http://attacker.example") == 403
    assert status(Access(), origin="null") == 403
    assert sent(Access(), kind="websocket", origin="http://localhost:9999")[0]["type"] == "websocket.close"
    assert sent(Access(), kind="websocket", origin="http://127.0.0.1:8808")[0]["type"] == "websocket.accept"


@pytest.mark.parametrize(
    "path", ["/", "/_nicegui/3/static/nicegui.js", "/_nicegui_ws/socket.io/", "/export/session.json"]
)
def test_without_the_token_nothing_answers(path: str) -> None:
    access = Access("0.0.0.0", TOKEN)
    assert status(access, path) == 401
    assert status(access, path, authorization="Bearer another-token-of-sixteen") == 401
    assert status(access, path, authorization=f"Basic {TOKEN}") == 401
    assert status(access, path, cookie=f"{access.cookie}={TOKEN}") == 401  # the cookie is another secret
    assert status(access, path, query="token=another-token-of-sixteen") == 401
    assert sent(access, path, "websocket")[0] == {
        "type": "websocket.close",
        "code": 1008,
        "reason": sent(access, path, "websocket")[0]["reason"],
    }


def test_the_token_once_in_the_address_leaves_a_cookie_and_the_address() -> None:
    access = Access("0.0.0.0", TOKEN)
    start = sent(access, "/", query=f"token={TOKEN}&x=1")[0]
    assert start["status"] == 303
    assert header(start, "location") == "/?x=1"
    cookie = header(start, "set-cookie")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert status(access, "/export/session.json", cookie=cookie.partition(";")[0]) == 200
    assert sent(access, kind="websocket", cookie=cookie.partition(";")[0])[0]["type"] == "websocket.accept"
    assert status(Access("0.0.0.0", TOKEN), cookie=cookie.partition(";")[0]) == 401  # of another run


def test_the_token_leaves_the_address_of_who_is_in_already_too() -> None:
    access = Access("0.0.0.0", TOKEN)
    start = sent(access, query=f"token={TOKEN}", cookie=f"{access.cookie}={access.pass_}")[0]
    assert (start["status"], header(start, "location")) == (303, "/")


@pytest.mark.parametrize("other", ['{"a": 1}', "a b=c d", '="', "x=\x01"])
def test_odd_cookies_of_other_servers_shut_nobody_out(other: str) -> None:
    access = Access("0.0.0.0", TOKEN)
    assert status(access, cookie=f"{other}; {access.cookie}={access.pass_}; theme=dark") == 200
    assert status(access, cookie=f"{other}; x{access.cookie}={access.pass_}") == 401


def test_the_way_in_leads_to_no_other_site() -> None:
    start = sent(Access("0.0.0.0", TOKEN), "//attacker.example/x", query=f"token={TOKEN}")[0]
    assert header(start, "location") == "/attacker.example/x"


def test_a_websocket_is_not_let_in_by_its_address() -> None:
    access = Access("0.0.0.0", TOKEN)
    assert sent(access, kind="websocket", query=f"token={TOKEN}")[0]["type"] == "websocket.close"
    assert sent(access, kind="websocket", authorization=f"Bearer {TOKEN}")[0]["type"] == "websocket.accept"


def test_over_tls_the_cookie_stays_there() -> None:
    start = sent(Access("0.0.0.0", TOKEN, secure=True), query=f"token={TOKEN}")[0]
    assert header(start, "set-cookie").endswith("; Secure")


@pytest.mark.parametrize("headers", [{}, {"host": "attacker.example"}, {"origin": "http://attacker.example"}])
def test_every_answer_has_the_headers_that_protect_a_browser(headers: dict[str, str]) -> None:
    start = sent(Access(), **headers)[0]
    for name, value in HEADERS.items():
        assert header(start, name) == value


def test_what_was_told_is_kept_by_no_cache_and_files_may_be() -> None:
    assert header(sent(Access(), "/")[0], "cache-control") == "no-store"
    assert header(sent(Access(), "/static.js")[0], "cache-control") == "public, max-age=9"


def test_a_token_is_not_shown_where_access_is_printed() -> None:
    access = Access(token=TOKEN)
    assert TOKEN not in repr(access)
    assert access.pass_ not in repr(access)
