"""`MessagePlane`: frames travel inside Flower messages, one each. For simulation, and where no channel may be dialled.

    server -> device   the order, and its half                      | the answer to its last frame
    device -> server   the first frame                              | the next frame, or its half when it is done

All devices go in step: exchange i carries everybody's i-th frame, so a round of n steps takes n + 1 exchanges, 2n + 1
where labels stay on the device. There, with one cloud half for all (SplitFed v2), a device waits until the batches in
front of its own are through: d devices take about n (d + 1) exchanges. Whoever has the whole model sends no frame and
is asked in the last one. In a deployment of Flower an exchange takes seconds: see `StreamPlane`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from logging import getLogger
from typing import Any

from flwr.app import Message

from flower_edge.errors import EdgeError, ProtocolError
from flower_edge.runtime.splitting.channel import exchanges
from flower_edge.runtime.splitting.messages import FRAME_RECORD, SplitOrder
from flower_edge.splitting.frame import Frame
from flower_edge.wire import packet_bytes, packet_record

from .outcome import begun, by_number, finish, lose, report_of
from .plane import Exchanges, Task

__all__ = ["MessagePlane"]

log = getLogger("flwr.edge")

MakeMessage = Callable[[Task, SplitOrder, Mapping[str, Any]], Message]


class MessagePlane:
    """Frames in messages; nothing to open."""

    name = "messages"

    def open(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def round(self, tasks: Mapping[int, Task], message: MakeMessage, shared: bool) -> Exchanges:
        """As `Plane.round`. Answers are computed one after the other, in the order of step and number."""
        talks = {number: _Talk(task) for number, task in tasks.items() if task.work is not None}
        whole = {number: task for number, task in tasks.items() if task.work is None}
        answers: dict[int, bytes | None] = dict.fromkeys(talks)
        while True:
            # Nobody may be left of those whose model is divided: then this is the end, too.
            end = all(number in answers and talk.over for number, talk in talks.items())
            asked = {number: tasks[number] for number in answers} | (whole if end else {})
            messages = [_message(task, answers.get(number), message) for number, task in asked.items()]
            for number, reply in (by_number(asked, (yield messages, end))).items():
                _hear(tasks[number], talks.get(number), reply)
            talks = {number: talk for number, talk in talks.items() if not talk.gone}
            if end:
                return
            answers = _in_turn(talks) if shared else _all(talks)
            talks = {number: talk for number, talk in talks.items() if not talk.gone}


class _Talk:
    """With one device."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.said = list(exchanges(task.order.work))
        self.answered = 0
        #: What it said last, as long as it is not answered.
        self.frame: Frame | None = None

    @property
    def over(self) -> bool:
        """All its frames are answered."""
        return self.answered == len(self.said)

    @property
    def place(self) -> int:
        """Of the batch that is to be answered, in this round: who missed rounds has made fewer steps in the run."""
        return self.said[self.answered].step - self.task.order.work.first_step

    @property
    def gone(self) -> bool:
        """It is lost, or done."""
        return bool(self.task.lost) or self.task.report is not None

    def answer(self) -> bytes | None:
        """The answer to its frame, as it travels; None where that loses it."""
        task, frame = self.task, self.frame
        assert task.work is not None
        assert task.coder is not None
        assert frame is not None
        try:
            begun_s = time.perf_counter()
            answer = task.work.answer(frame)
            task.count(cloud_s=time.perf_counter() - begun_s)
            encoded = task.coder.encode(answer)
        except EdgeError as error:
            lose(task, str(error))
            return None
        except Exception as error:  # whatever a device's tensors make torch raise concerns this device alone
            log.exception("round %d: device %d", task.order.work.round, task.order.work.number)
            lose(task, f"{type(error).__name__}: {error}")
            return None
        task.count(down_bits=8 * len(encoded))
        self.answered, self.frame = self.answered + 1, None
        return encoded


def _all(talks: Mapping[int, _Talk]) -> dict[int, bytes | None]:
    """Answers to everybody."""
    found = {number: talk.answer() for number, talk in talks.items()}
    return {number: answer for number, answer in found.items() if answer is not None}


def _in_turn(talks: Mapping[int, _Talk]) -> dict[int, bytes | None]:
    """Answers to those whose turn it is: a batch on a shared half is answered to its end before another begins."""
    found: dict[int, bytes | None] = {}
    while left := [(talk.place, number) for number, talk in talks.items() if not (talk.over or talk.gone)]:
        place, number = min(left)
        talk = talks[number]
        if talk.frame is None:
            break
        if (answer := talk.answer()) is not None:
            found[number] = answer
            if not talk.over and talk.place == place:
                break
    return found


def _hear(task: Task, talk: _Talk | None, reply: Message) -> None:
    """Take what a device replied: its next frame, or its half."""
    try:
        report = report_of(task, reply)
        if talk is None or talk.over:
            finish(task, reply, report)
            return
        assert task.coder is not None
        sender, now = f"device {task.order.work.number}", talk.said[talk.answered]
        record = reply.content.array_records.get(FRAME_RECORD)
        if record is None:
            raise ProtocolError(f"{sender} sent no frame; expected {now.asked.name} of step {now.step}")
        data = packet_bytes(record, sender=sender)
        talk.frame = task.coder.decode(data, now.asked, now.step)
        task.count(up_bits=8 * len(data))
    except EdgeError as error:
        lose(task, str(error))


def _message(task: Task, frame: bytes | None, message: MakeMessage) -> Message:
    """With the answer to a frame, or the half to begin with."""
    records = begun(task) if frame is None else {FRAME_RECORD: packet_record(frame)}
    return message(task, task.order.model_copy(update={"plane": "messages", "begin": frame is None}), records)
