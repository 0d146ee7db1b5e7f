"""`FlatWork`: rounds of one Flower strategy and its nodes, as `drive` runs them. Nothing here keeps records."""

from __future__ import annotations

from dataclasses import dataclass
from logging import getLogger
from typing import Protocol, runtime_checkable

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import NobodyAdmitted, NobodyContributed
from flower_edge.events import Event
from flower_edge.monitoring.links import Link, LinkTable
from flower_edge.rounds import Round
from flower_edge.runtime.exchange import evaluate_once, train_once

from .idling import LetGo, let_pass, too_few
from .round_work import RoundReport

__all__ = ["FlatWork"]

log = getLogger("flwr.edge")


@runtime_checkable
class Tells(Protocol):
    """A strategy that says what happened in a round."""

    def events(self) -> list[Event]:
        """What happened since the last call."""
        ...


@runtime_checkable
class Linked(Protocol):
    """A strategy that knows the links between its nodes."""

    def links(self) -> tuple[Link, ...]:
        """As they are now; none where nothing is new."""
        ...


@dataclass(frozen=True)
class FlatWork:
    """One Flower strategy and its nodes.

    Attributes:
        strategy: the strategy.
        idle_s: what a round lets pass to which nobody can contribute, see `Layered.start`; `None` waits and raises.
    """

    strategy: Strategy
    idle_s: float | None = None

    def train(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """One training round of the strategy, or time that passes; with what the strategy tells of it."""
        report = self._train(grid, number, arrays, config, timeout_s)
        if isinstance(self.strategy, Tells):
            report.events.extend(self.strategy.events())
        if isinstance(self.strategy, Linked) and (links := self.strategy.links()):
            report.links = {"": LinkTable.of(links)}
        return report

    def _train(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        round = Round(number)
        if self.idle_s is not None and (why := too_few(self.strategy, grid, round)):
            return self._idle(grid, number, self.idle_s, why, asked=0)
        let_go = LetGo(grid)
        try:
            done = train_once(self.strategy, grid, round, number, arrays, config, timeout_s=timeout_s)
        except NobodyAdmitted as refused:
            log.warning("\tround %d: nobody was admitted, the model stays: %s", number, refused)
            event = Event("nobody-admitted", f"the model stays: {refused}")
            asked = len(refused.asked)
            return RoundReport(counts=_counts(asked, asked), events=[event], refused=refused)
        except NobodyContributed as failed:
            gone = let_go.nodes() & failed.asked
            if not gone:
                raise
            if self.idle_s is None:
                advice = f"{len(gone)} were let go in mid-round; where terminals come and go, idle_s= lets time pass"
                raise NobodyContributed(f"{failed}; {advice}", failed.asked) from None
            why = f"{len(gone)} of the {len(failed.asked)} terminals asked were let go"
            return self._idle(grid, number, self.idle_s, why, asked=len(failed.asked))
        return RoundReport(done.arrays, done.metrics, _counts(done.sent, done.failed))

    def adopted(self, before: ArrayRecord, after: ArrayRecord) -> None:
        """A flat strategy keeps no versions."""

    def evaluate(
        self, grid: Grid, number: int, arrays: ArrayRecord, config: ConfigRecord, timeout_s: float
    ) -> RoundReport:
        """One evaluation round of the strategy, where somebody can evaluate or is waited for."""
        round = Round(number, kind="evaluate")
        if self.idle_s is not None and (why := too_few(self.strategy, grid, round)):
            log.warning("\tround %d: no evaluation: %s", number, why)
            return RoundReport(events=[Event("evaluation-failed", f"no evaluation: {why}")])
        done = evaluate_once(self.strategy, grid, round, number, arrays, config, timeout_s=timeout_s)
        return RoundReport(None, done.metrics, _counts(done.sent, done.failed))

    def stop(self, round: Round) -> str | None:
        """Flower's strategies have none."""
        return None

    def _idle(self, grid: Grid, number: int, idle_s: float, why: str, *, asked: int) -> RoundReport:
        log.warning("\tround %d: nobody contributed (%s); the model stays, %g s pass", number, why, idle_s)
        return RoundReport(counts=_counts(asked, asked), events=[let_pass(grid, idle_s, why)])


def _counts(sent: int, failed: int) -> dict[str, float]:
    return {"nodes_sampled": sent, "nodes_replied": sent - failed, "nodes_failed": failed}
