"""`Coverage`: which terminals each edge reaches now, who has come, gone or changed the edge, and who takes part.

A cell function for `Hierarchical(cells=coverage)` that is asked again at every edge round, and what `Covered` and
`MidRound` ask in between. Where the terminals are is the business of a `Located`; here are the nodes of the Grid, the
time, the three ways to join, and the records of what moved. Nothing here trains or merges.

Terminals are known by their index, the `partition-id`: the row of every array in here.

Source: [4] ¶38-40 (leaving and entering), ¶43-46 (the three ways to take part).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.serverapp import Grid

from flower_edge.coverage import Located, moves_between
from flower_edge.errors import ConfigError
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.abilities import now_s
from flower_edge.runtime.grid_proxy import GridProxy
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.narrowed_grid import NarrowedGrid
from flower_edge.runtime.queries import AVAILABLE, NOW_S, ask_nodes
from flower_edge.runtime.wrapped_grid import chain, find

from ..layered import LayeredGrid
from .handover import Handover
from .joining import Join, Joining
from .moving_work import MovingWork
from .nodes import Terminals
from .view import View, first_event, move_events

__all__ = ["Coverage"]

#: Events kept for whoever asks for them; where nobody does, the oldest go.
MOST_EVENTS = 100_000


class Coverage:
    """A `Cells` function whose cells are what each edge reaches at the present time.

    Args:
        located: who is where, by partition-id; `ByPosition`, `ByTrace`, `ByFunction` of `flower_edge.coverage`.
        join: how a terminal in coverage becomes a member: `automatic`ally; if it says, when `ask`ed, that it is
            available; or only at its own `request`. See `answer_availability` in `flower_edge.clients`.
        ask_again_s: how long an answer is good for, yes or no; in a new cell a terminal is always asked anew.
        ask_timeout_s: how long to wait for answers, in real seconds; one that has not come is a no.
        handover: edges pass on to each other what they know of a terminal, and its work under way. Without it a
            terminal that changes the edge leaves one and enters another.
        round_s: without a virtual clock, how long an edge round is taken to last: the n-th edge round of a run is at
            n · round_s from 0 on, the same for every edge. Who leaves within a round is then seen when the next begins.
        clock: without a virtual clock, the real time in seconds, `time.monotonic`: the run begins at 0 s, and a resumed
            one goes on from where it was. With a virtual clock neither of the two is used.
        look_every_s: a look is good for so many seconds; only the first edge to begin an edge round looks in any case.
            With 0 every new time is looked at; more saves work where very many edges ask at times of their own, or
            real time is new at every question.
        key_of: index of a node id; default: its `partition-id`, as `GridProxy` or `LocalGrid` tell it.

    A terminal that is not on the Grid is out of coverage, and so is a node of which nobody knows which terminal it is;
    the event `unplaced` tells it. Questions are asked when a round begins: one that comes within a round takes part in
    it at once with `join="automatic"`, else from the next edge round on.

    Raises:
        ConfigError: an argument that cannot be used.
    """

    moving = True

    def __init__(
        self,
        located: Located,
        *,
        join: Join = "automatic",
        ask_again_s: float = 60.0,
        ask_timeout_s: float | None = 60.0,
        handover: bool = True,
        round_s: float | None = None,
        clock: Callable[[], float] | None = None,
        look_every_s: float = 0.0,
        key_of: Callable[[int], int] | None = None,
    ) -> None:
        if round_s is not None and not 0 < round_s < math.inf:
            raise ConfigError(f"round_s = {round_s}: expected more than 0 s, or None")
        if clock is not None and (round_s is not None or not callable(clock)):
            raise ConfigError(
                f"clock = {clock!r}, round_s = {round_s}: expected one of the two, a clock such as time.monotonic"
            )
        if not 0 <= look_every_s < math.inf:
            raise ConfigError(f"look_every_s = {look_every_s}: expected 0 s or more")
        Joining(0, join, ask_again_s)  # refuses what it cannot use, now and not when a run begins
        self.located, self.handover = located, handover
        self._join, self._ask_again_s, self._ask_timeout_s = join, ask_again_s, ask_timeout_s
        self._round_s, self._clock, self._look_every_s, self._key_of = round_s, clock, look_every_s, key_of
        self.begin()

    def begin(self) -> None:
        """A run begins: forget the one before."""
        self._grid: Grid | None = None
        self._terminals = Terminals(self.located.nodes, self._key_of)
        self._since: float | None = None  # what the real clock showed at 0 s
        self._elapsed_s = 0.0
        self._view: View | None = None
        self._attached: npt.NDArray[np.int64] | None = None
        self._round = (0, 0)
        self._moments: set[tuple[int, int]] = set()
        self._rounds_seen = 0
        self._views: dict[tuple[int, int], View] = {}  # of this cloud round, where no clock tells the time
        self._begun: dict[str, View] = {}
        self._asked: dict[str, Round] = {}
        self._joining = Joining(self.located.nodes, self._join, self._ask_again_s)
        self._events: deque[Event] = deque(maxlen=MOST_EVENTS)
        self.work = MovingWork()

    # -- a cell function ---------------------------------------------------------------------------------------------

    @property
    def cells(self) -> tuple[str, ...]:
        """Names of the edges."""
        return tuple(self.located.cells)

    def __call__(self, grid: Grid, round: Round) -> Mapping[str, list[int]]:
        """The members of every cell now, empty cells among them; the same object while nothing has moved.

        Raises:
            ConfigError: nothing that tells the time; no node that is a terminal; as a run begins, one that is not
                located, or two that are the same.
        """
        self._bind(grid)
        moment = (round.cloud, max(round.edge, 1))
        view = self._look(moment)
        # Once per round of a cell: asking takes time, and whoever asks a second time wants the round to begin.
        if self._asked.get(round.cell) != round:
            self._asked[round.cell] = round
            if len(who := self._joining.due(view.present, view.time_s)):
                self._ask(who, view)
                view = self._look(moment, anew=True)
        if round.kind == "train":
            self._begun[round.cell] = view
            self.work.cycle(round.cell, round.cloud)
        return view.members

    def _bind(self, grid: Grid) -> None:
        """Look at the whole Grid, not at what a cell or a layer shows of it."""
        links = [link for link in chain(grid) if not isinstance(link, NarrowedGrid | LayeredGrid)]
        if self._grid is not None and list(chain(self._grid))[-1] is not links[-1]:
            self.begin()  # another run
        self._grid = links[0]

    # -- between the beginnings of rounds ----------------------------------------------------------------------------

    @property
    def time_s(self) -> float:
        """When it looked last."""
        return 0.0 if self._view is None else self._view.time_s

    def where(self, node_id: int) -> str | None:
        """The cell in which a node is at the present time, member or not; `None` out of coverage."""
        index = self._terminals.index_of(self._looked_at(), node_id)
        cell = -1 if index is None else int(self._look().attached[index])
        return None if cell < 0 else self.cells[cell]

    def members(self, cell: str = "") -> list[int]:
        """Node ids of the members of a cell at the present time; of all cells for the empty name."""
        return list(self._look().of(cell))

    def joined(self, cell: str = "") -> list[int]:
        """Those of the members now that were none when the cell's training round began."""
        view, begun = self._look(), self._begun.get(cell)
        if begun is None or begun.of(cell) is view.of(cell):
            return []
        before = set(begun.of(cell))
        return [node for node in view.of(cell) if node not in before]

    def reachable(self, node_id: int) -> bool:
        """Whether a reply that a terminal has kept can be fetched now, for `SteppedGrid(..., reachable=...)`.

        With handover through any edge; without it only through the edge it belongs to.
        """
        if self._grid is None:
            return True  # nobody has looked yet, so nobody has left
        here, owed = self.where(node_id), self.work.cells_of(self.index_of(node_id))
        return here is not None and (self.handover or not owed or bool(owed & {"", here}))

    def handed_over(self) -> list[Handover]:
        """Terminals that changed the edge since this was last asked, in the order of time; none without handover."""
        return self.work.fetch()

    def events(self) -> list[Event]:
        """What happened since this was last asked: found, entered, left, handed-over, joined, declined, and what
        `MidRound` told."""
        told = list(self._events)
        self._events.clear()
        return told

    def tell(self, event: Event) -> None:
        """Add an event of somebody who works with this coverage; the time of the last look where it has none."""
        self._events.append(event if event.time_s is not None else replace(event, time_s=self.time_s))

    def carries(self, node_id: int, cell: str, server_round: int, step: int, steps_total: int) -> None:
        """A terminal is in another cell than the one that gave its task: its handover carries the work."""
        target = self.where(node_id)
        if self.handover and target is not None:
            work = {"job": f"{cell}/{server_round}", "base_version": server_round}
            steps = {"step": step, "steps_total": steps_total}
            self.work.carries(self.index_of(node_id), node_id, target, self.time_s, **work, **steps)

    def detached(self, node_id: int, cell: str, server_round: int) -> None:
        """A terminal trains on out of reach of the cell that gave its task, and is to report later.

        `MidRound` says so; a `decide` of your own that returns `Detach()` should, too, or `Covered` will not know the
        model its update is compared with.
        """
        if (index := self._terminals.index_of(self._looked_at(), node_id)) is not None:
            self.work.detached(index, cell, server_round)

    # -- nodes and terminals -----------------------------------------------------------------------------------------

    def index_of(self, node_id: int) -> int:
        """A node's terminal: its row in `located`.

        Raises:
            ConfigError: nobody knows it, or `located` has no such row.
        """
        index = self._terminals.index_of(self._looked_at(), node_id)
        if index is None:
            raise ConfigError(f"node {node_id} is none of the {self.located.nodes} terminals of this coverage")
        return index

    def key(self, node_id: int) -> str:
        """A terminal's name in events and records: its index, or the node's id where it is none of the terminals."""
        index = self._terminals.index_of(self._looked_at(), node_id)
        return str(node_id if index is None else index)

    def properties(self, node_id: int) -> Mapping[str, Any]:
        """What a node has told a `GridProxy` about itself, or its node config in a `LocalGrid`."""
        grid = self._looked_at()
        if (proxy := find(grid, GridProxy)) is not None:
            return proxy.properties(node_id)
        local = find(grid, LocalGrid)
        return {} if local is None else local.context_of(node_id).node_config

    def _looked_at(self) -> Grid:
        if self._grid is None:
            raise ConfigError(
                "Coverage has not looked at a grid yet; give it to Hierarchical(cells=coverage), or put "
                "Covered(coverage) around the strategy"
            )
        return self._grid

    def _take_up_nodes(self, time_s: float) -> None:
        for node, why in self._terminals.take_up(self._looked_at()).items():
            self._events.append(Event("unplaced", f"node {node} is out of coverage: it {why}", time_s=time_s))

    # -- looking -----------------------------------------------------------------------------------------------------

    def _look(self, moment: tuple[int, int] | None = None, *, anew: bool = False) -> View:
        """The view of the beginning of a round, or of right now."""
        begins = moment is not None and moment not in self._moments
        if moment is not None and moment != self._round:
            if moment[0] != self._round[0]:
                self._views = {}
            self._round = moment
        if moment is not None and begins:
            # By its number and not by the last one seen: edges are in rounds of their own.
            self._moments = {other for other in self._moments if other[0] >= moment[0]} | {moment}
        time_s = self._present_s()
        if time_s is None:
            return self._look_by_round(anew)
        view = self._view
        if view is None or begins or anew or not view.time_s <= time_s <= view.time_s + self._look_every_s:
            view = self._view = self._see(time_s, nodes=moment is not None)
        return view

    def _present_s(self) -> float | None:
        """The virtual time, else the real one since the run began; `None` without a clock."""
        time_s = now_s(self._looked_at())
        if time_s is not None or self._clock is None:
            return time_s
        if self._since is None:
            self._since = self._clock() - self._elapsed_s
        return self._clock() - self._since

    def _look_by_round(self, anew: bool) -> View:
        # Edges run one after the other here; each is shown the same for the same edge round.
        if self._round_s is None:
            raise ConfigError(
                "Coverage needs to know what time it is: put a VirtualClock around the grid, give it real time, "
                "Coverage(located, clock=time.monotonic), or say how long an edge round lasts, "
                "Coverage(located, round_s=...)"
            )
        if self._round not in self._views:
            self._view = self._views[self._round] = self._see(self._rounds_seen * self._round_s, nodes=True)
            self._rounds_seen += 1
        elif anew:
            view = self._views[self._round]
            self._views[self._round] = replace(view, taken=self._joining.taken(view.attached >= 0))
        return self._views[self._round]

    def _see(self, time_s: float, *, nodes: bool) -> View:
        if nodes or not self._terminals.ids:
            self._take_up_nodes(time_s)
        ids, rows = self._terminals.ids, self._terminals.rows
        before = self._attached
        found = np.asarray(self.located.where(time_s, before), np.int64)
        attached = np.full(self.located.nodes, -1, np.int64)
        attached[rows] = found[rows]
        if before is not None and not np.array_equal(before, attached):
            self._changed(before, attached, time_s)
        taken = self._joining.taken(attached >= 0)
        view = View(time_s, self.cells, attached, taken, ids, rows).after(self._view)
        if before is None:
            self._events.append(first_event(view))
        self._attached = view.attached
        return view

    def _changed(self, before: npt.NDArray[np.int64], attached: npt.NDArray[np.int64], time_s: float) -> None:
        moves = moves_between(before, attached)
        self._joining.forget(np.concatenate([moves.entered, moves.left, moves.handed_over]))
        self._events.extend(move_events(moves, self.cells, time_s, handover=self.handover))
        if self.handover and len(moves.handed_over):
            node_of = dict(zip(self._terminals.rows.tolist(), self._terminals.ids, strict=True))
            pairs = zip(moves.handed_over.tolist(), moves.source.tolist(), moves.target.tolist(), strict=True)
            for index, one, other in pairs:
                self.work.moved(index, node_of[index], self.cells[one], self.cells[other], time_s)

    def _ask(self, who: npt.NDArray[np.int64], view: View) -> None:
        node_of = dict(zip(view.rows.tolist(), view.ids, strict=True))
        self._joining.asking(who)
        try:
            nodes: list[int] = [node_of[index] for index in who.tolist()]
            told = ask_nodes(self._looked_at(), nodes, AVAILABLE, {NOW_S: view.time_s}, self._ask_timeout_s)
        finally:
            self._joining.asking(who, ends=True)
        # On a virtual clock the answers took time: who has moved meanwhile is asked again, at its new edge.
        now = self._look()
        stayed = who[now.attached[who] == view.attached[who]]
        by_index = {self.index_of(node): answer for node, answer in told.items()}
        for what, text, indices in self._joining.answered(by_index, stayed, now.time_s):
            for index in indices:
                cell = self.cells[int(now.attached[index])]
                self._events.append(
                    Event(what, text.format(terminal=index, cell=cell), str(index), cell, time_s=now.time_s)
                )

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Who was where and had answered what, and what nobody has asked for yet. Work under way is not part of it."""
        return {
            "attached": None if self._attached is None else self._attached.copy(),
            "round": list(self._round),
            "rounds_seen": self._rounds_seen,
            "elapsed_s": self._elapsed_s if self._since is None else self._present_s() or 0.0,
            "unplaced": self._terminals.state_dict(),
            "joining": self._joining.state_dict(),
            "events": [event.to_json() for event in self._events],
            "work": self.work.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`; the run goes on with the next look.

        Raises:
            ConfigError: the state is that of a coverage of other terminals.
        """
        attached = state["attached"]
        if attached is not None and len(attached) != self.located.nodes:
            raise ConfigError(
                f"state of {len(attached)} terminals for a coverage of {self.located.nodes}; locate them as the first "
                "run did"
            )
        self.begin()
        self._attached = None if attached is None else np.array(attached, np.int64)
        self._round = (int(state["round"][0]), int(state["round"][1]))
        self._rounds_seen, self._elapsed_s = int(state["rounds_seen"]), float(state["elapsed_s"])
        self._terminals.load_state_dict(state["unplaced"])
        self._joining.load_state_dict(state["joining"])
        self._events.extend(Event.from_json(text) for text in state["events"])
        self.work.load_state_dict(state["work"])
