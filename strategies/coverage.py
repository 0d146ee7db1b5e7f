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

from .cells import place_of
from .coverage_view import View, first_event, move_events
from .handover import Handover
from .joining import Join, Joining
from .layered import LayeredGrid
from .moving_work import MovingWork

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
            n · round_s from 0 on, the same for every edge. With a clock it is not used.
        look_every_s: a look is good for so many seconds of virtual time within a round. With 0 every new time is
            looked at; more saves time where very many edges ask at times of their own.
        key_of: index of a node id; default: its `partition-id`, as `GridProxy` or `LocalGrid` tell it.

    A terminal that is not on the Grid is out of coverage. Questions are asked when a round begins: one that comes
    within a round takes part in it at once with `join="automatic"`, else from the next edge round on.

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
        look_every_s: float = 0.0,
        key_of: Callable[[int], int] | None = None,
    ) -> None:
        if round_s is not None and not 0 < round_s < math.inf:
            raise ConfigError(f"round_s = {round_s}: expected more than 0 s, or None")
        if not 0 <= look_every_s < math.inf:
            raise ConfigError(f"look_every_s = {look_every_s}: expected 0 s or more")
        Joining(0, join, ask_again_s)  # refuses what it cannot use, now and not when a run begins
        self.located, self.handover = located, handover
        self._join, self._ask_again_s, self._ask_timeout_s = join, ask_again_s, ask_timeout_s
        self._round_s, self._look_every_s, self._key_of = round_s, look_every_s, key_of
        self.begin()

    def begin(self) -> None:
        """A run begins: forget the one before."""
        self._grid: Grid | None = None
        self._index: dict[int, int] = {}
        self._ids: list[int] = []
        self._rows: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._view: View | None = None
        self._attached: npt.NDArray[np.int64] | None = None
        self._round = (0, 0)
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
            ConfigError: no virtual clock and no `round_s`; a node whose place is not known or not located.
        """
        self._bind(grid)
        moment = (round.cloud, max(round.edge, 1))
        view = self._look(moment)
        # Once per round of a cell: asking takes time, and whoever asks a second time wants the round to begin.
        if self._asked.get(round.cell) != round:
            self._asked[round.cell] = round
            if len(who := self._joining.due(view.attached >= 0, view.time_s)):
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
        cell = int(self._look().attached[self.index_of(node_id)])
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
        self.work.detached(self.index_of(node_id), cell, server_round)

    # -- nodes and terminals -----------------------------------------------------------------------------------------

    def index_of(self, node_id: int) -> int:
        """A node's terminal: its row in `located`.

        Raises:
            ConfigError: nobody tells it, or `located` has no such row.
        """
        if (known := self._index.get(node_id)) is not None:
            return known
        if self._key_of is not None:
            index = self._key_of(node_id)
        else:
            place = place_of(self._looked_at(), node_id)
            if place is None:
                raise ConfigError(
                    f"node {node_id} has no partition-id that is known here; put GridProxy around the Flower grid and "
                    "answer_properties(app) on the client, or pass key_of to Coverage"
                )
            index = place[0]
        if type(index) is not int or not 0 <= index < self.located.nodes:
            raise ConfigError(
                f"node {node_id} is terminal {index!r}, and this coverage locates {self.located.nodes} terminals, from "
                "0 on; locate as many as there are partitions"
            )
        self._index[node_id] = index
        return index

    def key(self, node_id: int) -> str:
        """A terminal's name in events and records: its index."""
        return str(self.index_of(node_id))

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

    def _take_up_nodes(self) -> None:
        ids = list(self._looked_at().get_node_ids())
        if ids == self._ids:
            return
        index = self._index
        rows = np.fromiter((index[node] if node in index else self.index_of(node) for node in ids), np.int64, len(ids))
        order = np.argsort(rows, kind="stable")
        if len(twice := np.flatnonzero(np.diff(rows[order]) == 0)):
            one, other = (ids[int(at)] for at in order[twice[0] : twice[0] + 2])
            raise ConfigError(
                f"nodes {one} and {other} are both terminal {index[one]}; give every node a partition-id of its own"
            )
        self._ids, self._rows = ids, rows

    # -- looking -----------------------------------------------------------------------------------------------------

    def _look(self, moment: tuple[int, int] | None = None, *, anew: bool = False) -> View:
        """The view of the beginning of a round, or of right now."""
        begins = moment is not None and moment != self._round
        if moment is not None and begins:
            if moment[0] != self._round[0]:
                self._views = {}
            self._round = moment
        time_s = now_s(self._looked_at())
        if time_s is None:
            return self._look_by_round(anew)
        view = self._view
        if view is None or begins or anew or not view.time_s <= time_s <= view.time_s + self._look_every_s:
            view = self._view = self._see(time_s, nodes=moment is not None)
        return view

    def _look_by_round(self, anew: bool) -> View:
        # Edges run one after the other here; each is shown the same for the same edge round.
        if self._round_s is None:
            raise ConfigError(
                "Coverage needs to know what time it is: put a VirtualClock around the grid, or say how long an edge "
                "round lasts, Coverage(located, round_s=...)"
            )
        if self._round not in self._views:
            self._view = self._views[self._round] = self._see(self._rounds_seen * self._round_s, nodes=True)
            self._rounds_seen += 1
        elif anew:
            view = self._views[self._round]
            self._views[self._round] = replace(view, taken=self._joining.taken(view.attached >= 0))
        return self._views[self._round]

    def _see(self, time_s: float, *, nodes: bool) -> View:
        if nodes or not self._ids:
            self._take_up_nodes()
        before = self._attached
        found = np.asarray(self.located.where(time_s, before), np.int64)
        attached = np.full(self.located.nodes, -1, np.int64)
        attached[self._rows] = found[self._rows]
        if before is not None and not np.array_equal(before, attached):
            self._changed(before, attached, time_s)
        taken = self._joining.taken(attached >= 0)
        view = View(time_s, self.cells, attached, taken, self._ids, self._rows).after(self._view)
        if before is None:
            self._events.append(first_event(view))
        self._attached = view.attached
        return view

    def _changed(self, before: npt.NDArray[np.int64], attached: npt.NDArray[np.int64], time_s: float) -> None:
        moves = moves_between(before, attached)
        self._joining.forget(np.concatenate([moves.entered, moves.left, moves.handed_over]))
        self._events.extend(move_events(moves, self.cells, time_s, handover=self.handover))
        if self.handover and len(moves.handed_over):
            node_of = dict(zip(self._rows.tolist(), self._ids, strict=True))
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
        self._rounds_seen = int(state["rounds_seen"])
        self._joining.load_state_dict(state["joining"])
        self._events.extend(Event.from_json(text) for text in state["events"])
        self.work.load_state_dict(state["work"])
