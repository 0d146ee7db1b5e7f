"""What an edge can decide between two slices of a terminal's training, and the record of what it decided.

Frozen values and one default policy. Nothing here sends anything; `work` carries the decisions out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord

from ...errors import ConfigError
from .messages import RESERVED, Request

__all__ = [
    "Change",
    "Continue",
    "Decide",
    "Decision",
    "Detach",
    "Drop",
    "Progress",
    "Renew",
    "Replace",
    "StepEvent",
    "Stop",
    "honour_requests",
]

Scalar = bool | int | float | str | bytes


@dataclass(frozen=True)
class Progress:
    """Where one node is in its task, after a slice or when it failed.

    Times are those of the virtual clock in the chain where there is one, else of the grid's own `clock`. A pace counts
    everything from the sending of a task to the last reply, so the links are in it.

    Attributes:
        node_id: the node.
        steps_done: the step its model is at; after a `Renew` those before it are counted, too.
        steps_total: steps the task has.
        metrics: the numbers of its last reply, all records together.
        request: what the terminal asks for, if anything.
        round: the strategy's `server-round`; 0 where it tells none.
        error: why the node cannot go on; then only `Replace` can help.
        cell: the edge that gave the task; empty where there is only one federation.
        now_s: the present time.
        begun_s: when this task's first slice was sent; after a `Renew`, the first with the new records.
        round_begun_s: when the first slice of any task of this cell and round was sent.
        asked: nodes that have or had a task of this cell and round, the enlisted and the replaced among them.
        step_s: seconds per step of this task so far; `None` before its first step.
        median_step_s: the median of that number over all tasks of this cell and round that have made a step, ended
            ones and this one among them; `None` where none has.
        first_step: where this task began: 0, or the step of the last `Renew`.
        renewals: how often the node's model was renewed in this round.
    """

    node_id: int
    steps_done: int
    steps_total: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    request: Request | None = None
    round: int = 0
    error: str | None = None
    cell: str = ""
    now_s: float = 0.0
    begun_s: float = 0.0
    round_begun_s: float = 0.0
    asked: frozenset[int] = frozenset()
    step_s: float | None = None
    median_step_s: float | None = None
    first_step: int = 0
    renewals: int = 0


@dataclass(frozen=True)
class Continue:
    """Send the next slice.

    Attributes:
        enlist: nodes that begin the same task, too, with the message as the strategy made it; it gets their replies
            in addition. A node that has or had a task of this cell and round is passed over.
    """

    enlist: tuple[int, ...] = ()


@dataclass(frozen=True)
class Change:
    """Send the next slice with other config values; they hold for the rest of this task.

    The number of steps can be changed, too: a task that has already made as many is stopped.
    """

    config: Mapping[str, Scalar | list[Any]]

    def __post_init__(self) -> None:
        if taken := [key for key in self.config if key in RESERVED]:
            raise ConfigError(f"Change({', '.join(taken)}): SteppedGrid writes these keys itself; change 'local-steps'")


@dataclass(frozen=True)
class Stop:
    """Collect the model as it is; the strategy gets the partial work, `steps` and `num-examples` telling how much.

    Attributes:
        planned: the task was to end like this, as at the end of a period; a run folder then does not tell of it.
    """

    planned: bool = False


@dataclass(frozen=True)
class Drop:
    """End the task and use nothing of it; the strategy gets an error reply."""


@dataclass(frozen=True)
class Replace:
    """Let another node do the task from its beginning, with the message as the strategy made it.

    Attributes:
        node_id: the replacement; if it is busy with a task of its own, that one comes first.
        keep_work: also collect what the replaced node has done; the strategy then gets two replies.
    """

    node_id: int
    keep_work: bool = False


@dataclass(frozen=True)
class Detach:
    """Let the node go on alone: what is left of its task is one slice, and the exchange does not wait for it.

    The reply is handed out at the beginning of a later training exchange of the same cell, when it has arrived and the
    node can be reached; a record `flower-edge.late` in it tells the round whose model it began with. Until it has
    arrived the node is busy: a new task for it waits.

    Attributes:
        steps: at most so many more; 0 collects the model as it is, when the node can be reached. Default: all.
    """

    steps: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 0:
            raise ConfigError(f"Detach(steps={self.steps}): expected 0 or more, or None for all that are left")


@dataclass(frozen=True)
class Renew:
    """Collect the model as it is, and let the same node make the steps that are left with other records.

    The task goes on at the step where the node is: a train function that draws by the absolute step repeats no sample
    and leaves none out, and `local-steps` stays what it was. The strategy gets a reply for either part, both from this
    node and naming the same message, `steps` and `num-examples` telling the steps of that part alone. The reply of what
    was begun by a `Renew` has a record `flower-edge.renewed`, read with `renewed_of(reply)`: the how-manieth it was
    (`index`, from 1) and the `first-step`. The first part's reply has none.

    May be decided several times in a task. Config values of an earlier `Change` go on to hold, unless `records` has
    the record they are in. Where nothing was done yet there is nothing to collect. Where collecting fails, the strategy
    gets an error reply for that part, and the node is asked for the steps that are left all the same.

    Flower's own strategies take two replies of one shape. Where the second has arrays of other names they raise
    `InconsistentMessageReplies`, of other shapes NumPy's ValueError; `SubModels` takes parts of any size.

    `Replace` after it gives the other node what this one has now: these records, from the step of the `Renew` on, for
    what was done before is collected already. A node that is enlisted begins with the message as the strategy made it.

    Attributes:
        records: by name; they replace those of the same name in the message, all others stay. Arrays only under names
            that came with the message.
        why: the reason, for the events.

    Raises:
        ConfigError: no record, one of another kind, or config keys that `SteppedGrid` writes.
    """

    records: Mapping[str, ArrayRecord | ConfigRecord]
    why: str = ""

    def __post_init__(self) -> None:
        if not self.records:
            raise ConfigError(
                "Renew({}): expected at least one record, the arrays to go on with; to go on as it is: Continue()"
            )
        for name, record in self.records.items():
            if not isinstance(record, ArrayRecord | ConfigRecord):
                raise ConfigError(
                    f"Renew: record {name!r} is a {type(record).__name__}, expected an ArrayRecord or a ConfigRecord"
                )
            if isinstance(record, ConfigRecord) and (taken := [key for key in record if key in RESERVED]):
                raise ConfigError(
                    f"Renew: record {name!r} has {', '.join(taken)}, which SteppedGrid writes itself; leave them out"
                )


Decision = Continue | Change | Stop | Drop | Replace | Detach | Renew
#: A policy. It decides from what it is told and knows: it must not send messages or let time pass.
Decide = Callable[[Progress], Decision]


def honour_requests(progress: Progress) -> Decision:
    """The default policy: a terminal that asks to stop, or says it is overloaded, is stopped and its work used.

    >>> honour_requests(Progress(1000, 4, 20, request=Request("overload")))
    Stop(planned=False)
    >>> honour_requests(Progress(1000, 4, 20, request=Request("join")))
    Continue(enlist=())
    """
    return Stop() if progress.request is not None and progress.request.kind in ("stop", "overload") else Continue()


@dataclass(frozen=True)
class StepEvent:
    """One decision and what became of the work done so far. Plain values, ready for a metrics file.

    Attributes:
        round: the strategy's round.
        node_id: the node it is about.
        step: steps done when it was taken.
        request: the terminal's request in words; empty if it made none.
        decision: `continue`, `change`, `stop`, `drop`, `replace`, `detach`, `renew`, `enlist` (about the node that
            was), or `none` where there was nothing to decide.
        outcome: what became of the work: `kept on the node`, `returned`, `discarded`, `lost`, with a reason if any.
            Of work that is collected it is told when the answer is there.
        cell: the edge that gave the task; empty where there is only one federation.
        other_id: the node that begins anew in its place, or beside which it begins.
        time_s: when the outcome was known, on the clock of `Progress`; two events at different times can be equal.
        why: the reason given with the decision, where it has one.
    """

    round: int
    node_id: int
    step: int
    request: str
    decision: str
    outcome: str
    cell: str = ""
    other_id: int | None = None
    time_s: float = field(default=0.0, compare=False)
    why: str = ""
