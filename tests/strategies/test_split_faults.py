"""What goes wrong at a device costs that device's batches only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable
from split_toy import MERGE, STEPS, device_app, fedavg, number_of, split, start
from toy import same_model

from flower_edge.errors import NobodyContributed, NotEnoughNodes, RoundFailed
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.splitting.messages import FRAME_RECORD, HALF_RECORD, SPLIT_RECORD, SplitReport
from flower_edge.splitting.planner import FixedCut, Scheduled, WholeModel
from flower_edge.strategies.splitting.split import Split
from flower_edge.wire import packet_record

MOVING = Scheduled(((1, 3, 6), (4, 2, 5)))
#: Messages of a device before its first of training, and of each round: a question, and an exchange per frame.
BEFORE, EACH = 2, 1 + STEPS + 1


def run(strategy: Split, rounds: int, app: Any = None, **options: Any) -> ArrayRecord:
    with LocalGrid(app or device_app(), 3, **options) as grid:
        found = strategy.start(grid, start(), rounds).arrays
    assert found is not None
    return found


def lost(strategy: Split) -> dict[tuple[Any, Any], str]:
    """Why, by round and device."""
    return {(row["round"], row["device"]): str(row["lost"]) for row in strategy.history if row["lost"]}


@pytest.mark.parametrize(("kind", "frame"), [("raise", 0), ("silent", 1), ("raise", STEPS)])
def test_a_device_lost_at_any_frame_goes_on_from_where_its_round_began(kind: Any, frame: int) -> None:
    strategy = split(planner=MOVING)
    fault = Fault(node=1, kind=kind, at=BEFORE + EACH + 2 + frame)  # in round 2
    found = run(strategy, 2 * MERGE, script=[fault])
    assert list(lost(strategy)) == [(2, 1)]
    assert same_model(found, fedavg(2, steps={(0, 1): STEPS}))


def test_a_node_that_vanishes_is_not_waited_for_and_goes_on_when_it_is_back() -> None:
    strategy = split(planner=MOVING)
    with LocalGrid(device_app(), 3) as grid:
        ids = list(grid.get_node_ids())

        def comes_and_goes(round: int, arrays: ArrayRecord) -> None:
            if round in (1, 2):
                (grid.disconnect if round == 1 else grid.connect)(ids[1])

        found = strategy.start(grid, start(), 2 * MERGE, evaluate_fn=comes_and_goes).arrays
    assert found is not None
    assert same_model(found, fedavg(2, steps={(0, 1): STEPS}))


def test_who_missed_a_whole_period_has_nothing_to_merge() -> None:
    strategy = split(planner=MOVING, measure="reports")
    each = STEPS + 1
    script = [Fault(node=1, kind="raise", at=BEFORE + 1), Fault(node=1, kind="raise", at=BEFORE + 2)]
    assert each == 3
    assert same_model(run(strategy, MERGE, script=script), fedavg(1, steps={(0, 1): 0}))


def spoiled(change: Callable[[Message], None], *, rounds: tuple[int, ...] = (2,)) -> Any:
    """Devices of which number 1 sends something else in these rounds."""

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        train = message.metadata.message_type == "train.split"
        reply = call_next(message, context)
        if train and number_of(context) == 1:
            report = SplitReport.read(reply.content.config_records[SPLIT_RECORD], sender="the test")
            if report.round in rounds:
                change(reply)
        return reply

    return device_app(mods=[mod])


def garbage_frame(reply: Message) -> None:
    if FRAME_RECORD in reply.content:
        reply.content[FRAME_RECORD] = packet_record(b"garbage")


def no_frame(reply: Message) -> None:
    reply.content.pop(FRAME_RECORD, None)


def other_half(reply: Message) -> None:
    if HALF_RECORD in reply.content:
        reply.content[HALF_RECORD] = ArrayRecord({"0.weight": Array(np.zeros(3, np.float32))})


def no_half(reply: Message) -> None:
    reply.content.pop(HALF_RECORD, None)


def damaged_half(reply: Message) -> None:
    if HALF_RECORD in reply.content:
        record = reply.content.array_records[HALF_RECORD]
        name = next(iter(record))
        whole = record[name]
        record[name] = Array(whole.dtype, whole.shape, whole.stype, whole.data[:-8])


def other_session(reply: Message) -> None:
    report = SplitReport.read(reply.content.config_records[SPLIT_RECORD], sender="the test")
    reply.content[SPLIT_RECORD] = report.model_copy(update={"session": "another"}).write()


def no_report(reply: Message) -> None:
    del reply.content[SPLIT_RECORD]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (garbage_frame, "frame of device 1"),
        (no_frame, "sent no frame; expected ACTIVATIONS of step"),
        (other_half, "not the model's"),
        (no_half, "sent no half"),
        (damaged_half, "cannot be read"),
        (other_session, "told of session 'another'"),
        (no_report, "sent no 'flower-edge.split/1'"),
    ],
)
def test_what_a_device_should_not_say_loses_its_round_and_no_others(
    change: Callable[[Message], None], why: str
) -> None:
    strategy = split(planner=MOVING)
    found = run(strategy, 2 * MERGE, spoiled(change))
    assert list(lost(strategy)) == [(2, 1)]
    assert why in lost(strategy)[2, 1]
    assert same_model(found, fedavg(2, steps={(0, 1): STEPS}))


def test_a_device_whose_memory_is_gone_says_so_and_is_asked_again_next_round() -> None:
    def forgetful(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        if number_of(context) == 1 and message.metadata.message_type == "train.split":
            report = SplitReport.read(reply.content.config_records[SPLIT_RECORD], sender="the test")
            if report.round == 2 and report.steps == 1:
                context.state.clear()
        return reply

    strategy = split(planner=MOVING)
    found = run(strategy, 2 * MERGE, device_app(mods=[forgetful]))
    assert "it remembers no round" in lost(strategy)[2, 1]
    assert same_model(found, fedavg(2, steps={(0, 1): STEPS}))


def test_a_batch_under_way_of_a_lost_device_leaves_a_shared_half_as_it_was() -> None:
    strategy = split(planner=FixedCut(2), variant="v2", labels="device")
    # Its first frame is answered with outputs, its second, which would end the step, does not come.
    run(strategy, MERGE, script=[Fault(node=0, kind="silent", at=BEFORE + 2 + 1)])
    assert list(lost(strategy)) == [(1, 0)]
    assert [row["steps"] for row in strategy.history] == [0, STEPS, STEPS, STEPS, STEPS, STEPS]


@pytest.mark.parametrize("planner", [FixedCut(2), WholeModel()], ids=["divided", "whole"])
def test_when_all_are_lost_the_error_says_why(planner: Any) -> None:
    def broken(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        if message.metadata.message_type == "train.split":
            raise RuntimeError("no power")
        return call_next(message, context)

    with pytest.raises(RoundFailed, match="no power"):
        run(split(planner=planner), MERGE, device_app(mods=[broken]))
    assert issubclass(NobodyContributed, RoundFailed)


def test_a_merge_of_fewer_devices_than_its_strategy_wants_is_refused_and_does_not_wait() -> None:
    with LocalGrid(device_app(), 1) as grid, pytest.raises(NotEnoughNodes, match="min_train_nodes=1"):
        split(planner=FixedCut(2)).start(grid, start(), MERGE)
