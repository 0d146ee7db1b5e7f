"""DCENT: weight goes to the neighbours that are early, band to the one that is late, and all nodes stay connected.

The controller of [1]. A round has three parts, and in a distributed run they are at three places:

    require   at each node, after it saw the delays: its requirement values          eqs. 1, 2, blocks 312-314
    decide    at the server: a step, validated, and which links may go               eqs. 3, 4, blocks 315, 316
    apply     at each node: its row of W and of B for the next round                 eqs. 5-8, blocks 502-504

`Dcent.step` is the three in a row, over all nodes at once. The server may know the matrices, and then may as well send
them (`control_of`); or it knows only which links are in use and is told alpha_max and prune requests (`Signals`). All
of it gives the same control. Which reading of the print each option is, and what it is good for, says docs/control.md.

Nothing here trains, sends or logs. Letters as in `control.controller` and `requirements`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..topology.connectivity import UnionWindow
from ..topology.mixing import spectral_gap
from ..topology.rows import Floats, Indices, spread, sum_rows
from ..topology.topology import Topology
from .controller import Control, Observation, Start, State
from .costs import Side
from .decision import Decision, Report, Signals
from .link_memory import Known, look_at_links, no_memory
from .min_max import band_seconds
from .moves import Per, Step, move
from .probing import choose_probes, give_probes
from .pruning import HandOver, drop_links, halved_at_most, prune_requests
from .requirements import Cap, Requirements, SelfEntry, Ties, link_requirements
from .rule import Connect, Failing, Rule, check_signals
from .step_size import dolbie_bound, link_steps

__all__ = ["Dcent"]


@dataclass(frozen=True, repr=False)
class Dcent:
    """The controller of [1], by eqs. 1 to 8.

    Args:
        side: whose P a link costs: the sender's ("receiver", recommended), or the row's own ("sender", as printed).
        cap: What with the link's own band ("current", recommended) or with all of the node's ("budget", as printed).
        theta: part of a link's slack that goes into weight, the rest into band, 0 to 1; then no step makes another
            link the straggler. None lets both have all of it, as printed.
        smoothing: weight of the last round in the moving mean that P is taken for; 1 is the last round alone, as in
            [1]. P that varies without memory would otherwise name another straggler in each round.
        steps: one step for all rows ("global"), one per row ("row", recommended for many nodes, needs no server), or
            one per link ("link").
        step_cap: no step is longer.
        eta: part of the largest possible step, eq. 4, that is taken. 1 lets a link vanish in every round.
        bound: what the largest step is reckoned from: the slack of all links, or DOLBIE's x / (n - 2 + x), and then
            no step is longer than the one before. The latter with steps="global" only.
        prune_below: a link whose weight falls to this asks to be dropped.
        connect: the links in use connect all nodes in each round, or those of `tau` rounds do together; then links
            that were dropped are woken up for a round when their turn comes.
        tau: see there.
        failing: a link that asks to go and is needed stays and keeps half its weight ("refuse"); or the step is
            re-determined such that it does not ask ("line search", with steps="global" only).
        gap_min: no prune may leave a smaller spectral gap than this; needs a server that knows the weights.
        hand_over: whom the band of a dropped link goes to.
        self_entry: whether W[i, i] moves. "free" grows without end: for comparison only.
        ties: whether stragglers within 1e-9 of each other share what is released.
        silent_after: rounds after which links from a silent node ask to be dropped; None for never.
        probe_every: rounds between two trials of a pruned link in each row; None for never.
        probe_share: part of an equal share of row and band that a tried link is given.

    Raises:
        ConfigError: a number out of range, or two options that exclude each other.
    """

    clairvoyant: ClassVar[bool] = False

    side: Side = "receiver"
    cap: Cap = "current"
    theta: float | None = None
    smoothing: float = 0.2
    steps: Per = "global"
    step_cap: float = 0.01
    eta: float = 0.9
    bound: Literal["slack", "dolbie"] = "slack"
    prune_below: float = 0.0
    connect: Connect = "each round"
    tau: int = 10
    failing: Failing = "refuse"
    gap_min: float | None = None
    hand_over: HandOver = "proportional"
    self_entry: SelfEntry = "full"
    ties: Ties = "first"
    silent_after: int | None = 5
    probe_every: int | None = None
    probe_share: float = 0.5

    def __post_init__(self) -> None:
        wrong = [
            f"{name} = {value}: expected {expected}"
            for name, value, expected, good in (
                ("theta", self.theta, "0 to 1, or None", self.theta is None or 0.0 <= self.theta <= 1.0),
                ("smoothing", self.smoothing, "more than 0, at most 1", 0.0 < self.smoothing <= 1.0),
                ("step_cap", self.step_cap, "more than 0", self.step_cap > 0.0),
                ("eta", self.eta, "more than 0, at most 1", 0.0 < self.eta <= 1.0),
                ("prune_below", self.prune_below, "0 or more, less than 1", 0.0 <= self.prune_below < 1.0),
                ("tau", self.tau, "1 round or more", self.tau >= 1),
                ("probe_share", self.probe_share, "more than 0, at most 1", 0.0 < self.probe_share <= 1.0),
                ("probe_every", self.probe_every, "1 round or more, or None", (self.probe_every or 1) >= 1),
                ("silent_after", self.silent_after, "1 round or more, or None", (self.silent_after or 1) >= 1),
            )
            if not good
        ]
        if self.theta is not None and self.cap != "current":
            wrong.append('theta with cap="budget": a split slack is reckoned with the link\'s own band; leave one out')
        if self.steps != "global" and (self.bound == "dolbie" or self.failing == "line search"):
            wrong.append('bound="dolbie" and failing="line search" are about one step for all: use steps="global"')
        if self.failing == "line search" and self.connect != "each round":
            wrong.append('failing="line search" needs connect="each round": links that may sleep never fail')
        if wrong:
            raise ConfigError("Dcent: " + "; ".join(wrong))

    def __repr__(self) -> str:
        told = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"Dcent({', '.join(told)})"

    @classmethod
    def literal(cls, step_cap: float = 0.03, **options: Any) -> Dcent:
        """As [1] prints it: P of the row, What with the whole band, each equation with all of the slack."""
        printed: dict[str, Any] = {
            "side": "sender",
            "cap": "budget",
            "smoothing": 1.0,
            "eta": 1.0,
            "failing": "line search",
        }
        return cls(**(printed | {"step_cap": step_cap} | options))

    @classmethod
    def dolbie(cls, step_cap: float = 0.01, **options: Any) -> Dcent:
        """With the never increasing step of DOLBIE."""
        chosen: dict[str, Any] = {"bound": "dolbie", "step_cap": step_cap}
        return cls(**(chosen | options))

    # -- a Controller ------------------------------------------------------------------------------------------------

    def init(self, start: Start) -> tuple[Control, State]:
        """The given control, its rows brought to exactly 1 and to the budget; and the state."""
        start.control.check(start.topology, start.budget_hz, tolerance=1e-6)
        control = _exact(start.topology, start.control, start.budget_hz)
        unheard = np.full(start.topology.nodes, np.nan)
        first = Observation(unheard, start.spectral_efficiency, start.payload_bits)
        need_hz_s = band_seconds(start.topology, first)
        server = self.begin(start.topology, control.in_use, control, start.budget_hz)
        return control, {"memory": no_memory(start.topology, need_hz_s), "server": server}

    def step(self, state: State, observation: Observation) -> tuple[Control, State]:
        """`require`, `decide` and `apply` over all nodes."""
        server = state["server"]
        topology, control = _topology_of(server), self.control_of(server)
        report, memory = self.require(state["memory"], topology, control, server["budget_hz"], observation)
        _, server = self.decide(server, report)
        return self.control_of(server), {"memory": memory, "server": server}

    # -- at each node ------------------------------------------------------------------------------------------------

    def memory(self, topology: Topology) -> State:
        """What a node remembers of its links, before the first round."""
        return no_memory(topology)

    def require(
        self, memory: State, topology: Topology, control: Control, budget_hz: Floats, observation: Observation
    ) -> tuple[Report, State]:
        """The requirement values of the rows of a topology: of node 0 on `row_topology`, or of all.

        A sender that was silent (P is NaN) is no straggler in this round and does not move; what was last known of it
        stands. A row whose own node was silent does not move either.
        """
        known, memory = look_at_links(memory, topology, observation, self.side, self.smoothing)
        requirements = link_requirements(
            topology,
            control,
            budget_hz,
            known,
            observation.heard_s,
            cap=self.cap,
            theta=self.theta,
            self_entry=self.self_entry,
            ties=self.ties,
        )
        signals, memory = self.signals(memory, topology, control, budget_hz, requirements, known)
        return Report(requirements, signals, known), memory

    def signals(
        self,
        memory: State,
        topology: Topology,
        control: Control,
        budget_hz: Floats,
        requirements: Requirements,
        known: Known,
    ) -> tuple[Signals, State]:
        """What the server has to know of the rows' requirement values: how far they can go, and what they ask for."""
        alpha_max = requirements.alpha_max
        if self.bound == "dolbie":
            alpha_max = np.minimum(alpha_max, dolbie_bound(topology, control, requirements))
        requests = prune_requests(
            topology,
            control,
            requirements,
            known,
            limit=self.prune_below,
            furthest=np.inf if self.failing == "line search" else np.minimum(self.eta * alpha_max, self.step_cap),
            steps=self._own_steps(topology, control, requirements) if self.steps == "link" else None,
            silent_after=self.silent_after,
            asleep=None if self.connect == "each round" else _asleep(memory, control),
        )
        probes, memory = choose_probes(memory, topology, control, budget_hz, known, self.probe_every, self.silent_after)
        return Signals(alpha_max, requests, probes), memory

    def apply(
        self, topology: Topology, control: Control, budget_hz: Floats, report: Report, decision: Decision
    ) -> Control:
        """The control of the next round: the step, then the links that go, then those that are tried."""
        requirements = report.requirements
        if decision.alpha is None:
            step = self._own_steps(topology, control, requirements)
        else:
            step = Step.of(topology, decision.alpha, decision.per, decision.own)
        step = halved_at_most(topology, control, requirements, step, decision.refused)
        control = move(topology, control, budget_hz, requirements, step)
        control = drop_links(
            topology, control, budget_hz, decision.dropped, hand_over=self.hand_over, known=report.known
        )
        return give_probes(topology, control, budget_hz, decision.probes, self.probe_share)

    def _own_steps(self, topology: Topology, control: Control, requirements: Requirements) -> Step:
        alpha, own = link_steps(topology, control, requirements, self.eta, self.step_cap)
        return Step(alpha, own)

    # -- at the server -----------------------------------------------------------------------------------------------

    def begin(
        self,
        topology: Topology,
        in_use: npt.NDArray[np.bool_],
        control: Control | None = None,
        budget_hz: Floats | None = None,
    ) -> State:
        """The server's state before the first round.

        Args:
            in_use: links with weight, bool [links].
            control, budget_hz: where the server is to know the matrices, too.
        """
        state: State = {
            "links": {
                "nodes": topology.nodes,
                "indptr": topology.indptr,
                "receiver": topology.receiver,
                "sender": topology.sender,
            },
            "in_use": in_use,
            "alpha": 1.0,
            "window": None,
            "control": None,
            "budget_hz": None,
        }
        if control is not None and budget_hz is not None:
            state |= {"control": control.saved(), "budget_hz": np.array(budget_hz, np.float64)}
        if self.connect == "within tau":
            state["window"] = UnionWindow.empty(topology, self.tau).push(in_use).state()
        return state

    def control_of(self, server: State) -> Control:
        """The matrices, as a server that knows them has them: what it sends if it sends those.

        Raises:
            ConfigError: the state was begun without a control.
        """
        if server["control"] is None:
            raise ConfigError(
                "this server knows no matrices; begin(topology, in_use, control, budget_hz) gives it them"
            )
        return Control(**server["control"])

    def decide(self, server: State, report: Report, candidate: float | None = None) -> tuple[Decision, State]:
        """The decision for all rows, by a server that knows the matrices; they are kept up to date in its state.

        Args:
            report: of all rows, see `gather_reports`.
            candidate: a step to validate instead of the one reckoned ([1] ¶45: "candidate update data").
        """
        topology, control = _topology_of(server), self.control_of(server)
        valid = None if self.gap_min is None else self._gap_kept(topology, control, server["budget_hz"])
        decision = self._choose(topology, server, report.signals, candidate, valid)
        if self.steps == "link":
            own = self._own_steps(topology, control, report.requirements)
            decision = replace(decision, alpha=own.alpha, own=np.asarray(own.own))
        after = self.apply(topology, control, server["budget_hz"], report, decision)
        return decision, self._after(topology, server, report.signals, decision) | {"control": after.saved()}

    def decide_from_signals(
        self, server: State, signals: Signals, candidate: float | None = None
    ) -> tuple[Decision, State]:
        """The decision for all rows, by a server that knows which links are in use and nothing else.

        Raises:
            ConfigError: `gap_min` is asked for, which needs weights.
        """
        if self.gap_min is not None:
            raise ConfigError("gap_min needs a server that knows the weights; use decide(), or leave gap_min out")
        topology = _topology_of(server)
        check_signals(topology, signals)
        decision = self._choose(topology, server, signals, candidate, None)
        return decision, self._after(topology, server, signals, decision) | {"control": None}

    def _choose(
        self,
        topology: Topology,
        server: State,
        signals: Signals,
        candidate: float | None,
        valid_without: Callable[[Indices], bool] | None,
    ) -> Decision:
        rule = Rule(
            self.steps,
            self.step_cap,
            self.eta,
            self.prune_below,
            self.connect,
            self.tau,
            self.failing,
            self.bound == "dolbie",
        )
        window = _window(topology, server, signals)
        return rule.choose(topology, server["in_use"], window, signals, server["alpha"], candidate, valid_without)

    def _after(self, topology: Topology, server: State, signals: Signals, decision: Decision) -> State:
        in_use = server["in_use"]
        if len(decision.dropped) or len(decision.probes):
            in_use = in_use.copy()
            in_use[decision.dropped] = False
            in_use[decision.probes] = True
        state = server | {"in_use": in_use}
        if isinstance(decision.alpha, float):
            state["alpha"] = decision.alpha
        if (window := _window(topology, server, signals)) is not None:
            state["window"] = window.push(in_use).state()
        return state

    def _gap_kept(self, topology: Topology, control: Control, budget_hz: Floats) -> Callable[[Indices], bool]:
        """Whether the weights as they are mix well enough without some links."""
        least = self.gap_min or 0.0

        def kept(gone: Indices) -> bool:
            left = drop_links(topology, control, budget_hz, gone)
            return spectral_gap(topology, left.weights, left.self_weights) >= least

        return kept


def _exact(topology: Topology, control: Control, budget_hz: Floats) -> Control:
    """Rows brought to exactly 1 and to the budget, band only where there is weight."""
    total = sum_rows(control.weights, topology.indptr) + control.self_weights
    bandwidth_hz = np.where(control.in_use, control.bandwidth_hz, 0.0)
    used_hz = sum_rows(bandwidth_hz, topology.indptr)
    grow = budget_hz / np.where(used_hz > 0.0, used_hz, 1.0)
    return Control(
        control.weights / spread(total, topology.indptr),
        control.self_weights / total,
        bandwidth_hz * spread(grow, topology.indptr),
    )


def _topology_of(server: State) -> Topology:
    """The links of a run, which were checked and sorted when it began."""
    return Topology.of_sorted(**server["links"])


def _asleep(memory: State, control: Control) -> npt.NDArray[np.bool_]:
    """Links without weight, but for those of which it is known that they are gone."""
    unused = ~control.in_use
    return unused if memory["gone"] is None else unused & ~memory["gone"]


def _window(topology: Topology, server: State, signals: Signals) -> UnionWindow | None:
    """The links of the last tau rounds, as far as they still carry data; None where each round has to connect."""
    if server["window"] is None:
        return None
    requests = signals.requests
    return UnionWindow.from_state(topology, server["window"]).without(requests.link[requests.lost])
