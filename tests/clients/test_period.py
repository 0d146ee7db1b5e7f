"""A round that lasts a period: as many slices as fit, one reply that tells the steps."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.clients.period import PeriodMod, period_mod
from flower_edge.clients.steps import StepRange, request, request_of, step_mod, steps_of
from flower_edge.clients.throttle import ThrottleMod
from flower_edge.conditions import Conditions
from flower_edge.errors import ConfigError
from flower_edge.runtime import LocalGrid, NodeState, SteppedGrid
from flower_edge.wire import arrays_of, record_of

START = {"w": np.array([1.0]), "count": np.array(0)}


class Hands:
    """A clock that only the work moves: a step takes `step_s`."""

    def __init__(self, step_s: float = 1.0) -> None:
        self.time_s, self.step_s = 100.0, step_s

    def __call__(self) -> float:
        return self.time_s


def learner(clock: Hands, *mods: Any, tells_steps: bool = True, slices: list[StepRange] | None = None) -> ClientApp:
    """w <- w/2 + step with a momentum of its own memory; every step moves the clock."""
    app = ClientApp(mods=list(mods))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays, steps, memory = arrays_of(message.content["arrays"]), steps_of(message), NodeState(context, "speed")
        speed = memory.load() if steps.start else 0.0
        if slices is not None:
            slices.append(steps)
        for step in steps:
            speed = 0.5 * speed + step
            arrays["w"] = arrays["w"] / 2 + speed
            arrays["count"] = arrays["count"] + 1
            clock.time_s += clock.step_s
        memory.save(speed)
        metrics = {"num-examples": 4 * len(steps), "last": float(steps.stop)}
        metrics |= {"steps": len(steps)} if tells_steps else {}
        return Message(RecordDict({"arrays": record_of(arrays), "metrics": MetricRecord(metrics)}), reply_to=message)

    return app


def trained(app: ClientApp, slices: int | None = None, kind: str = "train", **config: Any) -> Message:
    content = RecordDict({"arrays": record_of(START), "config": ConfigRecord(config)})
    with LocalGrid(app, nodes=1, serialise=True, raise_errors=True) as local:
        grid = SteppedGrid(local, slices, poll_s=0.01) if slices else local
        (reply,) = grid.send_and_receive([Message(content, 1000, kind)])
        return reply


def model(reply: Message) -> list[Any]:
    return [array.tolist() for array in arrays_of(reply.content["arrays"]).values()]


@settings(max_examples=40)
@given(st.floats(0.1, 60.0), st.floats(0.1, 5.0), st.integers(1, 12))
def test_a_period_holds_as_many_whole_slices_as_fit_and_always_one(period_s: float, step_s: float, step: int) -> None:
    clock = Hands(step_s)
    reply = trained(learner(clock, PeriodMod(clock=clock)), **{"period-s": period_s, "period-step": step})
    steps = reply.content["metrics"]["steps"]
    used_s = steps * step_s
    assert steps % step == 0
    assert steps >= step
    assert used_s <= period_s + 1e-6 or steps == step
    assert used_s + step * step_s > period_s - 1e-6
    assert model(reply) == model(trained(learner(Hands()), **{"local-steps": steps}))


@pytest.mark.parametrize("tells_steps", [True, False])
@pytest.mark.parametrize("mods", [(), (step_mod,)])
def test_one_reply_tells_the_steps_and_the_examples_of_all_slices(mods: tuple[Any, ...], tells_steps: bool) -> None:
    clock, slices = Hands(), []
    app = learner(clock, *mods, PeriodMod(step=4, clock=clock), tells_steps=tells_steps, slices=slices)
    reply = trained(app, **{"period-s": 12.5})
    assert slices == [StepRange(0, 4, 4), StepRange(4, 8, 8), StepRange(8, 12, 12)]
    assert dict(reply.content["metrics"]) == {"num-examples": 48, "last": 8.0, "steps": 12}
    assert list(reply.content) == ["arrays", "metrics"]
    assert model(reply)[1] == 12


def test_local_steps_are_the_most_where_the_config_tells_them() -> None:
    clock, slices = Hands(), []
    reply = trained(learner(clock, PeriodMod(clock=clock), slices=slices), **{"period-s": 100.0, "local-steps": 25})
    assert slices == [StepRange(0, 10, 25), StepRange(10, 20, 25), StepRange(20, 25, 25)]
    assert reply.content["metrics"]["steps"] == 25
    none = trained(learner(clock, PeriodMod(clock=clock)), **{"period-s": 100.0, "local-steps": 0})
    assert none.content["metrics"]["steps"] == 0


def test_a_round_that_gets_slower_ends_before_the_slice_that_would_be_late() -> None:
    clock = Hands()
    app = ClientApp(mods=[PeriodMod(step=1, clock=clock)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        clock.time_s += 1.0 + steps_of(message).start
        return Message(RecordDict({"arrays": message.content["arrays"], "m": MetricRecord({"x": 1})}), reply_to=message)

    reply = trained(app, **{"period-s": 10.0})  # after 1 + 2 + 3 s, 3 s more would fit; they are 4
    assert dict(reply.content["m"]) == {"x": 1.0, "steps": 4}
    assert clock.time_s == 110.0


def test_a_function_that_makes_fewer_steps_is_asked_for_the_next_from_there() -> None:
    clock, asked = Hands(), []
    app = ClientApp(mods=[PeriodMod(step=4, clock=clock)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        asked.append(steps_of(message).start)
        clock.time_s += 3.0
        content = RecordDict({"arrays": message.content["arrays"], "m": MetricRecord({"steps": 3, "num-examples": 3})})
        return Message(content, reply_to=message)

    reply = trained(app, **{"period-s": 9.0})
    assert asked == [0, 3, 6]
    assert dict(reply.content["m"]) == {"steps": 9, "num-examples": 9}


@pytest.mark.parametrize("wish", ["stop", "overload", "smaller-model"])
def test_a_function_that_asks_to_stop_ends_its_period_and_other_wishes_do_not(wish: str) -> None:
    clock, calls = Hands(), []
    app = ClientApp(mods=[PeriodMod(clock=clock)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        calls.append(1)
        clock.time_s += 1.0
        content = RecordDict({"arrays": message.content["arrays"], "m": MetricRecord({"steps": 10})})
        return Message(request(content, wish), reply_to=message)

    reply = trained(app, **{"period-s": 5.0})
    assert len(calls) == (5 if wish == "smaller-model" else 1)
    assert request_of(reply) is None


def test_a_function_without_a_step_left_ends_its_period() -> None:
    app = ClientApp(mods=[PeriodMod(clock=Hands())])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        content = RecordDict({"arrays": message.content["arrays"], "m": MetricRecord({"steps": 0})})
        return Message(content, reply_to=message)

    assert trained(app, **{"period-s": 5.0}).content["m"]["steps"] == 0


def test_records_the_function_does_not_return_come_again_with_every_slice() -> None:
    clock = Hands()
    app = ClientApp(mods=[PeriodMod(step=1, clock=clock)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        clock.time_s += 1.0
        drift = arrays_of(message.content["drift"])["d"]
        moved = {"w": arrays_of(message.content["arrays"])["w"] + drift}
        return Message(RecordDict({"arrays": record_of(moved), "m": MetricRecord({"n": 1})}), reply_to=message)

    records = {"arrays": record_of({"w": np.zeros(1)}), "drift": record_of({"d": np.array([0.5])})}
    with LocalGrid(app, nodes=1, raise_errors=True) as grid:
        content = RecordDict({**records, "config": ConfigRecord({"period-s": 4.0})})
        (reply,) = grid.send_and_receive([Message(content, 1000, "train")])
    assert arrays_of(reply.content["arrays"])["w"].tolist() == [2.0]
    assert reply.content["m"]["steps"] == 4


def test_messages_without_a_period_evaluations_and_slices_of_the_edge_pass_through() -> None:
    clock, slices = Hands(), []
    app = learner(clock, step_mod, PeriodMod(step=2, clock=clock), slices=slices)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    trained(app, **{"local-steps": 7})
    assert slices == [StepRange(0, 7, 7)]
    slices.clear()
    reply = trained(app, slices=4, **{"local-steps": 7, "period-s": 100.0})
    assert slices == [StepRange(0, 4, 7), StepRange(4, 7, 7)]
    assert reply.content["metrics"]["steps"] == 7
    assert list(trained(app, kind="evaluate", **{"period-s": 3.0}).content) == []


def test_in_a_period_a_loaded_terminal_throttles_its_batches_or_its_most_steps() -> None:
    clock, slices = Hands(), []
    loaded = ThrottleMod(lambda context, now_s: Conditions(load=0.9), least=0.5)
    app = learner(clock, loaded, step_mod, PeriodMod(step=4, clock=clock), slices=slices)
    reply = trained(app, **{"period-s": 100.0, "local-steps": 12})
    assert slices == [StepRange(0, 4, 6), StepRange(4, 6, 6)]
    assert {name: reply.content["metrics"][name] for name in ("steps", "throttle")} == {"steps": 6, "throttle": 0.5}


def failing_after(calls: int) -> ClientApp:
    clock, made = Hands(), []
    app = ClientApp(mods=[PeriodMod(clock=clock)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        made.append(1)
        clock.time_s += 1.0
        if len(made) > calls:
            raise ValueError("no memory left")
        content = RecordDict(
            {"a": ArrayRecord(), "b": ArrayRecord(), "m": MetricRecord({"steps": 99 if calls == 9 else 1})}
        )
        return Message(content, reply_to=message)

    return app


@pytest.mark.parametrize(
    ("app", "config", "complaint"),
    [
        (failing_after(0), {"period-s": 5.0}, "no memory left"),
        (failing_after(1), {"period-s": 5.0}, r"returned the array records \['a', 'b'\].*\['arrays'\]"),
        (failing_after(9), {"period-s": 5.0}, "reported steps = 99 for 10 of a period"),
        (
            learner(Hands(), period_mod, step_mod),
            {"period-s": 5.0},
            r"write ClientApp\(mods=\[step_mod, period_mod\]\)",
        ),
        (learner(Hands(), period_mod), {"period-s": 0.0}, "period-s = 0.0 in the train config: expected seconds"),
        (learner(Hands(), period_mod), {"period-s": math.inf}, "period-s = inf"),
        (learner(Hands(), period_mod), {"period-s": "long"}, "period-s = 'long'"),
        (learner(Hands(), period_mod), {"period-s": 5.0, "period-step": 0}, "period-step = 0"),
        (learner(Hands(), period_mod), {"period-s": 5.0, "local-steps": 2.5}, "local-steps = 2.5"),
    ],
)
def test_what_goes_wrong_is_an_error_reply_that_says_what_to_write(
    app: ClientApp, config: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(Exception, match=complaint):
        trained(app, **config)


def test_a_step_of_nothing_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"PeriodMod\(step=0\)"):
        PeriodMod(step=0)


def test_a_strategy_weighs_slow_terminals_by_the_steps_they_reached() -> None:
    clocks = [Hands(1.0), Hands(3.0)]
    apps = [learner(clock, PeriodMod(step=1, clock=clock)) for clock in clocks]
    both = ClientApp()

    @both.train()
    def train(message: Message, context: Context) -> Message:
        return apps[int(context.node_config["partition-id"])](message, context)

    with LocalGrid(both, nodes=2) as grid:
        result = FedAvg(fraction_evaluate=0.0).start(
            grid, record_of(START), num_rounds=1, train_config=ConfigRecord({"period-s": 6.0})
        )
    assert arrays_of(result.arrays)["count"].tolist() == (6 * 6 + 2 * 2) / 8


def test_on_a_real_clock_the_period_is_kept() -> None:
    app = ClientApp(mods=[period_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        time.sleep(0.01 * len(steps_of(message)))
        metrics = MetricRecord({"num-examples": len(steps_of(message))})
        return Message(RecordDict({"arrays": message.content["arrays"], "metrics": metrics}), reply_to=message)

    begun_s = time.monotonic()
    reply = trained(app, **{"period-s": 0.3, "period-step": 2})
    assert time.monotonic() - begun_s < 20.0
    assert 2 <= reply.content["metrics"]["steps"] <= 30
