"""Laws of `Hierarchical`: what three tiers must equal, and what happens to a cell that cannot take part."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM, Krum, Result, Strategy
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import flower_strategies, initial_model, same_model, toy_app

from flower_edge.clients import edge_app
from flower_edge.errors import ConfigError, NestingError, NotEnoughNodes, RoundFailed
from flower_edge.rounds import Round
from flower_edge.runtime import Device, Link, VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.strategies import CellTier, Hierarchical, Layered, LocalTier, Metered, blocks
from flower_edge.strategies.hierarchy.hierarchical import EdgeResult, merge_edges
from flower_edge.wire import model_spec, record_of

NODES = 8
CASES = flower_strategies(NODES)
#: Strategies whose own arithmetic leaves float32: the edge casts once to the model's dtype, so equality is to rounding.
PROMOTING = {"FedAdam", "QFedAvg"}


def start(strategy: Strategy, app: Any, model: ArrayRecord, rounds: int = 3, nodes: int = NODES) -> Result:
    random.seed(5)
    np.random.seed(5)
    with LocalGrid(app, nodes) as grid:
        return strategy.start(grid, model, num_rounds=rounds)


def close(one: ArrayRecord, other: ArrayRecord, atol: float = 1e-6) -> bool:
    return all(np.allclose(one[name].numpy(), other[name].numpy(), rtol=1e-6, atol=atol) for name in one)


@pytest.mark.parametrize("name", sorted(CASES))
def test_one_cell_with_a_cloud_round_every_round_is_its_inner_strategy(name: str) -> None:
    strategy, app, model = CASES[name]
    flat = start(strategy(), app(), model())
    tiered = start(Hierarchical(edge=lambda cell: strategy()), app(), model())
    if name in PROMOTING:
        assert close(flat.arrays, tiered.arrays)
    else:
        assert same_model(flat.arrays, tiered.arrays)
        assert flat.evaluate_metrics_clientapp == tiered.evaluate_metrics_clientapp
        assert flat.train_metrics_clientapp == tiered.train_metrics_clientapp


@pytest.mark.parametrize("cells", [2, 3, 4])
def test_several_cells_with_a_cloud_round_every_round_are_flat_fedavg(cells: int) -> None:
    flat = start(FedAvg(), toy_app(), initial_model())
    tiered = start(Hierarchical(edge=lambda cell: FedAvg(), cells=blocks(cells)), toy_app(), initial_model())
    assert close(flat.arrays, tiered.arrays)
    assert tiered.evaluate_metrics_clientapp[3]["loss"] == pytest.approx(flat.evaluate_metrics_clientapp[3]["loss"])


def test_more_edge_rounds_give_another_model_so_the_laws_above_are_not_empty() -> None:
    one = start(Hierarchical(edge=lambda cell: FedAvg(), cells=blocks(3)), toy_app(), initial_model())
    two = start(Hierarchical(edge=lambda cell: FedAvg(), cells=blocks(3), edge_rounds=2), toy_app(), initial_model())
    assert not close(one.arrays, two.arrays, atol=1e-3)


def test_edge_rounds_equal_the_thirty_line_oracle() -> None:
    """HierFAVG by hand: every cell runs κ2 rounds of FedAvg alone, then the weighted mean in float64."""
    cells, kappa = blocks(3), 2
    tiered = start(Hierarchical(edge=lambda cell: FedAvg(), cells=cells, edge_rounds=kappa), toy_app(), initial_model())

    model = initial_model()
    spec = model_spec(model)
    with LocalGrid(toy_app(), NODES) as grid:
        members = cells(grid, Round(1))
        for cloud in range(3):
            sums: dict[str, Any] = dict.fromkeys(model, 0.0)
            total = 0.0
            for nodes in members.values():
                w_e, n_e = _edge_by_hand(grid, nodes, model, cloud * kappa, kappa)
                total += n_e
                sums = {name: sums[name] + n_e * w_e[name].astype(np.float64) for name in sums}
            model = record_of({name: (sums[name] / total).astype(spec[name][1]) for name in sums})
    assert close(tiered.arrays, model)


def _edge_by_hand(
    grid: LocalGrid, nodes: list[int], model: ArrayRecord, done: int, kappa: int
) -> tuple[dict[str, np.ndarray], float]:
    from flwr.app import ConfigRecord, Message, RecordDict

    for k in range(kappa):
        content = RecordDict({"arrays": model, "config": ConfigRecord({"server-round": done + k + 1})})
        replies = list(grid.send_and_receive([Message(content, node, "train") for node in nodes]))
        sizes = [float(reply.content["metrics"]["num-examples"]) for reply in replies]  # type: ignore[arg-type,index,call-overload]
        model = record_of(
            {
                name: sum(
                    n * reply.content["arrays"][name].numpy().astype(np.float64)  # type: ignore[index,union-attr,call-overload]
                    for n, reply in zip(sizes, replies, strict=True)
                )
                / sum(sizes)
                for name in model
            }
        )
    return {name: array.numpy().astype(np.float32) for name, array in model.items()}, sum(sizes)


def members_of(count: int) -> Callable[[str, Context], Sequence[Mapping[str, Any]]]:
    parts = np.array_split(np.arange(NODES), count)

    def members(cell: str, context: Context) -> Sequence[Mapping[str, Any]]:
        return [
            {"partition-id": int(i), "num-partitions": NODES, "state-dir": ":memory:"}
            for i in parts[int(cell.rpartition("-")[2])]
        ]

    return members


@pytest.mark.parametrize("inner", [FedAvg, lambda **kw: FedAvgM(server_momentum=0.9, **kw)])
def test_cell_tier_and_local_tier_give_equal_models(inner: Callable[..., Strategy]) -> None:
    def edge(cell: str) -> Strategy:
        return Layered(inner(fraction_train=0.5, min_train_nodes=2), Metered())

    options: dict[str, Any] = {"edge_rounds": 2, "seed": 3}
    inside = start(Hierarchical(tier=CellTier(edge, blocks(2)), **options), toy_app(), initial_model())

    edges = [{"partition-id": i, "num-partitions": 2, "state-dir": ":memory:"} for i in range(2)]
    with LocalGrid(edge_app(toy_app(), edge, members_of(2)), edges) as grid:
        apart = Hierarchical(tier=LocalTier(), **options).start(grid, initial_model(), num_rounds=3)
    assert same_model(inside.arrays, apart.arrays)
    assert inside.evaluate_metrics_clientapp == apart.evaluate_metrics_clientapp


def test_layers_around_hierarchical_see_the_centres_hop_and_layers_inside_the_terminals() -> None:
    centre, inner = Metered(), Metered()
    seen: dict[str, Any] = {}

    class Watch(Hierarchical):
        def start(self, grid: Grid, *args: Any, **kw: Any) -> Result:  # type: ignore[override]
            result = super().start(grid, *args, **kw)
            seen["centre"] = grid.metrics()  # type: ignore[attr-defined]
            edge, _ = self.tier._edges["edge-0"]  # type: ignore[attr-defined]
            seen["edge"] = edge.layered.metrics()  # type: ignore[attr-defined]
            return result

    strategy = Watch(edge=lambda cell: Layered(FedAvg(), inner), cells=blocks(2), edge_rounds=2)
    start(Layered(strategy, centre), toy_app(), initial_model(), rounds=1)
    assert seen["centre"]["down_messages"] == 2 * 2  # train and evaluate, two edges
    assert seen["edge"]["down_messages"] == 4 * 2 + 4  # two edge rounds and an evaluation, four terminals


def test_edges_work_at_the_same_time_on_the_virtual_clock() -> None:
    """Two cells with two terminals each, all of 1 s but one of 5 s: a round lasts as long as the slower cell."""
    devices = [Device(fixed_s=seconds) for seconds in (1.0, 1.0, 1.0, 5.0)]
    links = [Link() for _ in devices]

    def lasts(cells: int, edge_rounds: int) -> float:
        strategy = Hierarchical(
            edge=lambda cell: FedAvg(fraction_evaluate=0.0), cells=blocks(cells), edge_rounds=edge_rounds
        )
        with LocalGrid(toy_app(), 4) as grid:
            clock = VirtualClock(grid, devices, links)
            strategy.start(clock, initial_model(), num_rounds=1)
            return clock.now_s

    assert lasts(cells=1, edge_rounds=1) == 5.0
    assert lasts(cells=2, edge_rounds=1) == 5.0
    assert lasts(cells=2, edge_rounds=3) == 15.0


# -- cells that cannot take part -------------------------------------------------------------------------------------


def cells_of(*sizes: int) -> Callable[[Grid, Round], Mapping[str, list[int]]]:
    def cells(grid: Grid, round: Round) -> Mapping[str, list[int]]:
        nodes = list(grid.get_node_ids())
        bounds = np.cumsum([0, *sizes])
        return {f"edge-{i}": nodes[bounds[i] : bounds[i + 1]] for i in range(len(sizes))}

    return cells


@pytest.mark.parametrize("few", [0, 1])
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_cell_with_too_few_terminals_is_skipped_under_every_flower_strategy(name: str, few: int) -> None:
    strategy, app, model = CASES[name]
    hierarchical = Hierarchical(edge=lambda cell: strategy(), cells=cells_of(8, few))
    with LocalGrid(app(), 8 + few) as grid:
        result = hierarchical.start(grid, model(), num_rounds=2)
        assert result.arrays
        reached = [len(grid.context_of(1000 + i).state) > 0 for i in range(8, 8 + few)]
    assert not any(reached)


def test_a_skipped_cell_has_weight_zero() -> None:
    both = start(Hierarchical(edge=lambda cell: FedAvg(), cells=cells_of(7, 1)), toy_app(), initial_model())
    alone = start(Hierarchical(edge=lambda cell: FedAvg(), cells=cells_of(7)), toy_app(), initial_model())
    assert same_model(both.arrays, alone.arrays)


def test_a_run_in_which_no_cell_can_take_part_says_who_lacks_what() -> None:
    with (
        LocalGrid(toy_app(), 2) as grid,
        pytest.raises(RoundFailed, match="edge-0, edge-1: 1 of the 2 terminals its FedAvg"),
    ):
        Hierarchical(edge=lambda cell: FedAvg(), cells=blocks(2)).start(grid, initial_model(), num_rounds=1)


def test_a_cell_whose_terminals_all_fail_is_left_out_and_the_others_go_on() -> None:
    faults = [Fault(node=i, kind="raise") for i in range(4)]
    with LocalGrid(toy_app(), 8, script=faults) as grid:
        result = Hierarchical(edge=lambda cell: FedAvg(), cells=blocks(2)).start(grid, initial_model(), num_rounds=2)
    with LocalGrid(toy_app(), 8) as grid:
        alone = Hierarchical(edge=lambda cell: FedAvg(), cells=lambda g, r: {"edge-1": [1004, 1005, 1006, 1007]}).start(
            grid, initial_model(), num_rounds=2
        )
    assert close(result.arrays, alone.arrays)


def test_a_cell_that_loses_its_nodes_while_it_waits_raises_after_the_deadline() -> None:
    from flower_edge.runtime.narrowed_grid import NarrowedGrid, Patience

    with LocalGrid(toy_app(), 4) as grid:
        cell = NarrowedGrid(grid, [1000, 1001], Patience(0.2, minimum=3, label="cell edge-1"))
        with pytest.raises(NotEnoughNodes, match=r"cell edge-1 has 2 nodes, .* needs 3 or more .* 0.2 s"):
            FedAvg(min_train_nodes=3).start(cell, initial_model(), num_rounds=1)


# -- the merge -------------------------------------------------------------------------------------------------------


def edge_result(cell: str, value: np.ndarray, weight: float) -> EdgeResult:
    return EdgeResult(cell, record_of({"w": value}), weight, {}, {})


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(-1e3, 1e3, width=32), st.integers(1, 10_000)),
        min_size=1,
        max_size=6,
    ),
    st.randoms(use_true_random=False),
)
def test_the_merge_is_the_weighted_mean_whatever_the_order_of_arrival(
    edges: list[tuple[float, int]], shuffler: random.Random
) -> None:
    results = [edge_result(f"edge-{i}", np.full(3, v, np.float32), n) for i, (v, n) in enumerate(edges)]
    spec = {"w": ((3,), "float32")}
    merged = merge_edges(results, spec)["w"].numpy()
    expected = sum(v * n for v, n in edges) / sum(n for _, n in edges)
    np.testing.assert_allclose(merged, expected, rtol=1e-6, atol=1e-3)
    shuffler.shuffle(results)
    assert merge_edges(results, spec)["w"].numpy().tobytes() == merged.tobytes()
    assert merged.dtype == np.float32


def test_integer_buffers_keep_their_dtype_through_the_merge() -> None:
    results = [edge_result("a", np.array([3], np.int64), 1), edge_result("b", np.array([4], np.int64), 3)]
    merged = merge_edges(results, {"w": ((1,), "int64")})["w"].numpy()
    assert merged.dtype == np.int64
    assert merged.tolist() == [4]


# -- bad input -------------------------------------------------------------------------------------------------------


def test_a_strategy_instead_of_a_factory_is_refused_with_the_fix() -> None:
    with pytest.raises(ConfigError, match=r"edge=lambda cell: FedAvg\(...\)"):
        Hierarchical(edge=FedAvg())  # type: ignore[arg-type]


def test_no_edge_round_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="edge_rounds = 0"):
        Hierarchical(edge=lambda cell: FedAvg(), edge_rounds=0)


def test_a_terminal_in_two_cells_is_refused_by_name() -> None:
    cells = {"a": [1000, 1001], "b": [1001, 1002]}
    with LocalGrid(toy_app(), 3) as grid, pytest.raises(ConfigError, match="node 1001 is in the cells 'a' and 'b'"):
        Hierarchical(edge=lambda cell: FedAvg(), cells=lambda g, r: cells).start(grid, initial_model())


def test_dp_around_hierarchical_is_refused_with_the_right_nesting() -> None:
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping as Dp

    wrapped = Dp(Hierarchical(edge=lambda cell: FedAvg()), 0.0, 1.0, 2)
    with LocalGrid(toy_app(), 3) as grid, pytest.raises(NestingError, match="edge=lambda cell: Wrapper"):
        wrapped.start(grid, initial_model())


def test_an_edge_that_sends_another_model_is_left_out_and_named() -> None:
    class Other(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            _, metrics = super().aggregate_train(server_round, replies)
            return ArrayRecord({"other": Array(np.zeros(2, np.float32))}), metrics

    hierarchical = Hierarchical(edge=lambda cell: Other(), cells=blocks(2))
    with LocalGrid(toy_app(), 4) as grid, pytest.raises(RoundFailed, match="'other' is not in the model"):
        hierarchical.start(grid, initial_model(), num_rounds=1)


def test_boosters_of_several_edges_are_refused_because_they_have_no_mean() -> None:
    strategy, app, model = CASES["FedXgbBagging"]
    with LocalGrid(app(), 8) as grid, pytest.raises(ConfigError, match="byte strings have no mean"):
        Hierarchical(edge=lambda cell: strategy(), cells=blocks(2)).start(grid, model(), num_rounds=1)


def test_krum_at_one_edge_and_fedavg_at_another_need_no_new_class() -> None:
    def edge(cell: str) -> Strategy:
        return Krum() if cell == "edge-0" else FedAvg()

    assert start(Hierarchical(edge=edge, cells=blocks(2), edge_rounds=2), toy_app(), initial_model()).arrays


def test_a_centre_that_weighs_by_what_edges_do_not_tell_is_told_what_they_do() -> None:
    centre = FedAdam(weighted_by_key="samples")
    words = r"FedAdam at the centre weighs by 'samples', and edges tell 'num-examples', .*: centre=FedAdam\(...\)"
    with pytest.raises(RoundFailed, match=words):
        start(Hierarchical(edge=lambda cell: FedAvg(), cells=blocks(2), centre=centre), toy_app(), initial_model(), 1)
