"""`Pieces`: what it must equal, whoever holds which piece, and what it hands to the strategy that merges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord
from flwr.serverapp.strategy import FedAdam, FedAvg, FedMedian, Krum, Strategy
from pieces_toy import STEPS, number_of, oracle, own, pieces, run, segment, terminals
from split_toy import BATCH, FEATURES, SPEC, UNITS, averaged, initial, samples, start
from toy import same_model

from flower_edge.clients.properties import answer_properties
from flower_edge.errors import ConfigError, NotEnoughNodes, ResumeError, SplitError
from flower_edge.models import train_torch
from flower_edge.models.train_torch import get_arrays
from flower_edge.pieces import PieceWork, piece_orders, recombined, run_chain
from flower_edge.runtime import GridProxy, LocalGrid
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.splitting.architecture import build
from flower_edge.splitting.chain import Machine
from flower_edge.splitting.profile import ModelProfile
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import Hierarchical, Layered, Metered
from flower_edge.strategies.hierarchy.cells import blocks
from flower_edge.strategies.pieces.pieces import Pieces
from flower_edge.strategies.pieces.settings import pieces_by_edge
from flower_edge.wire import arrays_of, record_of

# -- exact mode: the model is whoever trains it alone ------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [(), (1,), (1, 5), (2, 3, 5), (1, 2, 3, 5)], ids=lambda cuts: f"{len(cuts) + 1}")
def test_a_chain_of_one_to_five_pieces_is_one_machine_that_trains_the_whole_model(cuts: tuple[int, ...]) -> None:
    # Four steps: BatchNorm's buffers and momentum matter from the second on, the last is a batch that is not full.
    assert same_model(run(pieces(cuts=cuts, steps_per_round=4), len(cuts) + 1), oracle([0], steps=4))


def test_several_chains_are_fedavg_of_clients_that_train_whole_models() -> None:
    strategy = pieces(pieces=2)
    assert same_model(run(strategy, 5, rounds=2), oracle([0, 2], rounds=2))
    assert {(row["chain"], row["terminal"]) for row in strategy.history} == {(0, 0), (0, 1), (2, 2), (2, 3)}


@pytest.mark.parametrize("edges", [2, 3, 4])
def test_case_2_is_one_process_that_trains_every_segment(edges: int) -> None:
    strategy = pieces(edges=blocks(edges), data="segments")
    assert same_model(run(strategy, 2 * edges, app=terminals(segment)), oracle([0, 1]))
    assert [row["edge"] for row in strategy.history[:edges]] == [f"edge-{m}" for m in range(edges)]


def test_averaging_at_the_edges_first_gives_the_bits_of_averaging_whole_models() -> None:
    found = [run(pieces(edges=blocks(2), merge=merge), 4) for merge in ("chains", "edges")]
    assert same_model(*found)


def test_an_edge_may_cut_its_part_again_over_terminals_of_its_own() -> None:
    def cells(grid: Any, round: Any) -> dict[str, list[int]]:
        nodes = list(grid.get_node_ids())
        return {"small": nodes[:2], "large": nodes[2:]}

    strategy = pieces(edges=cells, pieces={"large": 2}, cuts=(2, 5), data="segments")
    assert same_model(run(strategy, 6, rounds=2, app=terminals(segment)), oracle([0, 1], rounds=2))
    chain = [("small", 0, 2), ("large", 2, 5), ("large", 5, 6)]
    assert [(row["edge"], row["start"], row["stop"]) for row in strategy.history] == 4 * chain


def leaving(grid: Any, round: Any) -> dict[str, list[int]]:
    """Three edges, of which one has nobody in the second round."""
    nodes = list(grid.get_node_ids())
    return {"a": nodes[:1], "b": nodes[1:2], **({"c": nodes[2:]} if round.cloud != 2 else {})}


def test_while_an_edge_is_gone_the_model_is_cut_over_the_others() -> None:
    strategy = pieces(edges=leaving, pieces={"c": 1}, data="segments")
    assert same_model(run(strategy, 3, rounds=3, app=terminals(segment)), oracle([0], rounds=3))
    spans = [[row["edge"] for row in strategy.history if row["round"] == round] for round in (1, 2, 3)]
    assert spans == [["a", "b", "c"], ["a", "b"], ["a", "b", "c"]]


def test_while_an_edge_is_gone_cuts_for_all_cannot_be_used() -> None:
    with pytest.raises(NotEnoughNodes, match="edge 'c' has no terminals now"):
        run(pieces(edges=leaving, cuts=(2, 4), data="segments"), 3, rounds=2, app=terminals(segment))


@pytest.mark.parametrize("make", [lambda: FedMedian(), lambda: FedAdam(eta=0.05), lambda: Krum()])
def test_any_of_flowers_strategies_merges_chains_as_it_would_merge_clients(make: Any) -> None:
    merging: Strategy = make()
    assert same_model(run(pieces(cuts=(3,), strategy=merging), 4), oracle([0, 2], strategy=make()))


def test_a_kept_optimiser_follows_its_units_when_cuts_move() -> None:
    asked: list[int] = []

    def moving(profile: ModelProfile, machines: Sequence[Machine]) -> tuple[int, ...]:
        asked.append(len(machines))
        return (1, 4) if len(asked) == 1 else (3, 5)

    found = run(pieces(pieces=3, planner=moving, keep_optimiser=True), 3, rounds=2)
    assert same_model(found, oracle([0], steps=2 * STEPS))
    assert asked == [3, 3]


def test_pieces_are_in_proportion_to_the_speed_of_machines() -> None:
    strategy = pieces(pieces=2, architecture=SPEC)
    run(strategy, 2)
    flops = [float(row["flops"]) for row in strategy.history]
    assert flops[0] < flops[1]  # terminal 1 is twice as fast


def test_codecs_at_the_cuts_make_frames_smaller() -> None:
    plain, coded = pieces(cuts=(3,)), pieces(cuts=(3,), up={"kind": "affine", "bits": 4}, down={"kind": "affine"})
    run(plain, 2)
    run(coded, 2)
    for name in ("up_bits", "down_bits"):
        assert 0 < int(coded.history[0][name]) < int(plain.history[0][name])


# -- decoupled mode ----------------------------------------------------------------------------------------------------


def in_process(cuts: tuple[int, ...], steps: int) -> ArrayRecord:
    """One chain, decoupled, without terminals."""
    strategy = pieces(cuts=cuts, mode="decoupled", steps_per_round=steps)
    models = strategy._models
    model = build(SPEC, models=models)
    work = strategy._settings.orders(1, 0, SPEC, [(0, UNITS)], 0)[0].work
    arrays, (x, y) = get_arrays(initial()), samples(0)
    works = []
    for order in piece_orders(work, UNITS, cuts, mode="decoupled"):
        part = {name: arrays[name] for name in model.names(order.start, order.stop)}
        works.append(PieceWork(order, model, part, {}, **({"x": x, "y": y} if order.first else {})))
    run_chain(works)
    return averaged([record_of(recombined([one.result().arrays for one in works], arrays))])


def test_decoupled_pieces_over_terminals_learn_what_they_learn_in_one_process() -> None:
    found = run(pieces(cuts=(2, 4), mode="decoupled"), 3)
    assert same_model(found, in_process((2, 4), STEPS))


def test_decoupled_no_gradient_crosses_and_heads_go_on_from_round_to_round() -> None:
    exact, decoupled = pieces(cuts=(3,)), pieces(cuts=(3,), mode="decoupled")
    run(exact, 2)
    run(decoupled, 2)
    assert int(exact.history[0]["down_bits"]) > 0 == int(decoupled.history[0]["down_bits"])
    assert decoupled.history[0]["up_bits"] == exact.history[0]["up_bits"]
    assert list(decoupled._known.memory.heads) == ["3"]
    assert same_model(run(pieces(cuts=(), mode="decoupled"), 1), oracle([0]))


def test_heads_are_averaged_as_the_model_is_and_are_no_part_of_it() -> None:
    strategy = pieces(cuts=(3,), mode="decoupled")
    found = run(strategy, 4)
    assert set(found) == set(start())
    (head,) = strategy._known.memory.heads.values()
    alone = [pieces(cuts=(3,), mode="decoupled", seed=n) for n in (0, 2)]
    single = []
    for n, one in zip((0, 2), alone, strict=True):
        run(one, 2, app=terminals(lambda context, n=n: samples(n)))
        single.append(next(iter(one._known.memory.heads.values())))
    weights = [len(samples(n)[0]) for n in (0, 2)]
    mean = sum(w * one["linear.weight"] for w, one in zip(weights, single, strict=True)) / sum(weights)
    np.testing.assert_allclose(head["linear.weight"], mean, atol=1e-6)


# -- segments of the training data -----------------------------------------------------------------------------------


def test_more_segments_than_chains_take_turns() -> None:
    strategy = pieces(pieces=2, data="segments", segments=3)
    run(strategy, 4, rounds=3, app=terminals(segment))
    trained = [(row["round"], row["chain"]) for row in strategy.history if row["place"] == 0]
    assert trained == [(1, 0), (1, 1), (2, 0), (2, 2), (3, 1), (3, 2)]


def test_who_has_no_samples_holds_any_piece_but_the_first() -> None:
    def some(context: Any) -> Any:
        x, y = own(context)
        return (x, y) if number_of(context) == 1 else (x[:0], y[:0])

    strategy = pieces(pieces=2)
    assert same_model(run(strategy, 3, app=terminals(some)), oracle([1]))
    assert [row["terminal"] for row in strategy.history] == [1, 0]


# -- on the round loop -----------------------------------------------------------------------------------------------


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path: Any) -> None:
    options: dict[str, Any] = {
        "cuts": (3,),
        "mode": "decoupled",
        "keep_optimiser": True,
        "data": "segments",
        "segments": 3,
    }
    whole, app = run(pieces(**options), 4, rounds=2, app=terminals(segment)), terminals(segment)
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        with LocalGrid(app, 4) as grid:
            pieces(**options).start(grid, start(), 1, run=folder)
        resumed = pieces(**options)
        with LocalGrid(app, 4) as grid:
            result = resumed.start(grid, start(), 2, run=folder, resume=True)
    assert result.arrays is not None
    assert same_model(result.arrays, whole)
    assert [row["round"] for row in resumed.history] == [1] * 4 + [2] * 4


def test_a_checkpoint_of_other_settings_or_another_model_is_refused_by_name() -> None:
    saved = pieces(pieces=2, batch_size=4).state_dict()
    with pytest.raises(ResumeError, match="batch_size = 4, this run has 8"):
        pieces(pieces=2, batch_size=8).load_state_dict(saved)
    other = SPEC.model_copy(update={"num_classes": 4})
    with pytest.raises(ResumeError, match="resume with the model it began with"):
        pieces(pieces=2, architecture=other).load_state_dict(saved)


def test_it_runs_inside_layers_and_on_a_virtual_clock() -> None:
    with LocalGrid(terminals(), 3) as local:
        grid = VirtualClock(GridProxy(local), [Device(flops_per_s=1e5)] * 3, [Link(1e6, 1e6)] * 3)
        result = Layered(pieces(cuts=(2, 5)), Metered()).start(grid, start(), 1)
        assert grid.now_s > 0.0
    assert result.arrays is not None
    assert same_model(result.arrays, oracle([0]))


def test_an_edge_may_train_in_pieces_over_its_own_terminals() -> None:
    made: dict[str, Pieces] = {}

    def edge(cell: str) -> Pieces:
        return made.setdefault(cell, pieces(pieces=2))

    # In the second run a terminal leaves at the round's last message: its chain is made, and weighs no less than half.
    leaves = Fault(node=0, kind="drop-out", at=6)
    for script, weights in (([], (1.0, 1.0)), ([leaves], (0.5, 1.0))):
        made.clear()
        with LocalGrid(answer_properties(terminals()), 4, script=script) as grid:
            found = Hierarchical(edge=edge, cells=blocks(2)).start(GridProxy(grid), start(), 1)
        assert found.arrays is not None
        both = [arrays_of(oracle([number])) for number in (0, 2)]
        shares = [weight * len(samples(number)[0]) for weight, number in zip(weights, (0, 2), strict=True)]
        for name, array in arrays_of(found.arrays).items():
            mean = sum(share * one[name] for share, one in zip(shares, both, strict=True)) / sum(shares)
            np.testing.assert_allclose(array, mean, rtol=1e-6, atol=1e-6)


def test_terminals_may_be_other_processes_with_every_message() -> None:
    assert same_model(run(pieces(cuts=(3,)), 2, serialise=True), oracle([0]))


def test_what_happened_is_told() -> None:
    strategy = pieces(pieces=2)
    with LocalGrid(terminals(), 3) as grid:
        result = strategy.start(grid, start(), 1)
    metrics = result.train_metrics_clientapp[1]
    assert (metrics["chains"], metrics["dropped"], metrics["lost"]) == (1, 0, 0)
    first, last = strategy.history
    assert (first["steps"], first["samples"], last["loss"]) == (STEPS, len(samples(0)[0]), metrics["loss"])
    assert first["up_bits"] == last["down_bits"]
    assert strategy.events() == []  # the loop took them
    strategy._known.records.seated(2, [], 0)
    assert strategy.events() == []


# -- what cannot be --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "pieces=3"),
        ({"pieces": 0}, "pieces = 0"),
        ({"pieces": 3, "cuts": (2,)}, "give 2 cuts"),
        ({"pieces": {"edge-0": 2}}, "name the edges"),
        ({"pieces": 2, "merge": "edges"}, "edges=blocks"),
        ({"pieces": 2, "mode": "loose"}, "mode = 'loose'"),
        ({"pieces": 2, "segments": 3}, "data='segments'"),
        ({"pieces": 2, "steps_per_round": 0}, "steps_per_round = 0"),
        ({"cuts": (2,), "planner": lambda profile, machines: (2,)}, "give one of them"),
    ],
)
def test_arguments_that_cannot_be_are_refused_by_name(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        pieces(**options)


def test_an_edge_that_nobody_knows_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="no edge 'edge-7'; there are edge-0"):
        pieces_by_edge({"edge-7": 2}, None, ["edge-0"])


def test_too_few_terminals_are_told_with_how_many_are_missing() -> None:
    with pytest.raises(NotEnoughNodes, match="cut into 4 pieces, one for each; wait for 2 more"):
        run(pieces(pieces=4), 2)
    with pytest.raises(NotEnoughNodes, match=r"edge 'edge-1'.* cut into 3 pieces"):
        run(pieces(edges=blocks(2), pieces={"edge-1": 3}), 4)
    with pytest.raises(NotEnoughNodes, match="no terminal that could begin a chain has samples"):
        run(pieces(pieces=2), 2, app=terminals(None))
    with pytest.raises(NotEnoughNodes, match=r"function of .context, segment."):
        run(pieces(pieces=2, data="segments"), 2)


def test_a_strategy_that_wants_more_nodes_says_what_to_type() -> None:
    with pytest.raises(NotEnoughNodes, match=r"give Pieces strategy=FedAvg.min_train_nodes=2"):
        run(pieces(cuts=(3,), strategy=FedAvg(min_train_nodes=3, min_available_nodes=3)), 2)


def test_cuts_that_do_not_fit_are_refused_before_anybody_trains() -> None:
    with pytest.raises(SplitError, match="rising whole numbers from 1 to 5"):
        run(pieces(cuts=(9,)), 2)
    with pytest.raises(SplitError, match="the planner gave cuts"):
        run(pieces(pieces=2, planner=lambda profile, machines: (1, 2)), 2)


def test_a_model_built_otherwise_takes_no_part_and_is_told() -> None:
    from split_toy import small

    def wider(input_shape: Any, num_classes: int) -> Any:
        return small(input_shape, num_classes + 1)

    strategy = pieces(pieces=2)
    with pytest.raises(NotEnoughNodes, match="0 terminals answer"):
        run(strategy, 2, app=terminals(models={"small": wider}))
    assert any("digest" in event.text for event in strategy.events())


def test_the_oracle_here_is_plain_training() -> None:
    model = initial()
    train_torch.train(model, *samples(0), steps=STEPS, batch_size=BATCH, lr=0.1, momentum=0.9, seed=0)
    expected = record_of(get_arrays(model))
    found = oracle([0])
    assert FEATURES == 12
    for name, array in arrays_of(expected).items():
        np.testing.assert_array_equal(arrays_of(found)[name], array)
