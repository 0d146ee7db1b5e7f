"""`SteppedGrid`: training in short messages, so that a request or a decision takes effect before the round ends.

A Flower node handles one message at a time and cannot start one itself. So a `train` message that asks for many
steps is sent as slices of a few, the model staying on the node in between; each answer may carry the terminal's own
request, and each is followed by a decision of the edge: go on, change, stop, drop, replace or detach the node, let
others begin, too. The strategy sees one message and one reply. Clients need `step_mod`, see
`flower_edge.clients.steps`.

Nothing here decides what a slice is followed by: `work` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import asdict
from logging import getLogger
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from ...errors import ConfigError
from ...rounds import Round
from ...wire import copy_content, server_round_of
from ..abilities import cutting_off, now_s
from ..flower_private import clone_message, set_metadata
from ..wrapped_grid import WrappedGrid, chain, undisturbed
from .crew import Crew
from .decisions import Decide, StepEvent, honour_requests
from .late import Late
from .messages import RENEWED_RECORD, STEPS_KEY, request_of, total_steps
from .task import RULES, Rule, SlicedTask
from .work import Outgoing, StepWork

__all__ = ["SteppedGrid"]

log = getLogger(__name__)

#: Messages of `Split` and `Pieces`: each is one exchange of many that make a round, and is not cut, whatever number of
#: steps the train config names for others.
_EXCHANGES = ("train.split", "train.piece")


class SteppedGrid(WrappedGrid):
    """Sends every `train` message of more than `steps_per_message` steps in slices of at most so many.

    Nodes go on independently: whoever answers gets its next slice at once. Replies come in the order of the messages.
    A proxy inside sees slices as ordinary messages (`SteppedGrid(VirtualClock(...), 5)` gives each its time); one
    around it sees whole messages (`GridProxy(SteppedGrid(grid, 5), quorum=0.9)` counts them).

    The lanes of a virtual clock may have exchanges open on one `SteppedGrid` at the same time.

    Args:
        inner: the grid that carries the slices, through `push_messages` and `pull_messages`.
        steps_per_message: at most so many steps in one message.
        decide: called after every slice but the last, and when a node fails; default `honour_requests`. Where one is
            given, the first train message must name a number of steps: without one nothing is ever decided.
        steps_key: config key of the number of steps.
        merge: how a metric's values in the slices become one: `sum`, `mean` (weighed by steps) or `last`. Default:
            `num-examples` and `steps` are sums, everything else is a mean.
        reachable: whether a node can be reached now, asked before a detached node's reply is handed out. Default: yes.
        poll_s: seconds between two looks for replies; Flower's own grids want 0.05 or more.
        sleep: how to wait, seconds.
        clock: what time it is, seconds.
    """

    def __init__(
        self,
        inner: Grid,
        steps_per_message: int,
        decide: Decide | None = None,
        steps_key: str = STEPS_KEY,
        *,
        merge: Mapping[str, Rule] | None = None,
        reachable: Callable[[int], bool] | None = None,
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
        self._steps_key = steps_key
        self._reachable = reachable
        self._poll_s, self._sleep, self._clock = poll_s, sleep, clock
        self._work = StepWork(
            steps_per_message, decide or honour_requests, steps_key, {**RULES, **(merge or {})}, self._now_s
        )
        self._steps_wanted = decide is not None
        self._plain_rounds: dict[str, int] = {}
        self._arrived = 0
        self._drained, self._ended = 0, False
        # Each lane of a virtual clock has a context of its own, and is told of rounds and cut-offs of its own.
        self._last_round = Round(0)
        self._round: ContextVar[Round] = ContextVar("round")
        self._cut_off: ContextVar[int | None] = ContextVar("cut_off", default=None)

    @property
    def events(self) -> list[StepEvent]:
        """Every decision, and what became of the work done so far."""
        return self._work.log.events

    # -- Flower's Grid -----------------------------------------------------------------------------------------------

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages without waiting; those to be sliced begin with their first slice.

        A node's second task begins when its first has ended.

        Raises:
            ConfigError: there is a policy, and the first train message names no number of steps.
        """
        sent = list(messages)
        records = [self._record_to_slice(message) for message in sent]
        crews = self._crews(sent, records)
        ids: list[str] = []
        batch: list[tuple[Message, SlicedTask | None, int]] = []
        for at, (message, record) in enumerate(zip(sent, records, strict=True)):
            if record is None:
                batch.append((message, None, at))
                ids.append("")
                continue
            task = self._work.add(message, record, crews[server_round_of(message) or 0])
            set_metadata(message, message_id=task.key)
            ids.append(task.key)
            batch.extend((first, begun, at) for begun, first in self._work.begin(task))
        pushed = self._push([message for message, _, _ in batch])
        for (message, task_or_none, at), inner_id in zip(batch, pushed, strict=True):
            if task_or_none is not None:
                self._send(self._work.sent(task_or_none, inner_id))
                continue
            ids[at] = inner_id
            if message.has_content():
                self._plain_rounds[inner_id] = server_round_of(message) or 0
            if _is_training(message):
                # Only the grids inside can tell how long a message takes that was not sliced.
                self._work.durations_s.pop(message.metadata.dst_node_id, None)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to whole messages that have arrived, each given once; slices that have are followed by the next.

        A detached node's reply is among them as soon as it is there and the node can be reached.
        """
        wanted = list(message_ids)
        replies = self._pull(wanted)
        asked = set(wanted)
        return replies + self._late(lambda late: late.key in asked, "to who pulled it")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages, in slices where they ask for many steps, and wait for their replies.

        Replies of detached nodes to earlier training messages of this cell come first.

        Args:
            messages: what the strategy wants sent.
            timeout: seconds; a task that has not ended by then gives no reply, and what it did is lost.
        """
        # On a virtual clock time may pass for others while this exchange waits, and their generators are not ours.
        virtual = any(hasattr(link, "advance_to_next") for link in chain(self.inner))
        with nullcontext() if virtual else undisturbed(self.inner):
            return self._exchange(list(messages), timeout)

    def _exchange(self, messages: list[Message], timeout: float | None) -> list[Message]:
        late = self._late_of_before(messages)
        enough = self._cut_off.get()
        if all(self._record_to_slice(message) is None for message in messages):
            for message in filter(_is_training, messages):
                self._work.durations_s.pop(message.metadata.dst_node_id, None)
            with cutting_off(self.inner, enough):
                replies = list(self.inner.send_and_receive(messages, timeout=timeout))
            rounds = {m.metadata.message_id: server_round_of(m) or 0 for m in messages if m.has_content()}
            return late + [self._plain(reply, rounds.get(reply.metadata.reply_to_message_id, 0)) for reply in replies]
        ids = list(self.push_messages(messages))
        plain = {message_id for message_id in ids if message_id not in self._work}
        place = {message_id: at for at, message_id in enumerate(ids)}
        outstanding = set(ids)
        end_s = None if timeout is None else self._clock() + timeout
        replies, why, silent = [], "its exchange was given up", False
        try:
            while True:
                before = self._arrived
                for reply in self._pull([message_id for message_id in ids if message_id in outstanding]):
                    replies.append(reply)
                    plain.discard(reply.metadata.reply_to_message_id)
                outstanding = {i for i in outstanding if i in plain or i in self._work}
                left_s = self._poll_s if end_s is None else end_s - self._clock()
                if not outstanding:
                    break
                if enough is not None and self._usable(replies) >= enough:
                    why = f"{enough} {'reply was' if enough == 1 else 'replies were'} enough"
                    break
                if left_s <= 0:
                    why, silent = f"no reply within {timeout} s", True
                    break
                if self._arrived == before and not self._wait(min(self._poll_s, left_s)):
                    why, silent = "no reply, and nothing is under way", True
                    break
        finally:
            for message_id in outstanding & plain:
                self._work.drop_answer(message_id)
                self._plain_rounds.pop(message_id, None)
            self._send(self._work.abandon([i for i in ids if i in outstanding - plain], why, silent=silent))
        return late + sorted(replies, key=lambda r: (place[r.metadata.reply_to_message_id], r.metadata.src_node_id))

    # -- more than a Grid --------------------------------------------------------------------------------------------

    def announced(self, round: Round) -> None:
        """A round begins: tasks are those of its cell."""
        self._last_round, self._ended = round, False
        self._round.set(round)

    @contextmanager
    def cut_off_at(self, count: int) -> Iterator[None]:
        """Exchanges that begin inside the block end when `count` usable replies to their own messages are there.

        The other tasks are given up: what they did is lost, and their nodes are free when the slice they are at is
        done. Another lane of a virtual clock is not concerned.

        Raises:
            ConfigError: fewer than one.
        """
        if count < 1:
            raise ConfigError(f"cut_off_at({count}): expected 1 or more replies")
        token = self._cut_off.set(count)
        try:
            yield
        finally:
            self._cut_off.reset(token)

    def awaits(self, message_id: str) -> bool:
        """Whether there is work still to come of a message, a detached node's among it: its replies may be several."""
        alone = [task.key for task in self._work.detached] + [late.key for late in self._work.late]
        return message_id in self._work or message_id in alone

    def last_duration_s(self, node_id: int) -> float | None:
        """Seconds from the sending of the first slice to the last reply of the node's last answered task.

        Of a task that was given up (cut off, or out of time): what it would have taken at its pace so far, and at
        least the time it had. `None` where the node has none, or was last sent a message that was not sliced.
        """
        return self._work.durations_s.get(node_id)

    def lost_work(self) -> list[StepEvent]:
        """Detached work that would be lost if the run ended now: under way, or there and never handed out."""
        return [*self._work.not_handed_out(), *self._work.under_way()]

    def drain_events(self, *, ended: bool = False) -> list[StepEvent]:
        """The events since the last call, for whoever keeps records; `events` keeps them all.

        Args:
            ended: the run is over: what `lost_work` tells is among them, and no checkpoint from here on tells of it
                once more.
        """
        told, self._drained = self.events[self._drained :], len(self.events)
        self._ended = self._ended or ended
        return [*told, *self.lost_work()] if ended else told

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint between rounds needs: the events, and replies of detached nodes that have arrived.

        Tasks under way are not part of it: for whoever goes on from it, detached ones are lost, and its events say so.
        """
        lost = self._work.under_way()
        if lost:
            log.warning("detached work of nodes %s is not in the checkpoint", [event.node_id for event in lost])
        return {
            "events": [asdict(event) for event in [*self.events, *lost]],
            "drained": self._drained + (len(lost) if self._ended else 0),
            "late": [late.to_tree() for late in self._work.late],
            "durations_s": {str(node): duration_s for node, duration_s in self._work.durations_s.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self._work.log.events = [StepEvent(**event) for event in state["events"]]
        self._drained, self._ended = state["drained"], False
        self._work.late = [Late.from_tree(tree) for tree in state["late"]]
        self._work.durations_s = {int(node): duration_s for node, duration_s in state["durations_s"].items()}

    # -- what is sliced ----------------------------------------------------------------------------------------------

    def _record_to_slice(self, message: Message) -> str | None:
        if not _is_training(message) or message.metadata.message_type in _EXCHANGES:
            return None
        found = total_steps(message.content, self._steps_key)
        if found is None and self._steps_wanted:
            raise ConfigError(
                f"the train config names no {self._steps_key!r}, and SteppedGrid was given a policy: a message without "
                "a number of steps is not cut into slices, and decide is never asked; give the number to the strategy: "
                f"strategy.start(..., train_config=ConfigRecord({{{self._steps_key!r}: 20}})), or leave decide out"
            )
        # One message with a number shows that the strategy was told; others may then be of another kind.
        self._steps_wanted = self._steps_wanted and found is None
        return found[0] if found is not None and found[1] > self.steps_per_message else None

    def _crews(self, messages: list[Message], records: list[str | None]) -> dict[int, Crew]:
        """Who works together on what is sliced, by the strategy's round."""
        cell = self._round.get(self._last_round).cell
        rounds = [server_round_of(message) or 0 for message in messages]
        sliced = dict.fromkeys(round for round, record in zip(rounds, records, strict=True) if record is not None)
        crews = {round: self._work.crew(cell, round) for round in sliced}
        for number, crew in crews.items():
            told = zip(messages, rounds, strict=True)
            crew.ask(m.metadata.dst_node_id for m, round in told if round == number and _is_training(m))
        return crews

    def _plain(self, reply: Message, round: int) -> Message:
        """A reply to a message that was not sliced; a request in it is told, and stays: nobody has decided about it."""
        if not reply.has_content():
            return reply
        if (request := request_of(reply)) is not None:
            metrics = {key: value for record in reply.content.metric_records.values() for key, value in record.items()}
            steps = metrics.get("steps", 0)
            step = int(steps) if isinstance(steps, int | float) else 0
            node_id, cell = reply.metadata.src_node_id, self._round.get(self._last_round).cell
            self.events.append(
                StepEvent(round, node_id, step, str(request), "none", "returned", cell, time_s=self._now_s())
            )
        if RENEWED_RECORD not in reply.content:
            return reply
        content = copy_content(reply.content)
        del content[RENEWED_RECORD]
        return clone_message(reply, content)

    # -- on the way --------------------------------------------------------------------------------------------------

    def _pull(self, wanted: list[str]) -> list[Message]:
        """Let every task go on, whoever is asked for; replies to `wanted` that are complete."""
        asked = [message_id for message_id in wanted if message_id not in self._work]
        # A task must go on also while its caller looks elsewhere.
        asked += self._work.in_flight
        replies: list[Message] = []
        outgoing: Outgoing = []
        trouble: Exception | None = None
        for reply in list(self.inner.pull_messages(asked)) if asked else ():
            self._arrived += 1
            answered = reply.metadata.reply_to_message_id
            try:
                following = self._work.answered(answered, reply)
            except Exception as error:  # the other answers are there, too, and come only once
                trouble = trouble or error
                continue
            if following is None:
                replies.append(self._plain(reply, self._plain_rounds.pop(answered, 0)))
            else:
                outgoing += following
        self._send(outgoing)
        if trouble is not None:
            raise trouble
        return replies + [reply for key in wanted for reply in self._work.take(key)]

    def _late(self, wanted: Callable[[Late], bool], when: str) -> list[Message]:
        reachable = self._reachable or (lambda node_id: True)
        return self._work.take_late(lambda late: wanted(late) and reachable(late.node_id), when)

    def _late_of_before(self, messages: list[Message]) -> list[Message]:
        """What detached nodes of this cell have to hand in at the beginning of a training exchange."""
        first = next(filter(_is_training, messages), None)
        if first is None:
            return []
        if any(self._work.detached):
            self._pull([])
        cell = self._round.get(self._last_round).cell
        return self._late(lambda late: late.cell == cell, f"in round {server_round_of(first) or 0}")

    def _usable(self, replies: list[Message]) -> int:
        """Nodes whose work is in: where a node's model was renewed, with its last part only."""
        parts = [(r.metadata.reply_to_message_id, r.metadata.src_node_id) for r in replies if not r.has_error()]
        return sum(not self._work.is_at(key, node_id) for key, node_id in set(parts))

    def _push(self, messages: list[Message]) -> list[str]:
        return list(self.inner.push_messages(messages)) if messages else []

    def _send(self, outgoing: Outgoing) -> None:
        while outgoing:
            alive = [(task, message) for task, message in outgoing if not task.over]
            pushed = self._push([message for _, message in alive])
            outgoing = [
                following
                for (task, _), inner_id in zip(alive, pushed, strict=True)
                for following in self._work.sent(task, inner_id)
            ]

    def _now_s(self) -> float:
        time_s = now_s(self.inner)
        return self._clock() if time_s is None else time_s

    def _wait(self, pause_s: float) -> bool:
        """Let time pass until something may have arrived; false where nothing ever will."""
        # On a virtual clock nothing arrives until somebody moves it, and nothing comes that is not under way.
        for link in chain(self.inner):
            if callable(advance := getattr(link, "advance_to_next", None)):
                return advance() is not None
        self._sleep(pause_s)
        return True


def _is_training(message: Message) -> bool:
    return message.metadata.message_type.partition(".")[0] == "train" and message.has_content()
