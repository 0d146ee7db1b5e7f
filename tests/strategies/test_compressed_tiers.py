"""`Compressed` on every hop of a hierarchy, with late edges, with terminals that go elsewhere, and after a restart."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coded import bench, coded_app, distance
from flwr.app import ArrayRecord, Context
from flwr.serverapp.strategy import FedAdam, FedAvg, Strategy
from toy import initial_model, same_model, toy_app

from flower_edge.clients import edge_app
from flower_edge.clients.codec import codec_mod
from flower_edge.codecs.block import Block
from flower_edge.codecs.error_feedback import ErrorFeedback, stc
from flower_edge.codecs.identity import Identity
from flower_edge.codecs.top_k import TopK
from flower_edge.rounds import Round
from flower_edge.runtime import Device, Link, VirtualClock
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store import RunFolder, tree_from_bytes, tree_to_bytes
from flower_edge.strategies import FedBuff, Hierarchical, Layered, LayeredGrid, LocalTier, blocks
from flower_edge.strategies.compression import Compressed

ONE: dict[str, Any] = {"min_train_nodes": 1, "min_evaluate_nodes": 1, "min_available_nodes": 1}
LAYERS = {
    "identity": Compressed(Identity()),
    "blobs": Compressed(Identity(), down=Identity()),
    "dense": Compressed(Block(8), down=Block(8)),
    "sparse": Compressed(stc(0.8), down=TopK(0.8)),
}
EXACT = ("identity", "blobs")


def plain_edge(cell: str) -> Strategy:
    return FedAvg(**ONE)


def tiered(strategy: Strategy, app: Any = None, nodes: int = 6, rounds: int = 4) -> ArrayRecord:
    with LocalGrid(app or coded_app(), nodes) as grid:
        return strategy.start(grid, initial_model(), num_rounds=rounds).arrays


def check(name: str, coded: ArrayRecord, alone: ArrayRecord) -> None:
    if name in EXACT:
        assert same_model(coded, alone)
    else:
        assert not same_model(coded, alone)
        assert distance(coded, alone) < 0.4 * distance(alone, initial_model())


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_between_edges_and_their_terminals(name: str) -> None:
    def start(edge: Any) -> ArrayRecord:
        return tiered(Hierarchical(edge=edge, cells=blocks(2), edge_rounds=2, seed=1))

    coded = start(lambda cell: Layered(FedAvg(**ONE), LAYERS[name]))
    check(name, coded, start(plain_edge))


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_between_the_centre_and_edges_in_the_server(name: str) -> None:
    def start(*layers: Compressed) -> ArrayRecord:
        inner = Hierarchical(edge=plain_edge, cells=blocks(3), edge_rounds=2, seed=1)
        return tiered(Layered(inner, *layers))

    check(name, start(LAYERS[name]), start())


@pytest.mark.parametrize("mods", [[codec_mod], []], ids=["with the mod", "an edge decodes by itself"])
@pytest.mark.parametrize("name", sorted(LAYERS))
def test_between_the_centre_and_edges_that_are_clients(name: str, mods: list[Any]) -> None:
    def members(cell: str, context: Context) -> list[dict[str, Any]]:
        first = 3 * int(context.node_config["partition-id"])
        return [{"partition-id": first + i, "num-partitions": 6} for i in range(3)]

    def start(*layers: Compressed) -> ArrayRecord:
        app = edge_app(toy_app(), plain_edge, members, mods=mods)
        inner = Hierarchical(tier=LocalTier(), edge_rounds=2, seed=1)
        return tiered(Layered(inner, *layers), app, nodes=2)

    check(name, start(LAYERS[name]), start())


def test_on_both_hops_at_once() -> None:
    def start(*layers: Compressed) -> ArrayRecord:
        inner = Hierarchical(edge=lambda cell: Layered(FedAvg(**ONE), *layers), cells=blocks(2), edge_rounds=2, seed=1)
        return tiered(Layered(inner, *layers))

    check("blobs", start(LAYERS["blobs"]), start())
    check("dense", start(LAYERS["dense"]), start())


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_edges_that_answer_late_are_added_to_the_version_they_began_with(name: str) -> None:
    def start(*layers: Compressed) -> ArrayRecord:
        inner = Hierarchical(edge=plain_edge, cells=blocks(3), asynchronous=FedBuff(1), seed=1)
        with LocalGrid(toy_app(), 6) as local:
            devices = [Device(step_s=step_s) for step_s in (1, 1, 2, 2, 5, 5)]
            clock = VirtualClock(local, devices, [Link()] * 6)
            strategy = Layered(inner, *layers) if layers else inner
            return strategy.start(clock, initial_model(), num_rounds=6).arrays

    check(name, start(LAYERS[name]), start())


def test_a_terminal_that_goes_to_another_edge_gets_a_whole_model_there() -> None:
    layer = Compressed(stc(0.5), down=TopK(0.5))
    with bench(layer, nodes=3) as session:
        one, other = session.grid, LayeredGrid(session.tap, [layer])
        for grid, nodes in ((one, [1000, 1001]), (other, [1002])):
            grid.get_node_ids = lambda nodes=nodes: list(nodes)  # type: ignore[method-assign,misc]
        for _ in range(2):
            for session.grid in (one, other):
                session.train()
        other.take_over(1001, one.hand_over(1001))
        other.get_node_ids = lambda: [1001, 1002]  # type: ignore[method-assign]
        session.grid = other
        assert sorted(session.train().weights) == [1001, 1002]
        assert other.metrics()["plain_sent"] == 1
        # And back, to an edge that knew it once.
        one.take_over(1001, other.hand_over(1001))
        session.grid = one
        assert sorted(session.train().weights) == [1000, 1001]
        assert one.metrics()["refused_replies"] + other.metrics()["refused_replies"] == 0


# -- restarts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer", [*LAYERS.values(), Compressed(ErrorFeedback(TopK(0.3)), down=Block(4), fold=True)], ids=repr
)
@pytest.mark.parametrize("strategy", [FedAvg, FedAdam])
def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_model(
    layer: Compressed, strategy: type[FedAvg], tmp_path: Path
) -> None:
    def go(run: RunFolder, rounds: int, resume: bool = False) -> ArrayRecord:
        random.seed(0)
        np.random.seed(0)
        with LocalGrid(coded_app(), 4) as grid:
            wrapped = Layered(strategy(), layer)
            return wrapped.start(grid, initial_model(), num_rounds=rounds, run=run, resume=resume).arrays

    with RunFolder.create("whole", config={}, seed=0, root=tmp_path) as whole:
        alone = go(whole, 5)
    with RunFolder.create("stopped", config={}, seed=0, root=tmp_path) as stopped:
        go(stopped, 2)
        assert same_model(alone, go(stopped, 5, resume=True))
    traffic = [{row.round: row.values for row in RunFolder.open(run.path).rows("traffic")} for run in (whole, stopped)]
    assert traffic[0] == traffic[1]


def test_edges_resume_with_the_state_of_their_hop(tmp_path: Path) -> None:
    def strategy() -> Layered:
        layer = LAYERS["sparse"]
        inner = Hierarchical(edge=lambda cell: Layered(FedAvg(**ONE), layer), cells=blocks(2), seed=1)
        return Layered(inner, layer)

    def go(folder: RunFolder, rounds: int, resume: bool = False) -> ArrayRecord:
        random.seed(0)
        with LocalGrid(coded_app(), 4) as grid:
            return strategy().start(grid, initial_model(), num_rounds=rounds, run=folder, resume=resume).arrays

    with RunFolder.create("whole", config={}, seed=0, root=tmp_path) as whole:
        alone = go(whole, 4)
    with RunFolder.create("stopped", config={}, seed=0, root=tmp_path) as stopped:
        go(stopped, 2)
        assert same_model(alone, go(stopped, 4, resume=True))


def test_the_state_after_losses_survives_a_checkpoint_file() -> None:
    layer = Compressed(stc(0.5), down=TopK(0.5))
    with bench(layer) as session:
        session.train()
        session.forget(1001)
        session.train()
        session.grid.announced(Round(3))
        saved = layer.dump(session.state)
        loaded = layer.dump(layer.load(tree_from_bytes(tree_to_bytes({"state": saved}))["state"]))
        assert tree_to_bytes({"state": loaded}) == tree_to_bytes({"state": saved})
