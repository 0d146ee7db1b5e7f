"""`StepWork`: all sliced tasks of one grid, and what becomes of each after every answer.

A book of tasks. It is told what was sent and what came, asks `decide`, and says what to send next. Nothing here sends,
waits or knows a Grid; `grid` does.

Several callers may have exchanges open at once (the lanes of a virtual clock): a task moves on whoever brings its
answer, and one that its caller has given up meanwhile is `over` and goes nowhere.
"""

from __future__ import annotations

import secrets
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from flwr.app import Message

from ...errors import ConfigError, ProtocolError
from ...wire import copy_content, error_reason
from ..flower_private import clone_message, set_metadata
from .crew import Crew
from .decisions import Change, Continue, Decide, Detach, Drop, Progress, Renew, Replace, StepEvent, Stop
from .event_log import EventLog
from .late import Late, late_reply, split
from .messages import request_of
from .renewing import go_on_from, renewed
from .task import Ending, Rule, SlicedTask, StepModMissing

__all__ = ["Outgoing", "StepWork"]

#: Tasks, and the slice each is to be sent.
Outgoing = list[tuple[SlicedTask, Message]]


class StepWork:
    """The tasks of one `SteppedGrid`.

    Args:
        steps_per_message: at most so many steps in one slice.
        decide: called after every slice but the last, and when a node fails.
        steps_key: config key of the number of steps.
        rules: how the metrics of slices become one.
        now_s: what time it is, seconds.

    Attributes:
        log: every decision, and what became of the work done so far.
        late: replies of detached tasks that have arrived and were not handed out.
        durations_s: of each node, how long its last task took that was answered or given up, see `last_duration_s`.
    """

    def __init__(
        self,
        steps_per_message: int,
        decide: Decide,
        steps_key: str,
        rules: Mapping[str, Rule],
        now_s: Callable[[], float],
    ) -> None:
        self.log = EventLog(now_s)
        self.late: list[Late] = []
        self.durations_s: dict[int, float] = {}
        self._size, self._decide, self._now_s = steps_per_message, decide, now_s
        self._steps_key, self._rules = steps_key, rules
        # Tells this grid's tasks from those of one before it in the same run.
        self._token = secrets.token_hex(4)
        self._count = 0
        self._mod_seen = False
        self._crews: dict[tuple[str, int], Crew] = {}
        self._flying: dict[str, SlicedTask] = {}  # by the inner id of the slice
        self._abandoned: set[str] = set()  # inner ids whose answers nobody wants any more
        self._busy: dict[int, SlicedTask] = {}
        self._waiting: defaultdict[int, deque[SlicedTask]] = defaultdict(deque)
        self._open: dict[str, list[SlicedTask]] = {}  # tasks behind one original message
        self._done: defaultdict[str, list[Message]] = defaultdict(list)

    # -- tasks come and go -------------------------------------------------------------------------------------------

    def crew(self, cell: str, round: int) -> Crew:
        """Those who work on a round of a cell; new ones where all before have ended."""
        crew = self._crews.get((cell, round))
        if crew is None or not crew.working:
            self._crews = {place: other for place, other in self._crews.items() if other.working}
            crew = self._crews[cell, round] = Crew(cell, round)
        return crew

    def add(self, message: Message, record: str, crew: Crew, key: str | None = None) -> SlicedTask:
        """A task for what a message asks of its node; `key` is the id of the strategy's message where it has one."""
        self._count += 1
        name = f"steps-{self._token}-{self._count:08d}"
        original = clone_message(message, copy_content(message.content))
        set_metadata(original, message_id=key or name)
        total = message.content.config_records[record][self._steps_key]
        assert isinstance(total, int)
        task = SlicedTask(
            key=key or name,
            name=name,
            original=original,
            record=record,
            total=total,
            crew=crew,
            steps_key=self._steps_key,
        )
        crew.working += 1
        if task.node_id not in crew.asked:
            crew.ask([task.node_id])
        self._open.setdefault(task.key, []).append(task)
        return task

    def begin(self, task: SlicedTask) -> Outgoing:
        """Its first slice, or nothing yet where the node is busy."""
        if task.node_id in self._busy:
            self._waiting[task.node_id].append(task)
            return []
        self._busy[task.node_id] = task
        return [(task, task.begin(self._size, self._now_s()))]

    def sent(self, task: SlicedTask, inner_id: str | None) -> Outgoing:
        """A slice has gone out; without an id it could not be sent, which is how Flower says so."""
        if inner_id is not None:
            self._flying[inner_id], task.slice_id = task, inner_id
            return []
        reason = "its slice could not be sent"
        return self._lost(task, reason, task.failure(reason))

    @property
    def in_flight(self) -> list[str]:
        """Inner ids of the slices that were sent, the abandoned last."""
        return [*self._flying, *sorted(self._abandoned)]

    @property
    def detached(self) -> Iterator[SlicedTask]:
        """Tasks under way that nobody waits for."""
        return (task for task in self._busy.values() if task.detached)

    def __contains__(self, key: str) -> bool:
        return key in self._open

    def is_at(self, key: str, node_id: int) -> bool:
        """Whether a node works on an original message still, or is to."""
        return any(task.node_id == node_id for task in self._open.get(key, ()))

    def take(self, key: str) -> list[Message]:
        """Replies to an original message that are complete, each given once."""
        replies = self._done.pop(key, [])
        if not self._open.get(key, True):
            del self._open[key]
        return replies

    def take_late(self, wanted: Callable[[Late], bool], when: str) -> list[Message]:
        """Replies of detached tasks that are there and wanted, each given once."""
        taken, self.late = split(self.late, wanted)
        self.log.events += [self.log.of_late(late, f"returned late, {when}") for late in taken]
        return [late.reply for late in taken]

    def abandon(self, keys: Collection[str], why: str, *, silent: bool) -> Outgoing:
        """Nobody wants these messages' replies any more.

        Where nodes were silent, a detached task that kept one of them busy is given up, too.
        """
        outgoing: Outgoing = []
        for key in keys:
            for task in list(self._open.get(key, ())):
                holder = self._busy.get(task.node_id)
                if holder is task:
                    self._time_given(task)
                    just_begun = any(task is begun for begun, _ in outgoing)
                    outgoing += self._lost(task, f"not begun; {why}" if just_begun else why)
                    continue
                outgoing += self._lost(task, f"not begun; {why}")
                if silent and holder is not None and holder.detached:
                    self._time_given(holder)
                    outgoing += self._lost(holder, why)
            self._open.pop(key, None)
            self._done.pop(key, None)
        return outgoing

    def _time_given(self, task: SlicedTask) -> None:
        """How long a task that is given up would have taken at its pace, at least the time it has had.

        Before its first step nothing is known of its pace; an earlier task's duration then stands if it is longer.
        """
        begun_s = task.begun_s if task.sent_s is None else task.sent_s
        at_least_s = self._now_s() - begun_s
        step_s = task.crew.step_s(task.name)
        known_s = self.durations_s.get(task.node_id, 0.0)
        if step_s is not None:
            known_s = task.begun_s - begun_s + step_s * (task.total - task.first)
        self.durations_s[task.node_id] = max(at_least_s, known_s)

    def drop_answer(self, inner_id: str) -> None:
        """Clear an answer away when it comes."""
        self._abandoned.add(inner_id)

    def under_way(self) -> list[StepEvent]:
        """Detached work that has not come back, as what it is if it never does."""
        return [self.log.of(task, "", "none", "lost: still under way at the end") for task in self.detached]

    def not_handed_out(self) -> list[StepEvent]:
        """Detached work that has come back and reached nobody, as what it is if it never does."""
        return [self.log.of_late(late, "not handed out by the end") for late in self.late]

    def _close(self, task: SlicedTask, reply: Message | None = None) -> None:
        """Nobody waits for it any more; the reply, if any, is what its caller gets."""
        if reply is not None:
            self._done[task.key].append(reply)
        mine = self._open.get(task.key, [])
        if task in mine:
            mine.remove(task)
            task.crew.working -= 1

    def _end(self, task: SlicedTask, reply: Message | None = None) -> Outgoing:
        """It is over, and the node's next task may begin."""
        self._close(task, reply)
        task.over = True
        if task.slice_id is not None:
            del self._flying[task.slice_id]
            self._abandoned.add(task.slice_id)
            task.slice_id = None
        if self._busy.get(task.node_id) is not task:
            return []
        del self._busy[task.node_id]
        waiting = self._waiting.pop(task.node_id, deque())
        alive = deque(other for other in waiting if not other.over)
        if not alive:
            return []
        following = self.begin(alive.popleft())
        if alive:
            self._waiting[task.node_id] = alive
        return following

    def _lost(self, task: SlicedTask, reason: str, reply: Message | None = None) -> Outgoing:
        self.log.ended(task, f"lost: {reason}")
        return self._end(task, None if task.detached else reply)

    # -- what to send after an answer --------------------------------------------------------------------------------

    def answered(self, inner_id: str, reply: Message) -> Outgoing | None:
        """What to send now that an answer has come; `None` where it is no slice's."""
        if inner_id in self._abandoned:
            self._abandoned.discard(inner_id)
            return []
        if (task := self._flying.pop(inner_id, None)) is None:
            return None
        task.slice_id = None
        return self._advance(task, reply)

    def _advance(self, task: SlicedTask, reply: Message) -> Outgoing:
        if reply.has_error():
            return self._failed(task, task.failed(reply), error_reason(reply))
        try:
            steps = task.take(reply)
        except ProtocolError as error:
            if isinstance(error, StepModMissing) and not self._mod_seen:
                raise
            return self._failed(task, task.failure(str(error)), str(error))
        self._mod_seen = True
        now_s = self._now_s()
        if task.made:
            task.crew.paced(task.name, (now_s - task.begun_s) / task.made)
        request = request_of(reply)
        asked = "" if request is None else str(request)
        assert task.order is not None
        if task.order.returns:
            return self._returned(task, reply, asked, now_s)
        metrics = {key: value for record in reply.content.metric_records.values() for key, value in record.items()}
        decision = self._decide(self._progress(task, metrics=metrics, request=request))
        if task.over:
            return []
        extra = self._enlist(task, decision.enlist) if isinstance(decision, Continue) else []
        if isinstance(decision, Change):
            task.change(decision.config)
        if isinstance(decision, Continue | Change):
            word = type(decision).__name__.lower()
            if steps == 0:
                return [*self._stop(task, Ending(asked, "stop", "; it made no step")), *extra]
            if task.done >= task.total:
                return [*self._stop(task, Ending(asked, word, f"; {self._steps_key} is {task.total} now")), *extra]
            self.log.add(task, asked, word, "kept on the node")
            return [(task, task.slice(self._size)), *extra]
        if isinstance(decision, Stop):
            return self._stop(task, Ending(asked, "stop", planned=decision.planned))
        if isinstance(decision, Drop):
            self.log.add(task, asked, "drop", "discarded")
            return self._end(task, task.failure(f"dropped after {task.done} of {task.total} steps by decision"))
        if isinstance(decision, Replace):
            return self._replace(task, asked, decision)
        if isinstance(decision, Detach):
            return self._detach(task, asked, decision)
        if isinstance(decision, Renew):
            return self._renew(task, asked, decision)
        raise ConfigError(
            f"decide returned {decision!r}; expected Continue(), Change(...), Stop(), Drop(), Replace(...), Detach() "
            "or Renew(...)"
        )

    def _progress(self, task: SlicedTask, **told: Any) -> Progress:
        crew = task.crew
        return Progress(
            task.node_id,
            task.done,
            task.total,
            round=task.round,
            cell=crew.cell,
            now_s=self._now_s(),
            begun_s=task.begun_s,
            round_begun_s=task.begun_s if crew.begun_s is None else crew.begun_s,
            asked=crew.asked,
            step_s=crew.step_s(task.name),
            median_step_s=crew.median_step_s,
            first_step=task.first,
            renewals=task.renewals,
            **told,
        )

    def _returned(self, task: SlicedTask, reply: Message, asked: str, now_s: float) -> Outgoing:
        if task.detached and task.made == 0:
            return self._lost(task, "it made no step")
        if (ending := task.ending) is not None:
            self.log.ended(task, "returned as planned" if ending.planned else "returned")
        elif asked:
            self.log.add(task, asked, "none", "returned")
        assert task.sent_s is not None
        self.durations_s[task.node_id] = now_s - task.sent_s
        whole = task.result(reply, self._rules)
        if task.detached:
            self.late.append(late_reply(task, whole))
            return self._end(task)
        return self._end(task, whole)

    def _stop(self, task: SlicedTask, ending: Ending) -> Outgoing:
        if task.made == 0:
            self.log.add(task, ending.request, ending.decision, f"nothing to return{ending.why}")
            # Of a node whose model was renewed the strategy has heard already, and this is no failure.
            nothing = None if task.answered else task.failure(f"stopped before its first step{ending.why}")
            return self._end(task, nothing)
        return [(task, task.closing(ending))]

    def _enlist(self, task: SlicedTask, nodes: Collection[int]) -> Outgoing:
        outgoing: Outgoing = []
        for node_id in nodes:
            if node_id in task.crew.asked:
                continue
            beside = self._same_for(task, node_id, task.as_made or task.original)
            self.log.add(beside, "", "enlist", f"begins beside node {task.node_id}", task.node_id)
            outgoing += self.begin(beside)
        return outgoing

    def _detach(self, task: SlicedTask, asked: str, decision: Detach) -> Outgoing:
        self.log.add(task, asked, "detach", "kept on the node; nobody waits for it")
        task.detached = True
        self._close(task)
        return [(task, task.last(decision.steps))]

    def _renew(self, task: SlicedTask, asked: str, decision: Renew) -> Outgoing:
        after = self.add(renewed(task, decision.records), task.record, task.crew, task.key)
        go_on_from(after, task)
        self._waiting[task.node_id].appendleft(after)
        if task.made:
            return [(task, task.closing(Ending(asked, "renew", reason=decision.why)))]
        self.log.add(task, asked, "renew", "nothing to return", why=decision.why)
        return self._end(task)

    def _replace(self, task: SlicedTask, asked: str, decision: Replace, reason: str = "") -> Outgoing:
        heir = self._same_for(task, decision.node_id, task.original)
        heir.first = heir.done = task.first
        heir.renewals, heir.as_made = task.renewals, task.as_made
        heir.tried = task.tried | {task.node_id} if reason else task.tried
        begins = f"; node {heir.node_id} begins anew"
        if decision.keep_work and task.made and not reason:
            collected = task.closing(Ending(asked, "replace", begins, other_id=heir.node_id))
            return [(task, collected), *self.begin(heir)]
        fate = f"lost: {reason}" if reason else "discarded"
        self.log.add(task, asked, "replace", fate + begins, heir.node_id)
        return [*self._end(task), *self.begin(heir)]

    def _same_for(self, task: SlicedTask, node_id: int, message: Message) -> SlicedTask:
        """What this message asks for, of another node, in the same cell and round."""
        other = clone_message(message, copy_content(message.content))
        other.metadata.dst_node_id = node_id
        return self.add(other, task.record, task.crew, task.key)

    def _failed(self, task: SlicedTask, reply: Message, reason: str) -> Outgoing:
        closing = task.order is not None and not len(task.order.steps)
        if not closing and not task.detached:
            decision = self._decide(self._progress(task, error=reason))
            if task.over:
                return []
            # Nodes that failed at this task are not asked again: a policy with a dead favourite would never end.
            if isinstance(decision, Replace) and decision.node_id not in task.tried | {task.node_id}:
                return self._replace(task, "", decision, reason)
        return self._lost(task, reason, reply)
