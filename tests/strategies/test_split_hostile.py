"""`Split` with devices that tell what cannot be, come late or change, and with runs that stop at any round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp.strategy import (
    DifferentialPrivacyClientSideFixedClipping,
    DifferentialPrivacyServerSideFixedClipping,
    FedAvg,
    Krum,
    Strategy,
)
from split_toy import FEATURES, MERGE, STEPS, device_app, fedavg, number_of, samples, split, start
from toy import same_model

from flower_edge.codecs.affine import Affine
from flower_edge.errors import ProtocolError, ResumeError
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.splitting.messages import (
    FRAME_RECORD,
    HALF_RECORD,
    OPTIMISER_RECORD,
    SPLIT_RECORD,
    Offered,
    SplitReport,
)
from flower_edge.splitting.capacity import Capacity, Cloud
from flower_edge.splitting.dynamic import Dynamic
from flower_edge.splitting.moments import Moments
from flower_edge.splitting.planner import FixedCut, Scheduled
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies.splitting.session import EnrolRules
from flower_edge.strategies.splitting.split import Split
from flower_edge.wire import packet_record

MOVING = Scheduled(((1, 3, 6), (4, 2, 5)))


def run(strategy: Split, rounds: int, app: Any = None, **options: Any) -> ArrayRecord:
    with LocalGrid(app or device_app(), 3) as grid:
        found = strategy.start(grid, start(), rounds, **options).arrays
    assert found is not None
    return found


def replying(change: Callable[[Message, Context], None], kind: str, **options: Any) -> Any:
    """Devices whose replies to one kind of message are changed."""

    def mod(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
        reply = call_next(message, context)
        if message.metadata.message_type == kind:
            change(reply, context)
        return reply

    return device_app(mods=[mod], **options)


def offering(number: int, change: Callable[[Offered], dict[str, Any]]) -> Any:
    """Devices of which one offers something else."""

    def spoil(reply: Message, context: Context) -> None:
        if number_of(context) == number:
            offered = Offered.read(reply.content.config_records[SPLIT_RECORD], sender="the test")
            reply.content[SPLIT_RECORD] = offered.model_copy(update=change(offered)).write()

    return replying(spoil, "query.split")


@pytest.mark.parametrize("record", [HALF_RECORD, OPTIMISER_RECORD])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_half_that_is_not_finite_is_not_merged(record: str, value: float) -> None:
    def spoil(reply: Message, context: Context) -> None:
        report = SplitReport.read(reply.content.config_records[SPLIT_RECORD], sender="the test")
        if number_of(context) == 1 and report.round == 2 and record in reply.content:
            arrays = reply.content.array_records[record]
            name = next(iter(arrays))
            arrays[name] = Array(np.full_like(arrays[name].numpy(), value))

    strategy = split(planner=MOVING)
    found = run(strategy, 2 * MERGE, replying(spoil, "train.split"))
    lost = {(row["round"], row["device"]): str(row["lost"]) for row in strategy.history if row["lost"]}
    assert list(lost) == [(2, 1)]
    assert "not finite" in lost[2, 1]
    assert same_model(found, fedavg(2, steps={(0, 1): STEPS}))


def test_samples_far_off_lose_their_device_and_not_the_model() -> None:
    def data(context: Context) -> Any:
        x, y = samples(number_of(context))
        return (x * np.float32(1e30) if number_of(context) == 1 else x), y

    strategy = split(planner=FixedCut(2), strategy=FedAvg())
    found = run(strategy, 2 * MERGE, device_app(data=data))
    assert all(np.isfinite(array.numpy()).all() for array in found.values())
    assert {row["device"] for row in strategy.history if row["lost"]} <= {1}


@pytest.mark.parametrize(
    "told",
    [
        {"flops_per_s": 5e-324},
        {"flops_per_s": 1.0},
        {"flops_per_s": 1e308, "up_bps": 1e308, "down_bps": 1e308},
        {"up_bps": 5e-324, "down_bps": 5e-324},
        {"up_bps": 1.0, "down_bps": 1.0},
        {"delay_s": 1e308},
        {"delay_s": 1e4},
        {"samples": (1 << 53) - 1},
        {"memory_bytes": 0},
    ],
    ids=str,
)
def test_whatever_capacity_a_device_claims_the_others_train(told: dict[str, Any]) -> None:
    # What cannot be believed counts as no answer, for which the session waits.
    strategy = split(planner=Dynamic(), enrol=EnrolRules(timeout_s=0.05, poll_s=0.05))
    run(strategy, 1, offering(1, lambda _: told))
    rows = {row["device"]: row for row in strategy.history}
    assert rows[0]["lost"] == rows[2]["lost"] == ""


def test_moments_of_other_samples_refuse_their_device_and_no_other() -> None:
    other = Moments.of(np.ones((4, 5)), "channel").to_plain()
    strategy = split(planner=FixedCut(2), standardise="z-score")
    run(strategy, 1, offering(1, lambda offered: {"moments": other if offered.moments else None}))
    assert {row["device"] for row in strategy.history} == {0, 2}
    assert strategy.standard is not None
    assert len(strategy.standard.shift) == FEATURES


def test_a_device_that_has_too_few_samples_by_now_sits_out_until_it_has_enough() -> None:
    strategy = split(planner=MOVING)
    asked: list[int] = []

    def fewer(offered: Offered) -> dict[str, Any]:
        asked.append(1)
        # Twice before the first round, then once in each.
        return {"requests": False, "samples": 0, "why": "its disk is full"} if len(asked) == 4 else {}

    found = run(strategy, 2 * MERGE, offering(1, fewer))
    assert [row["device"] for row in strategy.history] == [0, 1, 2, 0, 2, 0, 1, 2, 0, 1, 2]
    assert same_model(found, fedavg(2, steps={(0, 1): STEPS}))


def test_what_a_device_cannot_offer_is_taken_from_what_it_measured() -> None:
    unmeasured = {"up_bps": None, "down_bps": None}
    strategy = split(planner=Dynamic())
    run(strategy, MERGE, offering(1, lambda _: unmeasured))
    histories = strategy._federation.records.histories
    assert histories[1].up_bps == (1e6,) * MERGE  # from its reports
    assert histories[0].up_bps == (1e6,) * MERGE  # as it offered; its reports do not count twice
    assert histories[1].flops_per_s == (2e6,) * MERGE


def test_where_no_link_is_known_nothing_is_late() -> None:
    timed = split(planner=FixedCut(2))
    with LocalGrid(device_app(), 3) as grid:
        metrics = timed.start(grid, start(), 1).train_metrics_clientapp[1]
    assert metrics["violation_rate"] == 0.0
    untimed = split(planner=FixedCut(2))
    unknown = device_app(capacity=lambda context, round: Capacity(1e6))
    with LocalGrid(unknown, 3) as grid:
        assert "violation_rate" not in untimed.start(grid, start(), 1).train_metrics_clientapp[1]
    assert {row["late"] for row in untimed.history} == {0}


def test_that_samples_leave_as_they_are_is_told_with_the_cut_that_hides_them() -> None:
    told = {cut: split(planner=FixedCut(cut)) for cut in (0, 1)}
    found = {}
    for cut, strategy in told.items():
        with LocalGrid(device_app(), 3) as grid:
            strategy._federation.begin_round(start(), grid, 5.0, anew=True)
            strategy._federation.plan(1, grid, 5.0)
        found[cut] = [event.text for event in strategy.events() if event.what == "split-samples-leave"]
    assert len(found[0]) == 1
    assert "least_cut=1" in found[0][0]
    assert found[1] == []


def test_devices_behind_one_link_reserve_no_more_than_it_has() -> None:
    planner = Dynamic(Cloud(1e9, links={"ap": 5e4}), whole=False, fallback=False)
    reserved = {}
    for links in ({}, {0: ["ap"], 1: ["ap"]}):
        strategy = split(planner=planner, shared_links=links)
        run(strategy, 1)
        orders = strategy._federation.plan_now
        assert orders is not None
        theirs = [orders.assignments[number] for number in (0, 1)]
        reserved[bool(links)] = sum((one.up_bps or 0.0) + (one.down_bps or 0.0) for one in theirs)
    assert 0.0 < reserved[True] <= 5e4 * (1 + 1e-6) < reserved[False]


# -- one cloud half for all -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "stopped"), [("v1", 3), ("v2", 1), ("v2", 2), ("v2", 3)])
def test_a_run_that_stopped_at_any_round_ends_like_one_that_did_not(tmp_path: Any, variant: Any, stopped: int) -> None:
    options: dict[str, Any] = {"planner": MOVING, "variant": variant, "standardise": "z-score", "merge_every": 3}
    whole = split(**options)
    expected = run(whole, 5)

    def stop(round: int, arrays: ArrayRecord) -> None:
        if round == stopped + 1:
            raise KeyboardInterrupt

    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        with pytest.raises(KeyboardInterrupt):
            run(split(**options), 5, evaluate_fn=stop, run=folder)
        resumed = split(**options)
        found = run(resumed, 5, run=folder, resume=True)
    assert same_model(found, expected)
    assert [row["cut"] for row in resumed.history] == [row["cut"] for row in whole.history]
    assert resumed.standard == whole.standard


@pytest.mark.parametrize("labels", ["cloud", "device"])
def test_garbage_in_the_middle_of_variant_2_stops_nobody_else(labels: Any) -> None:
    def spoil(reply: Message, context: Context) -> None:
        report = SplitReport.read(reply.content.config_records[SPLIT_RECORD], sender="the test")
        if number_of(context) == 1 and report.round == 1 and report.steps == 1 and FRAME_RECORD in reply.content:
            reply.content[FRAME_RECORD] = packet_record(b"garbage")

    strategy = split(planner=FixedCut(2), variant="v2", labels=labels)
    found = run(strategy, MERGE, replying(spoil, "train.split"))
    assert [(row["round"], row["device"]) for row in strategy.history if row["lost"]] == [(1, 1)]
    assert all(np.isfinite(array.numpy()).all() for array in found.values())


def test_who_comes_back_between_merges_moves_nobodys_cut_in_variant_2() -> None:
    strategy = split(planner=MOVING, variant="v2", merge_every=3)
    with LocalGrid(device_app(), 3) as grid:
        ids = list(grid.get_node_ids())

        def comes_and_goes(round: int, arrays: ArrayRecord) -> None:
            if round in (3, 4):
                (grid.disconnect if round == 3 else grid.connect)(ids[1])

        strategy.start(grid, start(), 6, evaluate_fn=comes_and_goes)
    cuts = {(row["round"], row["device"]): row["cut"] for row in strategy.history}
    assert (4, 1) not in cuts
    assert [cuts[4, n] for n in (0, 2)] == [cuts[5, n] for n in (0, 2)] == [cuts[6, n] for n in (0, 2)] == [4, 5]
    assert cuts[5, 1] == cuts[6, 1] == 3


# -- who is there -----------------------------------------------------------------------------------------------------


def test_when_only_strangers_are_left_training_goes_on_with_them_from_the_last_merge() -> None:
    strategy = split(planner=FixedCut(2), merge_every=3)
    with LocalGrid(device_app(), 4) as grid:
        ids = list(grid.get_node_ids())
        grid.disconnect(ids[3])

        def all_change(round: int, arrays: ArrayRecord) -> None:
            if round == 1:
                grid.connect(ids[3])
                for node in ids[:3]:
                    grid.disconnect(node)

        merging = FedAvg(min_train_nodes=1, min_available_nodes=1, min_evaluate_nodes=1)
        strategy.merging = strategy._federation.merging = merging
        strategy.start(grid, start(), 2, evaluate_fn=all_change)
    assert [row["device"] for row in strategy.history] == [0, 1, 2, 3]


def test_with_nobody_there_the_error_says_who_is_missing() -> None:
    with LocalGrid(device_app(), 3) as grid:
        ids = list(grid.get_node_ids())

        def leave(round: int, arrays: ArrayRecord) -> None:
            if round == 1:
                for node in ids:
                    grid.disconnect(node)

        with pytest.raises(ProtocolError, match=r"devices \[0, 1, 2\]"):
            split(planner=FixedCut(2)).start(grid, start(), 2, evaluate_fn=leave)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Krum(num_malicious_nodes=0),
        lambda: DifferentialPrivacyServerSideFixedClipping(FedAvg(), 0.0, 1e6, 3),
        lambda: DifferentialPrivacyClientSideFixedClipping(FedAvg(), 0.0, 1e6, 3),
    ],
    ids=["krum", "dp-server", "dp-client"],
)
def test_strategies_that_look_at_single_models_see_one_of_each_device(make: Callable[[], Strategy]) -> None:
    moving, fixed = (run(split(planner=planner, strategy=make()), 2 * MERGE) for planner in (MOVING, FixedCut(2)))
    assert same_model(moving, fixed)
    assert not same_model(moving, start())


@pytest.mark.parametrize(
    ("before", "now", "why"),
    [
        ({"noise": 0.5}, {}, "noise = 0.5, this run has 0.0"),
        ({}, {"up": Affine(4).config()}, "up = None"),
        ({"standardise": "z-score"}, {}, "standardised by"),
        ({"standardise": "z-score"}, {"standardise": "log"}, "standardise= it began with"),
    ],
)
def test_a_run_does_not_go_on_with_what_changes_its_samples_or_frames(
    before: dict[str, Any], now: dict[str, Any], why: str
) -> None:
    with pytest.raises(ResumeError, match=why):
        split(**now).load_state_dict(split(**before).state_dict())
