"""What a link gives, from measurements, and what an inference over such links takes.

Letters, as in Eq. 2 of [2] ¶43:
    W, P    bytes of an inference at a connection, before and after compression
    T, L    seconds of the same: 8 W / goodput + delay

    latency of an inference = sum of compute + sum over connections of (8 bytes / goodput + delay) + rest

The rest is what serving takes beside: the answer's way back, and handing over between threads and processes. It is
measured by requests that carry nothing and are computed by nobody: what those take, less the delays above.

Delay is what no compression takes away, so latency can fall by no more than `attainable` says. Nothing here measures by
itself: who sends says what it saw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import FringeError

__all__ = ["Attainable", "Inference", "Link", "LinkEstimate", "attainable", "inference", "refuse_impossible"]

#: No link is faster, whatever a clock or the other end says: a transfer of no seconds would make it infinitely fast.
_MOST_BPS = 1e12


@dataclass(frozen=True)
class Link:
    """One direction of a link.

    Attributes:
        goodput_bps: bits of frames per second that arrive, above 0; inf where bytes cost nothing.
        delay_s: one way, of the first bit.

    Raises:
        FringeError: a goodput that is not above 0, or a delay below 0.

    >>> round(Link(10e6, 0.01).seconds(65_560), 6)
    0.062448
    """

    goodput_bps: float
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.goodput_bps > 0:
            raise FringeError(f"goodput_bps = {self.goodput_bps!r}: expected bits per second, above 0")
        if not 0.0 <= self.delay_s < math.inf:
            raise FringeError(f"delay_s = {self.delay_s!r}: expected seconds, 0 or more")

    def seconds(self, size_bytes: float) -> float:
        """Of a frame of so many bytes, from its first bit sent to its last received."""
        return 8 * size_bytes / self.goodput_bps + self.delay_s


@dataclass(frozen=True)
class LinkEstimate:
    """What a link gives, from what was seen: means that forget, by a share of `weight` with each measurement.

    Goodput is the mean of bits over the mean of seconds. A frame that is shorter than the mean weighs less by as much,
    unless it took longer than longer ones did: what clocks and threads add to short frames says nothing of a link. Make
    one with `LinkEstimate()`; every update gives a new one.

    Attributes:
        weight: of a new measurement, above 0 and at most 1.
        bits, busy_s: means of what was sent, and of how long it took beyond the delay.
        delay_s: mean of half the round trips; 0 before the first.
        transfers, probes: how many there were.

    Raises:
        FringeError: a weight outside (0, 1], or values that no measurement gives.

    >>> seen = LinkEstimate().probed(0.02).sent(12_500, 0.02)
    >>> seen.link
    Link(goodput_bps=10000000.0, delay_s=0.01)
    """

    weight: float = 0.2
    bits: float = 0.0
    busy_s: float = 0.0
    delay_s: float = 0.0
    transfers: int = 0
    probes: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.weight <= 1.0:
            raise FringeError(f"weight = {self.weight!r}: expected above 0 and at most 1, such as 0.2")
        for name in ("bits", "busy_s", "delay_s", "transfers", "probes"):
            value = getattr(self, name)
            if not 0 <= value < math.inf or (self.transfers and not value and name in ("bits", "busy_s")):
                raise FringeError(
                    f"{name} = {value!r} after {self.transfers} transfers: expected a finite number, above 0"
                )

    def sent(
        self, size_bytes: int, seconds: float, *, tells: bool = True, silent_s: float = 0.0, probe: bool = False
    ) -> LinkEstimate:
        """With a transfer: a frame's bytes, and the seconds until the other end had all of it.

        Args:
            size_bytes, seconds: see above.
            tells: whether that says anything; else it is no more than counted.
            silent_s: for how long before it nothing was measured; each second is forgotten like a measurement.
            probe: it carried nothing, and is not counted.

        Raises:
            FringeError: no bytes, or a time that is not finite or below 0.
        """
        if size_bytes < 1 or not 0.0 <= seconds < math.inf:
            raise FringeError(f"{size_bytes} bytes in {seconds!r} s: expected 1 byte or more, and seconds, 0 or more")
        if not tells:
            return replace(self, transfers=self.transfers + 1)
        own = max(self._own(self.transfers), 1.0 - (1.0 - self.weight) ** (1.0 + silent_s))
        bits = 8 * size_bytes
        busy_s = max(seconds - self.delay_s, bits / _MOST_BPS)
        if self.transfers:
            slower = 1.0 - self.busy_s / busy_s
            own *= min(1.0, max(bits / self.bits, slower))
        return replace(
            self,
            bits=self.bits + own * (bits - self.bits),
            busy_s=self.busy_s + own * (busy_s - self.busy_s),
            transfers=self.transfers + (not probe),
        )

    def probed(self, round_trip_s: float) -> LinkEstimate:
        """With a round trip of a frame that is next to nothing. Half of it is taken for the delay of one way.

        Raises:
            FringeError: a time that is not finite or below 0.
        """
        if not 0.0 <= round_trip_s < math.inf:
            raise FringeError(f"a round trip of {round_trip_s!r} s: expected seconds, 0 or more")
        own = self._own(self.probes)
        return replace(self, delay_s=self.delay_s + own * (round_trip_s / 2 - self.delay_s), probes=self.probes + 1)

    def _own(self, seen: int) -> float:
        # The first counts whole, and until 1 / weight were seen all count alike: nothing is pulled towards a guess.
        return max(self.weight, 1 / (seen + 1))

    @property
    def link(self) -> Link:
        """As it is taken to be now.

        Raises:
            FringeError: nothing was sent yet.
        """
        if not self.transfers:
            raise FringeError("no transfer was measured yet, so goodput is unknown; call sent(size_bytes, seconds)")
        return Link(self.bits / self.busy_s, self.delay_s)

    def state(self) -> dict[str, Any]:
        """Plain values; `from_state` is its inverse."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LinkEstimate:
        """Inverse of `state`.

        Raises:
            FringeError: no such state.
        """
        try:
            return cls(**state)
        except TypeError as error:
            raise FringeError(f"state of a link {dict(state)!r:.120}: {error}") from error


@dataclass(frozen=True)
class Inference:
    """What one inference takes, in seconds.

    Attributes:
        compute_s: of each machine.
        link_s: of each connection.
        rest_s: the way back of the answer, and handing over; 0 where it was not measured.
    """

    compute_s: tuple[float, ...]
    link_s: tuple[float, ...]
    rest_s: float = 0.0

    @property
    def latency_s(self) -> float:
        """From the input to the output, on machines that do nothing else."""
        return math.fsum((*self.compute_s, *self.link_s, self.rest_s))


def inference(
    sizes_bytes: Sequence[float],
    links: Sequence[Link],
    compute_s: Sequence[float] = (),
    *,
    null_s: float | None = None,
) -> Inference:
    """Model one inference.

    Args:
        sizes_bytes: of each connection.
        links: of the same.
        compute_s: of each machine; none: links alone.
        null_s: what a request took that carried nothing and was computed by nobody, from asking to answer; None: the
            rest is left out.

    Raises:
        FringeError: counts that do not go together, or a null request of less than no time.

    >>> round(inference([65_560, 32_792], [Link(10e6, 0.01), Link(20e6, 0.005)]).latency_s, 5)
    0.08056
    """
    if len(sizes_bytes) != len(links) or (compute_s and len(compute_s) != len(links) + 1):
        raise FringeError(
            f"{len(sizes_bytes)} sizes, {len(links)} links and {len(compute_s)} machines; expected as many sizes as "
            "links, and one machine more"
        )
    seconds = tuple(link.seconds(size) for link, size in zip(links, sizes_bytes, strict=True))
    if null_s is None:
        return Inference(tuple(compute_s), seconds)
    if not 0.0 <= null_s < math.inf:
        raise FringeError(f"null_s = {null_s!r}: expected seconds, 0 or more")
    # Delays are half round trips: where the two ways differ they are wrong, and the rest is wrong by as much the other
    # way, below 0 if need be. The sum is right.
    return Inference(tuple(compute_s), seconds, null_s - math.fsum(link.delay_s for link in links))


@dataclass(frozen=True)
class Attainable:
    """How far compression can go at most, were nothing left to send.

    Attributes:
        latency_s: what then remains: compute and delays.
        reduction_s: what goes.
        fraction: the same over the latency before.
    """

    latency_s: float
    reduction_s: float
    fraction: float


def attainable(sizes_bytes: Sequence[float], links: Sequence[Link], compute_s: Sequence[float] = ()) -> Attainable:
    """The largest reduction of latency that is possible by sending less, whatever it does to accuracy.

    Args:
        sizes_bytes: of each connection before compression.
        links, compute_s: as for `inference`.

    Raises:
        FringeError: as of `inference`.

    >>> round(attainable([65_560, 32_792], [Link(10e6, 0.01), Link(20e6, 0.005)]).fraction, 3)
    0.814
    """
    now = inference(sizes_bytes, links, compute_s).latency_s
    least = inference([0.0] * len(links), links, compute_s).latency_s
    gone = math.fsum((now, -least))
    return Attainable(least, gone, gone / now if now else 0.0)


def refuse_impossible(
    most: Attainable,
    *,
    latency_s: float | None = None,
    reduction_s: float | None = None,
    fraction: float | None = None,
) -> None:
    """Refuse a goal that no compression reaches; say the most that one could. Call it before any is tried.

    Args:
        most: see `attainable`.
        latency_s: of an inference, at most.
        reduction_s: of the latency, at least.
        fraction: the same over the latency before, 0 to 1.

    Raises:
        FringeError: a goal that is not possible, or no number.
    """
    for name, goal, scale, words, possible in (
        ("latency_s", latency_s, 1e3, "a latency of {:.4g} ms", latency_s is None or latency_s > most.latency_s),
        ("reduction_s", reduction_s, 1e3, "{:.4g} ms less", reduction_s is None or reduction_s < most.reduction_s),
        ("fraction", fraction, 100, "{:.4g} % less", fraction is None or fraction < most.fraction),
    ):
        if goal is None:
            continue
        if not 0.0 <= goal < math.inf:
            raise FringeError(f"{name} = {goal!r}: expected a finite number, 0 or more")
        if not possible:
            raise FringeError(
                f"{words.format(scale * goal)} cannot be reached by sending less: delays and compute alone take "
                f"{most.latency_s * 1e3:.2f} ms, so latency falls by less than {most.reduction_s * 1e3:.2f} ms "
                f"({100 * most.fraction:.1f} %); ask for less, or move a machine nearer"
            )
