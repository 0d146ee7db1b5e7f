"""A device of split learning: what it answers, what it keeps between messages, and what it refuses."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from split_toy import BATCH, MODELS, MOMENTUM, SPEC, STEPS, device_app, samples
from torch import nn

from flower_edge.clients.split import _Kept
from flower_edge.clients.split_capacity import measured_capacity
from flower_edge.errors import DataError, SplitError
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.splitting.messages import FRAME_RECORD, SPLIT_RECORD, Asked, Offered, SplitOrder, SplitReport
from flower_edge.splitting.moments import Moments
from flower_edge.splitting.order import WorkOrder
from flower_edge.splitting.standardise import Standard
from flower_edge.wire import packet_record


def ask(asked: Asked, **options: Any) -> Offered:
    """What device 1 of two answers."""
    with LocalGrid(device_app(**options), 2, serialise=True) as grid:
        question = Message(RecordDict({SPLIT_RECORD: asked.write()}), 1001, "query.split")
        (reply,) = grid.send_and_receive([question])
    return Offered.read(reply.content.config_records[SPLIT_RECORD], sender="the test")


def test_with_enough_samples_it_requests_training_and_tells_what_it_has_left() -> None:
    told = ask(Asked(least_samples=10))
    assert (told.requests, told.samples, told.flops_per_s, told.up_bps) == (True, 10, 2e6, 1e6)


def test_with_too_few_it_does_not_and_says_why() -> None:
    told = ask(Asked(least_samples=11))
    assert not told.requests
    assert told.why == "it has 10 of 11 samples"


def test_data_that_are_damaged_are_told_and_no_error() -> None:
    def broken(context: Context) -> Any:
        raise DataError("samples.npy is missing")

    told = ask(Asked(), data=broken)
    assert (told.requests, told.why) == (False, "samples.npy is missing")


def test_it_tells_moments_of_its_samples_and_of_too_few_none() -> None:
    config = Standard("z-score", "feature").config()
    told = ask(Asked(moments=config))
    assert told.moments is not None
    np.testing.assert_array_equal(Moments.from_plain(told.moments).mean, Moments.of(samples(1)[0], "feature").mean)
    few = ask(Asked(moments=config), least_moments=11)
    assert few.moments is not None
    assert Moments.from_plain(few.moments).count == 0


def test_it_tells_the_digest_its_model_comes_to_whatever_was_expected() -> None:
    expected = SPEC.model_copy(update={"digest": "0" * 64})
    told = ask(Asked(architecture=expected))
    assert len(told.digest) == 64
    assert told.digest != expected.digest


def test_a_capacity_of_its_own_is_measured_where_none_is_given() -> None:
    told = ask(Asked(), capacity=measured_capacity)
    assert told.flops_per_s is not None
    assert told.flops_per_s > 1e6
    assert told.up_bps is None


def test_a_model_is_built_once_in_a_process_and_keeps_no_arrays() -> None:
    built: list[nn.Module] = []

    def make(**options: Any) -> nn.Module:
        built.append(MODELS["small"](**options))
        return built[-1]

    kept = _Kept(lambda context: samples(0), {"small": make}, measured_capacity)
    model = kept.model(SPEC)
    assert kept.model(SPEC.model_copy(update={"digest": model.digest})) is model
    assert len(built) == 1
    assert {tensor.untyped_storage().nbytes() for tensor in model.model.parameters()} == {4}
    with pytest.raises(SplitError, match="the order names 000000000000"):
        kept.model(SPEC.model_copy(update={"digest": "0" * 64}))


def order(**changes: Any) -> SplitOrder:
    work = WorkOrder(round=1, number=0, architecture=SPEC, cut=2, steps=STEPS, batch_size=BATCH, optimiser=MOMENTUM)
    return SplitOrder(**{"session": "one", "work": work, "begin": False, **changes})


def test_copies_of_an_app_that_reach_a_process_keep_one_model_among_them() -> None:
    # As pickle copies: Flower's simulation sends its processes the app anew with every message.
    kept = _Kept(samples, MODELS, measured_capacity)
    first, second = copy(kept), copy(kept)
    assert first is second
    assert first is not kept
    assert first.model(SPEC) is second.model(SPEC)


def test_an_answer_to_a_round_it_does_not_know_makes_it_lost_and_no_error() -> None:
    with LocalGrid(device_app(), 1) as grid:
        content = RecordDict({SPLIT_RECORD: order().write(), FRAME_RECORD: packet_record(b"frame")})
        (reply,) = grid.send_and_receive([Message(content, 1000, "train.split")])
    report = SplitReport.read(reply.content.config_records[SPLIT_RECORD], sender="the test")
    assert report.lost.startswith("it remembers no round")


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (ConfigRecord({"something": "else"}), "sent no 'flower-edge.split/1'"),
        (order(begin=True).write(), "sent no half"),
    ],
)
def test_a_message_that_is_not_splits_is_answered_with_an_error(record: ConfigRecord, why: str) -> None:
    with LocalGrid(device_app(), 1) as grid:
        (reply,) = grid.send_and_receive([Message(RecordDict({SPLIT_RECORD: record}), 1000, "train.split")])
    assert reply.has_error()
    assert why in reply.error.reason


def test_its_own_train_and_evaluate_stay() -> None:
    app = device_app()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({"mine": ConfigRecord({"yes": True})}), reply_to=message)

    with LocalGrid(app, 1) as grid:
        (reply,) = grid.send_and_receive([Message(RecordDict(), 1000, "train")])
    assert "mine" in reply.content
