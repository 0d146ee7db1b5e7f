"""`RadioWorld`: a `World` modelled from where nodes are, how power fades, what shadows them and how long they compute.

Pure in (seed, round): the same round gives the same arrays, whatever was asked before; the last one is kept. Everything
is an array over links or nodes, nothing a matrix. No controller and no model is known here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from ..coverage.arguments import each, places, positive
from ..coverage.mobility import Mobility
from ..errors import ConfigError
from .processing import NormalProcessing, ProcessingTimes, at_round
from .rows import Floats, Indices
from .shadowing import Shadowing
from .shannon import Carried, Radio, Shadow, ShannonRadio
from .topology import Topology

__all__ = ["RadioWorld", "within_range"]


class RadioWorld:
    """Nodes that move, their radio, their processing times.

    Args:
        mobility: where nodes are at a time.
        radio: how well links carry: `ShannonRadio`, or `Technologies` to choose from.
        processing: how long nodes compute; drawn as in [1] ¶49 where not given, with seed 0.
        budget_hz: band of each node; one for all, or one per node [nodes].
        shadowing: what stands between nodes; nothing where not given.
        topology: every link that may ever be used; all pairs where not given.
        round_s: seconds between the places of a round and of the next: round t is looked at (t - 1) `round_s`.

    Raises:
        ConfigError: parts for different numbers of nodes, a budget or `round_s` that is not above 0.
    """

    def __init__(
        self,
        mobility: Mobility,
        *,
        radio: Radio | None = None,
        processing: ProcessingTimes | None = None,
        budget_hz: npt.ArrayLike = 20e6,
        shadowing: Shadowing | None = None,
        topology: Topology | None = None,
        round_s: float = 1.0,
    ) -> None:
        nodes = mobility.nodes
        self.mobility, self.shadowing = mobility, shadowing
        self.radio: Radio = ShannonRadio() if radio is None else radio
        self.processing: ProcessingTimes = NormalProcessing(nodes, seed=0) if processing is None else processing
        self.round_s = positive("round_s", round_s)
        self._budget_hz = np.array(each("budget_hz", budget_hz, nodes))
        if (self._budget_hz <= 0).any():
            raise ConfigError("budget_hz has a 0; give every node some band")
        self._budget_hz.flags.writeable = False
        for name, count in (
            ("processing", self.processing.nodes),
            ("topology", nodes if topology is None else topology.nodes),
        ):
            if count != nodes:
                raise ConfigError(f"mobility has {nodes} nodes and {name} {count}; give parts for the same nodes")
        start_m = mobility.positions_m(0.0)
        self._topology = Topology.complete(nodes, start_m) if topology is None else topology.at(start_m)
        self._shadow: tuple[int, Floats] | None = None
        self._last: tuple[int, Carried] | None = None

    @property
    def topology(self) -> Topology:
        """Every link that can ever be used in this run; where nodes are when it begins."""
        return self._topology

    @property
    def nodes(self) -> int:
        """How many nodes there are."""
        return self._topology.nodes

    @property
    def budget_hz(self) -> Floats:
        """Band of each node, float64 [nodes]; not to be written to."""
        return self._budget_hz

    def positions_m(self, round: int) -> Floats:
        """Where nodes are in a round, float64 [nodes, 2]."""
        return self.mobility.positions_m((at_round(round) - 1) * self.round_s)

    def processing_s(self, round: int) -> Floats:
        """P, float64 [nodes]."""
        return self.processing.processing_s(round)

    def spectral_efficiency(self, round: int) -> Floats:
        """S, float64 [links]; 0 for a link that carries nothing in this round. Not to be written to."""
        return self._carried(round).spectral_efficiency

    def latency_s(self, round: int) -> Floats:
        """What a link takes beside P and the transfer itself, float64 [links]; not to be written to."""
        return self._carried(round).latency_s

    def carrier(self, round: int) -> Indices:
        """Which of `radio.names` carries each link, int64 [links]; -1 for none. Not to be written to."""
        return self._carried(round).carrier

    def carriers(self, round: int) -> list[str | None]:
        """As `carrier`, in words: a name for each link, None for one that carries nothing."""
        names: Sequence[str | None] = (*self.radio.names, None)
        return [names[k] for k in self.carrier(round).tolist()]

    def _carried(self, round: int) -> Carried:
        round = at_round(round)
        if self._last is None or self._last[0] != round:
            shadow = None if self.shadowing is None else self._shadow_of(self.shadowing, round)
            carried = self.radio.over(self._topology, self.positions_m(round), self._budget_hz, shadow)
            for array in (carried.spectral_efficiency, carried.latency_s, carried.carrier):
                array.flags.writeable = False
            self._last = round, carried
        return self._last[1]

    def _shadow_of(self, shadowing: Shadowing, round: int) -> Shadow:
        def shadow(receiver: Indices, sender: Indices) -> Floats:
            # A draw that stays for the run is made once for the links there are; hops to intermediaries are few.
            if receiver is not self._topology.receiver or sender is not self._topology.sender:
                return shadowing.gain_ratio(receiver, sender, round)
            draw = shadowing.draw(round)
            if self._shadow is None or self._shadow[0] != draw:
                self._shadow = draw, shadowing.gain_ratio(receiver, sender, round)
            return self._shadow[1]

        return shadow

    def __repr__(self) -> str:
        return f"RadioWorld({self.nodes} nodes, {self._topology.links} links, {self.radio!r}, {self.processing!r})"


def within_range(positions_m: npt.ArrayLike, range_m: float) -> Topology:
    """Links in both directions between all nodes that are no further apart than this.

    Args:
        positions_m: (x, y) of each node, [nodes, 2].
        range_m: in metres.

    Raises:
        ConfigError: places that are no finite (x, y), or a range that is not above 0.

    >>> within_range([[0, 0], [30, 0], [99, 0]], 50.0)
    Topology(3 nodes, 2 links)
    """
    places_m, reach_m = places("positions_m", positions_m), positive("range_m", range_m)
    pairs = cKDTree(places_m).query_pairs(reach_m, output_type="ndarray") if len(places_m) else np.zeros((0, 2), int)
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    return Topology(len(places_m), ends[:, 0], ends[:, 1], places_m)
