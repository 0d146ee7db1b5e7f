"""`SteppedGrid`: training in short messages, so that a request or a decision takes effect before the round ends.

A Flower node handles one message at a time and cannot start one itself. So a `train` message that asks for many
steps is sent as slices of a few, the model staying on the node in between; each answer may carry the terminal's own
request, and each is followed by a decision of the edge: go on, change, stop, drop or replace the node. The strategy
sees one message and one reply. Clients need `step_mod`, see `flower_edge.clients.steps`.
"""

from __future__ import annotations

import secrets
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from logging import getLogger
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from ..errors import ConfigError, ProtocolError
from ..wire import copy_content, error_reason, server_round_of
from .flower_private import clone_message, set_metadata
from .stepped_decisions import Change, Continue, Decide, Drop, Progress, Replace, StepEvent, Stop, honour_requests
from .stepped_messages import REQUEST_RECORD, STEPS_KEY, request_of, total_steps
from .stepped_task import RULES, Rule, SlicedTask, StepModMissing
from .wrapped_grid import WrappedGrid, chain, undisturbed

__all__ = ["SteppedGrid"]

log = getLogger(__name__)

_Outgoing = list[tuple[SlicedTask, Message]]


class SteppedGrid(WrappedGrid):
    """Sends every `train` message of more than `steps_per_message` steps in slices of at most so many.

    Nodes go on independently: whoever answers gets its next slice at once. Replies come in the order of the messages.
    A proxy inside sees slices as ordinary messages (`SteppedGrid(VirtualClock(...), 5)` gives each its time); one
    around it sees whole messages (`GridProxy(SteppedGrid(grid, 5), quorum=0.9)` counts them).

    Args:
        inner: the grid that carries the slices, through `push_messages` and `pull_messages`.
        steps_per_message: at most so many steps in one message.
        decide: called after every slice but the last, and when a node fails; default `honour_requests`.
        steps_key: config key of the number of steps.
        merge: how a metric's values in the slices become one: `sum`, `mean` (weighed by steps) or `last`. Default:
            `num-examples` and `steps` are sums, everything else is a mean.
        poll_s: seconds between two looks for replies; Flower's own grids want 0.05 or more.
        sleep: how to wait, seconds.
        clock: what time it is, seconds.

    Attributes:
        events: every decision, and what became of the work done so far.
    """

    def __init__(
        self,
        inner: Grid,
        steps_per_message: int,
        decide: Decide | None = None,
        steps_key: str = STEPS_KEY,
        *,
        merge: Mapping[str, Rule] | None = None,
        poll_s: float = 0.1,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(inner)
        if steps_per_message < 1:
            raise ConfigError(f"steps_per_message = {steps_per_message}: expected 1 or more")
        if bad := [rule for rule in (merge or {}).values() if rule not in ("sum", "mean", "last")]:
            raise ConfigError(f"merge rule {bad[0]!r}: expected 'sum', 'mean' or 'last'")
        if not poll_s > 0:
            raise ConfigError(f"poll_s = {poll_s}: expected more than 0 s")
        self.steps_per_message = steps_per_message
        self.events: list[StepEvent] = []
        self._decide = honour_requests if decide is None else decide
        self._steps_key = steps_key
        self._rules = {**RULES, **(merge or {})}
        self._poll_s, self._sleep, self._clock = poll_s, sleep, clock
        # Tells this grid's tasks from those of one before it in the same run.
        self._token = secrets.token_hex(4)
        self._count = 0
        self._mod_seen = False
        self._flying: dict[str, SlicedTask] = {}  # by the inner id of the slice
        self._busy: dict[int, SlicedTask] = {}
        self._waiting: defaultdict[int, deque[SlicedTask]] = defaultdict(deque)
        self._open: dict[str, int] = {}  # tasks behind one original message
        self._done: defaultdict[str, list[Message]] = defaultdict(list)
        self._plain_rounds: dict[str, int] = {}
        self._abandoned: set[str] = set()
        self._arrived = 0

    # -- Flower's Grid -----------------------------------------------------------------------------------------------

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages without waiting; those to be sliced begin with their first slice.

        A node's second task begins when its first has ended.
        """
        ids: list[str] = []
        batch: list[tuple[Message, SlicedTask | None, int]] = []
        for at, message in enumerate(messages):
            record = self._record_to_slice(message)
            if record is None:
                batch.append((message, None, at))
                ids.append("")
                continue
            task = self._new_task(message, record)
            set_metadata(message, message_id=task.key)
            ids.append(task.key)
            batch.extend((first, begun, at) for begun, first in self._begin(task))
        pushed = self._push([message for message, _, _ in batch])
        for (message, task_or_none, at), inner_id in zip(batch, pushed, strict=True):
            if task_or_none is not None:
                self._fly(task_or_none, inner_id)
            else:
                ids[at] = inner_id
                if message.has_content():
                    self._plain_rounds[inner_id] = server_round_of(message) or 0
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to whole messages that have arrived, each given once; slices that have are followed by the next."""
        wanted = list(message_ids)
        keys = {message_id for message_id in wanted if message_id in self._open}
        asked = [message_id for message_id in wanted if message_id not in keys]
        # All slices, whoever is asked for: a task must go on also while its caller looks elsewhere.
        asked += [*self._flying, *sorted(self._abandoned)]
        replies: list[Message] = []
        outgoing: _Outgoing = []
        for reply in self.inner.pull_messages(asked) if asked else ():
            self._arrived += 1
            answered = reply.metadata.reply_to_message_id
            if answered in self._abandoned:
                self._abandoned.discard(answered)
            elif (task := self._flying.pop(answered, None)) is not None:
                outgoing += self._advance(task, reply)
            else:
                replies.append(self._plain(reply, self._plain_rounds.pop(answered, 0)))
        self._send(outgoing)
        for key in wanted:
            if key in keys:
                replies += self._done.pop(key, [])
                if self._open.get(key) == 0:
                    del self._open[key]
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages, in slices where they ask for many steps, and wait for their replies.

        Args:
            messages: what the strategy wants sent.
            timeout: seconds; a task that has not ended by then gives no reply, and what it did is lost.
        """
        with undisturbed(self.inner):
            return self._exchange(list(messages), timeout)

    def _exchange(self, messages: list[Message], timeout: float | None) -> list[Message]:
        if all(self._record_to_slice(message) is None for message in messages):
            replies = list(self.inner.send_and_receive(messages, timeout=timeout))
            rounds = {m.metadata.message_id: server_round_of(m) or 0 for m in messages if m.has_content()}
            return [self._plain(reply, rounds.get(reply.metadata.reply_to_message_id, 0)) for reply in replies]
        ids = list(self.push_messages(messages))
        outstanding = set(ids)
        end_s = None if timeout is None else self._clock() + timeout
        place = {message_id: at for at, message_id in enumerate(ids)}
        replies = []
        while True:
            before = self._arrived
            for reply in self.pull_messages([i for i in ids if i in outstanding]):
                replies.append(reply)
                if self._open.get(reply.metadata.reply_to_message_id, 0) == 0:
                    outstanding.discard(reply.metadata.reply_to_message_id)
            left_s = self._poll_s if end_s is None else end_s - self._clock()
            if not outstanding or left_s <= 0:
                break
            if self._arrived == before:
                self._wait(min(self._poll_s, left_s))
        for message_id in outstanding:
            self._abandon(message_id, timeout)
        return sorted(replies, key=lambda r: (place[r.metadata.reply_to_message_id], r.metadata.src_node_id))

    # -- more than a Grid --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint between rounds needs: the events. Tasks under way are not part of it."""
        return {"events": [asdict(event) for event in self.events]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.events = [StepEvent(**event) for event in state["events"]]

    # -- one task ----------------------------------------------------------------------------------------------------

    def _record_to_slice(self, message: Message) -> str | None:
        if message.metadata.message_type.partition(".")[0] != "train" or not message.has_content():
            return None
        found = total_steps(message.content, self._steps_key)
        return found[0] if found is not None and found[1] > self.steps_per_message else None

    def _new_task(self, message: Message, record: str, key: str | None = None) -> SlicedTask:
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
            round=server_round_of(message) or 0,
            steps_key=self._steps_key,
        )
        self._open[task.key] = self._open.get(task.key, 0) + 1
        return task

    def _begin(self, task: SlicedTask) -> _Outgoing:
        if task.node_id in self._busy:
            self._waiting[task.node_id].append(task)
            return []
        self._busy[task.node_id] = task
        return [(task, task.slice(self.steps_per_message))]

    def _end(self, task: SlicedTask, reply: Message | None) -> _Outgoing:
        """Hand the reply out and let the node's next task begin."""
        if reply is not None:
            self._done[task.key].append(reply)
        self._open[task.key] -= 1
        if self._busy.get(task.node_id) is task:
            del self._busy[task.node_id]
        waiting = self._waiting[task.node_id]
        return self._begin(waiting.popleft()) if waiting and task.node_id not in self._busy else []

    def _advance(self, task: SlicedTask, reply: Message) -> _Outgoing:
        """What to send now that a slice was answered."""
        if reply.has_error():
            return self._failed(task, task.failed(reply), error_reason(reply))
        try:
            steps = task.take(reply)
        except ProtocolError as error:
            if isinstance(error, StepModMissing) and not self._mod_seen:
                raise
            return self._failed(task, task.failure(str(error)), str(error))
        self._mod_seen = True
        request = request_of(reply)
        asked = "" if request is None else str(request)
        assert task.order is not None
        if task.order.returns:
            if asked:
                self._record(task, asked, "none", "returned")
            return self._end(task, task.result(reply, self._rules))
        metrics = {key: value for record in reply.content.metric_records.values() for key, value in record.items()}
        decision = self._decide(Progress(task.node_id, task.done, task.total, metrics, request, task.round))
        if isinstance(decision, Change):
            task.change(decision.config)
        if isinstance(decision, Continue | Change):
            word = type(decision).__name__.lower()
            if steps == 0:
                return self._stop(task, asked, "stop", "; it made no step")
            if task.done >= task.total:
                return self._stop(task, asked, word, f"; {self._steps_key} is {task.total} now")
            self._record(task, asked, word, "kept on the node")
            return [(task, task.slice(self.steps_per_message))]
        if isinstance(decision, Stop):
            return self._stop(task, asked, "stop", "")
        if isinstance(decision, Drop):
            self._record(task, asked, "drop", "discarded")
            return self._end(task, task.failure(f"dropped after {task.done} of {task.total} steps by decision"))
        if isinstance(decision, Replace):
            return self._replace(task, asked, decision)
        raise ConfigError(
            f"decide returned {decision!r}; expected Continue(), Change(...), Stop(), Drop() or Replace(...)"
        )

    def _stop(self, task: SlicedTask, asked: str, word: str, why: str) -> _Outgoing:
        if task.done == 0:
            self._record(task, asked, word, f"nothing to return{why}")
            return self._end(task, task.failure(f"stopped before its first step{why}"))
        self._record(task, asked, word, f"returned{why}")
        return [(task, task.closing())]

    def _replace(self, task: SlicedTask, asked: str, decision: Replace, reason: str = "") -> _Outgoing:
        substitute = clone_message(task.original, copy_content(task.original.content))
        substitute.metadata.dst_node_id = decision.node_id
        heir = self._new_task(substitute, task.record, task.key)
        heir.tried = task.tried | {task.node_id} if reason else task.tried
        if decision.keep_work and task.done and not reason:
            self._record(task, asked, "replace", f"returned; node {decision.node_id} begins anew")
            return [(task, task.closing()), *self._begin(heir)]
        fate = f"lost: {reason}" if reason else "discarded"
        self._record(task, asked, "replace", f"{fate}; node {decision.node_id} begins anew")
        return [*self._end(task, None), *self._begin(heir)]

    def _failed(self, task: SlicedTask, reply: Message, reason: str) -> _Outgoing:
        progress = Progress(task.node_id, task.done, task.total, round=task.round, error=reason)
        closing = task.order is not None and not len(task.order.steps)
        decision = None if closing else self._decide(progress)
        # Nodes that failed at this task are not asked again: a policy with a dead favourite would never end.
        if isinstance(decision, Replace) and decision.node_id not in task.tried | {task.node_id}:
            return self._replace(task, "", decision, reason)
        self._record(task, "", "none", f"lost: {reason}")
        return self._end(task, reply)

    def _abandon(self, message_id: str, timeout: float | None) -> None:
        for queue in self._waiting.values():
            for task in [task for task in queue if task.key == message_id]:
                queue.remove(task)
                self._record(task, "", "none", f"lost: not begun within {timeout} s")
        for inner_id, task in [entry for entry in self._flying.items() if entry[1].key == message_id]:
            del self._flying[inner_id]
            self._abandoned.add(inner_id)
            self._record(task, "", "none", f"lost: no reply within {timeout} s")
            self._send(self._end(task, None))
        if message_id not in self._open:
            self._abandoned.add(message_id)  # a message that was not sliced
            self._plain_rounds.pop(message_id, None)
        self._open.pop(message_id, None)
        self._done.pop(message_id, None)

    # -- on the way --------------------------------------------------------------------------------------------------

    def _push(self, messages: list[Message]) -> list[str]:
        return list(self.inner.push_messages(messages)) if messages else []

    def _send(self, outgoing: _Outgoing) -> None:
        for (task, _), inner_id in zip(outgoing, self._push([message for _, message in outgoing]), strict=True):
            self._fly(task, inner_id)

    def _fly(self, task: SlicedTask, inner_id: str | None) -> None:
        if inner_id is None:  # Flower's way to say that it could not take a message
            reason = "its slice could not be sent"
            self._record(task, "", "none", f"lost: {reason}")
            self._send(self._end(task, task.failure(reason)))
        else:
            self._flying[inner_id] = task

    def _plain(self, reply: Message, round: int) -> Message:
        """A reply to a message that was not sliced, without the terminal's request."""
        if not reply.has_content() or REQUEST_RECORD not in reply.content:
            return reply
        if (request := request_of(reply)) is not None:
            metrics = {key: value for record in reply.content.metric_records.values() for key, value in record.items()}
            steps = metrics.get("steps", 0)
            step = int(steps) if isinstance(steps, int | float) else 0
            self.events.append(StepEvent(round, reply.metadata.src_node_id, step, str(request), "none", "returned"))
        content = copy_content(reply.content)
        del content[REQUEST_RECORD]
        return clone_message(reply, content)

    def _record(self, task: SlicedTask, request: str, decision: str, outcome: str) -> None:
        self.events.append(StepEvent(task.round, task.node_id, task.done, request, decision, outcome))
        log.debug("node %s at step %s of %s: %s, %s", task.node_id, task.done, task.total, decision, outcome)

    def _wait(self, pause_s: float) -> None:
        # On a virtual clock nothing arrives until somebody moves it.
        for link in chain(self.inner):
            if callable(advance := getattr(link, "advance_to_next", None)) and advance() is not None:
                return
        self._sleep(pause_s)
