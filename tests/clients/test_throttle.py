"""A loaded terminal does less, says so, and at the limit asks to stop: in whole messages and in slices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.clients.steps import request, request_of, step_mod, steps_of
from flower_edge.clients.throttle import ThrottleMod
from flower_edge.conditions import Conditions
from flower_edge.errors import ConfigError
from flower_edge.rules import Rule
from flower_edge.runtime import LocalGrid, SteppedGrid
from flower_edge.wire import arrays_of, record_of

#: Steps in the order they are made; batch sizes they are made with.
Made = list[tuple[int, int]]
PLACES = ["before step_mod", "behind step_mod"]


def at(*loads: float | None) -> Callable[[Context, float | None], Conditions]:
    """A source that tells one load after the other, and then the last."""
    left = list(loads)
    return lambda context, now_s: Conditions(load=left.pop(0) if len(left) > 1 else left[0], battery=0.5)


def learner(made: Made, *mods: Any, tells_steps: bool = True, tells_metrics: bool = True) -> ClientApp:
    """Adds the number of every step to w."""
    app = ClientApp(mods=list(mods))

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays, config = arrays_of(message.content["arrays"]), message.content["config"]
        steps = steps_of(message)
        for step in steps:
            arrays["w"] = arrays["w"] + step
            made.append((step, int(config.get("batch-size", 0))))
        metrics = {"num-examples": 4 * len(steps), **({"steps": len(steps)} if tells_steps else {})}
        content = RecordDict({"arrays": record_of(arrays)})
        if tells_metrics:
            content["metrics"] = MetricRecord(metrics)
        return Message(content, reply_to=message)

    return app


def placed(place: str, throttle: ThrottleMod) -> list[Any]:
    return [throttle, step_mod] if place == PLACES[0] else [step_mod, throttle]


def order(steps: int = 20, **config: Any) -> RecordDict:
    config_record = ConfigRecord({"local-steps": steps, **config})
    return RecordDict({"arrays": record_of({"w": np.zeros(1)}), "config": config_record})


def trained(
    app: ClientApp, content: RecordDict, slices: int | None = None, kind: str = "train"
) -> tuple[Message, list[Any]]:
    """The reply, and the events of the stepped grid if there was one."""
    with LocalGrid(app, nodes=1, serialise=True, raise_errors=True) as local:
        grid = SteppedGrid(local, slices, poll_s=0.01) if slices else local
        (reply,) = grid.send_and_receive([Message(content, 1000, kind)])
        return reply, grid.events if isinstance(grid, SteppedGrid) else []


@pytest.mark.parametrize("tells_steps", [True, False])
@pytest.mark.parametrize("mods", ["alone", *PLACES])
def test_a_whole_message_is_cut_to_the_share_of_its_steps_and_the_reply_says_so(mods: str, tells_steps: bool) -> None:
    made: Made = []
    throttle = ThrottleMod(at(0.7), gentle=0.5, hard=0.9, least=0.2)
    chain = [throttle] if mods == "alone" else placed(mods, throttle)
    reply, _ = trained(learner(made, *chain, tells_steps=tells_steps), order(20))
    assert [step for step, _ in made] == list(range(12))
    metrics = dict(reply.content["metrics"])
    assert metrics == {"num-examples": 48, "steps": 12, "throttle": 0.6}
    assert request_of(reply) is None


@pytest.mark.parametrize("tells_steps", [True, False])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("slices", [1, 4, 5, 7, 12, 19])
def test_a_sliced_task_ends_at_the_same_step_with_the_same_model(place: str, slices: int, tells_steps: bool) -> None:
    made: Made = []
    app = learner(made, *placed(place, ThrottleMod(at(0.7), least=0.2)), tells_steps=tells_steps)
    reply, events = trained(app, order(20), slices)
    assert [step for step, _ in made] == list(range(12))
    assert dict(reply.content["metrics"]) == {"num-examples": 48, "steps": 12, "throttle": pytest.approx(0.6)}
    assert arrays_of(reply.content["arrays"])["w"].tolist() == [sum(range(12))]
    assert request_of(reply) is None
    assert events[-1].request == "stop (throttle=0.6)"
    assert (events[-1].step, events[-1].outcome) == (12, "returned")


@pytest.mark.parametrize("place", PLACES)
def test_without_load_or_without_knowing_it_nothing_changes_but_the_metric(place: str) -> None:
    for load in (0.2, None):
        made: Made = []
        reply, events = trained(learner(made, *placed(place, ThrottleMod(at(load)))), order(10), 4)
        assert [step for step, _ in made] == list(range(10))
        assert dict(reply.content["metrics"]) == {"num-examples": 40, "steps": 10, "throttle": 1.0}
        assert {event.request for event in events} == {""}


@pytest.mark.parametrize("place", PLACES)
def test_load_that_comes_in_mid_task_ends_it_at_the_next_slice(place: str) -> None:
    made: Made = []
    reply, events = trained(learner(made, *placed(place, ThrottleMod(at(0.1, 0.1, 0.95)))), order(20), 4)
    # A quarter of 20 steps is long done after two slices of 4: one more step, and it asks to stop.
    assert [step for step, _ in made] == list(range(9))
    assert [(event.step, event.request) for event in events] == [(4, ""), (8, ""), (9, "stop (throttle=0.25)")]
    assert reply.content["metrics"]["throttle"] == pytest.approx((8 * 1.0 + 1 * 0.25) / 9)


@pytest.mark.parametrize("place", PLACES)
def test_at_the_limit_it_makes_one_step_and_says_overload_with_what_it_saw(place: str) -> None:
    made: Made = []
    rule = Rule("load >= 0.97 or battery < 0.1")
    reply, events = trained(learner(made, *placed(place, ThrottleMod(at(0.3, 0.99), stop_when=rule))), order(20), 4)
    assert [step for step, _ in made] == list(range(5))
    assert events[-1].request == "overload (battery=0.5, load=0.99)"
    assert reply.content["metrics"]["steps"] == 5
    assert arrays_of(reply.content["arrays"])["w"].tolist() == [sum(range(5))]


@pytest.mark.parametrize("place", PLACES)
def test_at_the_limit_from_the_start_there_is_still_one_step_to_return(place: str) -> None:
    made: Made = []
    reply, events = trained(learner(made, *placed(place, ThrottleMod(at(1.0)))), order(20), 4)
    assert (len(made), reply.content["metrics"]["steps"]) == (1, 1)
    assert [event.request for event in events] == ["overload (load=1.0)"]


def test_a_whole_message_at_the_limit_is_cut_to_the_least_and_says_overload() -> None:
    made: Made = []
    reply, _ = trained(learner(made, ThrottleMod(at(1.0), least=0.1)), order(20))
    assert len(made) == 2
    asked = request_of(reply)
    assert asked is not None
    assert str(asked) == "overload (load=1.0)"


def test_without_a_limit_it_never_asks_to_stop_before_its_share_is_done() -> None:
    reply, events = trained(learner([], step_mod, ThrottleMod(at(1.0), stop_when=None)), order(20), 2)
    assert [event.request for event in events] == ["", "", "stop (throttle=0.25)"]
    assert reply.content["metrics"]["steps"] == 5


@pytest.mark.parametrize(
    ("options", "steps", "size"),
    [({"steps": False, "batch": True}, 20, 8), ({"batch": True}, 10, 16), ({}, 5, 32)],
)
@pytest.mark.parametrize("slices", [None, 5])
@pytest.mark.parametrize("place", PLACES)
def test_batches_are_throttled_instead_of_steps_or_both_by_the_root(
    place: str, slices: int | None, options: dict[str, Any], steps: int, size: int
) -> None:
    made: Made = []
    app = learner(made, *placed(place, ThrottleMod(at(0.92), least=0.25, **options)))
    reply, _ = trained(app, order(20, **{"batch-size": 32}), slices)
    assert made == [(step, size) for step in range(steps)]
    assert reply.content["metrics"]["throttle"] == 0.25


def test_a_terminals_own_request_and_its_own_count_of_steps_go_first() -> None:
    app = ClientApp(mods=[step_mod, ThrottleMod(at(1.0), least=0.5)])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        content = RecordDict({"arrays": message.content["arrays"], "m": MetricRecord({"num-examples": 1, "steps": 1})})
        return Message(request(content, "smaller-model"), reply_to=message)

    reply, events = trained(app, order(20), 8)
    assert events[0].request == "smaller-model"
    assert reply.content["m"]["steps"] == len(events)


def test_a_reply_without_metrics_gets_them_so_that_a_shortened_slice_is_counted_right() -> None:
    made: Made = []
    app = learner(made, step_mod, ThrottleMod(at(0.92), least=0.25), tells_metrics=False)
    reply, events = trained(app, order(20), 8)
    assert len(made) == 5
    assert (events[-1].step, dict(reply.content["metrics"])) == (5, {"throttle": 0.25, "steps": 5})


def test_messages_without_a_number_of_steps_and_evaluations_are_left_alone() -> None:
    app = ClientApp(mods=[ThrottleMod(at(0.92), least=0.25, batch=True)])

    @app.train()
    @app.evaluate()
    def whatever(message: Message, context: Context) -> Message:
        size = message.content["config"]["batch-size"]
        return Message(RecordDict({"metrics": MetricRecord({"size": size})}), reply_to=message)

    for kind, expected in (("evaluate", {"size": 32}), ("train", {"size": 16, "throttle": 0.25})):
        content = RecordDict({"config": ConfigRecord({"batch-size": 32})})
        assert dict(trained(app, content, kind=kind)[0].content["metrics"]) == expected


def test_a_failing_function_fails_as_without_the_mod() -> None:
    app = ClientApp(mods=[ThrottleMod(at(0.9))])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        raise ValueError("no memory left")

    with LocalGrid(app, nodes=1) as grid:
        (reply,) = grid.send_and_receive([Message(order(), 1000, "train")])
    assert "no memory left" in reply.error.reason


def test_the_strategy_weighs_a_throttled_terminal_by_what_it_did() -> None:
    def by_node(context: Context, now_s: float | None) -> Conditions:
        return Conditions(load=[0.0, 0.9][int(context.node_config["partition-id"])])

    with LocalGrid(learner([], step_mod, ThrottleMod(by_node)), nodes=2) as local:
        result = FedAvg(fraction_evaluate=0.0).start(
            SteppedGrid(local, 4, poll_s=0.01),
            record_of({"w": np.zeros(1)}),
            num_rounds=1,
            train_config=ConfigRecord({"local-steps": 8}),
        )
    assert arrays_of(result.arrays)["w"].tolist() == [(8 * sum(range(8)) + 2 * sum(range(2))) / 10]


@settings(max_examples=50)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1))
def test_the_share_never_rises_with_the_load_and_stays_between_least_and_all(
    low: float, high: float, one: float, other: float, least: float
) -> None:
    gentle, hard = sorted((low, high))
    mod = ThrottleMod(at(0.0), gentle=gentle, hard=hard, least=least)
    less, more = sorted((one, other))
    assert least - 1e-9 <= mod.share(more) <= mod.share(less) <= 1.0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"gentle": 0.9, "hard": 0.5}, "0 <= gentle <= hard <= 1"),
        ({"least": 0.0}, r"a share in \(0, 1\]"),
        ({"steps": False}, "throttles nothing"),
        ({"stop_when": "load => 1"}, "write '>='"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        ThrottleMod(at(0.0), **options)
