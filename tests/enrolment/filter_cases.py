"""A fleet filter on a real port with TLS, before a server that writes down what reaches it; and raw requests to it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flower_edge.enrolment.fleet_filter import FilterLimits, FleetFilter, Passed
from flower_edge.enrolment.listening import PublicPort, bind
from flower_edge.enrolment.server_folder import ServerFolder

HOST = "127.0.0.1"


@dataclass
class Behind:
    """What stands where a SuperLink would: it takes every path there is, and tells what came."""

    seen: list[tuple[str, str, int]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    first_piece: threading.Event = field(default_factory=threading.Event)
    #: How an answer to `/v1/fleet/pull-object` goes.
    manner: str = "whole"
    answer_bytes: int = 8

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for word in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{word}.complete"})
            return
        length, more = 0, True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            length += len(event["body"])
            if length:
                self.first_piece.set()
            more = event["more_body"]
        self.seen.append((scope["method"], bytes(scope["raw_path"]).decode(), length))
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        if self.manner == "silent":
            await asyncio.sleep(6.0)
        status = 401 if self.manner == "unknown" else 200
        size = str(self.answer_bytes).encode()
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", size)]})
        given = self.answer_bytes // 2 if self.manner == "half" else self.answer_bytes
        while given:
            piece = min(given, 1_000_000)
            given -= piece
            await send({"type": "http.response.body", "body": b"x" * piece, "more_body": True})
        if self.manner != "half":
            await send({"type": "http.response.body", "body": b""})


@dataclass
class Front:
    """The filter's port, as a device sees it."""

    port: int
    authority: Path
    behind: Behind
    guard: FleetFilter
    passed: list[Passed]

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))

    @contextmanager
    def dial(self, seconds: float = 60.0) -> Iterator[ssl.SSLSocket]:
        with (
            socket.create_connection((HOST, self.port), timeout=seconds) as plain,
            self.trust().wrap_socket(plain, server_hostname=HOST) as secure,
        ):
            yield secure

    def raw(self, request: bytes, answers: int = 1) -> bytes:
        """What is answered: so many answers, and what comes in the quarter of a second after them."""
        answer = b""
        with self.dial() as line:
            line.sendall(request)
            with suppress(TimeoutError, ssl.SSLError, ConnectionError):
                while piece := line.recv(65536):
                    answer += piece
                    if answer.count(b"HTTP/1.1 ") >= answers:
                        line.settimeout(0.25)
        return answer


@contextmanager
def front(folder: Path, *, limits: FilterLimits | None = None, own: Any = None) -> Iterator[Front]:
    """Both servers, each with certificates of the same authority."""
    kept = ServerFolder.at(folder)
    public, inside = kept.public_certificate([HOST]), kept.inside_certificate()
    behind, passed = Behind(), list[Passed]()
    trust = ssl.create_default_context(cafile=str(kept.authority_file()))
    with PublicPort(behind, bind(HOST, 0), *inside) as link:
        guard = FleetFilter(f"https://{HOST}:{link.port}", trust=trust, own=own, limits=limits, watch=passed.append)
        with PublicPort(guard, bind(HOST, 0), *public) as port:
            yield Front(port.port, kept.authority_file(), behind, guard, passed)


def statuses(answer: bytes) -> list[int]:
    """The status of every answer in what came back."""
    return [int(part.split()[0]) for part in answer.split(b"HTTP/1.1 ")[1:]]
