"""The device's half of enrolment: over TLS, to a server whose authority is known by its fingerprint and nothing else.

First the authority's certificate is fetched, from whoever answers, and compared with the fingerprint. Only then, and
only over a connection that it vouches for, anything else is sent. Nothing here keeps files.
"""

from __future__ import annotations

import email.utils
import hmac
import re
import ssl
import time
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import httpx
from cryptography import x509
from pydantic import BaseModel, ValidationError

from ..errors import ConfigError, EnrolmentError, EnrolmentRefused
from ..transport.certificates import fingerprint
from .node_keys import NodeKey
from .requests import JoinReply, JoinRequest, LeaveReply, LeaveRequest, StatusReply, StatusRequest

__all__ = ["DeskClient", "ServerUrl", "fetch_authority"]

#: Flower takes a node's signature for 300 s, and one that is this far in the future.
LATE_S: Final = 300.0
EARLY_S: Final = 5.0
_MOST_BYTES: Final = 65_536
_TIMEOUT: Final = httpx.Timeout(150.0, connect=10.0)

Reply = TypeVar("Reply", bound=BaseModel)


@dataclass(frozen=True)
class ServerUrl:
    """Where a server is: `https://HOST:PORT`. Made by `ServerUrl.read`."""

    host: str
    port: int

    @classmethod
    def read(cls, url: str) -> Self:
        """A URL as it stands in a join line.

        Raises:
            ConfigError: it is none.

        >>> ServerUrl.read("https://edge.example:8000").superlink
        'edge.example:8000'
        """
        try:
            parts = urlsplit(url if "//" in url else f"https://{url}")
            port = parts.port or 8000
        except ValueError as error:
            raise ConfigError(f"{url!r}: {error}; expected https://HOST:PORT, as `flower-edge up` prints it") from None
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
            raise ConfigError(f"{url!r}: expected https://HOST:PORT, as `flower-edge up` prints it")
        return cls(parts.hostname, port)

    @property
    def superlink(self) -> str:
        """As a SuperNode takes it."""
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def __str__(self) -> str:
        return f"https://{self.superlink}"


@dataclass(frozen=True)
class Authority:
    """Who vouches for a server.

    Attributes:
        pem: its certificate.
        ahead_s: how far this machine's clock is ahead of the server's, by its own word; None where it did not say.
    """

    pem: bytes
    ahead_s: float | None


def fetch_authority(url: ServerUrl, wanted: str) -> Authority:
    """The authority's certificate, compared with its fingerprint. Nothing is told to the server.

    Raises:
        ConfigError: the fingerprint is none.
        EnrolmentError: nobody answers, or not this server.
        EnrolmentRefused: `wrong-fingerprint`.
    """
    digits = fingerprint_digits(wanted)
    # Whoever answers: what it says is compared with the fingerprint, which came another way.
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    with httpx.Client(verify=stranger, timeout=_TIMEOUT, trust_env=False) as client:
        answer = _ask(client, url, "GET", "/enrol/authority")
    if answer.status_code != httpx.codes.OK:
        raise EnrolmentError(f"{url} answers, and is no `flower-edge up` (status {answer.status_code}); check the URL")
    try:
        found = fingerprint(answer.content)
    except ConfigError as error:
        raise EnrolmentError(f"{url} answers, and is no `flower-edge up` ({error}); check the URL") from None
    if not hmac.compare_digest(found, digits):
        raise EnrolmentRefused(
            f"{url} has the fingerprint {found}, expected {digits}: it is another server, or somebody is in between; "
            "nothing was sent to it. Copy the join line whole, or ask for a new one",
            "wrong-fingerprint",
        )
    return Authority(answer.content, ahead_s(answer))


def fingerprint_digits(text: str) -> str:
    """A fingerprint as 64 hex digits, however it is written.

    Raises:
        ConfigError: it is none.
    """
    digits = re.sub(r"[\s:]", "", text.lower()).removeprefix("sha256")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise ConfigError(f"--ca-fingerprint {text}: expected 64 hex digits, as `flower-edge up` prints them")
    return digits


def ahead_s(answer: httpx.Response) -> float | None:
    """How far our clock is ahead of the server's, which tells seconds only; None where it tells no time."""
    said = email.utils.parsedate_to_datetime(answer.headers["date"]) if "date" in answer.headers else None
    return None if said is None else time.time() - said.timestamp() - 0.5


def check_clock(ahead: float | None) -> None:
    """Pass where Flower would take this device's signatures.

    Raises:
        EnrolmentError: by the server's clock this one is wrong.
    """
    if ahead is None or -LATE_S < ahead < EARLY_S + 1.0:  # the server's word has a grain of a second
        return
    direction = "ahead of" if ahead > 0 else "behind"
    raise EnrolmentError(
        f"this device's clock is {abs(ahead):.0f} s {direction} the server's (the server says so), and Flower would "
        "refuse it; set the time first: sudo timedatectl set-ntp true"
    )


class DeskClient:
    """Talks to a server's enrolment desk as the owner of a key.

    Args:
        url: of the server.
        authority_pem: who vouches for it.
        key: this device's.
    """

    def __init__(self, url: ServerUrl, authority_pem: bytes, key: NodeKey) -> None:
        self._url, self._key = url, key
        try:
            trust = ssl.create_default_context(cadata=authority_pem.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            raise EnrolmentError(f"the authority's certificate cannot be read ({error}); join anew") from None
        self._client = httpx.Client(verify=trust, timeout=_TIMEOUT, trust_env=False)
        self._pem = authority_pem

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def challenge(self) -> tuple[str, float | None]:
        """What the next request has to sign; and how far our clock is ahead of the server's.

        Raises:
            EnrolmentError: nobody answers, or the certificate is not good.
        """
        answer = _ask(self._client, self._url, "POST", "/enrol/challenge", authority_pem=self._pem)
        if answer.status_code != httpx.codes.OK:
            raise EnrolmentError(f"{self._url} answers with status {answer.status_code}; is it a `flower-edge up`?")
        return answer.text, ahead_s(answer)

    def join(self, name: str, token: str | None) -> JoinReply:
        """Be let in.

        Raises:
            EnrolmentError: the server is not there, or cannot now.
            EnrolmentRefused: it will not; `code` says why.
        """
        asked = self._signed(
            JoinRequest, "join", name=name, token=token, certificate_request=self._key.certificate_request(name)
        )
        return self._send("join", asked, JoinReply)

    def status(self) -> StatusReply:
        """How the server sees this device. Raises as `join`."""
        return self._send("status", self._signed(StatusRequest, "status"), StatusReply)

    def leave(self) -> LeaveReply:
        """Be forgotten. Raises as `join`."""
        return self._send("leave", self._signed(LeaveRequest, "leave"), LeaveReply)

    def _signed(self, kind: type[Reply], verb: str, **fields: Any) -> Reply:
        fields |= {"public_key": self._key.public, "challenge": self.challenge()[0]}
        return kind(**fields, signature=self._key.prove(verb, fields))

    def _send(self, verb: str, asked: BaseModel, kind: type[Reply]) -> Reply:
        answer = _ask(
            self._client, self._url, "POST", f"/enrol/{verb}", asked.model_dump_json().encode(), authority_pem=self._pem
        )
        try:
            if answer.status_code == httpx.codes.OK:
                return kind.model_validate_json(answer.content)
            told = answer.json()
            code, words = str(told["code"])[:40], str(told["message"])[:1000]
        except (ValidationError, ValueError, KeyError, TypeError):
            raise EnrolmentError(
                f"{self._url} answers with status {answer.status_code} and not as a `flower-edge up` of this version"
            ) from None
        if answer.status_code == httpx.codes.FORBIDDEN:
            raise EnrolmentRefused(f"{self._url} says no: {words}", code)
        raise EnrolmentError(f"{self._url}: {words}")


def _ask(
    client: httpx.Client,
    url: ServerUrl,
    method: str,
    path: str,
    body: bytes | None = None,
    *,
    authority_pem: bytes | None = None,
) -> httpx.Response:
    try:
        with client.stream(method, f"{url}{path}", content=body) as answer:
            content = bytearray()
            for piece in answer.iter_raw():
                content += piece
                if len(content) > _MOST_BYTES:
                    raise EnrolmentError(f"{url} answers with more than {_MOST_BYTES} bytes; is it a `flower-edge up`?")
            return httpx.Response(answer.status_code, headers=answer.headers, content=bytes(content))
    except httpx.ConnectError as error:
        raise EnrolmentError(f"{url} cannot be reached: {_why(error, authority_pem)}") from None
    except httpx.TimeoutException:
        raise EnrolmentError(
            f"{url} does not answer in time; is it up, and does a firewall let this through?"
        ) from None
    except httpx.HTTPError as error:
        raise EnrolmentError(f"{url} broke off: {error or type(error).__name__}; try again") from None


def _why(error: httpx.ConnectError, authority_pem: bytes | None) -> str:
    words = str(error)
    if "CERTIFICATE_VERIFY_FAILED" not in words:
        return f"{words}; is `flower-edge up` running there, and does a firewall let this through?"
    if authority_pem is not None and "not yet valid" in words:
        begins = x509.load_pem_x509_certificate(authority_pem).not_valid_before_utc
        here = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        return (
            f"its certificate is not valid yet: it is {here} here, the server is from {begins:%Y-%m-%d}; set the clock"
        )
    if "expired" in words:
        return "its certificate has expired by this device's clock; check the clock, or start `flower-edge up` again"
    if "mismatch" in words or "not valid for" in words:
        return (
            f"its certificate is for other names ({words.rpartition('] ')[2]}); start it with --host NAME for this one"
        )
    return f"its certificate is not vouched for by the authority this device knows ({words.rpartition('] ')[2]})"
