"""`Selected` shows a strategy the chosen and no others, learns from what comes back, and forgets nothing on the way."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg, Krum, Result, Strategy
from laws.layer_laws import LayerLaws
from toy import initial_model, same_model, toy_app

from flower_edge.clients.conditions import ConditionsMod, answer_conditions
from flower_edge.conditions import Conditions
from flower_edge.errors import ConfigError
from flower_edge.rounds import Round
from flower_edge.runtime import Device, Link, LocalGrid, VirtualClock
from flower_edge.runtime.faults import Fault
from flower_edge.runtime.wrapped_grid import WrappedGrid
from flower_edge.selection import FedCS, Job, Oort, Pipeline, PowerOfChoice, RandomScore, RoundRobin, Score
from flower_edge.store import RunFolder
from flower_edge.strategies import Hierarchical, Layer, Layered, LayeredGrid, Metered, blocks
from flower_edge.strategies.selected import Selected, SelectedState

NODES = 10
SCORES: dict[str, Score] = {
    "random": RandomScore(),
    "round-robin": RoundRobin(),
    "oort": Oort(),
    "power of choice": PowerOfChoice(),
    "fedcs": FedCS(),
}
DEVICES = [Device(fixed_s=1.0 + node) for node in range(NODES)]
LINKS = [Link(latency_s=0.01 * node) for node in range(NODES)]


def battery(context: Context, now_s: float | None) -> Conditions:
    """Terminals 0, 1, 2 are nearly empty; all are as fast as their number says."""
    place = int(context.node_config["partition-id"])
    return Conditions(battery=0.1 if place < 3 else 0.9, step_s=0.1 * (1 + place), up_bps=1e6, extra={"site": "hall"})


def app(source: Callable[[Context, float | None], Conditions] = battery) -> ClientApp:
    return answer_conditions(toy_app(), source)


class Listening(WrappedGrid):
    """Keeps who was sent what kind of message, exchange by exchange."""

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self.sent: list[tuple[str, list[int]]] = []

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        messages = list(messages)
        if messages:
            kinds = {message.metadata.message_type for message in messages}
            self.sent.append((kinds.pop(), sorted(message.metadata.dst_node_id - 1000 for message in messages)))
        return super().send_and_receive(messages, timeout=timeout)

    def of(self, kind: str) -> list[list[int]]:
        return [nodes for sent, nodes in self.sent if sent == kind]


def run(
    selected: Layer[Any],
    rounds: int = 3,
    strategy: Strategy | None = None,
    client: Callable[[], ClientApp] = app,
    clock: bool = False,
    **options: Any,
) -> tuple[Result, Listening]:
    random.seed(4)
    np.random.seed(4)
    with LocalGrid(client(), NODES, script=options.pop("script", ())) as local:
        grid = Listening(VirtualClock(local, DEVICES, LINKS) if clock else local)
        result = Layered(strategy or FedAvg(fraction_evaluate=0.5), selected).start(
            grid, initial_model(), num_rounds=rounds, **options
        )
    return result, grid


class TestSelectedByOort(LayerLaws):
    def make(self) -> Layer[Any]:
        return Selected(Pipeline(3, score=Oort()), seed=7, conditions="none")


class TestSelectedByPowerOfChoice(LayerLaws):
    def make(self) -> Layer[Any]:
        return Selected(Pipeline(0.8, score=PowerOfChoice()), seed=7, conditions="none")


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("make", [FedAvg, FedAdam, lambda **options: Krum(num_malicious_nodes=1, **options)])
def test_with_two_more_lines_flowers_own_strategies_train_exactly_the_chosen(name: str, make: Any) -> None:
    result, grid = run(
        Selected(Pipeline(4, score=SCORES[name]), seed=1), strategy=make(fraction_evaluate=0.5), clock=True
    )
    assert [len(nodes) for nodes in grid.of("train")] == [4, 4, 4]
    assert [len(nodes) for nodes in grid.of("evaluate")] == [5, 5, 5]
    assert not same_model(result.arrays, initial_model())


def test_choosing_everybody_leaves_the_strategy_bit_for_bit_alone() -> None:
    with_all, _ = run(Selected(Pipeline(NODES, score=Oort()), seed=1))
    alone, _ = run(Metered())
    assert same_model(with_all.arrays, alone.arrays)
    assert with_all.evaluate_metrics_clientapp == alone.evaluate_metrics_clientapp


def test_another_seed_chooses_others_and_the_same_seed_the_same() -> None:
    chosen = {seed: run(Selected(Pipeline(4), seed=seed))[1].of("train") for seed in (1, 2)}
    assert chosen[1] != chosen[2]
    assert run(Selected(Pipeline(4), seed=1))[1].of("train") == chosen[1]


def test_the_strategys_own_draws_do_not_move_the_choice() -> None:
    one, other = (
        run(Selected(Pipeline(4), seed=1), strategy=FedAvg(fraction_evaluate=share))[1].of("train")
        for share in (0.0, 0.7)
    )
    assert one == other


# -- conditions


def test_who_does_not_satisfy_the_rule_is_never_trained() -> None:
    _, grid = run(Selected(Pipeline(5, eligible="battery >= 0.3"), seed=1))
    assert grid.of("train")
    assert all(node >= 3 for nodes in grid.of("train") for node in nodes)


def test_terminals_are_asked_only_where_a_stage_needs_it_and_no_more_often_than_wanted() -> None:
    def asked(selected: Selected) -> int:
        return len(run(selected, rounds=3)[1].of("query.conditions"))

    rule = Pipeline(5, eligible="battery >= 0.3")
    assert asked(Selected(Pipeline(5), seed=1)) == 0
    assert asked(Selected(rule, seed=1)) == 3
    assert asked(Selected(rule, seed=1, max_age=1)) == 2
    assert asked(Selected(Pipeline(5, score=Oort()), seed=1)) == 1
    assert asked(Selected(Pipeline(5, score=Oort()), seed=1, conditions="none")) == 0
    assert asked(Selected(Pipeline(5, eligible="picks < 9"), seed=1)) == 0


def test_nobody_answering_costs_a_question_and_not_the_round() -> None:
    result, grid = run(Selected(Pipeline(4, score=FedCS()), seed=1), client=toy_app)
    assert [len(nodes) for nodes in grid.of("train")] == [4, 4, 4]
    assert len(grid.of("query.conditions")) == 1
    assert not same_model(result.arrays, initial_model())


def test_conditions_that_come_with_a_reply_are_learned_and_taken_out() -> None:
    seen: list[set[str]] = []

    class Looking(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            replies = list(replies)
            seen.extend(set(reply.content) for reply in replies)
            return super().aggregate_train(server_round, replies)

    selected = Selected(Pipeline(5, score=RoundRobin(), eligible="unknown(battery) or battery >= 0.3"), seed=1)
    selected.asks = False
    _, grid = run(selected, 4, Looking(fraction_evaluate=0.0), lambda: toy_app([ConditionsMod(battery)]))
    assert seen
    assert all(records == {"arrays", "metrics"} for records in seen)
    # Everybody once; those that were found to be nearly empty never again.
    first, second, *later = grid.of("train")
    assert sorted(first + second) == list(range(NODES))
    assert all(node >= 3 for nodes in later for node in nodes)


def test_told_speeds_and_the_job_name_the_fastest_before_the_first_reply() -> None:
    job = Job(steps=10, up_bits=1e5)
    _, grid = run(Selected(Pipeline(3, score=FedCS(pool=NODES)), seed=1, job=job), rounds=1)
    assert grid.of("train") == [[0, 1, 2]]


# -- what is learned


def session(grid: Grid, selected: Selected) -> tuple[LayeredGrid, Callable[[], SelectedState]]:
    layered = LayeredGrid(grid, [selected])
    return layered, lambda: layered.states[0]


def test_losses_sizes_and_durations_are_learned_from_what_happened() -> None:
    selected = Selected(Pipeline(NODES), seed=1)
    with LocalGrid(toy_app(), NODES) as local:
        layered, state = session(VirtualClock(local, DEVICES, LINKS), selected)
        strategy = FedAvg(fraction_evaluate=0.0)
        for number in (1, 2):
            layered.announced(Round(number))
            messages = list(strategy.configure_train(number, initial_model(), ConfigRecord(), layered))
            replies = list(layered.send_and_receive(messages))
        layered.announced(Round(2, kind="evaluate"))
        list(layered.get_node_ids())
    losses = {reply.metadata.src_node_id: reply.content["metrics"]["train_loss"] for reply in replies}
    for place in range(NODES):
        row = state().learned.row(1000 + place)
        assert row["loss"] == losses[1000 + place]
        assert row["num_examples"] == 20 + 3 * place
        assert (row["picks"], row["last_asked"], row["last_round"]) == (2, 2, 2)
        assert row["compute_s"] == pytest.approx(1.0 + place)
        assert row["up_s"] == pytest.approx(0.01 * place)
        assert row["duration_s"] == pytest.approx(1.0 + 1.02 * place)


def test_who_fails_is_asked_but_has_not_answered() -> None:
    selected = Selected(Pipeline(NODES), seed=1)
    with LocalGrid(toy_app(), NODES, script=[Fault(node=3, kind="raise")]) as local:
        layered, state = session(local, selected)
        layered.announced(Round(1))
        list(layered.send_and_receive(list(FedAvg().configure_train(1, initial_model(), ConfigRecord(), layered))))
    assert state().learned.row(1003) == {"picks": 1.0, "last_asked": 1.0}


def test_asked_twice_in_a_round_it_chooses_once_and_knows_who_came_in_between() -> None:
    selected = Selected(Pipeline(4, score=Oort()), seed=1, conditions="none")
    with LocalGrid(toy_app(), NODES) as local:
        layered, state = session(local, selected)
        layered.announced(Round(1))
        local.disconnect(1009)
        first, one = list(layered.get_node_ids()), state()
        local.connect(1009)
        list(layered.get_node_ids())
        local.disconnect(1009)
        assert list(layered.get_node_ids()) == first
    assert (one.number, state().number) == (1, 1)
    assert repr(state().pipeline) == repr(one.pipeline)


# -- over-selection


def test_over_selected_rounds_end_with_the_replies_that_were_wanted() -> None:
    selected = Selected(Pipeline(4, over_select=1.5), seed=1)
    _, grid = run(selected, rounds=2, strategy=FedAvg(fraction_evaluate=0.0), clock=True)
    assert [len(nodes) for nodes in grid.of("train")] == [6, 6]
    clock = grid.inner
    assert isinstance(clock, VirtualClock)
    # The fourth of the six to be back ends each round; terminal p takes 1 + 1.02 p seconds, once it is free again.
    now_s, free_s = 0.0, dict.fromkeys(range(NODES), 0.0)
    for nodes in grid.of("train"):
        free_s |= {node: max(now_s, free_s[node]) + 1.0 + 1.02 * node for node in nodes}
        now_s = sorted(free_s[node] for node in nodes)[3]
    assert clock.now_s == pytest.approx(now_s)


def test_of_a_straggler_that_was_cut_off_the_duration_is_learned_when_it_is_known() -> None:
    selected = Selected(Pipeline(2, score=RoundRobin(), over_select=5.0), seed=1)
    with LocalGrid(toy_app(), NODES) as local:
        clock = VirtualClock(local, DEVICES, LINKS)
        layered, state = session(clock, selected)
        layered.announced(Round(1))
        messages = list(FedAvg().configure_train(1, initial_model(), ConfigRecord(), layered))
        assert len(list(layered.send_and_receive(messages))) == 2
        known: dict[float, int] = {}
        for number, until_s in enumerate((clock.now_s, 5.0, 30.0)):
            clock.wait_until(until_s)
            layered.announced(Round(1, kind="evaluate", edge=number))
            list(layered.get_node_ids())
            known[until_s] = sum("duration_s" in state().learned.row(1000 + node) for node in range(NODES))
    assert list(known.values()) == [2, 4, NODES]


def test_only_training_that_is_over_selected_is_cut_off() -> None:
    for pipeline, kind, expected in (
        (Pipeline(4, over_select=1.5), "train", 4),
        (Pipeline(4, over_select=1.5), "evaluate", None),
        (Pipeline(4), "train", None),
    ):
        selected = Selected(pipeline, seed=1)
        with LocalGrid(toy_app(), NODES) as local:
            _, state = selected.narrow(selected.init(), Round(1), local, list(local.get_node_ids()))
        assert selected.cut_off(state, Round(1, kind=kind)) == expected  # type: ignore[arg-type]


# -- moving, keeping


def test_handed_over_and_back_nothing_is_lost_or_gained() -> None:
    selected = Selected(Pipeline(6, score=Oort(), eligible="battery >= 0.0"), seed=1)
    with LocalGrid(app(), NODES) as local:
        layered, state = session(VirtualClock(local, DEVICES, LINKS), selected)
        for number in (1, 2, 3):
            layered.announced(Round(number))
            list(layered.send_and_receive(list(FedAvg().configure_train(1, initial_model(), ConfigRecord(), layered))))
        layered.announced(Round(3, kind="evaluate"))
        list(layered.get_node_ids())
    before = state()
    node = next(n for n in before.learned.nodes.tolist() if before.learned.row(n)["picks"] >= 2)
    parcel, without = selected.hand_over(before, node)
    assert without.learned.row(node) == {}
    assert without.told.row(node) == {}
    back = selected.take_over(without, node, parcel)
    assert back.learned.row(node) == before.learned.row(node)
    assert back.told.row(node) == before.told.row(node)
    assert dict(back.told_at) == dict(before.told_at)

    elsewhere = selected.take_over(selected.init(), node, parcel)
    row = elsewhere.learned.row(node)
    assert row["last_round"] == 1.0  # an edge that never chose: but it has answered somewhere
    assert row["loss"] == before.learned.row(node)["loss"]


def test_of_a_stranger_nothing_is_handed_over() -> None:
    selected = Selected(Pipeline(4), seed=1)
    parcel, _ = selected.hand_over(selected.init(), 1005)
    assert parcel is None


class Killed(BaseException):
    """As if the process were gone."""


class Deadly(Layer[None]):
    """Ends everything when a round has merged, if it is told which."""

    def __init__(self, number: int | None) -> None:
        self.number = number

    def merged(self, state: None, round: Round, before: ArrayRecord, after: ArrayRecord) -> tuple[ArrayRecord, None]:
        if round.cloud == self.number:
            raise Killed
        return after, state


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_resumed_run_equals_the_uninterrupted_one(name: str, share: float, tmp_path: Path) -> None:
    def start(folder: RunFolder, deadly: int | None, seed: int, resume: bool = False) -> tuple[Result, float]:
        random.seed(seed)
        with LocalGrid(app(), NODES) as local:
            clock = VirtualClock(local, DEVICES, LINKS)
            selected = Selected(Pipeline(4, score=SCORES[name], eligible="battery > 0", over_select=1.3), seed=3)
            layered = Layered(FedAvg(fraction_evaluate=share), selected, Deadly(deadly), Metered())
            result = layered.start(clock, initial_model(), 5, run=folder, resume=resume)
            return result, clock.now_s

    with RunFolder.create("whole", config={}, seed=5, root=tmp_path) as folder:
        whole, whole_s = start(folder, None, seed=5)
    with pytest.raises(Killed), RunFolder.create("killed", config={}, seed=5, root=tmp_path) as folder:
        start(folder, 3, seed=5)
    with RunFolder.create("resumed", config={}, seed=5, root=tmp_path) as again:
        again.continue_from(RunFolder.open(folder.path))
        # The strategy draws only to evaluate; its generators come from the checkpoint.
        resumed, resumed_s = start(again, None, seed=999, resume=True)
    assert same_model(whole.arrays, resumed.arrays)
    assert whole_s == resumed_s


def test_inside_a_hierarchy_every_edge_chooses_among_its_own() -> None:
    def edge(cell: str) -> Strategy:
        pipeline = Pipeline(2, score=Oort(), eligible="battery >= 0.3")
        return Layered(
            FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1), Selected(pipeline, seed=2)
        )

    random.seed(1)
    with LocalGrid(app(), NODES) as local:
        grid = Listening(VirtualClock(local, DEVICES, LINKS))
        strategy = Hierarchical(edge=edge, cells=blocks(2), edge_rounds=2)
        result = strategy.start(grid, initial_model(), num_rounds=2)
    assert not same_model(result.arrays, initial_model())
    trained = grid.of("train")
    assert len(trained) == 8  # two edges, two edge rounds, two cloud rounds
    assert all(len(nodes) == 2 for nodes in trained)
    assert all(min(nodes) >= 3 and len({node < 5 for node in nodes}) == 1 for nodes in trained)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Selected(RandomScore(), seed=1), "Selected.Pipeline"),  # type: ignore[arg-type]
        (lambda: Selected(Pipeline(3), seed=1, conditions="always"), "'ask' or 'none'"),  # type: ignore[arg-type]
        (lambda: Selected(Pipeline(3), seed=1, max_age=-1), "max_age=-1"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(make: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


# --- kept for a whole cloud round ---


def test_who_is_held_trains_in_all_edge_rounds_of_a_cloud_round_and_then_others_may() -> None:
    def asked(*, hold: bool) -> list[list[int]]:
        def edge(cell: str) -> Layered:
            return Layered(FedAvg(fraction_evaluate=0.0), Selected(Pipeline(3), seed=1, hold=hold))

        with LocalGrid(app(), NODES) as local:
            grid = Listening(local)
            Hierarchical(edge=edge, cells=blocks(1), edge_rounds=3).start(grid, initial_model(), num_rounds=4)
        return grid.of("train")

    held, free = asked(hold=True), asked(hold=False)
    assert [held[at : at + 3] for at in (0, 3, 6, 9)] == [[held[at]] * 3 for at in (0, 3, 6, 9)]
    assert len({tuple(nodes) for nodes in held}) > 1
    assert any(free[at] != free[at + 1] for at in (0, 3, 6, 9))
    assert [free[at] for at in (0, 3, 6, 9)] == [held[at] for at in (0, 3, 6, 9)]


def test_who_is_held_and_gone_is_not_replaced_before_the_next_cloud_round_unless_all_are_gone() -> None:
    layer, nodes = Selected(Pipeline(3), seed=1, hold=True), list(range(1000, 1010))
    with LocalGrid(app(), NODES) as grid:
        chosen, state = layer.narrow(layer.init(), Round(1, 1, "here"), grid, nodes)
        left = [node for node in nodes if node != chosen[0]]
        assert layer.narrow(state, Round(1, 2, "here"), grid, left)[0] == chosen[1:]
        assert layer.load(layer.dump(state)).chosen == tuple(chosen)
        strangers = [node for node in nodes if node not in chosen]
        others, state = layer.narrow(state, Round(1, 3, "here"), grid, strangers)
        assert len(others) == 3
        assert len(layer.narrow(state, Round(2, 1, "here"), grid, nodes)[0]) == 3
