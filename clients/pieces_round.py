"""One terminal's piece in a round, message by message: what it keeps between two of them, and what it replies.

Where frames travel in messages, a ClientApp may be another process with each of them; so the work is put down in
`NodeState` after every frame and taken up again. Over a channel the whole round is one message. Nothing here computes a
gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from logging import getLogger
from typing import TYPE_CHECKING, Any, Final

from flwr.app import Context, Message, MetricRecord, RecordDict

from flower_edge.errors import EdgeError, ProtocolError, StateError
from flower_edge.pieces.said import Said
from flower_edge.runtime.node_state import NodeState
from flower_edge.runtime.pieces.messages import (
    ARRAYS_RECORD,
    FRAME_RECORD,
    HEAD_OPTIMISER_RECORD,
    HEAD_RECORD,
    OPTIMISER_RECORD,
    PIECE_RECORD,
    PieceCall,
    PieceReport,
    coder_at,
)
from flower_edge.splitting.frame import Frame, Kind
from flower_edge.wire import arrays_of, packet_bytes, packet_record, record_of

from .pieces_kept import Data

if TYPE_CHECKING:
    from flower_edge.pieces.piece_work_torch import PieceWork
    from flower_edge.splitting.cutting_torch import CutModel

__all__ = ["Round"]

log = getLogger(__name__)

#: Under which name a terminal remembers a round.
_STATE: Final = "piece"
#: Gives FLOPs a second where times are to be worked out from it instead of measured; else None.
Modelled = Callable[[], float | None]


@dataclass
class _Told:
    """That replies have told so far in a round."""

    steps: int = 0
    flops: float = 0.0
    up_bits: int = 0
    down_bits: int = 0


@dataclass
class Round:
    """What one message asks of one terminal.

    Attributes:
        call, message, context: as they came.
        load: gives the model of the call's architecture, whose arrays are not used, and samples and targets at place
            0, None elsewhere. Called when they are needed: over a channel, when it is open.
        modelled: see `Modelled`.
    """

    call: PieceCall
    message: Message
    context: Context
    load: Callable[[], tuple[CutModel, Data | None]]
    modelled: Modelled

    def __post_init__(self) -> None:
        self._told = _Told()
        self._memory = NodeState(self.context, _STATE)

    def answer(self) -> Message:
        """The reply.

        Raises:
            EdgeError: the piece, or the frame, is not what this terminal can go on with.
        """
        if self.call.what == "end":
            self._memory.delete()
            return self._reply({}, self._report(), {"num-examples": self.call.counts})
        return self._begin() if self.call.what == "begin" else self._go_on()

    # -- the three things it is asked --------------------------------------------------------------------------------

    def _begin(self) -> Message:
        order = self.call.piece
        if self.call.plane == "stream":
            return self._stream()
        work = self._work()
        return self._said(work, work.take(None) if order.first else ())

    def _stream(self) -> Message:
        from .pieces_stream import broken_by, converse

        try:
            work, figures = converse(self.call, lambda: (self._work(), self._model.profile()))
        except EdgeError as error:
            if (place := broken_by(error, self.call.piece.place)) is None:
                raise
            return self._reply({}, self._report(lost=str(error)[:1000], broken_by=place), {})
        self._told.up_bits, self._told.down_bits = figures.up_bits, figures.down_bits
        return self._said(work, ())

    def _work(self) -> PieceWork:
        """That begins with the piece in the message."""
        from flower_edge.pieces.piece_work_torch import PieceWork

        drawn, records = self._drawn(), self.message.content.array_records
        if ARRAYS_RECORD not in records:
            raise ProtocolError("the server told this terminal to begin and sent no piece; is it a Pieces strategy?")
        told = {name: arrays_of(record) for name, record in records.items()}
        return PieceWork(
            self.call.piece,
            self._model,
            told[ARRAYS_RECORD],
            told.get(OPTIMISER_RECORD, {}),
            head=told.get(HEAD_RECORD),
            head_optimiser=told.get(HEAD_OPTIMISER_RECORD),
            **drawn,
        )

    def _go_on(self) -> Message:
        from flower_edge.pieces.piece_work_torch import PieceWork

        drawn, saved = self._drawn(), self._remembered()
        if saved is None or saved["of"] != self._of():
            why = "it remembers no round" if saved is None else "it remembers another round or attempt"
            return self._reply({}, self._report(lost=f"{why}; was it restarted, or its memory lost?"), {})
        self._told = _Told(**saved["told"])
        work = PieceWork.resumed(self.call.piece, self._model, saved["work"], **drawn)
        return self._said(work, work.take(self._heard()))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _heard(self) -> Frame | None:
        if self.call.heard is None:
            return None
        side, step = self.call.heard
        record = self.message.content.array_records.get(FRAME_RECORD)
        if record is None:
            raise ProtocolError(f"the server sent no frame; expected that of step {step} from the {side} place")
        data = packet_bytes(record, sender="the server")
        self._told.down_bits += 8 * len(data)
        kind = Kind.ACTIVATIONS if side == "previous" else Kind.GRADIENT
        return coder_at(self.call.piece, self._model.profile(), side).decode(data, kind, step)

    def _said(self, work: PieceWork, said: Sequence[Said]) -> Message:
        """Reply with what the piece says; put the work down, or reply with the piece where it is done."""
        records: dict[str, Any] = {}
        for one in said:
            data = coder_at(self.call.piece, self._model.profile(), one.to).encode(one.frame)
            self._told.up_bits += 8 * len(data)
            records[f"{FRAME_RECORD}-{one.to}"] = packet_record(data)
        result, told = work.result(), self._told
        metrics = {
            "num-examples": max(1, self._samples),
            "steps": result.steps - told.steps,
            "flops": result.flops - told.flops,
        }
        told.steps, told.flops = result.steps, result.flops
        flops_per_s = self.modelled()
        compute_s = result.compute_s if flops_per_s is None else result.flops / flops_per_s
        report = self._report(
            steps=result.steps,
            done=work.done,
            compute_s=compute_s,
            flops=result.flops,
            loss=None if math.isnan(result.loss) else result.loss,
            flops_per_s=min(1e21, max(1.0, result.flops / compute_s)) if result.flops > 0 and compute_s > 0 else None,
        )
        if work.done:
            self._memory.delete()
            parts = {
                ARRAYS_RECORD: result.arrays,
                OPTIMISER_RECORD: result.optimiser,
                HEAD_RECORD: result.head,
                HEAD_OPTIMISER_RECORD: result.head_optimiser,
            }
            records |= {name: record_of(part) for name, part in parts.items() if part}
        else:
            self._memory.save({"of": self._of(), "told": vars(told), "work": work.state()})
        return self._reply(records, report, metrics)

    def _reply(self, records: dict[str, Any], report: PieceReport, metrics: dict[str, Any]) -> Message:
        content = {PIECE_RECORD: report.write(), **records, "metrics": MetricRecord(metrics)}
        return Message(RecordDict(content), reply_to=self.message)

    def _report(self, **told: Any) -> PieceReport:
        work = self.call.piece.work
        return PieceReport(
            session=self.call.session,
            round=work.round,
            number=work.number,
            place=self.call.piece.place,
            attempt=self.call.attempt,
            samples=self._samples,
            up_bits=self._told.up_bits,
            down_bits=self._told.down_bits,
            **told,
        )

    def _of(self) -> dict[str, Any]:
        """What a memory is of: it is no good for another call, or for other samples."""
        call, piece = self.call, self.call.piece
        return {
            "session": call.session,
            "attempt": call.attempt,
            "piece": piece.model_dump_json(),
            "samples": self._samples,
        }

    @cached_property
    def _loaded(self) -> tuple[CutModel, Data | None]:
        return self.load()

    @property
    def _model(self) -> CutModel:
        return self._loaded[0]

    @property
    def _samples(self) -> int:
        """That place 0 draws from; 0 elsewhere, and where nothing was loaded."""
        data = self.__dict__["_loaded"][1] if "_loaded" in self.__dict__ else None
        return 0 if data is None else len(data[0])

    def _drawn(self) -> dict[str, Any]:
        data = self._loaded[1]
        return {} if data is None else {"x": data[0], "y": data[1]}

    def _remembered(self) -> Any:
        try:
            return self._memory.load()
        except StateError as error:
            log.warning("what this terminal had of a round is lost: %s", error)
            self._memory.delete()
            return None
