"""A terminal that has reached a limit no longer trains; the others, and the strategy, do not notice."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg, Krum, Result, Strategy
from laws.layer_laws import LayerLaws, NeutralLayerLaws
from toy import initial_model, same_model, toy_app

from flower_edge.errors import ConfigError, NotEnoughNodes
from flower_edge.rounds import Round
from flower_edge.rules import Rule
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import Hierarchical, Layer, Layered, blocks
from flower_edge.strategies.layered import LayeredGrid
from flower_edge.strategies.retire import Retire, RetireState
from flower_edge.termination import Limits, NoImprovement, Score

NODES = 4

Trained = list[tuple[int, int]]


class Sent(Layer[None]):
    """Writes down who was asked to train, as (round, partition)."""

    def __init__(self, trained: Trained) -> None:
        self.trained = trained

    def outbound(self, state: None, round: Round, messages: list[Message]) -> tuple[list[Message], None]:
        if round.kind == "train":
            self.trained += [(round.cloud, message.metadata.dst_node_id - 1000) for message in messages]
        return messages, None


def run(retire: Retire, strategy: Strategy | None = None, *, app: ClientApp | None = None, **options: Any) -> Trained:
    trained: Trained = []
    random.seed(1)
    rounds, seconds = options.pop("rounds", 6), options.pop("seconds", None)
    with LocalGrid(app or toy_app(), NODES) as local:
        grid = local if seconds is None else VirtualClock(local, [Device(fixed_s=s) for s in seconds], [Link()] * NODES)
        layered = Layered(
            strategy or FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1), Sent(trained), retire
        )
        layered.start(grid, initial_model(), num_rounds=rounds, timeout=0.3, **options)
    return trained


def by_round(trained: Trained) -> dict[int, list[int]]:
    return {number: sorted(node for k, node in trained if k == number) for number, _ in trained}


def moody_app(load: Callable[[int, int], float]) -> ClientApp:
    """The toy app, whose clients tell their load by partition and how often they were asked."""
    app, inner = ClientApp(), toy_app()
    asked: dict[int, int] = {}

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return inner(message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return inner(message, context)

    @app.query("conditions")
    def conditions(message: Message, context: Context) -> Message:
        node = int(context.node_config["partition-id"])
        asked[node] = asked.get(node, 0) + 1
        record = ConfigRecord({"load": load(node, asked[node])})
        return Message(RecordDict({"conditions": record}), reply_to=message)

    return app


class TestRetireFar(NeutralLayerLaws):
    def make(self) -> Layer[Any]:
        return Retire(Limits(rounds=99, score=Score("accuracy", 2.0), wall_s=1e9))


class TestRetire(LayerLaws):
    def make(self) -> Layer[Any]:
        return Retire(Limits(rounds=2), for_rounds=1)

    def run(self, layer: Layer[Any], rounds: int = 3) -> tuple[Any, LayeredGrid]:
        # Four of five train in each round, so after two rounds three or more rest, and one that is left is enough.
        return super().run(layer, rounds=2)


@pytest.mark.parametrize("make", [FedAvg, FedAdam, lambda: Krum(num_malicious_nodes=0)], ids=["FedAvg", "Adam", "Krum"])
def test_two_lines_around_a_flower_strategy_end_who_took_part_often_enough(make: Callable[[], Strategy]) -> None:
    strategy = make()
    strategy.fraction_train, strategy.min_train_nodes, strategy.min_available_nodes = 0.5, 2, 2  # type: ignore[attr-defined]
    trained = run(Retire(Limits(rounds=3)), strategy, rounds=6)
    times = [sum(node == k for _, node in trained) for k in range(NODES)]
    assert times == [3, 3, 3, 3]


def test_the_training_ends_when_nobody_is_left(tmp_path: Path) -> None:
    with RunFolder.create("run", config={}, seed=1, root=tmp_path) as folder:
        trained = run(Retire(Limits(rounds=2)), rounds=6, run=folder)
        events = folder.rows("event")
    assert by_round(trained) == {1: [0, 1, 2, 3], 2: [0, 1, 2, 3]}
    assert [(row.round, row.values["what"], row.node) for row in events] == [
        *((2, "retired", str(k)) for k in range(NODES)),
        (2, "stopped", ""),
    ]
    assert events[0].values["reason"] == "2 of 2 rounds are done"
    assert "the training of 4 of 4 terminals has ended, and 2 are needed" in str(events[-1].values["text"])


def test_a_reached_score_ends_only_those_that_reached_it() -> None:
    app, inner = ClientApp(), toy_app()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = inner(message, context)
        node, number = int(context.node_config["partition-id"]), int(message.content["config"]["server-round"])  # type: ignore[arg-type, call-overload, index]
        reply.content["metrics"]["accuracy"] = 0.9 if number > node else 0.1  # type: ignore[call-overload, index]
        return reply

    trained = run(Retire(Limits(score=Score("accuracy", 0.8))), app=app, rounds=3)
    assert by_round(trained) == {1: [0, 1, 2, 3], 2: [1, 2, 3], 3: [2, 3]}


def test_no_improvement_of_its_own_metric_ends_a_terminal_also_by_its_evaluations() -> None:
    app, inner = ClientApp(), toy_app()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return inner(message, context)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        node, number = int(context.node_config["partition-id"]), int(message.content["config"]["server-round"])  # type: ignore[arg-type, call-overload, index]
        score = number if node != 2 else 1
        metrics = MetricRecord({"num-examples": 1, "accuracy": score})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    retire = Retire(Limits(no_improvement=NoImprovement("accuracy", 2)))
    trained = run(retire, FedAvg(), app=app, rounds=5)
    assert by_round(trained)[3] == [0, 1, 2, 3]
    assert by_round(trained)[4] == [0, 1, 3]


def test_seconds_are_those_the_clock_measured_for_each_terminal() -> None:
    trained = run(Retire(Limits(trained_s=10.0), at_least=1), rounds=4, seconds=[2.0, 4.0, 5.0, 10.0])
    assert by_round(trained) == {1: [0, 1, 2, 3], 2: [0, 1, 2], 3: [0, 1], 4: [0]}


def test_without_a_clock_they_are_those_the_terminal_tells_and_nobody_telling_is_an_error() -> None:
    app, inner = ClientApp(), toy_app()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = inner(message, context)
        reply.content["metrics"]["busy_s"] = 1.0 + int(context.node_config["partition-id"])  # type: ignore[call-overload, index]
        return reply

    trained = run(Retire(Limits(trained_s=3.0), seconds_key="busy_s"), app=app, rounds=2)
    assert by_round(trained) == {1: [0, 1, 2, 3], 2: [0, 1]}
    with pytest.raises(ConfigError, match="report the metric 'train_s'"):
        run(Retire(Limits(trained_s=3.0)))


def test_a_rule_ends_those_of_whom_it_is_known_to_hold() -> None:
    app = moody_app(lambda node, nth: 0.99 if node < nth else 0.1)
    trained = run(Retire(Limits(when=Rule("load > 0.9")), at_least=1), app=app, rounds=3)
    assert by_round(trained) == {1: [1, 2, 3], 2: [2, 3], 3: [3]}
    # Terminals that cannot be asked tell nothing, and nothing is held against them.
    assert by_round(run(Retire(Limits(when=Rule("load > 0.9"))), rounds=2)) == {1: [0, 1, 2, 3], 2: [0, 1, 2, 3]}


def test_a_rule_also_sees_what_is_always_true_of_a_terminal() -> None:
    trained = run(Retire(Limits(when=Rule("partition_id == 2")), ask=False), rounds=2)
    assert by_round(trained) == {1: [0, 1, 3], 2: [0, 1, 3]}


def test_a_rest_of_two_rounds_lasts_two_rounds(tmp_path: Path) -> None:
    app = moody_app(lambda node, nth: 0.99 if node == 1 and nth == 2 else 0.1)
    with RunFolder.create("run", config={}, seed=1, root=tmp_path) as folder:
        trained = run(Retire(Limits(when=Rule("load > 0.9")), for_rounds=2), app=app, rounds=5, run=folder)
        events = [(row.round, row.values["what"], row.node) for row in folder.rows("event")]
    assert [number for number, nodes in by_round(trained).items() if 1 in nodes] == [1, 4, 5]
    assert events == [(2, "retired", "1"), (4, "returned", "1")]

    one = Retire(Limits(score=Score("half", 1.0)), for_rounds=2)
    half, inner = ClientApp(), toy_app()

    @half.train()
    def train(message: Message, context: Context) -> Message:
        reply = inner(message, context)
        reply.content["metrics"]["half"] = float(int(context.node_config["partition-id"]) < 2)  # type: ignore[call-overload, index]
        return reply

    trained = run(one, app=half, rounds=5)
    assert [number for number, nodes in by_round(trained).items() if 0 in nodes] == [1, 4]


def test_a_rest_in_seconds_is_over_when_virtual_time_has_passed(tmp_path: Path) -> None:
    app = moody_app(lambda node, nth: 0.99 if node == 1 and nth == 1 else 0.1)
    with RunFolder.create("run", config={}, seed=1, root=tmp_path) as folder:
        retire = Retire(Limits(when=Rule("load > 0.9")), for_s=25.0)
        trained = run(retire, app=app, rounds=4, seconds=[10.0] * NODES, run=folder)
        retired, returned = folder.rows("event")
    assert retired.virtual_s is not None
    assert returned.virtual_s is not None
    assert returned.virtual_s - retired.virtual_s >= 25.0
    assert min(number for number, node in trained if node == 1) == returned.round
    assert 1 < returned.round < 4


def test_evaluation_is_left_alone() -> None:
    asked: list[int] = []

    class Evaluated(Layer[None]):
        def outbound(self, state: None, round: Round, messages: list[Message]) -> tuple[list[Message], None]:
            if round.kind == "evaluate":
                asked.append(len(messages))
            return messages, None

    with LocalGrid(toy_app(), NODES) as grid:
        retire = Retire(Limits(when=Rule("partition_id < 2")), ask=False)
        Layered(FedAvg(), Evaluated(), retire).start(grid, initial_model(), num_rounds=2)
    assert asked == [NODES, NODES]


def test_too_few_from_the_first_are_waited_for_and_too_few_later_end_the_training() -> None:
    strategy = FedAvg(fraction_evaluate=0.0, min_available_nodes=3, min_train_nodes=3)
    with pytest.raises(NotEnoughNodes, match="let the layers narrow less"):
        run(Retire(Limits(when=Rule("partition_id < 2")), ask=False), strategy)
    trained = run(Retire(Limits(trained_s=10.0), at_least=3), strategy, rounds=9, seconds=[1.0, 2.0, 5.0, 5.0])
    assert sorted(by_round(trained)) == [1, 2]


def test_inside_an_edge_only_its_own_terminals_end_and_the_other_edge_goes_on() -> None:
    def edge(cell: str) -> Strategy:
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        return Layered(strategy, Sent(trained), Retire(Limits(rounds=1 if cell == "edge-0" else 9)))

    trained: Trained = []
    with LocalGrid(toy_app(), NODES) as grid:
        Hierarchical(edge=edge, cells=blocks(2)).start(grid, initial_model(), num_rounds=3)
    assert by_round(trained) == {1: [0, 1, 2, 3], 2: [2, 3], 3: [2, 3]}


def test_a_terminal_takes_its_standing_to_the_next_edge() -> None:
    source = target = Retire(Limits(rounds=3), for_rounds=2)
    with LocalGrid(toy_app(), NODES) as grid:
        one = LayeredGrid(grid, [source])
        for number in range(1, 4):
            one.announced(Round(number))
            nodes = list(one.get_node_ids())
            list(one.send_and_receive([_order(node, number) for node in nodes[: 1 if number < 3 else 2]]))
        parcels = one.hand_over(1000)
        two = LayeredGrid(grid, [target])
        two.take_over(1000, parcels)
        two.take_over(1001, one.hand_over(1001))
        assert one.hand_over(1000)[0][1] is None, "the first edge has forgotten it"
        shown = []
        for number in range(4, 8):
            two.announced(Round(number))
            shown.append(1000 in two.get_node_ids())
        state: RetireState = two.states[0]
    assert shown == [False, False, True, True]
    assert state.terminals["1"].spent.rounds == 1


def _order(node: int, number: int) -> Message:
    content = RecordDict({"arrays": initial_model(), "config": ConfigRecord({"server-round": number})})
    return Message(content, node, "train")


def test_a_killed_and_resumed_run_ends_as_the_uninterrupted_one(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    class Kills(Layer[None]):
        active = False

        def inbound(self, state: None, round: Round, replies: list[Message]) -> tuple[list[Message], None]:
            if self.active and round.cloud == 4:
                raise Killed
            return replies, state

    def start(folder: RunFolder, *, resume: bool = False, kill: bool = False) -> Result:
        kills = Kills()
        kills.active = kill
        with LocalGrid(toy_app(), NODES) as local:
            clock = VirtualClock(local, [Device(fixed_s=3.0 + k) for k in range(NODES)], [Link()] * NODES)
            strategy = FedAvg(fraction_train=0.5, min_available_nodes=1, min_train_nodes=1)
            layered = Layered(strategy, kills, Retire(Limits(trained_s=9.0), for_rounds=2))
            return layered.start(clock, initial_model(), num_rounds=7, run=folder, resume=resume)

    random.seed(3)
    with RunFolder.create("whole", config={}, seed=1, root=tmp_path) as first:
        whole = start(first)
        expected = [(row.round, row.values) for row in first.rows("event")]
    random.seed(3)
    with pytest.raises(Killed), RunFolder.create("killed", config={}, seed=1, root=tmp_path) as killed:
        start(killed, kill=True)
    random.seed(99)
    with RunFolder.create("resumed", config={}, seed=1, root=tmp_path) as again:
        again.continue_from(RunFolder.open(killed.path))
        resumed = start(again, resume=True)
        told = [(row.round, row.values) for row in again.rows("event") if "what" in row.values]
    assert same_model(whole.arrays, resumed.arrays)
    assert told == expected != []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"for_rounds": 1, "for_s": 1.0}, "give one of them"),
        ({"at_least": 0}, "at_least = 0"),
        ({"for_rounds": 0}, "for_rounds = 0"),
        ({"for_s": 0.0}, "for_s = 0"),
    ],
)
def test_a_rest_that_means_nothing_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Retire(Limits(rounds=1), **options)
