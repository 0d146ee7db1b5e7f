"""`PeerTransport`: one channel between two hosts that carries whole messages both ways. Promises and values only.

    serving end     server = transport.serve(host, port, accept)     accept(hello, peer) -> handler, or refuses
                    handler(connection) runs in a thread of its own; the connection ends when it returns
    dialling end    with transport.dial(address, hello) as connection:
                        connection.send(b"...")
                        answer = connection.receive()

Messages arrive whole, once and in order, or the connection is broken and says so. What is in them, who may come and
what a purpose means is for those who use it: nothing here knows Flower, models or rounds. No clock of the other host
is ever read.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Annotated, Any, Final, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import ConfigError, TransportError, TransportRefused

__all__ = [
    "HELLO_BYTES",
    "Accept",
    "Connection",
    "ConnectionClosed",
    "Figures",
    "Handler",
    "Hello",
    "Limits",
    "Peer",
    "PeerTransport",
    "Server",
    "TransportTimeout",
]

#: Sizes are told in 8 bytes; no clock of the system waits longer than some centuries.
_MOST_WHOLE: Final = 1 << 53
_MOST_S: Final = 1 << 32

#: The longest hello there is, as JSON; a longer one is refused unread.
HELLO_BYTES = 1 << 16


class ConnectionClosed(TransportError):
    """This end or the other has closed the connection in good order; everything sent before has been received."""


class TransportTimeout(TransportError):
    """Nothing came, or nothing was taken, in time. The connection is as it was: one may try again."""


class Hello(BaseModel):
    """What the dialling end says first. It is a claim until whoever accepts has checked it.

    Attributes:
        purpose: what the connection is for, such as `split`.
        run: which run it belongs to.
        node: who dials.
        token: see `tokens`; "" where the certificate is enough.
        data: plain JSON values, for whoever accepts.

    >>> Hello(purpose="split", run="7", node=3)
    Hello(purpose='split', run='7', node=3, data={})
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    purpose: Annotated[str, Field(min_length=1, max_length=64)]
    run: Annotated[str, Field(max_length=128)]
    node: Annotated[int, Field(ge=0, lt=1 << 64)]
    token: Annotated[str, Field(max_length=2048, repr=False)] = ""
    data: dict[str, Any] = {}

    def to_bytes(self) -> bytes:
        """As JSON.

        Raises:
            ConfigError: `data` holds something JSON has no word for, or it is longer than `HELLO_BYTES`.
        """
        try:
            text = json.dumps(self.model_dump(mode="python"), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"a hello's data must be plain JSON values: {error}") from None
        data = text.encode()
        if len(data) > HELLO_BYTES:
            raise ConfigError(
                f"a hello of {len(data)} bytes, the most is {HELLO_BYTES}; send what is large as a message, afterwards"
            )
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """From JSON that came in.

        Raises:
            TransportRefused: `bad-hello`: too long, no JSON, an unknown key, or a value that cannot be.
        """
        if len(data) > HELLO_BYTES:
            raise TransportRefused(f"a hello of {len(data)} bytes, the most is {HELLO_BYTES}", "bad-hello")
        try:
            return cls.model_validate_json(data)
        except (ValidationError, RecursionError) as error:
            what = "nested too deeply"
            if isinstance(error, ValidationError):
                first = error.errors(include_url=False, include_input=False)[0]
                what = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
            raise TransportRefused(f"a hello that cannot be read: {what}", "bad-hello") from None


@dataclass(frozen=True)
class Peer:
    """The other end, as this one sees it.

    Attributes:
        address: where it is; of a dialling end, where its packets come from.
        fingerprint: SHA-256 over its certificate (DER), hex; None unless TLS is mutual and this is the serving end.
    """

    address: str
    fingerprint: str | None = None


@dataclass(frozen=True)
class Limits:
    """What a hostile or broken peer can cost, and how long anything waits.

    Attributes:
        message_bytes: the longest message taken; a longer one is refused when it is announced. A connection holds at
            most about twice that: what waits to be received, and what is being received.
        chunk_bytes: the longest piece a message travels in, 4096 to 1 MiB.
        connections: how many a server has at once; one more is refused as `busy`.
        ticket_s: how long a server waits for a hello, and an accepted hello for its connection.
        idle_s: how long `send` and `receive` wait unless told otherwise.
        close_s: how long `close` waits for the other end to have received everything.
        keepalive_s: each end says something at least that often; whoever waits for one that hangs, or whose network
            went, gives up after twice that. A piece must get through in that time: on links that may carry less than
            `8 * chunk_bytes / (2 * keepalive_s)` bit/s (210 kbit/s as given) set a pace.

    Raises:
        ConfigError: a value that cannot be.
    """

    message_bytes: int = 1 << 28
    chunk_bytes: int = 1 << 18
    connections: int = 64
    ticket_s: float = 10.0
    idle_s: float = 120.0
    close_s: float = 5.0
    keepalive_s: float = 5.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            whole = isinstance(each.default, int)
            right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not right or not 0 < value < (_MOST_WHOLE if whole else _MOST_S):
                raise ConfigError(f"Limits({each.name}={value!r}): expected a {'whole ' * whole}number above 0")
        if not 4096 <= self.chunk_bytes <= 1 << 20:
            raise ConfigError(f"Limits(chunk_bytes={self.chunk_bytes}): expected 4096 to {1 << 20}")


@dataclass(frozen=True)
class Figures:
    """What went over a connection so far, by this end's monotonic clock.

    Attributes:
        sent_bits, received_bits: of messages, without what the transport puts around them.
        sent_messages, received_messages: whole ones.
        sending_s: seconds from the start of each message until its last piece was handed to the network, pacing
            included, summed. A network with room in its buffers takes a piece before it has arrived.
        receiving_s: seconds from the first to the last piece of each message, summed; 0 for those in one piece.
    """

    sent_bits: int = 0
    received_bits: int = 0
    sent_messages: int = 0
    received_messages: int = 0
    sending_s: float = 0.0
    receiving_s: float = 0.0


class Connection(ABC):
    """Both ends of an opened connection. `send` and `receive` may be called from different threads.

    Used as a context manager it is closed at the end.
    """

    peer: Peer

    @abstractmethod
    def send(self, payload: bytes, *, timeout_s: float | None = None) -> None:
        """Give a message to be sent; it leaves in the background, at the pace that is set.

        Waits while two messages are already waiting. `flush` waits until it has left.

        Raises:
            TransportTimeout: no room within `timeout_s` (None: `Limits.idle_s`); nothing of the message was sent.
            TransportRefused: `too-large`: more than the other end said it takes; the connection goes on.
            ConnectionClosed: one end has closed it.
            TransportError: it is broken.
        """

    @abstractmethod
    def receive(self, timeout_s: float | None = None) -> bytes:
        """The next message. What arrived before the connection ended is still given out.

        Raises:
            TransportTimeout: none within `timeout_s` (None: `Limits.idle_s`).
            ConnectionClosed: one end has closed it, and there is none left.
            TransportRefused: the other end has ended it and said why.
            TransportError: it is broken.
        """

    @abstractmethod
    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until every message has been handed to the network; errors as `send`.

        It returns also where the connection has ended since; `figures` is complete after it.
        """

    @abstractmethod
    def pace(self, bps: float | None) -> None:
        """From now on send no faster than `bps` bits per second, in the middle of a message too; None: freely."""

    @abstractmethod
    def ping(self, timeout_s: float | None = None) -> float:
        """Seconds until the other end's transport, not its program, has answered; also kept in `round_trip_s`.

        It overtakes messages that wait here, but not the piece on its way.
        """

    @property
    @abstractmethod
    def round_trip_s(self) -> float | None:
        """Of the last `ping`; dialling makes one. None at a serving end that has not asked, and where the other end
        had closed before it answered."""

    @property
    @abstractmethod
    def figures(self) -> Figures:
        """What went over it so far."""

    @abstractmethod
    def close(self) -> None:
        """End it in good order: everything sent is received first, for at most `Limits.close_s`. Never raises."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


#: What the serving end does with a connection; it ends when this returns. A `TransportRefused` raised in it is told to
#: the other end with its code; of any other error the other end learns only that there was one.
Handler = Callable[[Connection], None]

#: Decides about a hello: a handler, or raises `TransportRefused`. It only decides: the one who dialled may be gone
#: before the handler is called.
Accept = Callable[[Hello, Peer], Handler]


class Server(Protocol):
    """A serving end. A context manager that stops at the end."""

    @property
    def port(self) -> int:
        """The one it listens on, chosen by the system where 0 was asked for."""

    @property
    def connections(self) -> int:
        """How many there are now, those accepted and not yet opened included."""

    def stop(self, timeout_s: float | None = None) -> None:
        """Accept nobody, close every connection, and wait for handlers, for at most `timeout_s` (None: close_s).

        A handler that computes is not interrupted; its next `send` or `receive` raises `ConnectionClosed`.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class PeerTransport(Protocol):
    """A secure channel between two hosts."""

    def serve(self, host: str, port: int, accept: Accept, *, limits: Limits | None = None) -> Server:
        """Listen; `port` 0 takes a free one.

        Raises:
            ConfigError: credentials that cannot serve, or cannot serve there.
            TransportError: the port is taken, or the host is not this machine's.
        """

    def dial(self, address: str, hello: Hello, *, timeout_s: float = 10.0) -> Connection:
        """Open a connection to `host:port`.

        Raises:
            ConfigError: credentials that cannot dial, or cannot dial there.
            TransportRefused: the other end said no; `code` says why.
            TransportError: nobody there, not who it should be, or not in time.
        """
