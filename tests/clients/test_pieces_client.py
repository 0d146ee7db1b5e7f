"""`pieces_client` by itself: what it answers to what it is asked, and what it refuses."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from pieces_toy import own, segment, terminals
from split_toy import BATCH, MODELS, SPEC, UNITS, initial, samples

from flower_edge.clients.pieces import pieces_client
from flower_edge.clients.pieces_kept import Kept
from flower_edge.models.train_torch import get_arrays
from flower_edge.pieces import PieceOrder
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.pieces.messages import ARRAYS_RECORD, PIECE_RECORD, PieceCall, PieceOffered, PieceReport
from flower_edge.runtime.splitting.messages import SPLIT_RECORD, Asked
from flower_edge.splitting.order import WorkOrder
from flower_edge.wire import error_reason, record_of


def asked(app: ClientApp, content: dict[str, Any], kind: str) -> Message:
    """What one terminal replies."""
    with LocalGrid(app, 1) as grid:
        (node,) = grid.get_node_ids()
        (reply,) = grid.send_and_receive([Message(RecordDict(content), node, kind)])
    return reply


def offered(app: ClientApp, **options: Any) -> PieceOffered:
    reply = asked(app, {SPLIT_RECORD: Asked(**options).write()}, "query.pieces")
    return PieceOffered.read(reply.content.config_records[SPLIT_RECORD], sender="the test")


def call(**changes: Any) -> PieceCall:
    """To train the whole model alone."""
    work = WorkOrder(round=1, number=0, architecture=SPEC, cut=UNITS, steps=1, batch_size=BATCH)
    piece = PieceOrder(work=work, start=0, stop=UNITS, place=0, pieces=1)
    return PieceCall(**{"session": "s", "piece": piece, **changes})


def replied(app: ClientApp, told: PieceCall, **records: Any) -> Message:
    return asked(app, {PIECE_RECORD: told.write(), **records}, "train.piece")


def test_it_tells_what_it_has_and_which_model_it_built() -> None:
    told = offered(terminals(), architecture=SPEC)
    assert (told.requests, told.samples, told.segments, len(told.digest)) == (True, len(samples(0)[0]), False, 64)
    assert told.flops_per_s == 1e6
    assert offered(terminals(segment)).segments
    assert (offered(terminals(None)).samples, offered(terminals(None)).segments) == (0, False)
    assert offered(terminals(lambda context, more=3: own(context))).samples == len(samples(0)[0])


def test_a_model_it_does_not_know_and_samples_without_targets_are_told_with_the_reason() -> None:
    told = offered(pieces_client(own), architecture=SPEC)
    assert not told.requests
    assert "architecture 'small': no such model here" in told.why
    short = offered(terminals(lambda context: (np.zeros((3, 12), np.float32), np.zeros(2, np.int64))))
    assert short.samples == 0
    assert "3 samples and 2 targets" in short.why


def test_it_trains_the_piece_in_the_message() -> None:
    arrays = get_arrays(initial())
    reply = replied(terminals(), call(), **{ARRAYS_RECORD: record_of(arrays)})
    report = PieceReport.read(reply.content.config_records[PIECE_RECORD], sender="the test")
    assert (report.done, report.steps, report.samples) == (True, 1, len(samples(0)[0]))
    assert set(reply.content.array_records[ARRAYS_RECORD]) == set(arrays)
    assert any(record["steps"] == 1 for record in reply.content.metric_records.values())


@pytest.mark.parametrize(
    ("data", "changes", "why"),
    [
        (own, {}, "sent no piece"),
        (own, {"segment": 2}, "give pieces_client a function of (context, segment)"),
        (None, {}, "with its own samples, which it cannot load"),
    ],
)
def test_what_it_cannot_do_is_an_error_that_says_why(data: Any, changes: dict[str, Any], why: str) -> None:
    assert why in error_reason(replied(terminals(data), call(**changes)))


def test_asked_to_go_on_with_what_it_does_not_remember_it_says_so() -> None:
    reply = replied(terminals(), call(what="go-on"))
    report = PieceReport.read(reply.content.config_records[PIECE_RECORD], sender="the test")
    assert "it remembers no round" in report.lost


def test_what_is_no_call_is_refused_with_what_to_install() -> None:
    reply = asked(terminals(), {}, "train.piece")
    assert "flower-edge.pieces/1" in error_reason(reply)
    assert "flower_edge.clients.pieces_client" in error_reason(reply)


def test_a_process_keeps_one_model_however_often_it_is_sent_the_app() -> None:
    kept = Kept(_source, MODELS)
    once, again = (pickle.loads(pickle.dumps(kept)) for _ in range(2))  # noqa: S301
    assert once is again
    assert once.model(SPEC) is again.model(SPEC)


def _source(context: Context) -> tuple[np.ndarray, np.ndarray]:
    return own(context)
