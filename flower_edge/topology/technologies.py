"""Link technologies: every link takes whichever carries it fastest, directly or through an intermediary.

[1] ¶33: devices may use the operator's network, or channels orthogonal to it: Bluetooth, WiFi Direct "at ranges of up
to 200 meters", LTE Direct "at ranges of between 200 and 500 meters", each pair what suits it best; and they may
interact "through intermediaries (e.g., through a router)". `Technologies` is a `Radio` of such links. Every technology
has a channel of its own, so they do not disturb each other. Nothing here moves, and nothing is random.

A technology has a band of its own, and a node's budget is then its time: with the share B[i, j] / budget[i] of it, the
link j -> i carries

    share * band * S_tech  =  B[i, j] * S[i, j],    S[i, j] = S_tech * band / budget[i]

so a budget of another size changes S and B together, and no rate. Through an intermediary the parts of the way take
their times one after the other, 1 / S = 1 / S_up + 1 / S_down, and the latencies add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from ..units import dbm_to_w, ms_to_s
from .path_loss import D2D_NLOS, MACRO, PathLoss, WinnerLos
from .rows import Floats, Indices
from .shannon import NOISE_DBM_PER_HZ, Carried, Shadow, distances_m, shannon
from .topology import Topology

__all__ = [
    "BLUETOOTH",
    "DIRECT",
    "LTE_DIRECT",
    "OPERATOR",
    "WIFI_DIRECT",
    "Intermediary",
    "Technologies",
    "Technology",
]

#: Fixed places are numbered from here where a shadow is looked up, so that they are no node.
_PLACES = 2**31


@dataclass(frozen=True)
class Technology:
    """A kind of link, with a channel of its own.

    Args:
        name: what it is called.
        band_hz: width of its channel.
        tx_dbm: power of a sender over that channel.
        path_loss: how power fades.
        most_m: how far it reaches, that distance included.
        least_m: from where on it is used; nearer nodes use something else.
        cap: bit/s/Hz that its modulation does not exceed.
        noise_figure_db: what a receiver adds to thermal noise.
        latency_s: what a transfer takes beside.

    Raises:
        ConfigError: a number out of range.

    >>> WIFI_DIRECT.band_hz, WIFI_DIRECT.most_m
    (20000000.0, 200.0)
    """

    name: str
    band_hz: float
    tx_dbm: float
    path_loss: PathLoss
    most_m: float = math.inf
    least_m: float = 0.0
    cap: float = math.inf
    noise_figure_db: float = 0.0
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("a technology without a name; give one, it is what links are reported by")
        if not (math.isfinite(self.band_hz) and self.band_hz > 0 and self.cap > 0):
            raise ConfigError(f"{self.name}: band_hz = {self.band_hz}, cap = {self.cap}; give numbers above 0")
        if not (math.isfinite(self.tx_dbm) and math.isfinite(self.noise_figure_db)):
            raise ConfigError(f"{self.name}: tx_dbm, noise_figure_db; give finite decibels")
        if not 0 <= self.least_m < self.most_m:
            raise ConfigError(f"{self.name}: from {self.least_m} to {self.most_m} m; give the lower limit first")
        if not (math.isfinite(self.latency_s) and self.latency_s >= 0):
            raise ConfigError(f"{self.name}: latency_s = {self.latency_s}; give 0 or more")

    def rate_bps(self, distance_m: Floats, shadow: Floats | None = None) -> Floats:
        """Bits per second over the whole channel at each distance, float64 [links]; 0 out of range.

        Args:
            distance_m: length of each link, [links].
            shadow: factor on the power that arrives, [links]; 1 where not given.
        """
        noise_w = dbm_to_w(NOISE_DBM_PER_HZ + self.noise_figure_db) * self.band_hz
        inside = np.flatnonzero((distance_m >= self.least_m) & (distance_m <= self.most_m))
        snr = self.path_loss.gain_ratio(distance_m[inside]) * (dbm_to_w(self.tx_dbm) / noise_w)
        if shadow is not None:
            snr *= shadow[inside]
        rate_bps = np.zeros(len(distance_m))
        rate_bps[inside] = shannon(snr, self.cap) * self.band_hz
        return rate_bps


#: Enhanced data rate, class 2: 3 Mbit/s in a channel of 1 MHz, 4 dBm, 10 m.
BLUETOOTH = Technology("Bluetooth", 1e6, 4.0, WinnerLos(2.4e9, (1.5, 1.5), 1.0), most_m=10.0, cap=3.0)
#: One stream of 802.11n: 72.2 Mbit/s at most in 20 MHz; up to 200 m ([1] ¶33).
WIFI_DIRECT = Technology("WiFi Direct", 20e6, 20.0, D2D_NLOS, most_m=200.0, cap=3.61)
#: A channel of 20 MHz at the power of a phone, 64-QAM; from 200 to 500 m ([1] ¶33).
LTE_DIRECT = Technology("LTE Direct", 20e6, 23.0, D2D_NLOS, least_m=200.0, most_m=500.0, cap=5.55)
#: To and from a base station, a resource of 10 MHz for this task; there it is an intermediary.
OPERATOR = Technology("operator network", 10e6, 23.0, MACRO, cap=5.55, noise_figure_db=5.0, latency_s=ms_to_s(10))
#: What devices have without any infrastructure.
DIRECT = (BLUETOOTH, WIFI_DIRECT, LTE_DIRECT)


@dataclass(frozen=True)
class Intermediary:
    """Something that passes models on: a router, an edge server, a node that relays for others.

    Args:
        name: what it is called.
        at: its place (x, y) in metres; or the number of a node, which relays for links that are not its own.
        up: what senders reach it by; each takes the fastest.
        down: what it reaches receivers by; the same where not given.
        latency_s: what passing on takes beside.

    Raises:
        ConfigError: no technology, or a number out of range.
    """

    name: str
    at: int | tuple[float, float]
    up: tuple[Technology, ...]
    down: tuple[Technology, ...] = ()
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if not self.name or not self.up:
            raise ConfigError(f"intermediary {self.name!r}: give a name, and in `up` what it is reached by")
        if not (math.isfinite(self.latency_s) and self.latency_s >= 0):
            raise ConfigError(f"intermediary {self.name!r}: latency_s = {self.latency_s}; give 0 or more")
        if isinstance(self.at, int | np.integer):
            if isinstance(self.at, bool) or self.at < 0:
                raise ConfigError(f"intermediary {self.name!r}: at = {self.at} is no node; give 0 or more, or (x, y)")
            object.__setattr__(self, "at", int(self.at))  # NumPy's integers, too
        elif len(self.at) != 2 or not all(math.isfinite(part) for part in self.at):
            raise ConfigError(f"intermediary {self.name!r}: at = {self.at}; give (x, y) in metres, or a node")


@dataclass(frozen=True)
class Technologies:
    """A `Radio` whose links choose: the way that would carry a payload soonest with the whole of the receiver's time.

    Args:
        direct: technologies between two nodes; none where everything goes through intermediaries.
        through: intermediaries.
        reference_bits: the payload by which ways are compared; it matters only where they differ in latency.

    Raises:
        ConfigError: no way at all, names that repeat, or a payload that is not above 0.

    >>> Technologies(through=(Intermediary("base station", (250.0, 250.0), up=(OPERATOR,)),)).names
    ('Bluetooth', 'WiFi Direct', 'LTE Direct', 'base station')
    """

    direct: tuple[Technology, ...] = DIRECT
    through: tuple[Intermediary, ...] = ()
    reference_bits: float = 2e6

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ConfigError(
                f"names of technologies and intermediaries: {self.names}; give one or more, all different"
            )
        if not (math.isfinite(self.reference_bits) and self.reference_bits > 0):
            raise ConfigError(f"reference_bits = {self.reference_bits}; give a number above 0")

    @property
    def names(self) -> tuple[str, ...]:
        """The technologies, then the intermediaries."""
        return (*(way.name for way in self.direct), *(way.name for way in self.through))

    def over(self, topology: Topology, positions_m: Floats, budget_hz: Floats, shadow: Shadow | None) -> Carried:
        """What each link of a topology can carry, and by which way.

        Raises:
            ConfigError: an intermediary that is a node there is not.
        """
        receiver, sender = topology.receiver, topology.sender
        distance_m = distances_m(positions_m, receiver, sender)
        between = None if shadow is None else shadow(receiver, sender)
        best = _Best(topology.links, self.reference_bits)
        for number, technology in enumerate(self.direct):
            s_per_bit = _inverse(technology.rate_bps(distance_m, between))
            best.consider(number, s_per_bit, technology.latency_s)
        for k, intermediary in enumerate(self.through):
            up, down = self._hops(k, intermediary, topology.nodes, positions_m, shadow)
            s_per_bit = up.s_per_bit[sender] + down.s_per_bit[receiver]
            if isinstance(intermediary.at, int):
                s_per_bit[(sender == intermediary.at) | (receiver == intermediary.at)] = np.inf
            latency_s = up.latency_s[sender] + down.latency_s[receiver] + intermediary.latency_s
            best.consider(len(self.direct) + k, s_per_bit, latency_s)
        S = _inverse(best.s_per_bit * budget_hz[receiver])
        return Carried(S, np.where(S > 0, best.latency_s, 0.0), best.number)

    def _hops(
        self, k: int, intermediary: Intermediary, nodes: int, positions_m: Floats, shadow: Shadow | None
    ) -> tuple[_Best, _Best]:
        """From each node to the intermediary, and from there to each node."""
        at = intermediary.at
        if isinstance(at, int) and at >= nodes:
            raise ConfigError(f"intermediary {intermediary.name!r} is node {at}; nodes go from 0 to {nodes - 1}")
        place_m = positions_m[at] if isinstance(at, int) else np.asarray(at, np.float64)
        distance_m = np.hypot(positions_m[:, 0] - place_m[0], positions_m[:, 1] - place_m[1])
        everyone = np.arange(nodes)
        itself = np.full(nodes, at if isinstance(at, int) else _PLACES + k)
        found = []
        for technologies, ends in (
            (intermediary.up, (itself, everyone)),
            (intermediary.down or intermediary.up, (everyone, itself)),
        ):
            between = None if shadow is None else shadow(*ends)
            found.append(_fastest(technologies, distance_m, between, self.reference_bits))
        return found[0], found[1]


class _Best:
    """The best way found so far for each link."""

    def __init__(self, links: int, reference_bits: float) -> None:
        self._reference_bits = reference_bits
        self._whole_s = np.full(links, np.inf)
        self.s_per_bit: Floats = np.full(links, np.inf)
        self.latency_s: Floats = np.zeros(links)
        self.number: Indices = np.full(links, -1, np.int64)

    def consider(self, number: int, s_per_bit: Floats, latency_s: Floats | float) -> None:
        """Take this way where it is faster; the first of those that are as fast stays."""
        whole_s = self._reference_bits * s_per_bit + latency_s
        faster = whole_s < self._whole_s
        np.copyto(self._whole_s, whole_s, where=faster)
        np.copyto(self.s_per_bit, s_per_bit, where=faster)
        np.copyto(self.latency_s, latency_s, where=faster)
        np.copyto(self.number, number, where=faster)


def _fastest(
    technologies: Sequence[Technology], distance_m: Floats, shadow: Floats | None, reference_bits: float
) -> _Best:
    best = _Best(len(distance_m), reference_bits)
    for number, technology in enumerate(technologies):
        s_per_bit = _inverse(technology.rate_bps(distance_m, shadow))
        best.consider(number, s_per_bit, technology.latency_s)
    return best


def _inverse(values: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(1.0 / values)
