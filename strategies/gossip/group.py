"""`Group`: what an edge server knows of its gossiping workers between two rounds, and what it makes of a round.

Weights and bands in force, packets on their way, what was measured, where the group is in time. Numbers and packets
only: no Flower message is read or written here, and nothing is sent.

A round, as everywhere in this room: round t ends with packets posted under the control of round t; they are mixed, with
the weights of round t, when round t + 1 begins. So the control of round t + 1 may follow from what was measured in
round t, and nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field
from logging import getLogger
from typing import Any

import numpy as np
import numpy.typing as npt

from flower_edge.codecs.codec import Arrays, Codec, label
from flower_edge.codecs.codec import State as CodecState
from flower_edge.codecs.delta import Delta
from flower_edge.codecs.moment import Moment
from flower_edge.control.controller import Control, Controller, Observation, Start, State
from flower_edge.control.resources import restored
from flower_edge.errors import CodecError, ConfigError, TopologyError, WireError
from flower_edge.peers.packet import Packet
from flower_edge.peers.relay import Delivery, Posted, RelayStore, RelayTraffic
from flower_edge.runtime.gossip_messages import Order, Report
from flower_edge.topology.rows import Floats, Indices
from flower_edge.topology.topology import Topology

from .environment import Environment
from .replicas import Replicas
from .signalling import Signalling
from .timing import Timing

__all__ = ["Group", "Heard"]

log = getLogger("flwr.edge")


@dataclass(frozen=True)
class Heard:
    """What came back from one worker."""

    report: Report
    packet: bytes | None
    processing_s: float


@dataclass
class Group:
    """The server's side of a gossiping group.

    Attributes:
        env: workers and links.
        controller: chooses weights and bands.
        signalling: who computes the rows, and what for that goes up and down.
        codec: how models become packets.
        timing: where the group is in time.
        start: what was known before the first round.
        control: in force in the round that comes, or runs.
        mixing: that of the round before, with whose weights the packets that are here are mixed; None before any.
        state: the controller's.
        efficiency: S as last known, float64 [links].
        store: packets that the server relays.
        codec_states: what the decoder of each sender's packets remembers, by number.
        replicas: who can follow whose packets.
        fresh: workers that begin from the server's model in the next round.
        silent_rounds: for how many rounds each worker has not been there.
        predicted_bits: what every packet is taken to weigh on its link; None counts the real ones.
        defined_in: the round in which it was defined.
        relayed: what `traffic` has told of.
        timed: links whose delay somebody has measured, bool [links]; None where nobody has.
    """

    env: Environment
    controller: Controller
    signalling: Signalling
    codec: Codec
    timing: Timing
    start: Start
    control: Control
    state: State
    efficiency: Floats
    mixing: Control | None = None
    store: RelayStore = field(default_factory=RelayStore)
    codec_states: dict[int, CodecState] = field(default_factory=dict)
    replicas: Replicas = field(default_factory=lambda: Replicas(used=False))
    fresh: set[int] = field(default_factory=set)
    silent_rounds: dict[int, int] = field(default_factory=dict)
    last_round: int = 0
    seen: Observation | None = None
    predicted_bits: float | None = None
    defined_in: int = 1
    relayed: RelayTraffic = field(default_factory=RelayTraffic)
    timed: npt.NDArray[np.bool_] | None = None
    _known_newest: tuple[Timing, Indices] | None = field(default=None, repr=False)

    @property
    def topology(self) -> Topology:
        """Every link that may be used."""
        return self.env.topology

    # -- before a round ----------------------------------------------------------------------------------------------

    def foresee(self, round: int, payload_bits: Floats) -> None:
        """Let a clairvoyant controller see the round it decides for.

        Raises:
            ConfigError: the world does not model it.
        """
        if not self.controller.clairvoyant:
            return
        processing_s = self.env.world.processing_s(round)
        efficiency = np.asarray(self.env.world.spectral_efficiency(round), np.float64)
        if np.isnan(processing_s).any() or np.isnan(efficiency).any():
            raise ConfigError(
                f"{self.controller!r} wants to know the coming round, and only a modelled world does: "
                "give world=RadioWorld(...) with processing times, or take a controller that goes by the last round"
            )
        coming = self.env.under(self.control).observe(round, processing_s, efficiency, payload_bits)
        self.control, self.state = self.controller.step(self.state, coming)
        self.check()

    def begin_afresh(self, like: Arrays) -> None:
        """All workers begin from this model, in the next round."""
        self.fresh = set(range(self.topology.nodes))
        begun = self.codec.begin(like) if isinstance(self.codec, Delta) else None
        self.codec_states = {} if begun is None else dict.fromkeys(self.env.numbers, begun)
        self.replicas.begin()

    @property
    def common(self) -> bool:
        """Whether all workers begin afresh in the next round: from the same model, which all have."""
        return len(self.fresh) == self.topology.nodes

    def plan(self, there: Set[int]) -> None:
        """Who is to post a whole model in the round that begins; `there` are the workers that take part, by row."""
        if not self.replicas.used:
            return
        topology, names = self.topology, np.asarray(self.env.numbers, np.int64)
        carries = np.flatnonzero(self.signalling.may_carry(self))
        pairs = zip(names[topology.receiver[carries]].tolist(), names[topology.sender[carries]].tolist(), strict=True)
        here, fresh = ({int(names[i]) for i in rows} for rows in (there, self.fresh & there))
        self.replicas.plan(pairs, here, fresh, self.common)

    def check(self) -> None:
        """Refuse a control that cannot be carried out.

        Raises:
            TopologyError: names the controller and what is wrong.
        """
        try:
            self.control.check(self.topology, self.start.budget_hz)
        except TopologyError as error:
            raise TopologyError(f"{self.controller!r} decided what cannot be: {error}") from None

    def order(
        self, i: int, round: int, *, fresh: bool, train: bool, returns_packet: bool, codec: str = "", mailbox: str = ""
    ) -> Order:
        """What worker i is told for a round; `codec` and `mailbox` as JSON."""
        topology, env = self.topology, self.env
        names = env.numbers
        mine = self.links_from(i)
        order: dict[str, Any] = {
            "round": round,
            "index": names[i],
            "nodes": len(names),
            "fresh": fresh,
            "train": train,
            "to": [names[k] for k in topology.receiver[mine].tolist()],
            "bandwidth_hz": self.control.bandwidth_hz[mine].tolist(),
            "keep_from": max(0, self.last_round - self.timing.staleness),
            "returns_packet": returns_packet,
            "codec": codec,
            "mailbox": mailbox,
            "plain": names[i] in self.replicas.wanted,
            "known": self.replicas.read_in.get(names[i], 0),
            "common": fresh and self.common,
            "catch_up": self.replicas.catch_up,
        }
        if not fresh and self.mixing is not None:
            row = topology.row(i)
            newest, weights = self._newest()[row], self.mixing.weights[row]
            used = (weights > 0.0) & (newest > 0)
            order["senders"] = [names[j] for j in topology.sender[row][used].tolist()]
            order["sent_in"] = newest[used].tolist()
            order["weights"] = weights[used].tolist()
        return Order(**{**order, **self.signalling.told(self, i, fresh=fresh)})

    def links_from(self, i: int) -> Indices:
        """Links that may carry worker i's packet in this round, int64 [some]."""
        topology = self.topology
        mine = topology.by_sender[topology.out_indptr[i] : topology.out_indptr[i + 1]]
        return np.asarray(mine[self.signalling.may_carry(self)[mine]])

    def _newest(self) -> Indices:
        """`Timing.newest`, once for all workers of a round."""
        if self._known_newest is None or self._known_newest[0] is not self.timing:
            self._known_newest = self.timing, self.timing.newest(self.topology)
        return self._known_newest[1]

    def letters(self, order: Order) -> dict[int, Delivery]:
        """The packets that a relaying server sends along with an order."""
        found: dict[int, Delivery] = {}
        for sender, sent_in in zip(order.senders, order.sent_in, strict=True):
            found.update(self.store.letters(order.index, round=sent_in, senders=[sender]))
        return found

    def earlier_letters(self, order: Order, *, relays: bool) -> dict[tuple[int, int], bytes]:
        """Packets that a relaying server sends along where somebody has missed some, by round and sender."""
        missed = self.replicas.missed(order.index, order.senders, order.sent_in)
        found: dict[tuple[int, int], bytes] = {}
        for number, sender in missed if relays else []:
            for letter in self.store.letters(order.index, round=number, senders=[sender]).values():
                found[number, sender] = letter.data
        return found

    # -- after a round -----------------------------------------------------------------------------------------------

    def after(self, round: int, heard: Mapping[int, Heard]) -> tuple[Observation, Control]:
        """Take in what came back, by worker: time passes, and the controller decides for the next round.

        Returns:
            What was measured in this round, and the control that was in force in it.
        """
        env, topology = self.env, self.topology
        processing_s = np.asarray(env.world.processing_s(round), np.float64).copy()
        payload_bits = self.start.payload_bits if self.seen is None else self.seen.payload_bits
        counted = payload_bits.copy()
        for i in range(topology.nodes):
            came = heard.get(i)
            if came is None or came.report.lost:
                processing_s[i] = np.nan
            elif np.isnan(processing_s[i]):
                processing_s[i] = came.processing_s
            if came is not None and not came.report.lost:
                counted[i] = came.report.posted_bits if came.packet is None else 8 * len(came.packet)
        payload_bits = counted if self.predicted_bits is None else np.full(topology.nodes, self.predicted_bits)
        # Requirement values told in this round are about the one before: they decide about the control of this one.
        self.signalling.heard(self, {i: came.report for i, came in heard.items() if not came.report.lost})
        self.check()
        in_force = self.control
        efficiency = env.efficiency(round, self.efficiency)
        if (heard_s := self._heard_s(heard)) is not None and self.mixing is not None:
            efficiency = env.measured(round, self.mixing, payload_bits, heard_s, efficiency)
            now = ~np.isnan(heard_s)
            self.timed = now if self.timed is None else self.timed | now
        self.efficiency = efficiency
        seen = env.under(in_force).observe(round, processing_s, efficiency, payload_bits)
        self.timing = self.timing.after(topology, in_force, seen, round)
        self.mixing, self.seen, self.last_round = in_force, seen, round
        self.signalling.decide(self, seen)
        self.check()
        self.store.forget(round - self.timing.staleness - self.replicas.catch_up)
        reports = {env.numbers[i]: came.report for i, came in heard.items()}
        wishes = {number: report.wants_plain for number, report in reports.items()}
        self.replicas.heard(round, wishes, [number for number, report in reports.items() if report.plain])
        for i in range(topology.nodes):
            self.silent_rounds[i] = 0 if i in heard else self.silent_rounds.get(i, 0) + 1
        return seen, in_force

    def nobody(self) -> None:
        """A round in which nobody was heard: nothing is decided, and what was posted before waits."""
        self.silent_rounds = {i: self.silent_rounds.get(i, 0) + 1 for i in range(self.topology.nodes)}

    def _heard_s(self, heard: Mapping[int, Heard]) -> Floats | None:
        """C of links whose mailbox measured it, NaN elsewhere; None where none did."""
        found = np.full(self.topology.links, np.nan)
        place = {name: k for k, name in enumerate(self.env.numbers)}
        for i, came in heard.items():
            report = came.report
            if len(report.heard_s) != len(report.heard):
                continue
            senders = [place.get(name, -1) for name in report.heard]
            at = self.topology.find(np.full(len(senders), i), senders) if senders else np.zeros(0, np.int64)
            known = at >= 0
            found[at[known]] = np.asarray(report.heard_s, np.float64)[known]
        return None if np.isnan(found).all() else found

    def take(self, i: int, round: int, data: bytes, like: Arrays, *, relayed: bool) -> Arrays | None:
        """Decode a worker's packet, and keep it to be relayed; None if it cannot be used, which is told."""
        name = self.env.numbers[i]
        try:
            packet = Packet.from_bytes(data)
            if (packet.sender, packet.round) != (name, round):
                raise WireError(f"a packet that says it is of node {packet.sender} and round {packet.round}")
            if packet.codec != (expected := label(self.codec)):
                raise WireError(f"a packet encoded by {packet.codec!r}, expected {expected!r}")
            state = self.codec_states.get(name) or self.codec.init(like)
            arrays, self.codec_states[name] = self.codec.decode(packet.payload, state, Moment(round, name))
            self.replicas.read(name, round)
            if relayed:
                to = [self.env.numbers[k] for k in self.topology.receiver[self.links_from(i)].tolist()]
                self.store.put(name, [Posted(data, tuple(to))], round=round)
        except (WireError, CodecError) as error:
            log.warning("\tround %d: the packet of worker %d is not used: %s", round, name, error)
            return None
        return arrays

    def traffic(self) -> dict[str, float]:
        """What was relayed since the last call: bits up and down, and what direct links would have carried."""
        before, self.relayed = self.relayed, self.store.traffic
        return {
            f"relay_{name}": float(getattr(self.relayed, name) - getattr(before, name))
            for name in ("up_bits", "down_bits", "peer_bits")
        }

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint; workers by number."""
        return {
            "nodes": [[node, i] for node, i in self.env.index.items()],
            "numbers": list(self.env.numbers),
            "partitions": list(self.env.partitions),
            "state": self.state,
            "control": self.control.saved(),
            "mixing": None if self.mixing is None else self.mixing.saved(),
            "timing": self.timing.state_dict(),
            "efficiency": self.efficiency,
            "store": self.store.state_dict(),
            "codec_states": [[name, state] for name, state in self.codec_states.items()],
            "replicas": self.replicas.state_dict(),
            "fresh": sorted(self.fresh),
            "silent_rounds": [[i, count] for i, count in self.silent_rounds.items()],
            "last_round": self.last_round,
            "signalling": self.signalling.state_dict(),
            "seen": None if self.seen is None else dict(vars(self.seen)),
            "defined_in": self.defined_in,
            "relayed": asdict(self.relayed),
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`, for a group newly defined over the same workers."""
        self.state, self.control = saved["state"], restored(saved["control"])
        self.mixing = None if saved["mixing"] is None else restored(saved["mixing"])
        self.timing = Timing.from_state(self.timing.staleness, saved["timing"])
        self.efficiency = saved["efficiency"]
        self.store.load_state_dict(saved["store"])
        self.relayed = RelayTraffic(**saved["relayed"])
        self.codec_states = {int(name): state for name, state in saved["codec_states"]}
        self.replicas.load_state_dict(saved["replicas"])
        self.fresh = set(saved["fresh"])
        self.silent_rounds = {int(i): int(count) for i, count in saved["silent_rounds"]}
        self.last_round = int(saved["last_round"])
        self.signalling.load_state_dict(saved["signalling"])
        self.seen = None if saved["seen"] is None else Observation(**saved["seen"])
