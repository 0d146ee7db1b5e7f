"""`MidRound`: what becomes of a terminal that leaves, is too slow or fails while it trains, and of one that comes.

The `decide` of a `SteppedGrid`: it answers after every slice, so exits, replacements and joins take effect within the
round. It only decides; the grid carries it out. The events told here say why it decided: who left, lags, failed or
came. What became of the work is not known yet: that is in the events of the grid.

Source: [4] ¶29 (replacing a terminal whose performance falls), ¶38-40 and claim 7 (a terminal that leaves stops, keeps
training, or trains on newly collected data).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from logging import getLogger
from typing import Any, Literal, get_args

from flower_edge.errors import ConfigError, NestingError
from flower_edge.events import Event
from flower_edge.rules import Rule
from flower_edge.runtime.steps.decisions import (
    Change,
    Continue,
    Decide,
    Decision,
    Detach,
    Drop,
    Progress,
    Replace,
    Stop,
    honour_requests,
)
from flower_edge.runtime.steps.new_data import NEW_DATA
from flower_edge.runtime.steps.period import UntilPeriodEnds
from flower_edge.selection import Known

from .coverage import Coverage

__all__ = ["NEW_DATA", "MidRound", "OnExit"]

log = getLogger("flwr.edge")

OnExit = Literal["stop", "keep", "new-data"]

#: One round of one cell, and a node in it.
_Task = tuple[str, int, int]


class MidRound:
    """Decides for terminals that move: `SteppedGrid(clock, 5, MidRound(coverage), reachable=coverage.reachable)`.

    Args:
        coverage: who is where; the same object as in `Hierarchical(cells=…)` and `Covered`.
        on_exit: for a terminal that has left the cell that gave its task. `stop`: training ends (claim 7). `keep`: it
            goes on. `new-data`: it goes on, and the slices it makes from then on say `training-data: new` in their
            config, to the last of this task: see `wants_new_data` in `flower_edge.clients`.
        replace_slower_than: replace a terminal that needs more than so many times the median seconds per step of its
            cell and round; `None` never does.
        reference_step_s: replace one that needs more seconds per step than this.
        enlist: terminals that come into the cell within the round begin the same task.
        eligible: who can be a substitute or be enlisted, by its properties (`coverage.properties`) and what `known`
            tells; all if `None`.
        known: what is known of a node beside its properties: a `Known` that the edges' `Selected(…, known=…)` fill with
            what terminals told and with what was learned, or a function of yours. What nobody knows of a terminal
            satisfies no rule but `unknown(…)`.
        prefer: puts candidates in order, best first, and may leave some out. Default: those who came within the round
            first, then by node id from the replaced one on.
        then: decides in all other cases.

    What becomes of the work of one that has left:

    | | in another cell, handover on | in another cell, handover off | out of coverage |
    |---|---|---|---|
    | `stop` | collected through that edge | discarded | discarded |
    | `keep`, `new-data` | goes on, and is collected when it is done | lost | goes on, and comes late |

    An update is merged where it came from: by the edge whose version it used. Where work is stopped or lost, another
    terminal of the cell takes the task over from its beginning, if there is one that has not been asked. So it does,
    once, for one that is too slow (what that one has done is collected) or that fails.

    Inside another policy, `UntilPeriodEnds(20.0, then=MidRound(coverage))`, it is overruled where the period ends. Its
    events stay true: they say who left, lags, failed or came, and not what became of the work.

    Raises:
        ConfigError: an argument that cannot be used.
    """

    def __init__(
        self,
        coverage: Coverage,
        *,
        on_exit: OnExit = "stop",
        replace_slower_than: float | None = None,
        reference_step_s: float | None = None,
        enlist: bool = False,
        eligible: Rule | None = None,
        known: Callable[[int], Mapping[str, Any]] | None = None,
        prefer: Callable[[list[int]], Sequence[int]] | None = None,
        then: Decide = honour_requests,
    ) -> None:
        if isinstance(then, UntilPeriodEnds):
            raise NestingError(
                "MidRound(coverage, then=UntilPeriodEnds(...)): a substitute would begin when it is over; write "
                "UntilPeriodEnds(period_s, then=MidRound(coverage, ...))"
            )
        if on_exit not in get_args(OnExit):
            raise ConfigError(f"on_exit = {on_exit!r}: expected one of {', '.join(map(repr, get_args(OnExit)))}")
        if replace_slower_than is not None and not replace_slower_than > 1:
            raise ConfigError(f"replace_slower_than = {replace_slower_than}: expected more than 1 time the median")
        if reference_step_s is not None and not reference_step_s > 0:
            raise ConfigError(f"reference_step_s = {reference_step_s}: expected more than 0 s per step")
        self.coverage, self.on_exit, self.enlist = coverage, on_exit, enlist
        self.replace_slower_than, self.reference_step_s = replace_slower_than, reference_step_s
        self._eligible, self._prefer, self._then = eligible, prefer, then
        self._known = known
        self._begin()

    def _begin(self) -> None:
        self._work = self.coverage.work  # another one is another run
        self._latest: dict[str, tuple[int, float]] = {}
        self._substitutes: set[_Task] = set()
        self._away: dict[_Task, str | None] = {}  # trains on for a cell it is not in: where it was seen last
        self._told: set[_Task] = set()
        self._warned = False

    def __call__(self, progress: Progress) -> Decision:
        """Decide; called by `SteppedGrid`.

        Raises:
            ConfigError: the task was given by a cell that is not one of the coverage.
        """
        if progress.cell and progress.cell not in self.coverage.cells:
            raise ConfigError(
                f"a task of cell {progress.cell!r}, which is not one of this coverage; use it for the cells as well: "
                "Hierarchical(cells=coverage, edge=...)"
            )
        if self._work is not self.coverage.work:
            self._begin()
        self._forget_rounds_before(progress)
        task = (progress.cell, progress.round, progress.node_id)
        if progress.error is not None:
            return self._failed(task, progress)
        cell_now = self.coverage.where(progress.node_id)
        if self._left(progress.cell, cell_now):
            if (decision := self._exited(task, progress, cell_now)) is not None:
                return decision
        elif self._away.pop(task, None) is not None:
            self._tell("returned", progress, f"is back in {self._name(progress.cell)}")
        if (decision := self._slow(task, progress)) is not None:
            return decision
        decision = self._then(progress)
        if isinstance(decision, Continue) and self.enlist:
            decision = self._enlisted(progress, decision)
        return decision

    # -- leaving -----------------------------------------------------------------------------------------------------

    @staticmethod
    def _left(cell: str, cell_now: str | None) -> bool:
        return cell_now != cell if cell else cell_now is None

    def _exited(self, task: _Task, progress: Progress, cell_now: str | None) -> Decision | None:
        through = cell_now is not None and self.coverage.handover
        where = f"left {self._name(progress.cell)}" + (f" for {cell_now}" if cell_now is not None else "")
        if self.on_exit == "stop":
            if through:
                self._carries(progress)
            work = f"{cell_now} can collect its work" if through else "its work cannot be collected"
            return self._handed_on(task, progress, where, work, keep_work=through)
        if cell_now is not None and not through:
            return self._handed_on(task, progress, where, "its work cannot be collected", keep_work=False)
        seen_there, self._away[task] = self._away.get(task, progress.cell) == cell_now, cell_now
        if through and not seen_there:
            self._carries(progress)
        if self.on_exit == "new-data" and task not in self._told:
            self._told.add(task)
            self._tell("exited", progress, where, "it may go on with new data")
            return Change(dict(NEW_DATA))
        if cell_now is None:
            del self._away[task]
            if task not in self._told:
                self._tell("exited", progress, where, "it may go on, and its work come late")
            self.coverage.detached(progress.node_id, progress.cell, progress.round)
            return Detach()
        if not seen_there:
            self._tell("exited", progress, where, f"it may go on, and {cell_now} collect its work")
        return None

    def _carries(self, progress: Progress) -> None:
        self.coverage.carries(
            progress.node_id, progress.cell, progress.round, progress.steps_done, progress.steps_total
        )

    def _handed_on(self, task: _Task, progress: Progress, where: str, work: str, *, keep_work: bool) -> Decision:
        self._away.pop(task, None)
        self._tell("exited", progress, where, work)
        substitute = self._substitute(progress)
        if substitute is None:
            return Stop() if keep_work else Drop()
        return Replace(substitute, keep_work)

    # -- falling behind ----------------------------------------------------------------------------------------------

    def _failed(self, task: _Task, progress: Progress) -> Decision:
        decision = self._then(progress)
        if isinstance(decision, Replace) or task in self._substitutes:
            return decision
        substitute = self._substitute(progress)
        if substitute is None:
            return decision
        self._tell("failed", progress, f"failed ({str(progress.error)[:200]})")
        return Replace(substitute)

    def _slow(self, task: _Task, progress: Progress) -> Decision | None:
        if task in self._substitutes or progress.step_s is None:
            return None
        step_s, limits_s = progress.step_s, []
        if self.reference_step_s is not None:
            limits_s.append(self.reference_step_s)
        if self.replace_slower_than is not None and progress.median_step_s is not None:
            limits_s.append(self.replace_slower_than * progress.median_step_s)
        if not limits_s or step_s <= min(limits_s) or (substitute := self._substitute(progress)) is None:
            return None
        self._away.pop(task, None)
        why = f"needs {step_s:.3g} s per step, the reference is {min(limits_s):.3g} s"
        self._tell("slow", progress, why)
        return Replace(substitute, keep_work=True)

    # -- coming ------------------------------------------------------------------------------------------------------

    def _enlisted(self, progress: Progress, decision: Continue) -> Continue:
        joined = self._candidates(progress, self.coverage.joined(progress.cell))
        for node in joined:
            key, cell = self.coverage.key(node), self._name(progress.cell)
            text = f"terminal {key} came into {cell} within round {progress.round}"
            self.coverage.tell(Event("came", text, key, progress.cell, values={"round": progress.round}))
        return replace(decision, enlist=(*decision.enlist, *joined)) if joined else decision

    def _substitute(self, progress: Progress) -> int | None:
        joined = set(self.coverage.joined(progress.cell))
        candidates = self._candidates(progress, self.coverage.members(progress.cell))
        if self._prefer is None:
            # By the terminal and not by the node's id, which Flower draws anew for every run.
            place, own = self.coverage.index_of, self.coverage.index_of(progress.node_id)
            candidates.sort(key=lambda node: (node not in joined, place(node) <= own, place(node)))
        if not candidates:
            return None
        self._substitutes.add((progress.cell, progress.round, candidates[0]))
        return candidates[0]

    def _candidates(self, progress: Progress, nodes: list[int]) -> list[int]:
        elsewhere = {node for _, _, node in self._away}
        taken = {node for cell, round, node in self._substitutes if (cell, round) == (progress.cell, progress.round)}
        found = [node for node in nodes if node not in progress.asked and node not in elsewhere and node not in taken]
        found = self._fitting(found, progress.cell)
        if self._prefer is None:
            return found
        fits = set(found)
        return [node for node in self._prefer(found) if node in fits]

    def _fitting(self, nodes: list[int], cell: str) -> list[int]:
        if self._eligible is None or not nodes:
            return nodes
        known = {node: self._known_of(node, cell) for node in nodes}
        fitting = [node for node in nodes if self._eligible.holds(known[node])]
        told = {name.replace("-", "_") for row in known.values() for name in row}
        nobody_tells = {name for name in self._eligible.names if name.replace("-", "_") not in told}
        if not fitting and nobody_tells and not self._warned:
            self._warned = True
            log.warning(
                "no terminal can take over: nothing here knows %s, which MidRound(eligible=%s) asks for; share what "
                "selection knows, Selected(..., known=known) and MidRound(..., known=known)",
                ", ".join(sorted(nobody_tells)),
                self._eligible,
            )
        return fitting

    def _known_of(self, node: int, cell: str) -> Mapping[str, Any]:
        """Its properties, under what the edges know of it; where they hand nothing over, what its own edge knows."""
        if self._known is None:
            return self.coverage.properties(node)
        if isinstance(self._known, Known) and not self.coverage.handover:
            return {**self.coverage.properties(node), **self._known.of(node, cell)}
        return {**self.coverage.properties(node), **self._known(node)}

    # -- telling -----------------------------------------------------------------------------------------------------

    def _tell(self, what: str, progress: Progress, why: str, work: str = "") -> None:
        """Why a decision is taken, in words that stay true whatever becomes of it."""
        key = self.coverage.key(progress.node_id)
        text = f"terminal {key} {why} after {progress.steps_done} of {progress.steps_total} steps"
        values: dict[str, int | float | str] = {
            "round": progress.round,
            "steps": progress.steps_done,
            "of": progress.steps_total,
        }
        if work:
            text, values["work"] = f"{text}; {work}", work
        self.coverage.tell(Event(what, text, key, progress.cell, values=values))

    @staticmethod
    def _name(cell: str) -> str:
        return cell or "the coverage"

    def _forget_rounds_before(self, progress: Progress) -> None:
        # A strategy that tells no server-round is in round 0 all the time: its rounds begin at another time each.
        place = progress.round, progress.round_begun_s
        if place == self._latest.get(progress.cell):
            return
        self._latest[progress.cell] = place
        # An exchange waits for whoever trains on elsewhere, so nobody of an earlier round does.
        for kept in (self._substitutes, self._told):
            kept -= {task for task in kept if task[0] == progress.cell}
        self._away = {task: cell for task, cell in self._away.items() if task[0] != progress.cell}
