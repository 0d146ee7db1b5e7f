"""The fleet filter: nothing but the fleet API is reached through it, in no spelling; and that, whole and streamed."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from filter_cases import HOST, Front, front, statuses

from flower_edge.enrolment.fleet_filter import FilterLimits

CONTROL = "/v1/control/start-run"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    with front(tmp_path_factory.mktemp("filter")) as made:
        yield made


@pytest.fixture
def there(shared: Front) -> Front:
    shared.behind.seen.clear()
    shared.behind.headers.clear()
    shared.passed.clear()
    shared.behind.manner, shared.behind.answer_bytes = "whole", 8
    return shared


SPELLINGS = [
    CONTROL,
    "/v1/control/stream-logs",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/",
    "*",
    "/docs",
    "/openapi.json",
    "/v1/responses",
    "//v1/control/start-run",
    "/./v1/control/start-run",
    "/V1/Control/start-run",
    "/v1//control/start-run",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/./pull-messages",
    "/v1/fleet//pull-messages",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet/%2E%2E%2fcontrol%2fstart-run",
    "/v1/fleet/..%252fcontrol/start-run",
    "/v1/fleet/..;/control/start-run",
    "/v1/fleet/..\\control\\start-run",
    "/v1/fleet/pull-messages/../../control/start-run",
    "/%76%31/control/start-run",
    "/v1/c%6fntrol/start-run",
    "/v1/%66leet/pull-messages",
    "/v1/fleet/pull-messages/",
    "/v1/fleet/Pull-Messages",
    "/v1/fleet/pull-messages?to=/v1/control/start-run",
    "/v1/fleet/pull-messages;x",
    "/v1/fleet/",
    "/v1/fleet",
    "/v1/fleet-x/pull-messages",
    "/health/../v1/control/start-run",
    "/health%2f..%2fv1%2fcontrol%2fstart-run",
    "/wheels/../v1/control/start-run",
    "/wheels/..%2fv1/control",
    "/enrol/../v1/control/start-run",
    "/enrol/join/../../v1/control/start-run",
    f"https://{HOST}{CONTROL}",
    f"http://superlink{CONTROL}",
    f"https://{HOST}/v1/fleet/pull-messages",
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_of_a_path_reaches_more_than_the_fleet_api(there: Front, path: str) -> None:
    answer = there.raw(f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
    assert statuses(answer) == [403], answer
    assert b"only the fleet API is reached from here; runs are started on the server itself" in answer
    assert there.behind.seen == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH"])
def test_other_methods_are_refused_on_either_side(there: Front, method: str) -> None:
    for path, expected in ((CONTROL, 403), ("/v1/fleet/pull-messages", 405)):
        answer = there.raw(f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        assert statuses(answer) == [expected]
    assert there.behind.seen == []


@pytest.mark.parametrize("target", ["superlink:8000", f"{HOST}:443"])
def test_it_is_no_proxy_for_others(there: Front, target: str) -> None:
    assert statuses(there.raw(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())) == [403]


def test_a_pipelined_request_is_looked_at_like_the_first(there: Front) -> None:
    good = f"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\nok".encode()
    bad = f"POST {CONTROL} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    assert statuses(there.raw(good + good + bad + good, answers=3)) == [200, 200, 403]  # and then it closes
    assert there.behind.seen == [("POST", "/v1/fleet/pull-messages", 2)] * 2


SMUGGLED = f"POST {CONTROL} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()


@pytest.mark.parametrize(
    "head",
    [
        f"Content-Length: {len(SMUGGLED) + 5}\r\nTransfer-Encoding: chunked",
        f"Transfer-Encoding: chunked\r\nContent-Length: {len(SMUGGLED) + 5}",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        f"Content-Length: 5\r\nContent-Length: {len(SMUGGLED) + 5}",
        "Content-Length: +5",
        "Content-Length: 5, 5, 6",
    ],
)
def test_a_request_hidden_in_a_body_never_comes_out_behind(there: Front, head: str) -> None:
    start = f"POST /v1/fleet/push-messages HTTP/1.1\r\nHost: {HOST}\r\n{head}\r\n\r\n".encode()
    answer = there.raw(start + b"0\r\n\r\n" + SMUGGLED)
    assert all(path == "/v1/fleet/push-messages" for _, path, _ in there.behind.seen)
    assert set(statuses(answer)) <= {200, 400, 403, 501}
    assert statuses(answer)


def test_headers_for_one_connection_and_claims_about_who_asks_stay_behind(there: Front) -> None:
    lines = [
        "flwr-public-key: a2V5",
        "flwr-signature: c2ln",
        "content-type: application/x-protobuf",
        "Connection: x-once, keep-alive",
        "x-once: 1",
        "x-forwarded-for: 10.0.0.1",
        "upgrade: h2c",
        "cookie: a=b",
        "te: trailers",
    ]
    head = "\r\n".join(["POST /v1/fleet/pull-messages HTTP/1.1", f"Host: {HOST}", *lines, "Content-Length: 0", "", ""])
    assert statuses(there.raw(head.encode())) == [200]
    (got,) = there.behind.headers
    assert (got["flwr-public-key"], got["flwr-signature"]) == ("a2V5", "c2ln")
    assert got["content-type"] == "application/x-protobuf"
    assert not {"x-once", "x-forwarded-for", "upgrade", "cookie", "te"} & set(got)


# --- what passes, passes whole ---


def test_bodies_pass_whole_in_both_directions_and_the_key_is_told_with_the_verdict(there: Front) -> None:
    there.behind.answer_bytes = 5_000_000
    with httpx.Client(verify=there.trust()) as client:
        url = f"https://{HOST}:{there.port}/v1/fleet"
        answer = client.post(f"{url}/push-object", content=b"y" * 6_000_000, headers={"flwr-public-key": "a2V5"})
        assert answer.content == b"x" * 5_000_000
        there.behind.manner = "unknown"
        assert client.post(f"{url}/pull-messages", content=iter([b"a", b"b"])).status_code == 401
        assert client.get(f"https://{HOST}:{there.port}/health").status_code == 401
    assert there.behind.seen == [
        ("POST", "/v1/fleet/push-object", 6_000_000),
        ("POST", "/v1/fleet/pull-messages", 2),
        ("GET", "/health", 0),
    ]
    told = [(passed.public_key, passed.path, passed.status) for passed in there.passed]
    assert told == [("a2V5", "/v1/fleet/push-object", 200), ("", "/v1/fleet/pull-messages", 401)]


def test_a_body_goes_on_while_it_still_comes_so_none_is_held(there: Front) -> None:
    there.behind.first_piece.clear()
    with there.dial() as line:
        line.sendall(f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 200000\r\n\r\n".encode())
        line.sendall(b"z" * 100_000)
        assert there.behind.first_piece.wait(60.0)
        line.sendall(b"z" * 100_000)
        assert line.recv(100).startswith(b"HTTP/1.1 200")


def test_half_an_answer_is_not_told_as_a_whole_one(there: Front) -> None:
    there.behind.manner = "half"
    with httpx.Client(verify=there.trust()) as client:
        try:
            status = client.post(f"https://{HOST}:{there.port}/v1/fleet/pull-object", content=b"").status_code
        except httpx.RemoteProtocolError:
            pass
        else:
            assert status == 503  # the connection behind was gone before the answer had begun


@pytest.mark.slow
def test_many_at_once_each_get_their_own_answer(there: Front) -> None:
    there.behind.answer_bytes = 300_000
    sizes = list(range(1, 25))
    failed: list[object] = []

    def one(size: int) -> None:
        with httpx.Client(verify=there.trust(), timeout=60.0) as client:
            answer = client.post(f"https://{HOST}:{there.port}/v1/fleet/push-object", content=b"y" * size * 1000)
        if len(answer.content) != 300_000:
            failed.append((size, answer))

    threads = [threading.Thread(target=one, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert sorted(length for *_, length in there.behind.seen) == [size * 1000 for size in sizes]


# --- what a device may cost ---


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    limits = FilterLimits(body_bytes=1000, silent_s=3.0, answer_s=4.0)
    with front(tmp_path_factory.mktemp("narrow"), limits=limits) as made:
        yield made


@pytest.mark.slow
def test_a_body_that_is_too_long_is_refused_before_or_while_it_comes(narrow: Front) -> None:
    head = f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: {HOST}\r\n"
    said = narrow.raw(f"{head}Content-Length: 1001\r\n\r\n".encode())
    assert statuses(said) == [413]
    assert b"a body of 1001 bytes, the most is 1000" in said
    counted = narrow.raw(
        f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + b"200\r\n" + b"a" * 512 + b"\r\n400\r\n"
    )
    assert statuses(counted) == [408]  # the chunk's own bytes have not come
    flood = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + (b"200\r\n" + b"a" * 512 + b"\r\n") * 4
    assert statuses(narrow.raw(flood)) == [413]


@pytest.mark.slow
def test_who_stops_in_the_middle_of_a_body_is_not_waited_for(narrow: Front) -> None:
    with narrow.dial() as line:
        line.sendall(f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\nabc".encode())
        assert line.recv(4096).startswith(b"HTTP/1.1 408")


@pytest.mark.slow
def test_a_superlink_that_does_not_answer_or_is_not_there_is_told_so_that_nodes_try_again(narrow: Front) -> None:
    head = f"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n".encode()
    narrow.behind.manner = "silent"
    with narrow.dial() as line:
        line.sendall(head)
        assert line.recv(4096).startswith(b"HTTP/1.1 504")
    narrow.behind.manner = "whole"
    there, narrow.guard.superlink = narrow.guard.superlink, f"https://{HOST}:9"
    try:
        answer = narrow.raw(head)
    finally:
        narrow.guard.superlink = there
    assert statuses(answer) == [503]
    assert b"retry-after: 2" in answer.lower()
    assert statuses(narrow.raw(head)) == [200]  # and when it is back, it goes on


def test_who_sends_no_head_is_let_go(narrow: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    from flower_edge.enrolment import listening

    monkeypatch.setattr(listening, "_HEAD_S", 0.5)
    for sent in (b"", b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost:"):
        # Closed, be it before what is sent has come or after.
        with suppress(ConnectionError, ssl.SSLError), narrow.dial(60.0) as line:
            line.sendall(sent)
            assert line.recv(100) == b""


def test_a_head_that_is_too_long_is_refused(narrow: Front) -> None:
    answer = narrow.raw(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\nx: " + b"a" * 70_000)
    assert statuses(answer) in ([400], [431])


def test_one_that_speaks_no_tls_gets_nothing(narrow: Front, tmp_path: Path) -> None:
    with socket.create_connection((HOST, narrow.port), timeout=30.0) as line:
        line.sendall(f"POST {CONTROL} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        with suppress(ConnectionError):
            assert not line.recv(100).startswith(b"HTTP")
