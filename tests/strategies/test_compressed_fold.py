"""Folded replies: one mean instead of n models, the same to rounding, and everybody still knows who took part."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from coded import bench, coded_app, distance, run
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import strategy as flower
from toy import flower_strategies, initial_model

from flower_edge.codecs.block import Block
from flower_edge.codecs.error_feedback import stc
from flower_edge.codecs.top_k import TopK
from flower_edge.errors import NestingError
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies import Hierarchical, Layered, blocks
from flower_edge.strategies.compression import Compressed
from flower_edge.wire import record_of

CASES = flower_strategies(6)
FOLDING = ["FedAvg", "FedAvgM", "FedAdam", "FedAdagrad", "FedYogi", "FedProx"]


@pytest.mark.parametrize("name", FOLDING)
@pytest.mark.parametrize("codec", [Block(8), stc(0.5)], ids=["dense", "sparse"])
def test_folded_replies_give_the_model_and_metrics_of_single_ones(name: str, codec: Block) -> None:
    strategy, app, model = CASES[name]
    one, several = (
        run(Compressed(codec, fold=fold), strategy=strategy, app=lambda: coded_app(app), model=model, nodes=6, rounds=4)
        for fold in (True, False)
    )
    assert distance(one.arrays, several.arrays) < 2e-4
    assert list(one.arrays) == list(several.arrays)
    for number in several.train_metrics_clientapp:
        for key, value in several.train_metrics_clientapp[number].items():
            assert one.train_metrics_clientapp[number][key] == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("name", sorted(set(CASES) - set(FOLDING)))
def test_strategies_that_look_at_single_replies_are_refused_by_name(name: str) -> None:
    strategy = CASES[name][0]()
    with pytest.raises(NestingError, match=f"under {type(strategy).__name__}"):
        Layered(strategy, Compressed(Block(8), fold=True))


def test_subclasses_are_taken_to_merge_as_their_parents_and_edges_are_refused() -> None:
    class Own(flower.FedAvg):
        pass

    class OwnMedian(flower.FedMedian):
        pass

    Layered(Own(), Compressed(Block(8), fold=True))
    with pytest.raises(NestingError, match="OwnMedian"):
        Layered(OwnMedian(), Compressed(Block(8), fold=True))
    with pytest.raises(NestingError, match="Hierarchical"):
        Layered(Hierarchical(edge=lambda cell: flower.FedAvg()), Compressed(Block(8), fold=True))


def test_who_took_part_with_which_weight_and_who_failed_is_known_as_before() -> None:
    found = []
    for fold in (False, True):
        with bench(Compressed(Block(8), fold=fold)) as session:
            session.train()
            session.tap.up = lambda replies: [r for r in replies if r.metadata.src_node_id != 1002]
            found.append(session.train())
    single, together = found
    assert together.weights == single.weights
    assert (together.asked, together.sent, together.failed) == (single.asked, single.sent, single.failed)
    assert together.failed == 1


def test_inside_an_edge_the_cell_weighs_as_much_as_its_terminals() -> None:
    def edges(fold: bool) -> ArrayRecord:
        strategy = Hierarchical(
            edge=lambda cell: Layered(flower.FedAvg(), Compressed(Block(8), fold=fold)), cells=blocks(2), seed=3
        )
        with LocalGrid(coded_app(), 6) as grid:
            return strategy.start(grid, initial_model(), num_rounds=3).arrays

    assert distance(edges(True), edges(False)) < 2e-4


def test_replies_against_different_versions_are_folded_about_their_mean() -> None:
    held: list[Message] = []
    results = []
    for fold in (False, True):
        held.clear()
        with bench(Compressed(Block(8), fold=fold), nodes=3) as session:
            session.tap.up = lambda replies: [r for r in replies if r.metadata.src_node_id != 1002 or held.append(r)]  # type: ignore[func-returns-value]
            session.train()
            session.tap.up = lambda replies: [r for r in replies if r.metadata.src_node_id != 1002] + held
            session.train()
            results.append(session.model)
    assert distance(*results) < 2e-4


def test_replies_without_a_weight_go_on_by_themselves() -> None:
    def unweighted() -> ClientApp:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            arrays = message.content.array_records["arrays"]
            weight = -1 if context.node_config["partition-id"] == 0 else 3
            content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": weight, "list": [1, 2]})})
            return Message(content, reply_to=message)

        return app

    with bench(Compressed(Block(8), fold=True), app=lambda: coded_app(unweighted)) as session:
        done = session.train()
    assert done.weights == {1000: -1.0, 1001: 3.0, 1002: 3.0, 1003: 3.0, 1004: 3.0}


def test_folding_many_sparse_updates_takes_no_memory_per_node() -> None:
    size, nodes = 200_000, 12

    def moving() -> ClientApp:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            w = message.content.array_records["arrays"]["w"].numpy()
            w[int(context.node_config["partition-id"]) :: 100] += 1  # type: ignore[misc]
            metrics = MetricRecord({"num-examples": 1})
            return Message(RecordDict({"arrays": record_of({"w": w}), "metrics": metrics}), reply_to=message)

        return app

    peaks = {}
    for fold in (False, True):
        layer = Compressed(TopK(0.01), fold=fold)
        with bench(
            layer,
            app=lambda: coded_app(moving),
            model=lambda: record_of({"w": np.zeros(size, np.float32)}),
            nodes=nodes,
        ) as session:
            session.train()
            replies = session.tap.came
            tracemalloc.start()
            out = session.grid.incoming(replies)
            peaks[fold] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert len(out) == (1 if fold else nodes)
    assert peaks[True] < 5 * 4 * size
    assert peaks[False] > nodes * 4 * size
