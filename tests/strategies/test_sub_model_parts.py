"""Work that comes late, twice, by surprise or with numbers that are none: it is merged where it lies, or left out."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from submodel_toy import GROUPS, app, numbers, run, whole
from toy import same_model

from flower_edge.clients.steps import step_mod, steps_of
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.flower_private import set_metadata
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.decisions import Continue, Decision, Detach, Progress
from flower_edge.runtime.steps.grid import SteppedGrid
from flower_edge.runtime.steps.messages import LATE_RECORD
from flower_edge.strategies.provision.sub_models import SubModels
from flower_edge.submodels.choices import prefix, rolling
from flower_edge.submodels.groups import index_of
from flower_edge.updates.places import brackets
from flower_edge.wire import arrays_of, record_of

STEPS = 6


class Keeping(FedAvg):
    """Keeps the model of every round."""

    def __init__(self) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.models: list[dict[str, Any]] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        arrays, metrics = super().aggregate_train(server_round, replies)
        assert arrays is not None
        self.models.append(numbers(arrays))
        return arrays, metrics


def writers() -> ClientApp:
    """Every number of a model becomes 100 times its round, and 1 more at node 1."""
    app = ClientApp(mods=[step_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = int(message.content.config_records["config"]["server-round"])  # type: ignore[arg-type]
        value = 100 * number + int(context.node_config["partition-id"])
        arrays = {n: np.full_like(a, value) for n, a in arrays_of(message.content.array_records["arrays"]).items()}
        metrics = MetricRecord({"num-examples": len(steps_of(message))})
        return Message(RecordDict({"arrays": record_of(arrays), "metrics": metrics}), reply_to=message)

    return app


def detached_in_round_1(how: Any, rates: dict[int, float]) -> tuple[Keeping, SubModels]:
    """Three rounds of two nodes; what node 1 was given in round 1 is there when round 3 begins."""
    inner = Keeping()
    strategy = SubModels(
        inner, GROUPS, assign=lambda number, key, row: 1.0 if key == "0" else rates[number], how=how, scaler=False
    )

    def decide(progress: Progress) -> Decision:
        return Detach() if (progress.round, progress.node_id) == (1, 1001) else Continue()

    with LocalGrid(writers(), 2) as local:
        clock = VirtualClock(local, [Device(step_s=1.0), Device(step_s=1.1)], [Link(), Link()])
        grid = SteppedGrid(clock, 3, decide)
        strategy.start(grid, whole(), num_rounds=3, train_config=ConfigRecord({"local-steps": STEPS}))
        assert [event.outcome for event in grid.events if event.outcome.startswith("returned late")]
    return inner, strategy


@pytest.mark.parametrize(
    ("how", "rates"), [("fedrolex", {1: 0.5, 2: 0.5, 3: 0.5}), ("heterofl", {1: 0.25, 2: 0.5, 3: 0.5})]
)
def test_late_work_is_merged_where_its_own_round_put_it(how: Any, rates: dict[int, float]) -> None:
    inner, strategy = detached_in_round_1(how, rates)

    def window(number: int) -> Any:
        chosen = rolling(GROUPS, rates[number], number) if how == "fedrolex" else prefix(GROUPS, rates[number])
        return index_of(GROUPS, chosen)

    for name, found in inner.models[2].items():
        total, count = np.full(found.shape, 300.0), np.ones(found.shape)
        for value, number in ((301.0, 3), (101.0, 1)):
            where = brackets(found.shape, window(number)[name])
            total[where] += value
            count[where] += 1
        np.testing.assert_allclose(found, total / count, rtol=1e-6, err_msg=name)
    assert not [event for event in strategy.events() if event.what == "refused"]


def test_after_a_checkpoint_late_work_of_a_rolling_window_is_left_out_and_said() -> None:
    # The strategy that sent it is gone: where its channels lay nobody knows, and equal shapes say nothing.
    strategy = SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=0.5, how="fedrolex", scaler=False)
    with LocalGrid(writers(), 2) as grid:
        asked = list(strategy.configure_train(4, whole(), ConfigRecord({"local-steps": 2}), grid))
        reply, _ = grid.send_and_receive(asked)
    late = Message(RecordDict({**reply.content, LATE_RECORD: ConfigRecord({"base-round": 3})}), reply_to=asked[0])
    set_metadata(late, reply_to_message_id="of-another-run")
    strategy.aggregate_train(4, [late, reply])
    (refused,) = (event for event in strategy.events() if event.what == "refused")
    assert refused.values["code"] == "unasked"


@pytest.mark.parametrize("weight", [math.nan, math.inf, -1.0])
def test_a_weight_that_is_none_costs_its_own_reply_alone(weight: float) -> None:
    def lies(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        if context.node_config["partition-id"] == 1:
            reply.content["metrics"] = MetricRecord({"num-examples": weight})
        return reply

    strategy = SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=0.5)
    arrays = run(strategy, rounds=1, client=app(mods=[lies])).arrays
    assert not same_model(arrays, whole())
    assert all(np.isfinite(array).all() for array in numbers(arrays).values())
    (refused,) = (event for event in strategy.events() if event.what == "refused")
    assert (refused.node, refused.values["code"]) == ("1", "num-examples")


@pytest.mark.parametrize("idle", [{0, 1, 2, 3}, {3}])
def test_who_weighs_nothing_changes_nothing(idle: set[int]) -> None:
    def nothing(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        if context.node_config["partition-id"] in idle:
            reply.content["metrics"] = MetricRecord({"num-examples": 0, "loss": 1.0})
        return reply

    # Node 3 alone holds the upper half of the channels.
    assign = {"0": 0.5, "1": 0.5, "2": 0.5, "3": 1.0}
    strategy = SubModels(FedAvg(fraction_evaluate=0.0), GROUPS, assign=assign)
    arrays = run(strategy, rounds=1, client=app(mods=[nothing])).arrays
    found, before = numbers(arrays), numbers(whole())
    if len(idle) == 4:
        assert not found
        assert len([event for event in strategy.events() if event.what == "refused"]) == 4
    else:
        assert np.array_equal(found["linear0.weight"][4:], before["linear0.weight"][4:])
        assert not np.array_equal(found["linear0.weight"][:4], before["linear0.weight"][:4])
