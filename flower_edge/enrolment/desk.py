"""The enrolment desk: where devices join, ask how they are seen, and leave; and where they fetch wheels.

Five paths of the public port, behind the fleet filter. Every request but the first two is signed with the device's key
over a challenge of this server, and a token is looked at only after that. Who may register nodes is a value, so that
nothing here knows Flower.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..errors import EdgeError, EnrolmentRefused, TransportRefused
from ..transport.certificates import KeyPair, fingerprint
from ..transport.tokens import TokenMaker
from .book import Device, EnrolmentBook
from .fleet_filter import Passed
from .node_keys import check_proof, flower_header, read_public_key
from .peer_certificates import certify, validity
from .requests import JoinReply, JoinRequest, LeaveReply, LeaveRequest, StatusReply, StatusRequest
from .wheels import wheel_routes

__all__ = ["EnrolmentDesk", "Registrar", "Sightings"]

_CHALLENGE_S: Final = 120.0
#: Flower's nodes send a heartbeat every 30 s at the latest, and ask for messages every few seconds.
ONLINE_S: Final = 60.0
#: Before Flower is told again of a device where it did not work: twice as long each time, up to the second.
_AGAIN_S: Final = (5.0, 300.0)
_AT_ONCE: Final = (float("-inf"), _AGAIN_S[0])

Asked = TypeVar("Asked", JoinRequest, StatusRequest, LeaveRequest)


class Registrar(Protocol):
    """Who tells Flower of nodes."""

    def register(self, public_key: str, name: str) -> int:
        """Let Flower's SuperLink take a node with this key, also one that it has already; its node id.

        Raises:
            EdgeError: the SuperLink is not there, or will not.
        """
        ...

    def find(self, public_key: str, name: str) -> int | None:
        """The node of a key whose id nobody took down, to be unregistered: it may be registered here to find out.

        None: Flower has no node that is not known here.

        Raises:
            EdgeError: as above.
        """
        ...

    def unregister(self, node_id: int) -> None:
        """Let it take the node no longer; nothing where it is gone already.

        Raises:
            EdgeError: as above.
        """
        ...


class Sightings:
    """When the SuperLink last took a request of a key, as the fleet filter sees it pass."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._seen_s = clock, dict[str, float]()
        #: Requests that the SuperLink answered: taken, or refused.
        self.taken, self.refused = 0, 0

    def note(self, passed: Passed) -> None:
        """A request has passed. Only what the SuperLink took counts, so that strangers fill no memory."""
        if passed.status < 300:
            self.taken += 1
        else:
            self.refused += 1
        if passed.status < 300 and passed.public_key:
            if passed.path.endswith("/deactivate-node"):
                self._seen_s.pop(passed.public_key, None)
            else:
                self._seen_s[passed.public_key] = self._clock()

    def ago_s(self, public_key: str) -> float | None:
        """Seconds since then; None where it has not been, or has said good-bye."""
        at_s = self._seen_s.get(flower_header(public_key))
        return None if at_s is None else self._clock() - at_s

    def all_s(self, devices: Iterable[Device]) -> dict[str, float]:
        """The same of these, by public key, without those that were not seen."""
        seen = ((device.public_key, self.ago_s(device.public_key)) for device in devices)
        return {key: ago_s for key, ago_s in seen if ago_s is not None}

    def online(self, public_key: str) -> bool:
        """Whether that is a short time."""
        ago_s = self.ago_s(public_key)
        return ago_s is not None and ago_s < ONLINE_S


class EnrolmentDesk:
    """The application for `/enrol/` and `/wheels/`.

    Args:
        book: who may join and who has.
        registrar: tells Flower.
        authority_pem: of the public port's certificate; anybody may have it.
        peers: vouches for devices' certificates.
        sightings: what the fleet filter sees.
        wheels: a folder of wheels to give to anybody; None: none.
        tell: is called with a line about each device that joins or leaves.
        clock: seconds that never go back; by it Flower is told again.
    """

    def __init__(
        self,
        book: EnrolmentBook,
        registrar: Registrar,
        *,
        authority_pem: bytes,
        peers: KeyPair,
        sightings: Sightings,
        wheels: Path | None = None,
        tell: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book, self._registrar, self._peers, self.sightings = book, registrar, peers, sightings
        self._authority, self._tell = authority_pem, tell
        self._challenges, self._used, self._taking = TokenMaker.fresh(), dict[str, float](), threading.Lock()
        # Flower is told of one device at a time: what it registered and did not tell is then found again.
        self._one_by_one, self._clock = threading.Lock(), clock
        # Of devices of which it could not be told: not before when, and how long to wait after that.
        self._put_off: dict[str, tuple[float, float]] = {}
        #: Joins that were refused since this server was started, by code.
        self.refusals: Counter[str] = Counter()
        self._app = Starlette(
            routes=[
                Route("/enrol/authority", self._give_authority, methods=["GET"]),
                Route("/enrol/challenge", self._give_challenge, methods=["POST"]),
                Route("/enrol/join", self._answers(JoinRequest, "join", self._join), methods=["POST"]),
                Route("/enrol/status", self._answers(StatusRequest, "status", self._status), methods=["POST"]),
                Route("/enrol/leave", self._answers(LeaveRequest, "leave", self._leave), methods=["POST"]),
                *wheel_routes(wheels),
            ]
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI says."""
        await self._app(scope, receive, send)

    def remove(self, device: Device) -> None:
        """Take a device out for good.

        Raises:
            EdgeError: Flower could not be told; the device is out of the book nevertheless.
        """
        self._book.removed(device.public_key)
        self._let_go(device.public_key)

    def tell_flower(self, *, most: int | None = None, ended: Callable[[], bool] = lambda: False) -> list[Device]:
        """Let Flower know of the devices that are out, whoever took them out; those that it was told of.

        Each takes seconds. Where it does not work for one, a line says so, the others are told nevertheless, and it is
        tried again in a later call, once some time has passed.

        Args:
            most: of how many at most; None: of all.
            ended: looked at before each; whether to leave the others for later.

        Raises:
            EnrolmentError: the book cannot be read.
        """
        told, now_s = list[Device](), self._clock()
        due = [(self._put_off.get(one.public_key, _AT_ONCE)[0], one) for one in self._book.untold()]
        # Those first that were not tried yet.
        for at_s, device in sorted(due, key=lambda one: one[0])[:most]:
            if at_s > now_s or ended():
                break
            try:
                told.append(self._let_go(device.public_key))
            except EdgeError as error:
                wait_s = self._put_off.get(device.public_key, _AT_ONCE)[1]
                self._put_off[device.public_key] = (self._clock() + wait_s, min(2 * wait_s, _AGAIN_S[1]))
                self._tell(f"Flower could not be told that {device.name} is out: {error}; again in {wait_s:.0f} s")
        return told

    def _let_go(self, public_key: str) -> Device:
        with self._one_by_one:
            device = self._book.device(public_key)
            node_id = device.node_id
            if node_id is None:
                # Its first join broke off: Flower may have its key, under an id that was never taken down.
                node_id = self._registrar.find(public_key, device.name)
                if node_id is not None:
                    self._book.has_node(public_key, node_id)
            if node_id is not None:
                self._registrar.unregister(node_id)
            self._book.told(public_key)
            self._put_off.pop(public_key, None)
        return self._book.device(public_key)

    async def _give_authority(self, request: Request) -> Response:
        return Response(self._authority, media_type="application/x-pem-file")

    async def _give_challenge(self, request: Request) -> Response:
        nonce = secrets.token_hex(16)
        token = self._challenges.make(run=nonce, node=0, purpose="enrol", valid_s=_CHALLENGE_S)
        return PlainTextResponse(f"{nonce}.{token}")

    def _join(self, asked: JoinRequest, address: str) -> JoinReply:
        with self._one_by_one:
            device = self._book.admit(asked.token, asked.public_key, asked.name)
            certificate = certify(
                self._peers, asked.certificate_request, public_key=asked.public_key, name=device.name, address=address
            )
            until_s = validity(certificate)[1].timestamp()
            self._book.certified(asked.public_key, fingerprint(certificate), until_s)
            if device.node_id is None:
                device = self._registered(device)
                self._tell(f"{device.name} has joined, node {device.node_id}")
        assert device.node_id is not None
        return JoinReply(
            name=device.name,
            node_id=device.node_id,
            certificate=certificate.decode("ascii"),
            peer_authority=self._peers.certificate_pem.decode("ascii"),
        )

    def _registered(self, device: Device) -> Device:
        node_id = self._registrar.register(device.public_key, device.name)
        try:
            return self._book.joined(device.public_key, node_id)
        except EnrolmentRefused:  # it was taken out meanwhile
            self._book.has_node(device.public_key, node_id)
            raise

    def _status(self, asked: StatusRequest, address: str) -> StatusReply:
        device = self._book.device(asked.public_key)
        if device.state == "removed":
            raise EnrolmentRefused(f"{device.name} was removed from this server", "removed")
        ago_s = self.sightings.ago_s(device.public_key)
        online = self.sightings.online(device.public_key)
        return StatusReply(name=device.name, node_id=device.node_id, online=online, seen_s_ago=ago_s)

    def _leave(self, asked: LeaveRequest, address: str) -> LeaveReply:
        device = self._book.device(asked.public_key)
        # Again where it was removed: Flower may not have been told then.
        self.remove(device)
        if device.state != "removed":
            self._tell(f"{device.name} has left")
        return LeaveReply(name=device.name, node_id=device.node_id)

    def _answers(
        self, kind: type[Asked], verb: str, work: Callable[[Asked, str], JoinReply | StatusReply | LeaveReply]
    ) -> Callable[[Request], Awaitable[Response]]:
        def answer(body: bytes, address: str) -> Response:
            asked = kind.model_validate_json(body)
            public_key = read_public_key(asked.public_key)
            if public_key != asked.public_key:
                raise EnrolmentRefused("the key is not written as OpenSSH writes it, without a comment", "bad-key")
            check_proof(public_key, verb, asked.fields(), asked.signature)
            self._take(asked.challenge)
            return JSONResponse(work(asked, address).model_dump())

        def refuse(code: str, words: str) -> Response:
            if verb == "join":
                self.refusals[code] += 1
            return _refusal(403, code, words)

        async def endpoint(request: Request) -> Response:
            try:
                body = await request.body()
                return await run_in_threadpool(answer, body, request.client.host if request.client else "")
            except ClientDisconnect:
                return Response(status_code=400)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                where = ".".join(map(str, first["loc"]))
                return _refusal(400, "bad-request", f"the request cannot be read: {where} {first['msg']}")
            except EnrolmentRefused as refused:
                return refuse(refused.code, str(refused))
            except TransportRefused as refused:
                return refuse("bad-challenge", str(refused))
            except EdgeError as error:
                self._tell(f"a device asked to {verb}: {error}")
                return _refusal(503, "not-now", f"the server cannot do it now: {error}")

        return endpoint

    def _take(self, challenge: str) -> None:
        """Pass once for each challenge that this server made."""
        nonce, _, token = challenge.partition(".")
        self._challenges.check(token, run=nonce, node=0, purpose="enrol")
        now_s = time.monotonic()
        with self._taking:
            self._used = {name: until_s for name, until_s in self._used.items() if until_s > now_s}
            if nonce in self._used:
                raise EnrolmentRefused("this challenge was answered before; ask for a new one", "bad-challenge")
            self._used[nonce] = now_s + _CHALLENGE_S


def _refusal(status: int, code: str, words: str) -> Response:
    return JSONResponse({"code": code, "message": words}, status_code=status)
