"""A device keeps to its limits: it leaves a round out or shortens it, says why, and is not paid by what it says."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.clients.availability import answer_availability
from flower_edge.clients.condition_policy import ConditionPolicy, Verdict
from flower_edge.clients.policy_mod import POLICY_RECORD, PolicyMod, model_peak_bytes
from flower_edge.clients.steps import step_mod, steps_of
from flower_edge.clients.thin import thin_client
from flower_edge.conditions import Conditions
from flower_edge.errors import ConfigError
from flower_edge.models import NumpyMLP
from flower_edge.runtime import LocalGrid, SteppedGrid, ask_nodes
from flower_edge.runtime.error_codes import DECLINED
from flower_edge.wire import record_of

FINE = Conditions(load=0.1, battery=0.9, charging=False, temperature_c=50.0, memory_free_bytes=10**9)
#: Why a device does not train, by what is wrong with it.
AGAINST = {
    "battery": ({"battery": 0.1}, "the battery is at 10 % and not charging; it trains from 30 % on, or plugged in"),
    "heat": ({"temperature_c": 81.0}, "it is 81 C hot; it trains up to 75 C"),
    "throttled": ({"throttled": True}, "it is throttled now, for heat or for want of power"),
    "memory": (
        {"memory_free_bytes": 149_000_000},
        "149 MB of memory are free; it trains with 1.5 times the 100 MB that training may take",
    ),
}
PEAK_BYTES = 100_000_000

# -- the decision ----------------------------------------------------------------------------------------------------


def conditions() -> st.SearchStrategy[Conditions]:
    share = st.none() | st.floats(0.0, 1.0)
    return st.builds(
        Conditions,
        load=share,
        battery=share,
        charging=st.none() | st.booleans(),
        temperature_c=st.none() | st.floats(-40.0, 120.0),
        throttled=st.none() | st.booleans(),
        memory_free_bytes=st.none() | st.integers(0, 10**10),
    )


@given(conditions(), st.integers(0, 10**9))
def test_a_verdict_has_a_reason_exactly_where_something_is_left_out(seen: Conditions, peak_bytes: int) -> None:
    policy = ConditionPolicy()
    verdict = policy.verdict(seen, peak_bytes)
    assert verdict.share == 0.0 or policy.least <= verdict.share <= 1.0
    assert bool(verdict.why) == (verdict.share < 1.0)


@given(conditions(), st.floats(-40.0, 120.0), st.floats(0.0, 80.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_hotter_busier_or_emptier_never_trains_more(
    seen: Conditions, heat_c: float, more_c: float, load: float, battery: float
) -> None:
    def share(**changed: Any) -> float:
        return ConditionPolicy().verdict(replace(seen, **changed), PEAK_BYTES).share

    assert share(temperature_c=heat_c + more_c) <= share(temperature_c=heat_c)
    assert share(load=max(load, seen.load or 0.0)) <= share(load=min(load, seen.load or 0.0))
    assert share(battery=min(battery, 0.5)) <= share(battery=max(battery, 0.5))


@pytest.mark.parametrize("wrong", AGAINST)
def test_each_limit_leaves_the_round_out_and_says_why(wrong: str) -> None:
    values, why = AGAINST[wrong]
    assert ConditionPolicy().verdict(FINE, PEAK_BYTES) == Verdict()
    assert ConditionPolicy().verdict(replace(FINE, **values), PEAK_BYTES) == Verdict(0.0, why)


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ({"battery": 0.3}, 1.0),
        ({"battery": 0.1, "charging": True}, 1.0),
        ({"battery": 0.1, "charging": None}, 0.0),
        ({"temperature_c": 70.0}, 1.0),
        ({"temperature_c": 75.0}, 0.25),
        ({"temperature_c": 72.5}, 0.625),
        ({"load": 0.75}, 1.0),
        ({"load": 0.85}, 0.625),
        ({"load": 0.96}, 0.25),
        ({"load": 0.85, "temperature_c": 74.0}, 0.4),
        ({"memory_free_bytes": 150_000_000}, 1.0),
    ],
)
def test_at_and_near_the_limits(values: dict[str, Any], share: float) -> None:
    assert ConditionPolicy().verdict(replace(FINE, **values), PEAK_BYTES).share == pytest.approx(share)


def test_what_is_not_known_or_switched_off_limits_nothing() -> None:
    nothing = ConditionPolicy(None, None, when_throttled=True, memory_factor=None, load_gentle=None)
    worst = Conditions(load=1.0, battery=0.0, charging=False, temperature_c=120.0, throttled=True, memory_free_bytes=0)
    assert nothing.verdict(worst, PEAK_BYTES) == ConditionPolicy().verdict(Conditions(), PEAK_BYTES) == Verdict()
    assert ConditionPolicy().verdict(worst, 0).skips


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"min_battery": 30.0}, "min_battery=30.0"),
        ({"max_temperature_c": float("nan")}, "max_temperature_c=nan"),
        ({"memory_factor": -1.0}, "memory_factor=-1.0"),
        ({"load_gentle": 0.9, "load_hard": 0.8}, "load_gentle <= load_hard"),
        ({"least": 0.0}, r"least=0.0.*\(0, 1\]"),
    ],
)
def test_limits_out_of_their_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ConditionPolicy(**options)


# -- the mod ---------------------------------------------------------------------------------------------------------


def app_of(seen: Conditions, *mods: Any, **options: Any) -> ClientApp:
    app = ClientApp(mods=[PolicyMod(source=lambda context, now_s: seen, **options), *mods])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        steps = len(steps_of(message))
        metrics = MetricRecord({"num-examples": 4 * steps, "steps": steps})
        return Message(RecordDict({"arrays": message.content["arrays"], "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1})}), reply_to=message)

    return app


def order(kind: str = "train", **config: Any) -> Message:
    records = {"arrays": record_of({"w": np.zeros(1000)}), "config": ConfigRecord({"local-steps": 8, **config})}
    return Message(RecordDict(records), 1000, kind)


def answer(app: ClientApp, message_kind: str = "train") -> Message:
    with LocalGrid(app, nodes=1, serialise=True, raise_errors=True) as grid:
        (reply,) = grid.send_and_receive([order(message_kind)])
    return reply


@pytest.mark.parametrize("wrong", AGAINST)
def test_a_round_that_is_left_out_is_declined_with_the_reason_and_logged(
    wrong: str, caplog: pytest.LogCaptureFixture
) -> None:
    values, why = AGAINST[wrong]
    reply = answer(app_of(replace(FINE, **values), peak_bytes=PEAK_BYTES))
    assert (reply.error.code, reply.error.reason) == (DECLINED, f"declined: {why}")
    assert f"leaves the round out: {why}" in caplog.text


def test_a_round_that_is_shortened_says_how_much_and_why_and_its_metrics_have_the_same_names() -> None:
    whole, cut = answer(app_of(FINE)), answer(app_of(replace(FINE, temperature_c=72.5)))
    assert POLICY_RECORD not in whole.content
    assert dict(cut.content[POLICY_RECORD]) == {"share": 0.625, "why": "72.5 C is near the limit of 75 C"}
    assert dict(whole.content["metrics"]) == {"num-examples": 32, "steps": 8}
    assert dict(cut.content["metrics"]) == {"num-examples": 20, "steps": 5}


def test_evaluation_and_questions_are_answered_however_hot_it_is() -> None:
    mod = PolicyMod(source=lambda context, now_s: replace(FINE, temperature_c=90.0))
    app = answer_availability(app_of(replace(FINE, temperature_c=90.0)), available=mod.available)
    assert answer(app, "evaluate").content["metrics"]["num-examples"] == 1
    with LocalGrid(app, nodes=1) as grid:
        assert ask_nodes(grid, [1000], "available") == {1000: {"available": False, "requests": False}}


def test_a_device_that_gets_hot_in_mid_task_keeps_its_work_and_asks_to_stop() -> None:
    seen = [FINE, replace(FINE, temperature_c=90.0)]
    mod = PolicyMod(source=lambda context, now_s: seen.pop(0) if len(seen) > 1 else seen[0])
    app = ClientApp(mods=[mod, step_mod])
    app.train()(lambda message, context: _stepping(message))
    with LocalGrid(app, nodes=1, serialise=True) as local:
        grid = SteppedGrid(local, 3, poll_s=0.01)
        (reply,) = grid.send_and_receive([order()])
    assert not reply.has_error()
    assert reply.content["metrics"]["steps"] == 4  # three, and the one in which it noticed
    assert [str(event.request) for event in grid.events if event.request] == [
        "overload (why=it is 90 C hot; it trains up to 75 C)"
    ]


def test_in_slices_the_first_is_declined_and_a_shortened_task_ends_at_its_share() -> None:
    def steps(seen: Conditions) -> Message:
        app = app_of(seen, step_mod)
        with LocalGrid(app, nodes=1, serialise=True) as local:
            (reply,) = SteppedGrid(local, 3, poll_s=0.01).send_and_receive([order()])
        return reply

    assert steps(replace(FINE, battery=0.1)).error.code == DECLINED
    assert steps(replace(FINE, temperature_c=72.5)).content["metrics"]["steps"] == 5


def _stepping(message: Message) -> Message:
    steps = len(steps_of(message))
    metrics = MetricRecord({"num-examples": 4 * steps, "steps": steps})
    return Message(RecordDict({"arrays": message.content["arrays"], "metrics": metrics}), reply_to=message)


def test_a_source_that_fails_keeps_no_device_from_training(caplog: pytest.LogCaptureFixture) -> None:
    def failing(context: Context, now_s: float | None) -> Conditions:
        raise OSError("no sensor")

    app = ClientApp(mods=[PolicyMod(source=failing)])
    app.train()(lambda message, context: _stepping(message))
    assert answer(app).content["metrics"]["steps"] == 8
    assert "no sensor" in caplog.text


def test_the_estimate_holds_for_a_perceptron_with_momentum() -> None:
    import tracemalloc

    sizes = (256, 1024, 512, 10)  # 0.8 million parameters
    app = thin_client(
        lambda context: (np.zeros((16, 256), np.float32), np.zeros(16, np.int64)),
        policy=None,
        source=lambda context, now_s: FINE,
    )
    arrays = record_of(NumpyMLP(sizes).arrays())
    config = ConfigRecord({"local-steps": 2, "momentum": 0.9})
    with LocalGrid(app, nodes=1, raise_errors=True) as grid:
        message = Message(RecordDict({"arrays": arrays, "config": config}), 1000, "train")
        tracemalloc.start()
        (reply,) = grid.send_and_receive([message])
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    with LocalGrid(app, nodes=1):
        estimated = model_peak_bytes(Message(RecordDict({"arrays": arrays}), 1000, "train"))
    assert not reply.has_error()
    assert 0.4 * estimated < peak_bytes < 1.5 * estimated  # the factor of the policy


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="flower_edge")
