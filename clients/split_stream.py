"""A device's end of streamed split learning: dial the cloud, say frames, hear their answers, measure the way.

Nothing here computes with a model or knows Flower: the work is handed in, and what it is told is handed back.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from flower_edge.errors import ProtocolError
from flower_edge.runtime.splitting.channel import PURPOSE, exchanges, unpack_answer
from flower_edge.runtime.splitting.messages import SplitOrder
from flower_edge.splitting.frame import Frame
from flower_edge.splitting.frames import FrameCoder
from flower_edge.transport.credentials import Insecure, TrustServer
from flower_edge.transport.grpc_transport import GrpcTransport
from flower_edge.transport.transport import Connection, Hello

__all__ = ["Figures", "Talker", "converse"]

#: Below this share of the way's time, what bits took cannot be told from what the round trip took.
_CLEAR_SHARE: Final = 0.2
#: A channel that needs no longer than its reservation does, over this share, is held back by it, and tells nothing of
#: the link.
_HELD_BACK: Final = 0.9
#: Seconds that a modelled link takes for a frame of so many bits and an answer of so many.
WayTime = Callable[[int, int], float]


class Talker(Protocol):
    """What `converse` needs of a `DeviceWork`."""

    def next(self, incoming: Frame | None) -> Frame | None:
        """What to say after having heard `incoming`; None at the end."""
        ...


@dataclass(frozen=True)
class Figures:
    """How it went, measured on this host's own clock.

    Attributes:
        exchanges: frames said, each with its answer.
        transfer_s: wall seconds from saying to hearing, without those the cloud said it was busy: the way alone.
        cloud_s: those, waiting for other devices included.
        late: steps whose way took longer than the order's `transfer_s`.
        up_bits, down_bits: of frames, without what TLS and HTTP/2 add.
        delay_s: one way, half of the channel's own round trip.
        goodput_bps: bits both ways over what they took beyond the round trip; None where that was too little to tell,
            or the reservation and not the link set the pace. One host's clock cannot tell up from down.
        worst_s: the longest way of a step.
    """

    exchanges: int = 0
    transfer_s: float = 0.0
    cloud_s: float = 0.0
    late: int = 0
    up_bits: int = 0
    down_bits: int = 0
    delay_s: float | None = None
    goodput_bps: float | None = None
    worst_s: float = 0.0


def converse(
    order: SplitOrder,
    work: Talker,
    coder: FrameCoder,
    *,
    dial_s: float = 20.0,
    patience_s: float = 900.0,
    way_s: WayTime | None = None,
) -> Figures:
    """Carry one device's round over a channel to `order.address`.

    Args:
        order: with address, token and, for TLS, the certificate of who signed the server's.
        work: what says and hears frames; afterwards it has its result.
        coder: of the frames, as the cloud has it.
        dial_s: for the channel to be there.
        patience_s: for one answer. Of a cloud that is gone the channel tells within about ten seconds by itself; this
            bounds one that computes, or lets others go first.
        way_s: of a modelled link: what counts as time on the way instead of what was measured.

    Raises:
        TransportRefused: the cloud does not admit this device; `code` says why.
        TransportError: the channel could not be opened, or broke.
        ProtocolError: an answer that is none to what was said, or a work that stopped early or did not stop.
    """
    credentials = TrustServer(order.certificate.encode()) if order.certificate else Insecure()
    hello = Hello(
        purpose=PURPOSE,
        run=order.session,
        node=order.work.number,
        token=order.token,
        data={"round": order.work.round},
    )
    with GrpcTransport(credentials).dial(order.address, hello, timeout_s=dial_s) as connection:
        connection.pace(order.up_bps)
        return _converse(order, work, coder, connection, patience_s, way_s)


def _converse(
    order: SplitOrder,
    work: Talker,
    coder: FrameCoder,
    connection: Connection,
    patience_s: float,
    way_s: WayTime | None,
) -> Figures:
    ways_s: dict[int, float] = {}
    cloud_s, up_bits, down_bits, count = 0.0, 0, 0, 0
    heard: Frame | None = None
    for one in exchanges(order.work):
        said = work.next(heard)
        if said is None or (said.kind, said.step) != (one.asked, one.step):
            has = "nothing" if said is None else f"{said.kind.name} of step {said.step}"
            raise ProtocolError(f"the device's work says {has}; expected {one.asked.name} of step {one.step}")
        data = coder.encode(said)
        began_s = time.perf_counter()
        connection.send(data, timeout_s=patience_s)
        payload = connection.receive(patience_s)
        waited_s = time.perf_counter() - began_s
        busy_s, answer = unpack_answer(payload)
        heard = coder.decode(answer, one.answered, one.step)
        busy_s = min(busy_s, waited_s)
        taken_s = waited_s - busy_s if way_s is None else way_s(8 * len(data), 8 * len(answer))
        ways_s[one.step] = ways_s.get(one.step, 0.0) + taken_s
        cloud_s, count = cloud_s + busy_s, count + 1
        up_bits, down_bits = up_bits + 8 * len(data), down_bits + 8 * len(answer)
    if (more := work.next(heard)) is not None:
        raise ProtocolError(f"the device's work says {more.kind.name} of step {more.step}; expected the end")
    budget_s = order.transfer_s
    transfer_s = sum(ways_s.values())
    round_trip_s = connection.round_trip_s
    return Figures(
        exchanges=count,
        transfer_s=transfer_s,
        cloud_s=cloud_s,
        late=0 if budget_s is None else sum(taken_s > budget_s for taken_s in ways_s.values()),
        up_bits=up_bits,
        down_bits=down_bits,
        delay_s=None if round_trip_s is None else round_trip_s / 2.0,
        goodput_bps=_goodput_bps(
            up_bits, down_bits, transfer_s, count * (round_trip_s or 0.0), order.up_bps, order.down_bps
        ),
        worst_s=max(ways_s.values(), default=0.0),
    )


def _goodput_bps(
    up_bits: int,
    down_bits: int,
    transfer_s: float,
    trips_s: float,
    up_bps: float | None = None,
    down_bps: float | None = None,
) -> float | None:
    """See `Figures.goodput_bps`; a direction without a reservation counts as held to the other's.

    >>> _goodput_bps(4_000_000, 4_000_000, transfer_s=1.5, trips_s=0.5)
    8000000.0
    >>> _goodput_bps(1_000, 1_000, transfer_s=0.51, trips_s=0.5)
    >>> _goodput_bps(4_000_000, 4_000_000, transfer_s=8.0, trips_s=0.0, up_bps=1e6)
    >>> _goodput_bps(4_000_000, 1_000_000, transfer_s=5.0, trips_s=0.0, up_bps=4e6, down_bps=0.25e6)
    """
    sending_s = transfer_s - trips_s
    if sending_s <= _CLEAR_SHARE * transfer_s:
        return None
    first_bps, second_bps = up_bps or down_bps, down_bps or up_bps
    if first_bps and second_bps and up_bits / first_bps + down_bits / second_bps >= _HELD_BACK * sending_s:
        return None
    return (up_bits + down_bits) / sending_s
