"""`Tuned`: the laws of a layer, neutral without reports, what is proposed after which reports, and exploring."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy
from laws.layer_laws import LayerLaws
from toy import flower_strategies, initial_model, same_model, toy_app
from tuned_cases import NODES, START, doubling, layer, run, telling_app

from flower_edge.clients.tuning import report
from flower_edge.rounds import Round
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies import Layer, Layered
from flower_edge.tuning import HYPERPARAMETER_RECORD, Value


class TestTunedLaws(LayerLaws):
    def make(self) -> Layer[Any]:
        return layer()


class TestTunedWithReportsLaws(LayerLaws):
    app = staticmethod(lambda: telling_app(doubling))

    def make(self) -> Layer[Any]:
        return layer(explore=0.5, seed=3)


@pytest.mark.parametrize("name", ["FedAdam", "Krum", "DifferentialPrivacyClientSideFixedClipping"])
def test_without_reports_the_model_of_other_strategies_is_bit_for_bit_its_own(name: str) -> None:
    make, app, model = flower_strategies()[name]

    def model_of(wrap: Callable[[Strategy], Any]) -> ArrayRecord:
        random.seed(3)
        np.random.seed(3)
        with LocalGrid(app(), NODES) as grid:
            arrays: ArrayRecord = wrap(make()).start(grid, model(), num_rounds=2).arrays
        return arrays

    assert same_model(model_of(lambda inner: inner), model_of(lambda inner: Layered(inner, layer())))


def test_an_ordinary_client_reads_the_proposal_in_its_config() -> None:
    configs: list[dict[str, Any]] = []

    def mod(message: Message, context: Context, call_next: Any) -> Message:
        configs.append(dict(message.content.config_records["config"].items()))
        answer: Message = call_next(message, context)
        return answer

    state = run(toy_app([mod]), layer(), rounds=2)
    assert [{name: config[name] for name in START} for config in configs] == [START] * 2 * NODES
    assert {config["server-round"] for config in configs} == {1, 2}
    assert state.proposal == START


def test_reports_move_the_next_proposal_and_not_the_present_one() -> None:
    seen: list[tuple[int, dict[str, Value]]] = []
    state = run(telling_app(doubling, seen), layer(), rounds=3)
    sent = [values["lr"] for _, values in seen]
    np.testing.assert_allclose(sent, [0.01] * NODES + [0.02] * NODES + [0.04] * NODES)
    assert state.proposal == {**START, "lr": pytest.approx(0.08)}
    assert len(state.reports) == NODES


def test_the_strategy_sees_no_report() -> None:
    seen: list[list[str]] = []

    class Looking(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            replies = list(replies)
            seen.extend(list(reply.content) for reply in replies)
            return super().aggregate_train(server_round, replies)

    with LocalGrid(telling_app(doubling), NODES) as grid:
        Layered(Looking(fraction_evaluate=0.0), layer()).start(grid, initial_model(), num_rounds=1)
    assert seen == [["arrays", "metrics"]] * NODES


def test_each_kind_is_merged_in_its_own_way() -> None:
    def tell(node: int, values: dict[str, Value]) -> tuple[Mapping[str, Any], Any]:
        return {
            "lr": 10.0 ** -(node % 3 + 1),
            "batch-size": (8, 8, 16, 64, 64, 128)[node],
            "loss": "mse" if node else "ce",
        }, None

    # Weights of the toy nodes are nearly even: 20 + 3 node examples.
    state = run(telling_app(tell), layer(trim=0.0), rounds=1)
    weights = np.array([20.0 + 3.0 * node for node in range(NODES)])
    exponents = np.array([-(node % 3 + 1.0) for node in range(NODES)])
    assert state.proposal["lr"] == pytest.approx(10.0 ** np.average(exponents, weights=weights))
    assert (state.proposal["batch-size"], state.proposal["loss"]) == (64, "mse")


def test_some_hyperparameters_may_be_told_and_the_others_stay() -> None:
    state = run(telling_app(lambda node, values: ({"loss": "mse"}, 0.5)), layer(), rounds=2)
    assert state.proposal == {**START, "loss": "mse"}


def test_what_strangers_tell_is_left_out_counted_and_never_proposed() -> None:
    lies: list[tuple[Mapping[str, Any], Any]] = [
        ({"lr": 1e9}, 0.5),
        ({"lr": float("nan")}, 0.5),
        ({"batch-size": 8.0}, 0.5),
        ({"loss": "none", "other": 1}, 0.5),
        ({f"x{i}": 1 for i in range(200)}, 0.5),
    ]

    def tell(node: int, values: dict[str, Value]) -> tuple[Mapping[str, Any], Any]:
        return lies[node] if node < len(lies) else ({"lr": 0.5}, 0.5)

    state = run(telling_app(tell), layer(), rounds=1)
    assert state.proposal == {**START, "lr": 0.5}
    assert dict(state.left_out) == {"out of bounds": 3, "type": 1, "unknown": 1, "entries": 1}
    assert layer().metrics(state) == {
        "tuned_lr": 0.5,
        "tuned_batch-size": 32.0,
        "tuned_loss": 0,
        "tuning_reports": 1,
        "tuning_left_out": 6,
    }


def test_a_report_that_is_no_config_record_or_has_no_weight_is_counted() -> None:
    def mod(message: Message, context: Context, call_next: Any) -> Message:
        reply: Message = call_next(message, context)
        reply.content[HYPERPARAMETER_RECORD] = MetricRecord({"lr": 0.5})
        return reply

    assert dict(run(toy_app([mod]), layer(), rounds=1).left_out) == {"type": NODES}
    app = telling_app(lambda node, values: ({"lr": 0.5}, None))
    assert dict(run(app, layer(weight_key="samples"), rounds=1).left_out) == {"weight": NODES}


def test_one_liar_of_six_cannot_move_the_proposal_out_of_the_others_range() -> None:
    def tell(node: int, values: dict[str, Value]) -> tuple[Mapping[str, Any], Any]:
        return ({"lr": 1.0, "batch-size": 4}, 1e9) if node == 5 else ({"lr": 0.01 * (1 + node), "batch-size": 64}, 0.1)

    state = run(telling_app(tell), layer(by_score="no", trim=0.25), rounds=1)
    assert 0.01 <= float(state.proposal["lr"]) <= 0.05
    assert state.proposal["batch-size"] == 64


def test_batches_of_replies_come_to_what_all_of_them_at_once_do() -> None:
    tuned, round_ = layer(), Round(1)

    with LocalGrid(toy_app(), NODES) as grid:
        nodes = list(grid.get_node_ids())

    def replies() -> list[Message]:
        answers = []
        for i, node in enumerate(nodes):
            content = RecordDict({"metrics": MetricRecord({"num-examples": 10 + i})})
            told = report(content, {"lr": 0.01 * (1 + i)}, 0.1 * i)
            with LocalGrid(toy_app(), NODES):
                answers.append(Message(told, reply_to=Message(RecordDict(), node, "train")))
        return answers

    _, whole = tuned.inbound(tuned.init(), round_, replies())
    parts = tuned.init()
    for reply in reversed(replies()):
        _, parts = tuned.inbound(parts, round_, [reply])
    assert parts.proposal == whole.proposal
    assert len(whole.reports) == NODES
    # A node that answers twice counts once.
    assert tuned.inbound(whole, round_, replies()[:2])[1].proposal == whole.proposal


def test_errors_and_evaluations_are_left_as_they_are() -> None:
    tuned = layer()
    with LocalGrid(toy_app(), 1):
        asked = Message(RecordDict({"arrays": initial_model()}), 1000, "evaluate")
        broken = Message(Error(2, "no"), reply_to=Message(RecordDict(), 1000, "train"))
    content = asked.content
    messages, state = tuned.outbound(tuned.init(), Round(1, kind="evaluate"), [asked])
    assert messages[0].content is content
    replies, state = tuned.inbound(state, Round(1), [broken])
    assert replies == [broken]
    assert state == tuned.init()


# -- exploring -------------------------------------------------------------------------------------------------------


def test_exploring_nodes_are_sent_neighbours_the_same_ones_again() -> None:
    def sent(seed: int) -> list[dict[str, Value]]:
        seen: list[tuple[int, dict[str, Value]]] = []
        run(telling_app(lambda node, values: None, seen), layer(explore=0.5, seed=seed), rounds=2)
        return [values for _, values in sorted(seen[:NODES], key=lambda told: told[0])] + [v for _, v in seen[NODES:]]

    values = sent(1)
    assert values == sent(1)
    assert values != sent(2)
    assert {value["lr"] for value in values} <= {0.005, 0.01, 0.02}
    assert 0 < sum(value["lr"] != 0.01 for value in values) < len(values)


def test_nodes_that_only_try_what_they_are_sent_find_the_better_value() -> None:
    def tell(node: int, values: dict[str, Value]) -> tuple[Mapping[str, Any], Any]:
        return values, -abs(float(np.log(float(values["lr"]) / 0.4)))

    exploring = layer(explore=0.67, seed=1)
    assert 0.1 < float(run(telling_app(tell), exploring, rounds=12).proposal["lr"]) < 1.0
    assert run(telling_app(tell), layer(), rounds=12).proposal["lr"] == 0.01
