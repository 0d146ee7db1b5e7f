"""Laws of `Layered`: neutral where nothing is asked, loud where something cannot work."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg, Result, Strategy
from toy import flower_strategies, initial_model, same_model, toy_app

from flower_edge.codecs import stc
from flower_edge.errors import ConfigError, ModelMismatch, NestingError, NotEnoughNodes, RoundFailed
from flower_edge.rounds import Round
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.wrapped_grid import announce
from flower_edge.selection import Pipeline
from flower_edge.store import RunFolder
from flower_edge.strategies import Identity, Layer, Layered, Metered, Stage
from flower_edge.strategies.layered import LayeredGrid

NODES = 8
CASES = flower_strategies(NODES)


def run(name: str, wrap: Callable[[Strategy], Strategy], rounds: int = 3) -> Result:
    strategy, app, model = CASES[name]
    random.seed(5)
    np.random.seed(5)
    with LocalGrid(app(), NODES) as grid:
        return wrap(strategy()).start(grid, model(), num_rounds=rounds)


def test_every_strategy_flower_has_is_in_the_list() -> None:
    concrete = set(flower.__all__) - {"Strategy", "Result"}
    assert set(CASES) == concrete


@pytest.mark.parametrize("name", sorted(CASES))
def test_identity_layer_leaves_every_flower_strategy_bit_for_bit_alone(name: str) -> None:
    alone = run(name, lambda strategy: strategy)
    layered = run(name, lambda strategy: Layered(strategy, Identity(), Metered()))
    assert alone.arrays, "the strategy made no model, so the comparison would say nothing"
    assert same_model(alone.arrays, layered.arrays)
    assert alone.train_metrics_clientapp == layered.train_metrics_clientapp
    assert alone.evaluate_metrics_clientapp == layered.evaluate_metrics_clientapp


def test_training_really_changes_the_model() -> None:
    assert not same_model(run("FedAvg", lambda s: Layered(s)).arrays, initial_model())


def test_central_evaluation_is_called_as_flower_calls_it() -> None:
    seen: list[int] = []

    def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
        seen.append(number)
        return MetricRecord({"accuracy": number / 10})

    with LocalGrid(toy_app(), 4) as grid:
        result = Layered(FedAvg()).start(grid, initial_model(), num_rounds=2, evaluate_fn=evaluate)
    assert seen == [0, 1, 2]
    assert result.evaluate_metrics_serverapp[2]["accuracy"] == 0.2


class OwnLoop(FedAvg):
    """A strategy that brings its own start, and announces its rounds to the Grid."""

    def start(self, grid: Grid, initial_arrays: ArrayRecord, num_rounds: int = 3, *args: Any, **kw: Any) -> Result:
        arrays = initial_arrays
        for number in range(1, num_rounds + 1):
            announce(grid, Round(number))
            messages = list(self.configure_train(number, arrays, ConfigRecord(), grid))
            merged, _ = self.aggregate_train(number, list(grid.send_and_receive(messages)))
            assert merged is not None
            arrays = merged
        result = Result()
        result.arrays = arrays
        return result


class Rounds(Layer[list[str]]):
    """Writes down what it is told."""

    def init(self) -> list[str]:
        return []

    def outbound(self, state: list[str], round: Round, messages: list[Message]) -> tuple[list[Message], list[str]]:
        told.append(f"{round}: {len(messages)} out")
        return messages, [*state, str(round)]

    def stop(self, state: list[str], round: Round) -> str | None:
        return "two rounds are enough" if round.cloud == 2 else None


told: list[str] = []


def test_a_strategy_with_its_own_loop_is_started_on_the_layered_grid() -> None:
    told.clear()
    with LocalGrid(toy_app(), 3) as grid:
        result = Layered(OwnLoop(), Rounds()).start(grid, initial_model(), num_rounds=2)
    assert told == ["round 1, train: 3 out", "round 2, train: 3 out"]
    assert not same_model(result.arrays, initial_model())


def test_a_layer_can_end_the_training_and_the_reason_is_kept() -> None:
    with LocalGrid(toy_app(), 3) as grid:
        result = Layered(FedAvg(), Rounds()).start(grid, initial_model(), num_rounds=5)
    assert sorted(result.train_metrics_clientapp) == [1, 2]


class First(Layer[None]):
    """Only the first `count` nodes can be sampled."""

    def __init__(self, count: int) -> None:
        self.count = count

    def narrow(self, state: None, round: Round, grid: Grid, nodes: list[int]) -> tuple[list[int], None]:
        return nodes[: self.count], None


def test_narrowing_happens_before_the_strategy_samples() -> None:
    with LocalGrid(toy_app(), 6) as grid:
        Layered(FedAvg(min_train_nodes=2), First(2)).start(grid, initial_model(), num_rounds=2)
        called = [len(grid.context_of(node).state) > 0 for node in grid.get_node_ids()]
    assert called == [True, True, False, False, False, False]


def test_a_narrowed_grid_without_enough_nodes_raises_after_the_deadline_and_says_who_has_how_many() -> None:
    with LocalGrid(toy_app(), 6) as grid, pytest.raises(NotEnoughNodes, match=r"has 1 node, .* needs 3 .* 0.5 s"):
        Layered(FedAvg(min_train_nodes=3), First(1)).start(grid, initial_model(), num_rounds=1, timeout=0.5)


def test_a_round_in_which_all_replies_failed_raises_with_the_first_reason() -> None:
    faults = [Fault(node=i, kind="raise", at=2, reason=f"disk {i} full") for i in range(3)]
    with (
        LocalGrid(toy_app(), 3, script=faults) as grid,
        pytest.raises(RoundFailed, match=r"all 3 replies .* node 1\d+: disk \d full"),
    ):
        Layered(FedAvg(fraction_evaluate=0.0)).start(grid, initial_model(), num_rounds=3)


def test_flower_alone_keeps_the_old_model_silently_where_layered_raises() -> None:
    faults = [Fault(node=i, kind="raise") for i in range(3)]
    with LocalGrid(toy_app(), 3, script=faults) as grid:
        assert not FedAvg(fraction_evaluate=0.0).start(grid, initial_model(), num_rounds=1).arrays


def test_one_failure_is_counted_and_the_round_goes_on() -> None:
    faults = [Fault(node=1, kind="raise", at=1)]
    with LocalGrid(toy_app(), 3, script=faults) as grid:
        layered = LayeredGrid(grid, [Metered()])
        messages = [Message(content=_content(), dst_node_id=i, message_type="train") for i in grid.get_node_ids()]
        announce(layered, Round(1))
        replies = list(layered.send_and_receive(messages))
    assert [reply.has_error() for reply in replies] == [False, True, False]
    assert layered.metrics()["failed_messages"] == 1
    assert layered.metrics()["up_messages"] == 2


def odd_app(odd: int) -> ClientApp:
    """The toy client, but one partition answers with another model."""
    inner, app = toy_app(), ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = inner(message, context)
        if context.node_config["partition-id"] == odd:
            other = ArrayRecord({"weight": Array(np.zeros(3, np.float32)), "bias": Array(np.zeros(1, np.float32))})
            reply.content["arrays"] = other
        return reply

    return app


def test_a_node_with_another_model_is_named_with_its_arrays() -> None:
    expected = r"round 1, train: node 1002 .* 'weight' has shape \(3,\), expected \(6,\)"
    with LocalGrid(odd_app(2), 4) as grid, pytest.raises(ModelMismatch, match=expected):
        Layered(FedAvg(fraction_evaluate=0.0)).start(grid, initial_model(), num_rounds=1)


def test_a_node_that_never_answers_is_counted_and_the_run_folder_stays_readable(tmp_path: Path) -> None:
    silent = [Fault(node=3, kind="silent")]
    with (
        RunFolder.create("silent", config={}, seed=1, root=tmp_path) as run,
        LocalGrid(toy_app(), 4, script=silent) as grid,
    ):
        strategy = Layered(FedAvg(fraction_evaluate=0.0), Metered())
        result = strategy.start(grid, initial_model(), num_rounds=2, timeout=5, run=run)
    assert result.arrays
    counted = [row.values for row in RunFolder.open(run.path).rows("nodes")]
    assert [(row["nodes_sampled"], row["nodes_replied"], row["nodes_failed"]) for row in counted] == [(4, 3, 1)] * 2


def test_a_run_that_fails_leaves_its_rounds_and_the_reason(tmp_path: Path) -> None:
    faults = [Fault(node=i, kind="raise", at=3, reason="disk full") for i in range(3)]
    with (
        pytest.raises(RoundFailed),
        RunFolder.create("failing", config={}, seed=1, root=tmp_path) as run,
        LocalGrid(toy_app(), 3, script=faults) as grid,
    ):
        Layered(FedAvg()).start(grid, initial_model(), num_rounds=3, run=run)
    again = RunFolder.open(run.path)
    assert again.status == "failed"
    assert "disk full" in str(again.info["error"])
    assert [row.round for row in again.rows("nodes")] == [1]
    assert again.latest_checkpoint() is not None


def _content() -> Any:
    from flwr.app import RecordDict

    return RecordDict({"arrays": initial_model(), "config": ConfigRecord({"server-round": 1})})


def test_metered_counts_the_bytes_that_are_there() -> None:
    with LocalGrid(toy_app(), 3) as grid:
        layered = LayeredGrid(grid, [Metered()])
        announce(layered, Round(1))
        messages = [Message(content=_content(), dst_node_id=i, message_type="train") for i in grid.get_node_ids()]
        replies = list(layered.send_and_receive(messages))
    by_hand = sum(
        len(array.data) + len(name) for message in messages for name, array in message.content["arrays"].items()
    )
    counted = layered.metrics()
    # What is not an array is the config: "server-round" and one integer, 20 bytes a message in Flower's own count.
    assert counted["down_bits"] == 8 * (by_hand + sum(m.content["config"].count_bytes() for m in messages))
    assert counted["up_bits"] == 8 * sum(r.count_bytes() for reply in replies for r in reply.content.values())


# -- wrong nestings --------------------------------------------------------------------------------------------------


class Encoder(Layer[None]):
    stage = Stage.BYTES


def dp(strategy: Strategy) -> Strategy:
    return flower.DifferentialPrivacyServerSideFixedClipping(
        strategy, noise_multiplier=0.0, clipping_norm=10.0, num_sampled_clients=3
    )


def test_metered_counts_all_exchanges_of_a_round_and_begins_anew_with_the_next() -> None:
    metered = Metered()
    state = metered.init()
    with LocalGrid(toy_app(), nodes=1):
        message = Message(RecordDict({"config": ConfigRecord({"x": 1})}), 7, "train")
    counted = []
    for number in (1, 1, 1, 2):
        _, state = metered.outbound(state, Round(number), [message])
        counted.append((metered.metrics(state)["down_messages"], metered.metrics(state)["total_down_bits"] // 72))
    assert counted == [(1, 1), (2, 2), (3, 3), (1, 4)]
    assert metered.load(metered.dump(state)) == state


def test_dp_inside_layered_works() -> None:
    with LocalGrid(toy_app(), 3) as grid:
        assert Layered(dp(FedAvg()), Metered()).start(grid, initial_model(), num_rounds=1).arrays


def test_dp_around_layered_is_refused_before_anything_is_sent() -> None:
    with LocalGrid(toy_app(), 3) as grid:
        with pytest.raises(NestingError, match=r"Layered\(Wrapper\(strategy"):
            dp(Layered(FedAvg())).start(grid, initial_model(), num_rounds=1)
        assert grid.state_dict()["pushed"] == 0


def test_a_wrapper_with_a_layered_inside_is_refused_by_the_outer_layered() -> None:
    with pytest.raises(NestingError, match=r"Layered\(DifferentialPrivacyServerSideFixedClipping\(strategy"):
        Layered(dp(Layered(FedAvg())))


def test_layered_around_layered_is_refused() -> None:
    with pytest.raises(NestingError, match="list all layers in one"):
        Layered(Layered(FedAvg(), Metered()), Identity())


def test_metered_not_last_is_refused_with_the_right_order() -> None:
    with pytest.raises(NestingError, match=r"Layered\(strategy, Encoder\(...\), Metered\(...\)\)"):
        Layered(FedAvg(), Metered(), Encoder())


def test_a_model_layer_after_an_encoder_is_refused_with_the_right_order() -> None:
    with pytest.raises(NestingError, match=r"Layered\(strategy, Identity\(...\), Encoder\(...\)\)"):
        Layered(FedAvg(), Encoder(), Identity())


def test_a_strategy_in_the_place_of_a_layer_is_refused() -> None:
    with pytest.raises(NestingError, match="FedAvg is a strategy"):
        Layered(FedAvg(), FedAvg())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("strategy", "layer", "words"),
    [
        (FedAvg(), Metered, r"is not a Layer; write Metered\(\.\.\.\)"),
        (FedAvg(), stc(0.05), r"is not a Layer; a codec goes into one: Compressed\(codec\)"),
        (FedAvg(), Pipeline(3), r"is not a Layer; it goes into one: Selected\(pipeline\)"),
        (FedAvg(), 3, "3 is not a Layer; subclass flower_edge.strategies.Layer"),
        (FedAvg, Metered(), r"the first argument of Layered is one; write FedAvg\(\.\.\.\)"),
        (3, Metered(), "3 is not a Flower strategy; the first argument of Layered is one$"),
    ],
)
def test_what_is_meant_as_a_layer_or_a_strategy_and_is_none_is_told_what_to_write(
    strategy: Any, layer: Any, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Layered(strategy, layer)


def test_something_that_is_no_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a Layer"):
        Layered(FedAvg(), "metered")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (0, r"FedAvg waits for 2 nodes and this LocalGrid has 0, .*; LocalGrid\(app, nodes=2\)$"),
        (1, r"this LocalGrid has 1, .*, or FedAvg\(min_train_nodes=1, min_available_nodes=1\)$"),
    ],
)
def test_a_strategy_that_would_wait_for_ever_for_nodes_that_cannot_come_says_so_at_once(nodes: int, words: str) -> None:
    with LocalGrid(toy_app(), nodes) as grid, pytest.raises(NotEnoughNodes, match=words):
        Layered(FedAvg(), Metered()).start(grid, initial_model(), num_rounds=1)


def test_nodes_that_are_offline_are_waited_for_and_a_sampling_of_ones_own_is_not_judged() -> None:
    class Everybody(FedAvg):
        def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Grid) -> Any:
            config["server-round"] = server_round
            content = RecordDict({"arrays": arrays, "config": config})
            return [Message(content, dst_node_id=node, message_type="train") for node in grid.get_node_ids()]

    with LocalGrid(toy_app(), 1) as grid:
        result = Layered(Everybody(fraction_evaluate=0.0)).start(grid, initial_model(), num_rounds=1)
    assert not same_model(result.arrays, initial_model())
    patient = FedAvg(min_train_nodes=1, min_available_nodes=1, fraction_evaluate=0.0)
    with LocalGrid(toy_app(), 2, script=[Fault(0, "drop-out")]) as grid:
        Layered(patient).start(grid, initial_model(), num_rounds=2)
        assert (len(list(grid.get_node_ids())), grid.most_nodes) == (1, 2)


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_strategy_that_returns_no_messages_at_all_is_told_what_to_return(kind: str) -> None:
    class Forgets(FedAvg):
        pass

    setattr(Forgets, f"configure_{kind}", lambda self, *arguments: None)
    with (
        LocalGrid(toy_app(), NODES) as grid,
        pytest.raises(ConfigError, match=rf"Forgets\.configure_{kind} returned None; expected messages, or \[\]"),
    ):
        Layered(Forgets()).start(grid, initial_model(), num_rounds=1)


def test_a_reply_without_a_metric_record_is_named_with_what_belongs_there() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({"arrays": message.content["arrays"]}), reply_to=message)

    words = r"FedAvg could not merge 2 replies: node 100\d sent no MetricRecord; .*MetricRecord\(\{'samples': n, "
    with LocalGrid(app, 2) as grid, pytest.raises(RoundFailed, match=words):
        Layered(FedAvg(weighted_by_key="samples")).start(grid, initial_model(), num_rounds=1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"initial_arrays": {"w": np.ones(3)}}, r"initial_arrays is a dict.*record_of\(arrays\)"),
        ({"num_rounds": 2.0}, r"num_rounds = 2\.0: expected a whole number"),
        ({"train_config": {"lr": 0.1}}, r"train_config = .*write ConfigRecord\("),
        ({"evaluate_fn": lambda number, arrays: (0.3, {"accuracy": 0.9})}, r"evaluate_fn returned \(0\.3, .*MetricRec"),
        ({"evaluate_fn": lambda number, arrays: 0.9 if number else None}, r"evaluate_fn returned 0\.9: .*MetricRec"),
    ],
)
def test_what_start_cannot_begin_with_is_refused_and_it_says_what_to_write(given: dict[str, Any], says: str) -> None:
    with LocalGrid(toy_app(), 2) as grid, pytest.raises(ConfigError, match=says):
        Layered(FedAvg()).start(grid, **{"initial_arrays": initial_model(), "num_rounds": 1, **given})
