"""One device's round of split learning, message by message: what it keeps between two of them, and what it replies.

Where frames travel in messages, a ClientApp may be another process with each of them; so the work is put down in
`NodeState` after every frame and taken up again. Nothing here computes a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from logging import getLogger
from typing import TYPE_CHECKING, Any, Final

import numpy.typing as npt
from flwr.app import Context, Message, MetricRecord, RecordDict

from flower_edge.errors import ProtocolError, StateError
from flower_edge.runtime.node_state import NodeState
from flower_edge.runtime.splitting.channel import exchanges
from flower_edge.runtime.splitting.messages import (
    FRAME_RECORD,
    HALF_RECORD,
    OPTIMISER_RECORD,
    SPLIT_RECORD,
    SplitOrder,
    SplitReport,
)
from flower_edge.splitting.capacity import Capacity
from flower_edge.splitting.frame import Frame, Kind
from flower_edge.splitting.frames import FrameCoder
from flower_edge.wire import arrays_of, packet_bytes, packet_record, record_of

from .split_gauge import Overheard

if TYPE_CHECKING:
    from flower_edge.splitting.conversation_torch import DeviceWork
    from flower_edge.splitting.cutting_torch import CutModel

__all__ = ["Told", "begin", "go_on"]

log = getLogger(__name__)

#: Under which name a device remembers a round.
STATE: Final = "split"
Data = tuple[npt.NDArray[Any], npt.NDArray[Any]]
#: Gives a device's capacity where times are to be worked out from it instead of measured; else None.
Modelled = Callable[[], Capacity | None]


@dataclass
class Told:
    """Counted so far in a round.

    Attributes:
        said: frames.
        steps, flops: that a reply has reported.
        up_bits, down_bits: of frames.
        last_bits: of the frame that was said last.
        way_s: of the step that is under way, by a modelled link.
        transfer_s, late, leak: as in a report.
    """

    said: int = 0
    steps: int = 0
    flops: float = 0.0
    up_bits: int = 0
    down_bits: int = 0
    last_bits: int = 0
    way_s: float = 0.0
    transfer_s: float = 0.0
    late: int = 0
    rates: dict[str, float] = field(default_factory=dict)
    leak: float | None = None

    def heard(self, order: SplitOrder, bits: int, kind: Kind, capacity: Capacity | None) -> None:
        """An answer came; on a modelled link it took so long."""
        self.down_bits += bits
        if capacity is None:
            return
        self.way_s += _way_s(order, capacity, self.last_bits, bits)
        if kind is Kind.GRADIENT:
            self.transfer_s += self.way_s
            self.late += order.transfer_s is not None and self.way_s > order.transfer_s
            self.way_s = 0.0


def _way_s(order: SplitOrder, capacity: Capacity, up_bits: int, down_bits: int) -> float:
    """Of a frame and its answer on a modelled link, held to what is reserved."""
    up_bps = min(capacity.up_bps, order.up_bps or math.inf)
    down_bps = min(capacity.down_bps, order.down_bps or math.inf)
    return up_bits / up_bps + down_bits / down_bps + 2.0 * capacity.delay_s


def begin(
    order: SplitOrder, message: Message, context: Context, model: CutModel, data: Data, modelled: Modelled
) -> Message:
    """Take the half in the message and start; the whole round where frames take a channel, or none travel.

    Raises:
        ProtocolError: no half in the message.
        EdgeError: the half does not fit, or the channel refused this device or broke.
    """
    from flower_edge.splitting.conversation_torch import DeviceWork

    records = message.content.array_records
    if HALF_RECORD not in records:
        raise ProtocolError("the server told this device to begin and sent no half; is it a Split strategy?")
    optimiser = arrays_of(records[OPTIMISER_RECORD]) if OPTIMISER_RECORD in records else {}
    work = DeviceWork(order.work, model, *data, arrays_of(records[HALF_RECORD]), optimiser)
    told = Told()
    if work.parts.alone:
        work.next(None)
        return _done(order, message, context, work, told, data, modelled)
    coder, overheard = FrameCoder(order.work, model.profile()), Overheard(work, order, *data)
    if order.plane == "stream":
        from .split_stream import converse

        capacity = modelled()
        way = converse(order, overheard, coder, way_s=None if capacity is None else partial(_way_s, order, capacity))
        told.up_bits, told.down_bits = way.up_bits, way.down_bits
        told.transfer_s, told.late, told.leak = way.transfer_s, way.late, overheard.leak
        rates = {"up_bps": way.goodput_bps, "down_bps": way.goodput_bps, "delay_s": way.delay_s}
        told.rates = {name: value for name, value in rates.items() if value is not None}
        return _done(order, message, context, work, told, data, modelled)
    first = overheard.next(None)
    told.leak = overheard.leak
    return _said(order, message, context, work, first, coder, told, data, modelled)


def go_on(
    order: SplitOrder, message: Message, context: Context, model: CutModel, data: Data, modelled: Modelled
) -> Message:
    """Take up the work where it was put down, and hear the answer in the message.

    Raises:
        ProtocolError: no answer in it, or not the one that is due.
    """
    from flower_edge.splitting.conversation_torch import DeviceWork

    saved = _remembered(NodeState(context, STATE))
    wanted = {"session": order.session, "round": order.work.round, "number": order.work.number}
    if saved is None or any(saved["of"].get(name) != value for name, value in wanted.items()):
        why = (
            "it remembers no round"
            if saved is None
            else f"it remembers round {saved['of'].get('round')} of another order"
        )
        return _lost(order, message, f"{why}; was it restarted, or its memory lost?")
    if saved["of"]["samples"] != len(data[0]):
        return _lost(
            order,
            message,
            f"its data changed from {saved['of']['samples']} to {len(data[0])} samples within a round; let data() give "
            "new samples with a new round only",
        )
    told = Told(**saved["told"])
    work = DeviceWork.resumed(order.work, model, *data, saved["work"])
    coder = FrameCoder(order.work, model.profile())
    now = list(exchanges(order.work))[told.said - 1]
    record = message.content.array_records.get(FRAME_RECORD)
    if record is None:
        raise ProtocolError(f"the server sent no frame; expected {now.answered.name} of step {now.step}")
    answer = packet_bytes(record, sender="the server")
    heard = coder.decode(answer, now.answered, now.step)
    told.heard(order, 8 * len(answer), now.answered, modelled())
    return _said(order, message, context, work, work.next(heard), coder, told, data, modelled)


def _said(
    order: SplitOrder,
    message: Message,
    context: Context,
    work: DeviceWork,
    frame: Frame | None,
    coder: FrameCoder,
    told: Told,
    data: Data,
    modelled: Modelled,
) -> Message:
    """Reply with the next frame, and put the work down; or with the half."""
    if frame is None:
        return _done(order, message, context, work, told, data, modelled)
    encoded = coder.encode(frame)
    told.said, told.last_bits = told.said + 1, 8 * len(encoded)
    told.up_bits += told.last_bits
    metrics = _metrics(work, told, data)
    of = {
        "session": order.session,
        "round": order.work.round,
        "number": order.work.number,
        "samples": len(data[0]),
    }
    NodeState(context, STATE).save({"of": of, "told": vars(told), "work": work.state()})
    report = _report(order, work, told, modelled(), done=False)
    records: dict[str, Any] = {
        SPLIT_RECORD: report.write(),
        FRAME_RECORD: packet_record(encoded),
        "metrics": MetricRecord(metrics),
    }
    return Message(RecordDict(records), reply_to=message)


def _done(
    order: SplitOrder, message: Message, context: Context, work: DeviceWork, told: Told, data: Data, modelled: Modelled
) -> Message:
    result = work.result()
    metrics = {**_metrics(work, told, data), "loss": result.loss}
    records: dict[str, Any] = {
        SPLIT_RECORD: _report(order, work, told, modelled(), done=True).write(),
        HALF_RECORD: record_of(result.arrays),
        "metrics": MetricRecord(metrics),
    }
    if result.optimiser:
        records[OPTIMISER_RECORD] = record_of(result.optimiser)
    NodeState(context, STATE).delete()
    return Message(RecordDict(records), reply_to=message)


def _metrics(work: DeviceWork, told: Told, data: Data) -> dict[str, Any]:
    """What this reply adds: a clock counts the work of every message."""
    result = work.result()
    added = {"steps": result.steps - told.steps, "flops": result.flops - told.flops}
    told.steps, told.flops = result.steps, result.flops
    return {"num-examples": len(data[0]), **added}


def _report(order: SplitOrder, work: DeviceWork, told: Told, capacity: Capacity | None, *, done: bool) -> SplitReport:
    result = work.result()
    compute_s, rates = result.compute_s, dict[str, Any](told.rates)
    if capacity is not None:
        compute_s = result.flops / capacity.flops_per_s
        rates = {
            name: getattr(capacity, name)
            for name in ("flops_per_s", "up_bps", "down_bps", "delay_s")
            if math.isfinite(getattr(capacity, name))
        }
    elif result.flops > 0.0 and compute_s > 0.0:
        rates["flops_per_s"] = result.flops / compute_s
    return SplitReport(
        session=order.session,
        round=order.work.round,
        number=order.work.number,
        steps=result.steps,
        done=done,
        compute_s=compute_s,
        transfer_s=told.transfer_s,
        flops=result.flops,
        up_bits=told.up_bits,
        down_bits=told.down_bits,
        late=told.late,
        leak=told.leak,
        samples=result.samples,
        **rates,
    )


def _lost(order: SplitOrder, message: Message, why: str) -> Message:
    report = SplitReport(session=order.session, round=order.work.round, number=order.work.number, lost=why)
    return Message(RecordDict({SPLIT_RECORD: report.write()}), reply_to=message)


def _remembered(memory: NodeState) -> Any:
    try:
        return memory.load()
    except StateError as error:
        log.warning("what this device had of a round is lost: %s", error)
        memory.delete()
        return None
