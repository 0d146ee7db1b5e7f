"""`Covered`: who can be sampled, late updates brought up to date, each update once; and nothing else changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg, Krum, Result, Strategy
from hypothesis import given
from hypothesis import strategies as st
from toy import flower_strategies, initial_model, same_model, toy_app
from travellers import ONE, alone, app, clock, order, start_model, train_round, world

from flower_edge.coverage import ByFunction, Jumping
from flower_edge.errors import ConfigError, NestingError
from flower_edge.runtime import Device, Link, SteppedGrid, VirtualClock
from flower_edge.runtime.flower_private import set_metadata
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.steps.messages import LATE_RECORD, RENEWED_RECORD, Renewed
from flower_edge.runtime.wrapped_grid import announce
from flower_edge.store import RunFolder
from flower_edge.store.tree import tree_from_bytes, tree_to_bytes
from flower_edge.strategies import Hierarchical, Layer, Layered, blocks
from flower_edge.strategies.coverage.coverage import Coverage
from flower_edge.strategies.coverage.covered import Covered, CoveredState, rebased
from flower_edge.strategies.coverage.mid_round import MidRound
from flower_edge.strategies.layered import LayeredGrid
from flower_edge.wire import arrays_of, record_of

NODES = 8
CASES = flower_strategies(NODES)


def everywhere(cells: int = 1) -> ByFunction:
    names = [f"edge-{i}" for i in range(cells)]
    return ByFunction(names, NODES, lambda time_s: [names[i % cells] for i in range(NODES)])


def run(strategy: Strategy, model: ArrayRecord | None = None, client: Any = None, rounds: int = 3) -> Result:
    random.seed(5)
    np.random.seed(5)
    with LocalGrid(client or toy_app(), NODES) as local:
        grid = VirtualClock(local, [Device(fixed_s=1.0)] * NODES, [Link()] * NODES)
        return strategy.start(grid, initial_model() if model is None else model, num_rounds=rounds)


@pytest.mark.parametrize("name", sorted(CASES))
def test_with_every_terminal_in_one_cell_every_flower_strategy_is_bit_for_bit_itself(name: str) -> None:
    strategy, client, model = CASES[name]
    alone_ = run(strategy(), model(), client())
    covered = run(Layered(strategy(), Covered(Coverage(everywhere()))), model(), client())
    assert same_model(alone_.arrays, covered.arrays)
    assert alone_.train_metrics_clientapp == covered.train_metrics_clientapp
    assert alone_.evaluate_metrics_clientapp == covered.evaluate_metrics_clientapp


@pytest.mark.parametrize("strategy", [FedAvg, FedAdam, lambda: Krum(num_malicious_nodes=1)])
def test_two_lines_put_it_around_a_flat_strategy_and_only_those_in_coverage_are_asked(
    strategy: Callable[[], Strategy],
) -> None:
    """Node 3 is never covered, node 0 leaves after the first round; whoever is, is sampled."""
    cells = world(["a", "b"], [{0: "a", 1: None}, {0: "a"}, {0: "b"}, {0: None}, *[{0.0: "b"}] * 4])
    asked: list[list[int]] = []

    class Watch(Layer[None]):
        def outbound(self, state: None, round: Any, messages: list[Message]) -> tuple[list[Message], None]:
            asked.append(sorted(message.metadata.dst_node_id - 1000 for message in messages))
            return messages, None

    run(Layered(strategy(), Covered(Coverage(cells)), Watch()), rounds=2)
    assert asked == [[0, 1, 2, 4, 5, 6, 7], [1, 2, 4, 5, 6, 7], [1, 2, 4, 5, 6, 7], [1, 2, 4, 5, 6, 7]]


def test_inside_a_hierarchy_an_edge_samples_its_own_members_and_one_edge_changes_nothing() -> None:
    def tiered(cells: Any, layered: bool) -> Result:
        def edge(cell: str) -> Strategy:
            return Layered(FedAvg(fraction_train=0.5), Covered(cells)) if layered else FedAvg(fraction_train=0.5)

        return run(Hierarchical(edge=edge, cells=cells, edge_rounds=2))

    plain = tiered(blocks(1, prefix="edge"), False)
    assert same_model(plain.arrays, tiered(Coverage(everywhere()), False).arrays)
    assert same_model(plain.arrays, tiered(Coverage(everywhere()), True).arrays)
    assert not same_model(plain.arrays, tiered(Coverage(everywhere(2)), True).arrays)


def test_moves_of_terminals_that_are_never_sampled_change_nothing() -> None:
    """Handover of a terminal that never trained: whatever such terminals do, the model is the same, bit for bit."""

    class FirstFour(FedAvg):
        def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Grid) -> Any:
            content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": server_round})})
            there = [node for node in grid.get_node_ids() if node < 1004]
            return [Message(content, node, "train") for node in there]

    def result(seed: int, share: float) -> Result:
        class Idlers(Jumping):
            def where(self, time_s: float, before: Any = None) -> Any:
                return np.where(np.arange(NODES) < 4, np.arange(NODES) % 2, super().where(time_s))

        idlers = Idlers(["edge-0", "edge-1"], NODES, share, 1.5, seed)
        assert share == 0 or (idlers.where(0.0) != idlers.where(1.5)).sum() >= 2
        coverage = Coverage(idlers)
        edge = Hierarchical(
            edge=lambda cell: Layered(FirstFour(fraction_evaluate=0.0, **ONE), Covered(coverage)),
            cells=coverage,
            edge_rounds=2,
        )
        return run(edge, rounds=3)

    still = result(1, 0.0)
    assert all(same_model(still.arrays, result(seed, 1.0).arrays) for seed in (1, 2, 3))


def test_a_cell_that_is_not_one_of_the_coverage_is_named_with_the_fix() -> None:
    layer = Covered(Coverage(everywhere(), round_s=1.0))
    with LocalGrid(toy_app(), NODES) as local, pytest.raises(ConfigError, match=r"cell 'x' .*cells=coverage"):
        layer.narrow(layer.init(), train_round(1, 1, "x"), local, [1000])


def test_around_a_hierarchy_it_is_refused_as_every_layer_that_narrows() -> None:
    coverage = Coverage(everywhere())
    with pytest.raises(NestingError, match="Covered around Hierarchical"):
        run(Layered(Hierarchical(edge=lambda cell: FedAvg(), cells=coverage), Covered(coverage)))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"late": "keep"}, "late = 'keep'"), ({"max_staleness": -1}, "max_staleness = -1")],
)
def test_what_cannot_be_used_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Covered(Coverage(everywhere()), **options)
    with pytest.raises(ConfigError, match=r"Covered\(Coverage\(located\)\)"):
        Covered(everywhere())  # type: ignore[arg-type]


# -- late updates ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.floats(0.0, 1.0))
def test_rebasing_moves_by_the_scaled_difference_and_keeps_dtypes_and_integers(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)

    def draw() -> dict[str, np.ndarray]:
        return {"w": rng.normal(size=4).astype(np.float32), "n": rng.integers(0, 9, 2)}

    late, base, now = draw(), draw(), draw()
    out = arrays_of(rebased(record_of(late), record_of(base), record_of(now), scale))
    wanted = now["w"].astype(np.float64) + scale * (late["w"].astype(np.float64) - base["w"].astype(np.float64))
    np.testing.assert_array_equal(out["w"], wanted.astype(np.float32))
    np.testing.assert_array_equal(out["n"], now["n"])
    assert list(out) == ["w", "n"]


def test_a_late_update_on_an_unchanged_model_is_itself() -> None:
    late, base = record_of({"w": np.array([1.5, 2.0])}), record_of({"w": np.array([1.0, 1.0])})
    np.testing.assert_array_equal(arrays_of(rebased(late, base, base, 1.0))["w"], [1.5, 2.0])


def late_run(**options: Any) -> tuple[list[Any], list[list[Message]], LayeredGrid, Coverage]:
    """Node 1 leaves at 3 s of round 1 and is back at 20 s; three rounds of 8 s, by hand through the layer."""
    coverage = Coverage(world(["a"], [{0.0: "a"}, {0.0: "a", 3.0: None, 20.0: "a"}]))
    came: list[list[Message]] = []
    models: list[Any] = []
    with LocalGrid(app(), 2) as local:
        base = clock(local, [1.0, 1.0])
        decide = MidRound(coverage, on_exit="keep")
        grid = LayeredGrid(SteppedGrid(base, 2, decide, reachable=coverage.reachable), [Covered(coverage, **options)])
        model = start_model()
        for number in range(1, 5):
            announce(grid, train_round(number))
            nodes = list(grid.get_node_ids())
            replies = list(grid.send_and_receive([order(node, number, model) for node in nodes]))
            models.append(model)
            came.append(replies)
            model = record_of({"w": arrays_of(model)["w"] + 1.0, "count": arrays_of(model)["count"] + 1})
    return models, came, grid, coverage


def test_a_terminal_that_trains_on_out_of_coverage_is_merged_when_it_is_back_on_the_model_of_then() -> None:
    models, came, grid, coverage = late_run()
    assert [[reply.metadata.src_node_id for reply in replies] for replies in came] == [
        [1000],
        [1000],
        [1000],
        [1001, 1000, 1001],
    ]
    late = came[3][0]
    assert LATE_RECORD not in late.content
    w, base = arrays_of(late.content.array_records["arrays"]), arrays_of(models[0])["w"]
    wanted = arrays_of(models[3])["w"] + 0.5 * (alone(1001, 1, 8) - base)  # three rounds late: 1/√4
    np.testing.assert_allclose(w["w"], wanted, rtol=0, atol=1e-12)
    assert w["count"].tolist() == arrays_of(models[3])["count"].tolist()
    assert late.content.metric_records["metrics"]["num-examples"] == 8
    assert grid.metrics() == {"late_merged": 1, "late_dropped": 0, "duplicates_dropped": 0}
    told = {event.what: event for event in grid.events()}
    assert {"found", "left", "exited", "entered", "late-merged"} <= set(told)
    assert "3 rounds late" in told["late-merged"].text
    assert coverage.work.to_come("") == set()


@pytest.mark.parametrize(
    ("options", "why"),
    [({"late": "drop"}, "not merged here"), ({"max_staleness": 2}, "3 rounds old")],
)
def test_a_late_update_that_is_not_wanted_or_too_old_is_dropped_and_told(options: dict[str, Any], why: str) -> None:
    _, came, grid, _ = late_run(**options)
    assert [reply.metadata.src_node_id for reply in came[3]] == [1000, 1001]
    assert grid.metrics()["late_dropped"] == 1
    assert why in next(event.text for event in grid.events() if event.what == "late-dropped")


def test_a_late_update_that_never_comes_is_given_up_and_told_once() -> None:
    layer = Covered(Coverage(everywhere(), round_s=1.0), max_staleness=1)
    state = layer.init()
    with LocalGrid(toy_app(), NODES) as local:
        told: list[str] = []
        for number in range(1, 6):
            _, state = layer.narrow(state, train_round(number), local, [1000, 1001])
            if number == 2:
                layer.coverage.detached(1001, "", 1)
            _, state = layer.outbound(state, train_round(number), [order(1000, number)])
            events, state = layer.events(state)
            told += [event.text for event in events if event.what == "given-up"]
    (text,) = told
    assert "terminal 1 from round 1 is not waited for any more" in text


def test_rounds_of_a_strategy_that_tells_no_server_round_are_counted() -> None:
    """Each of its edge rounds merges; a second reply of one round is dropped, and so is one of no known round."""

    def plain(node: int) -> Message:
        return Message(RecordDict({"arrays": start_model(), "config": ConfigRecord()}), node, "train")

    layer = Covered(Coverage(ByFunction(["a"], NODES, lambda time_s: ["a"] * NODES), round_s=1.0))
    state = layer.init()
    with LocalGrid(toy_app(), NODES) as local:
        for cloud, edge in ((1, 1), (1, 2), (2, 1), (2, 2)):
            _, state = layer.narrow(state, train_round(cloud, edge, "a"), local, [1000])
            _, state = layer.outbound(state, train_round(cloud, edge, "a"), [plain(1000)])
            _, state = layer.outbound(state, train_round(cloud, edge, "a"), [plain(1001)])  # more of the same round
            passed, state = layer.inbound(state, train_round(cloud, edge, "a"), [reply_to(plain(1000))] * 2)
            assert len(passed) == 1
            state = layer.load(tree_from_bytes(tree_to_bytes(layer.dump(state))))
        assert state.number == 4
        passed, state = layer.inbound(state, train_round(2, 2, "a"), [reply_to(plain(1001), late=0)])
    assert passed == []
    assert "writes no server-round" in state.events[-1].text


@pytest.mark.parametrize("tiers", [False, True])
def test_a_second_run_on_the_same_grid_begins_anew(tmp_path: Path, tiers: bool) -> None:
    coverage = Coverage(world(["a"], [{0.0: "a", 3.0: None}] * 4 + [{0.0: "a"}] * 4), round_s=1.0)
    seen = []
    with LocalGrid(toy_app(), NODES) as local:
        for name in ("first", "second"):
            random.seed(1)
            flat = Layered(FedAvg(fraction_evaluate=0.0), Covered(coverage))
            tiered = Hierarchical(edge=lambda cell, flat=flat: flat, cells=coverage)
            with RunFolder.create(name, config={}, seed=1, root=tmp_path) as run:
                (tiered if tiers else flat).start(local, initial_model(), 3, run=run)
                texts = [row.values["text"] for row in run.rows() if row.kind == "event"]
                seen.append((coverage.time_s, len(coverage.members()), texts))
    assert seen[0] == seen[1]
    assert any("as the run begins" in str(text) for text in seen[1][2])


def test_models_of_earlier_rounds_are_kept_only_while_somebody_trains_on_from_them() -> None:
    coverage = Coverage(everywhere(), round_s=1.0)
    layer = Covered(coverage, max_staleness=3)
    state = layer.init()
    with LocalGrid(toy_app(), NODES) as local:
        kept: list[list[int]] = []
        for number in range(1, 8):
            _, state = layer.narrow(state, train_round(number), local, [1000, 1001])
            if number == 2:
                coverage.detached(1001, "", 1)
            _, state = layer.outbound(state, train_round(number), [order(1000, number)])
            kept.append(sorted(state.bases))
            assert len(layer.dump(state)["bases"]) == len(kept[-1]) - 1 or number == 1
    assert kept == [[1], [1, 2], [1, 3], [1, 4], [5], [6], [7]]


def reply_to(message: Message, late: int | None = None) -> Message:
    set_metadata(message, message_id="m")
    content = RecordDict({"arrays": start_model(), "metrics": MetricRecord({"num-examples": 3})})
    if late is not None:
        content[LATE_RECORD] = ConfigRecord({"base-round": late, "cell": "", "steps": 1})
    return Message(content, reply_to=message)


def test_one_update_of_a_terminal_and_version_is_merged_however_often_it_comes() -> None:
    layer = Covered(Coverage(everywhere(), round_s=1.0))
    state: CoveredState = layer.init()
    with LocalGrid(toy_app(), NODES) as local:
        _, state = layer.narrow(state, train_round(1), local, [1000])
        for number in (1, 2):
            _, state = layer.outbound(state, train_round(number), [order(1000, number), order(1001, number)])
            layer.coverage.detached(1000, "", number)
            replies = [reply_to(order(1000, number)), reply_to(order(1000, number)), reply_to(order(1001, number))]
            passed, state = layer.inbound(state, train_round(number), replies)
            assert [reply.metadata.src_node_id for reply in passed] == [1000, 1001]
        # The same work once more, as a late reply.
        passed, state = layer.inbound(state, train_round(2), [reply_to(order(1000, 2), late=1)])
    assert passed == []
    assert layer.metrics(state)["duplicates_dropped"] == 3
    assert [event.what for event in state.events] == ["dropped-duplicate"] * 3


def test_both_parts_of_a_renewed_terminal_are_merged_and_each_but_once_also_after_a_checkpoint() -> None:
    def part(index: int) -> Message:
        reply = reply_to(order(1000, 1))
        if index:
            reply.content[RENEWED_RECORD] = Renewed(index, 2 * index).to_record()
        return reply

    layer = Covered(Coverage(everywhere(), round_s=1.0))
    with LocalGrid(toy_app(), NODES) as local:
        _, state = layer.narrow(layer.init(), train_round(1), local, [1000])
        _, state = layer.outbound(state, train_round(1), [order(1000, 1)])
        passed, state = layer.inbound(state, train_round(1), [part(0), part(1), part(2), part(1)])
        assert [reply.content.get(RENEWED_RECORD) is None for reply in passed] == [True, False, False]
        passed, state = layer.inbound(state, train_round(1), [part(0)])
    assert passed == []
    assert layer.metrics(state)["duplicates_dropped"] == 2
    saved = layer.dump(replace(state, flat=False))  # what the coverage keeps is not what is looked at here
    assert saved["taken"] == [[1, [1000, [1000, 1], [1000, 2]]]]
    assert layer.load(tree_from_bytes(tree_to_bytes(saved))).taken == state.taken
    assert layer.load({**saved, "taken": [[1, [1000]]]}).taken == {1: frozenset({(1000, 0)})}


def test_a_late_update_with_arrays_that_are_not_the_models_or_of_no_known_round_is_dropped() -> None:
    layer = Covered(Coverage(everywhere(), round_s=1.0))
    with LocalGrid(toy_app(), NODES) as local:
        _, state = layer.narrow(layer.init(), train_round(1), local, [1000])
        _, state = layer.outbound(state, train_round(1), [order(1000, 1)])
        layer.coverage.detached(1000, "", 1)
        _, state = layer.outbound(state, train_round(2), [order(1000, 2)])
        wrong = reply_to(order(1000, 1), late=1)
        wrong.content["arrays"] = record_of({"w": np.zeros(9), "count": np.zeros(1, np.int64)})
        odd = reply_to(order(1001, 1), late=1)
        odd.content[LATE_RECORD] = ConfigRecord({"base-round": "one"})
        passed, state = layer.inbound(state, train_round(2), [wrong, reply_to(order(1002, 1), late=0), odd])
    assert passed == []
    assert "shape (9,)" in state.events[0].text
    assert "writes no server-round" in state.events[1].text
    assert "not known any more" in state.events[2].text
    assert len(state.events) == 3


def test_state_survives_a_checkpoint_file_with_the_models_late_updates_need() -> None:
    coverage = Coverage(everywhere(), round_s=1.0)
    layer = Covered(coverage)
    with LocalGrid(toy_app(), NODES) as local:
        _, state = layer.narrow(layer.init(), train_round(1), local, [1000, 1001])
        _, state = layer.outbound(state, train_round(1), [order(1000, 1)])
        coverage.detached(1001, "", 1)
        saved = tree_from_bytes(tree_to_bytes(layer.dump(state)))
        other = Covered(Coverage(everywhere(), round_s=1.0))
        again = other.load(saved)
        _, again = other.narrow(again, train_round(2), local, [1000, 1001])
        _, again = other.outbound(again, train_round(2), [order(1000, 2)])
        passed, again = other.inbound(again, train_round(2), [reply_to(order(1001, 1), late=1)])
    assert len(passed) == 1
    assert other.metrics(again)["late_merged"] == 1


@pytest.mark.parametrize("tiers", [False, True])
def test_a_resumed_run_is_the_uninterrupted_one_while_terminals_move(tmp_path: Path, tiers: bool) -> None:
    def strategy() -> Layered | Hierarchical:
        coverage = Coverage(Jumping(["a", "b"], NODES, 0.5, 2.0, 3))

        def flat(cell: str = "") -> Layered:
            return Layered(FedAvg(fraction_train=0.5, **ONE), Covered(coverage))

        return Hierarchical(edge=flat, cells=coverage, edge_rounds=2, seed=1) if tiers else flat()

    def go(run: RunFolder, rounds: int, seed: int, resume: bool = False) -> Result:
        random.seed(seed)
        with LocalGrid(toy_app(), NODES) as local:
            grid = VirtualClock(local, [Device(fixed_s=1.0)] * NODES, [Link()] * NODES)
            return strategy().start(grid, initial_model(), num_rounds=rounds, run=run, resume=resume)

    with RunFolder.create("whole", config={}, seed=5, root=tmp_path) as run:
        whole = go(run, 4, seed=5)
        told = [row.values["text"] for row in run.rows() if row.kind == "event"]
    with RunFolder.create("halves", config={}, seed=5, root=tmp_path) as run:
        go(run, 2, seed=5)
        halves = go(run, 4, seed=999, resume=True)
        assert [row.values["text"] for row in run.rows() if row.kind == "event"] == told
    assert same_model(whole.arrays, halves.arrays)
    assert sum("handed over" in str(text) for text in told) > 3
