"""The terminal's half of step-bounded training, one message at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients.steps import StepMod, StepRange, request, request_of, step_mod, steps_of
from flower_edge.errors import ConfigError, ProtocolError, StateError
from flower_edge.runtime import local_grid
from flower_edge.runtime.flower_private import drop_identity, ensure_identity
from flower_edge.runtime.node_state import NodeState
from flower_edge.runtime.steps.messages import SliceOrder, order_of, with_order
from flower_edge.wire import arrays_of, record_of

START = {"w": np.array([1.0, 2.0]), "count": np.array(5)}


@pytest.fixture(autouse=True)
def identity() -> Any:
    """Messages can be built outside of a run."""
    given = ensure_identity(1)
    yield
    if given:
        drop_identity()


def memory(**node_config: Any) -> Context:
    return Context(1, 1000, {"partition-id": 0, **node_config}, RecordDict(), {})


def whole(**config: Any) -> Message:
    records = RecordDict({"arrays": record_of(START), "config": ConfigRecord({"local-steps": 10, **config})})
    return Message(records, 1000, "train")


def slice_of(
    start: int, stop: int, total: int = 10, task: str = "t1", returns: bool = False, first: int = 0
) -> Message:
    order = SliceOrder(task, StepRange(start, stop, total), returns, first)
    return Message(with_order(whole().content, "config", order, arrays=order.begins), 1000, "train")


def adding_app(mod: StepMod = step_mod, name: str = "arrays") -> ClientApp:
    """Adds the number of every step to w, and counts the steps; answers under `name`."""
    app = ClientApp(mods=[mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays = arrays_of(message.content.array_records["arrays"])
        for step in steps_of(message):
            arrays["w"] += step
            arrays["count"] += 1
        metrics = MetricRecord({"num-examples": 4 * len(steps_of(message))})
        return Message(RecordDict({name: record_of(arrays), "metrics": metrics}), reply_to=message)

    return app


def model(reply: Message) -> list[Any]:
    (record,) = reply.content.array_records.values()
    return [array.tolist() for array in arrays_of(record).values()]


@pytest.mark.parametrize("name", ["arrays", "my-model"])
def test_the_model_stays_on_the_node_between_slices_and_comes_back_with_the_last(name: str) -> None:
    context, app = memory(), adding_app(name=name)
    first, second = app(slice_of(0, 4), context), app(slice_of(4, 9), context)
    assert [len(reply.content.array_records) for reply in (first, second)] == [0, 0]
    last = app(slice_of(9, 10, returns=True), context)
    assert model(last) == [[46.0, 47.0], 15]
    assert model(last) == model(adding_app(name=name)(whole(), memory()))
    assert list(last.content.array_records) == [name]
    assert NodeState(context, "steps").where == "absent"


def test_a_message_that_is_not_sliced_asks_for_all_steps_and_the_mod_tells_how_many() -> None:
    assert steps_of(whole()) == StepRange(0, 10, 10)
    reply = adding_app()(whole(), memory())
    assert dict(reply.content.metric_records["metrics"]) == {"num-examples": 40, "steps": 10}
    assert list(reply.content) == ["arrays", "metrics"]


def test_a_message_without_a_number_of_steps_passes_through_and_steps_of_says_what_to_type() -> None:
    app = ClientApp(mods=[step_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({"metrics": MetricRecord({"n": 1})}), reply_to=message)

    message = Message(RecordDict({"config": ConfigRecord({"lr": 0.1})}), 1000, "train")
    assert dict(app(message, memory()).content.metric_records["metrics"]) == {"n": 1}
    with pytest.raises(ConfigError, match=r"train_config=ConfigRecord\(\{'local-steps': 20\}\)"):
        steps_of(message)


@pytest.mark.parametrize("value", [-1, 2.5, "many", True])
def test_a_number_of_steps_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match="local-steps = "):
        steps_of(Message(RecordDict({"config": ConfigRecord({"local-steps": value})}), 1000, "train"))


def test_a_closing_message_collects_the_model_as_it_is_without_training() -> None:
    context, app = memory(), adding_app()
    app(slice_of(0, 4), context)
    closed = app(slice_of(4, 4, returns=True), context)
    assert model(closed) == [[7.0, 8.0], 9]
    assert closed.content.metric_records["metrics"]["steps"] == 0
    assert NodeState(context, "steps").where == "absent"


def test_a_slice_asked_twice_is_answered_twice_and_trained_once() -> None:
    context, app = memory(), adding_app()
    app(slice_of(0, 4), context)
    once, twice = app(slice_of(4, 9), context), app(slice_of(4, 9), context)
    assert dict(once.content.metric_records["metrics"]) == dict(twice.content.metric_records["metrics"])
    assert list(once.content) == list(twice.content)
    assert model(app(slice_of(9, 10, returns=True), context)) == [[46.0, 47.0], 15]


def test_a_stale_slice_of_an_earlier_task_is_refused_and_the_present_one_goes_on() -> None:
    context, app = memory(), adding_app()
    app(slice_of(0, 4, task="round-1"), context)
    app(slice_of(0, 3, task="round-2"), context)
    with pytest.raises(ProtocolError, match=r"from step 4 of task 'round-1' came.*task 'round-2' at step 3.*stale"):
        app(slice_of(4, 8, task="round-1"), context)
    with pytest.raises(ProtocolError, match="from step 5 of task 'round-2'"):
        app(slice_of(5, 8, task="round-2"), context)
    assert model(app(slice_of(3, 10, task="round-2", returns=True), context)) == [[46.0, 47.0], 15]
    with pytest.raises(ProtocolError, match="this node holds none"):
        app(slice_of(3, 10, task="round-2", returns=True), context)


def test_a_task_may_begin_at_a_later_step_and_is_held_to_what_any_task_is() -> None:
    context, app = memory(), adding_app()
    app(slice_of(0, 4), context)
    app(slice_of(4, 4, returns=True), context)
    once, twice = (app(slice_of(4, 7, task="t2", first=4), context) for _ in range(2))
    assert dict(once.content.metric_records["metrics"]) == dict(twice.content.metric_records["metrics"])
    with pytest.raises(ProtocolError, match=r"from step 4 of task 't1' came.*task 't2' at step 7.*stale"):
        app(slice_of(4, 8), context)
    with pytest.raises(ProtocolError, match="from step 8 of task 't2'"):
        app(slice_of(8, 9, task="t2", first=4), context)
    last = app(slice_of(7, 10, task="t2", first=4, returns=True), context)
    assert model(last) == [[1.0 + 39.0, 2.0 + 39.0], 5 + 6], "steps 4 to 9 from the model that came"
    assert last.content.metric_records["metrics"]["steps"] == 3


def test_a_task_that_begins_at_a_later_step_takes_the_place_of_one_whose_model_was_never_collected() -> None:
    context, app = memory(), adding_app()
    app(slice_of(0, 4), context)
    app(slice_of(4, 6, task="t2", first=4), context)
    assert model(app(slice_of(6, 6, task="t2", first=4, returns=True), context)) == [[10.0, 11.0], 7]


def test_a_task_that_begins_at_a_later_step_begins_also_where_a_restart_has_lost_the_one_before(tmp_path: Path) -> None:
    config, app = {"state-dir": str(tmp_path)}, adding_app()
    app(slice_of(0, 4), memory(**config))
    restarted = memory(**config)
    with pytest.raises(StateError, match="lost with the SuperNode's memory"):
        app(slice_of(4, 4, returns=True), restarted)
    app(slice_of(4, 8, task="t2", first=4), restarted)
    assert model(app(slice_of(8, 10, task="t2", first=4, returns=True), restarted)) == [[40.0, 41.0], 11]


def test_only_a_durable_mod_lets_a_small_model_survive_a_restart_of_the_supernode(tmp_path: Path) -> None:
    app, durable = adding_app(), adding_app(StepMod(durable=True))
    app(slice_of(0, 4), memory(**{"state-dir": str(tmp_path / "a")}))
    with pytest.raises(StateError, match="lost with the SuperNode's memory"):
        app(slice_of(4, 10, returns=True), memory(**{"state-dir": str(tmp_path / "a")}))
    durable(slice_of(0, 4), memory(**{"state-dir": str(tmp_path / "b")}))
    last = durable(slice_of(4, 10, returns=True), memory(**{"state-dir": str(tmp_path / "b")}))
    assert model(last) == [[46.0, 47.0], 15]


def test_a_model_lost_in_an_earlier_round_does_not_stop_the_next_one(tmp_path: Path) -> None:
    config = {"state-dir": str(tmp_path)}
    app = adding_app()
    app(slice_of(0, 4, task="round-1"), memory(**config))
    restarted = memory(**config)
    app(slice_of(0, 4, task="round-2"), restarted)
    assert model(app(slice_of(4, 10, task="round-2", returns=True), restarted)) == [[46.0, 47.0], 15]


def test_records_the_function_does_not_return_come_again_with_every_slice() -> None:
    app = ClientApp(mods=[step_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        weights, drift = message.content.array_records["weights"], message.content.array_records["drift"]
        moved = {"w": arrays_of(weights)["w"] + len(steps_of(message)) * arrays_of(drift)["d"]}
        return Message(RecordDict({"weights": record_of(moved)}), reply_to=message)

    def message(start: int, stop: int, returns: bool = False) -> Message:
        content = RecordDict(
            {
                "weights": record_of({"w": np.zeros(1)}),
                "drift": record_of({"d": np.array([0.5])}),
                "config": ConfigRecord({"local-steps": 6}),
            }
        )
        order = SliceOrder("t", StepRange(start, stop, 6), returns)
        return Message(with_order(content, "config", order, arrays=start == 0), 1000, "train")

    context = memory()
    app(message(0, 2), context)
    app(message(2, 4), context)
    assert model(app(message(4, 6, returns=True), context)) == [[3.0]]


def test_a_model_returned_under_a_name_that_did_not_come_is_refused() -> None:
    app = ClientApp(mods=[step_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({"a": ArrayRecord(), "b": ArrayRecord()}), reply_to=message)

    with pytest.raises(ProtocolError, match=r"\['a', 'b'\].*\['arrays'\]; return every record under the name"):
        app(slice_of(0, 4), memory())


@pytest.mark.parametrize("steps", [5, -1, 1.5])
def test_a_function_that_reports_other_steps_than_asked_is_refused(steps: float) -> None:
    app = ClientApp(mods=[step_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        content = RecordDict({"arrays": message.content.array_records["arrays"]})
        content["m"] = MetricRecord({"steps": steps})
        return Message(content, reply_to=message)

    with pytest.raises(ProtocolError, match="for a slice of 4"):
        app(slice_of(0, 4), memory())


def test_an_error_in_the_train_function_leaves_the_task_where_it_was() -> None:
    context, calls = memory(), []
    app = ClientApp(mods=[step_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        calls.append(steps_of(message).start)
        if calls == [0, 4]:
            raise ValueError("no memory left")
        return Message(RecordDict({"arrays": message.content.array_records["arrays"]}), reply_to=message)

    app(slice_of(0, 4), context)
    with pytest.raises(ValueError, match="no memory left"):
        app(slice_of(4, 8), context)
    app(slice_of(4, 8), context)
    assert calls == [0, 4, 4]


def test_a_request_travels_in_a_record_of_its_own_and_what_is_no_request_is_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    content = request(RecordDict(), "smaller-model", memory_bytes=1_000)
    reply = Message(content, reply_to=whole())
    found = request_of(reply)
    assert found is not None
    assert (found.kind, dict(found.values)) == ("smaller-model", {"memory_bytes": 1000})
    assert request_of(Message(RecordDict(), reply_to=whole())) is None
    with pytest.raises(ConfigError, match="request kind 'Stop!'"):
        request(RecordDict(), "Stop!")
    for nonsense in (ConfigRecord({"kind": 5}), ConfigRecord(), MetricRecord({"kind": 1}), ArrayRecord()):
        assert request_of(Message(RecordDict({"flower-edge.request": nonsense}), reply_to=whole())) is None
    assert caplog.text.count("ignored") == 4


def test_a_slice_with_impossible_numbers_is_refused() -> None:
    message = slice_of(0, 4)
    message.content.config_records["config"]["step-stop"] = 99
    later = slice_of(0, 4)
    later.content.config_records["config"]["step-first"] = 2
    with pytest.raises(ConfigError, match="from step 2"):
        order_of(later)
    with pytest.raises(ConfigError, match=r"0 <= step-first <= step-start <= step-stop <= steps-total"):
        order_of(message)


def test_the_app_with_the_mod_runs_on_a_local_grid_as_it_is() -> None:
    with local_grid.LocalGrid(adding_app(), nodes=1, raise_errors=True) as grid:
        (reply,) = grid.send_and_receive([whole()])
    assert model(reply) == [[46.0, 47.0], 15]
