"""What `Selected` tells others: events on choices that went wrong, and what it knows, for a rule on substitutes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Result
from toy import initial_model, same_model, toy_app
from travellers import CONFIG, ONE, clock, start_model, world
from travellers import app as travelling_app

from flower_edge.clients.conditions import answer_conditions
from flower_edge.conditions import Conditions
from flower_edge.rounds import Round
from flower_edge.rules import Rule
from flower_edge.runtime import LocalGrid, SteppedGrid
from flower_edge.runtime.wrapped_grid import WrappedGrid
from flower_edge.selection import FedCS, Job, Known, Oort, Pipeline, PowerOfChoice, RandomScore, RoundRobin
from flower_edge.store import RunFolder
from flower_edge.strategies import Coverage, Covered, Hierarchical, Layered, LayeredGrid, MidRound, blocks
from flower_edge.strategies.selected import Selected

NODES = 6


def battery(context: Context, now_s: float | None) -> Conditions:
    """Terminals 1 and 5 are nearly empty."""
    return Conditions(battery=0.1 if context.node_config["partition-id"] in (1, 5) else 0.9, extra={"site": "hall"})


def app() -> ClientApp:
    return answer_conditions(toy_app(), battery)


def selected_events(pipeline: Pipeline, folder: RunFolder) -> list[Any]:
    random.seed(4)
    with LocalGrid(app(), NODES) as grid:
        layered = Layered(FedAvg(fraction_evaluate=0.0), Selected(pipeline, seed=1))
        layered.start(grid, initial_model(), num_rounds=2, run=folder)
    return [row for row in folder.rows("event") if row.values["what"] == "selected"]


# -- events


def test_a_choice_that_left_some_out_is_told_once_with_its_counts(tmp_path: Path) -> None:
    with RunFolder.create("run", config={}, seed=5, root=tmp_path) as folder:
        told = selected_events(Pipeline(5, eligible="battery >= 0.3"), folder)
        chosen = [row.values["chosen"] for row in folder.rows("traffic")]
    assert [row.round for row in told] == [1, 2]
    assert told[0].values["text"] == "4 of 6 terminals chosen, 5 wanted; 2 do not satisfy battery >= 0.3"
    assert (told[0].values["unfit"], told[0].values["eligible"]) == (2, 4)
    assert chosen == [4, 4]


def test_a_choice_without_losses_is_not_told(tmp_path: Path) -> None:
    with RunFolder.create("run", config={}, seed=5, root=tmp_path) as folder:
        assert selected_events(Pipeline(4), folder) == []


def test_a_choice_from_nobody_is_not_told_and_the_later_word_of_a_round_is_the_one_that_counts() -> None:
    selected = Selected(Pipeline(4), seed=1)
    with LocalGrid(toy_app(), NODES) as local:
        _, empty = selected.narrow(selected.init(), Round(1, cell="east"), local, [])
        assert selected.events(empty)[0] == []
        _, few = selected.narrow(empty, Round(1, cell="east"), local, [1000, 1001])
        (event,), _ = selected.events(few)
        assert event.text == "2 of 2 terminals chosen, 4 wanted"
        _, enough = selected.narrow(few, Round(1, cell="east"), local, list(range(1000, 1005)))
        assert selected.events(enough)[0] == []


# -- what is known


def substitutes(eligible: str | None, known: Known | None) -> list[str]:
    """Who takes the place of terminal 0, which is slow; terminals 0 to 4 are asked, 5, 6 and 7 are free."""
    coverage = Coverage(world(["a"], [{0.0: "a"}] * 8))
    step_s = [9.0, *[1.0] * 7]
    with LocalGrid(answer_conditions(travelling_app(), battery), 8) as local:
        decide = MidRound(coverage, replace_slower_than=2.0, eligible=Rule(eligible) if eligible else None, known=known)
        grid = SteppedGrid(clock(local, step_s), 2, decide, reachable=coverage.reachable)

        def edge(cell: str) -> Layered:
            selected = Selected(Pipeline(5, score=RoundRobin()), seed=0, known=known)
            return Layered(FedAvg(fraction_evaluate=0.0, **ONE), Covered(coverage), selected)

        Hierarchical(edge=edge, cells=coverage).start(grid, start_model(), 1, 60.0, ConfigRecord(dict(CONFIG)))
        return [event.outcome for event in grid.events if event.decision == "replace"]


def test_a_rule_on_what_terminals_told_finds_a_substitute() -> None:
    assert substitutes(None, None) == ["returned; node 1005 begins anew"]
    assert substitutes("battery >= 0.3", Known()) == ["returned; node 1006 begins anew"]
    assert substitutes("battery >= 0.95", Known()) == []


def test_terminals_are_asked_for_those_who_look_things_up_even_where_the_pipeline_needs_nothing() -> None:
    known = Known()
    with LocalGrid(app(), NODES) as local:
        layered = LayeredGrid(local, [Selected(Pipeline(2), seed=1, known=known)])
        layered.announced(Round(1))
        list(layered.get_node_ids())
    assert [known(1000 + node)["battery"] for node in range(NODES)] == [0.9, 0.1, 0.9, 0.9, 0.9, 0.1]
    assert known(1000)["site"] == "hall"
    assert known(1000 + NODES) == {}


def test_all_that_the_pipeline_chooses_by_can_be_looked_up_estimates_too() -> None:
    known = Known()
    slow = answer_conditions(toy_app(), lambda context, now_s: Conditions(step_s=0.5, up_bps=1e3))
    with LocalGrid(slow, NODES) as local:
        layered = LayeredGrid(local, [Selected(Pipeline(2), seed=1, known=known, job=Job(steps=4, up_bits=3e3))])
        layered.announced(Round(1))
        list(layered.get_node_ids())
    row = known(1003)
    assert (row["compute_s"], row["up_s"], row["duration_s"], row["picks"]) == (2.0, 3.0, 5.0, 0.0)


def test_what_is_known_of_a_terminal_goes_with_it_and_only_one_edge_knows_it() -> None:
    known = Known()
    selected = Selected(Pipeline(2), seed=1, known=known)
    with LocalGrid(app(), NODES) as local:
        _, west = selected.narrow(selected.init(), Round(1, cell="west"), local, [1000, 1001])
        _, east = selected.narrow(selected.init(), Round(1, cell="east"), local, [1002])
    assert (known.of(1001, "west")["battery"], known.of(1001, "east")) == (0.1, {})
    parcel, _ = selected.hand_over(west, 1001)
    assert known(1001) == {}
    selected.take_over(east, 1001, parcel)
    assert (known.of(1001, "west"), known.of(1001, "east")["battery"]) == ({}, 0.1)
    assert known(1001) == known.of(1001, "east")


def test_where_two_edges_know_a_terminal_each_is_asked_for_its_own() -> None:
    known = Known()
    with LocalGrid(app(), NODES) as local:
        for cell, up_bits in (("west", 5.0), ("east", 4.0)):
            layered = LayeredGrid(local, [Selected(Pipeline(1), seed=1, known=known, job=Job(up_bits=up_bits))])
            layered.announced(Round(1, cell=cell))
            list(layered.get_node_ids())
    assert (known.of(1000, "west")["up_bits"], known.of(1000, "east")["up_bits"]) == (5.0, 4.0)
    assert known(1000) == known.of(1000, "east")


class Killed(BaseException):
    """As if the process were gone."""


class Dying(WrappedGrid):
    """Ends everything when a round of training with this number is to be sent; notes what is known before each."""

    def __init__(self, inner: Any, known: Known, number: int | None) -> None:
        super().__init__(inner)
        self.known, self.number = known, number
        self.noted: list[tuple[int, list[dict[str, float | str]]]] = []

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
        messages = list(messages)
        for message in messages[:1]:
            if message.metadata.message_type == "train":
                number = int(message.content["config"]["server-round"])
                if number == self.number:
                    raise Killed
                self.noted.append((number, [self.known(1000 + node) for node in range(NODES)]))
        return super().send_and_receive(messages, timeout=timeout)


@pytest.mark.parametrize("tiers", [False, True])
def test_a_resumed_run_knows_what_the_uninterrupted_one_knew(tiers: bool, tmp_path: Path) -> None:
    def start(folder: RunFolder, number: int | None, resume: bool = False) -> tuple[Result, Dying]:
        random.seed(5)
        known = Known()

        def one(cell: str = "") -> Layered:
            selected = Selected(Pipeline(2, score=Oort()), seed=3, known=known, max_age=9)
            return Layered(FedAvg(fraction_evaluate=0.0, **ONE), selected)

        strategy: Any = Hierarchical(edge=one, cells=blocks(2)) if tiers else one()
        with LocalGrid(app(), NODES) as local:
            grid = Dying(clock(local, [1.0] * NODES), known, number)
            return strategy.start(grid, initial_model(), 4, run=folder, resume=resume), grid

    def make(name: str) -> RunFolder:
        return RunFolder.create(name, config={}, seed=5, root=tmp_path)

    with make("whole") as folder:
        whole, undisturbed = start(folder, None)
    with pytest.raises(Killed), make("killed") as killed:
        start(killed, 3)
    with make("resumed") as again:
        again.continue_from(RunFolder.open(killed.path))
        resumed, grid = start(again, None, resume=True)
    assert same_model(whole.arrays, resumed.arrays)
    assert {number for number, _ in grid.noted} == {3, 4}
    assert repr(grid.noted) == repr(undisturbed.noted[-len(grid.noted) :])


def test_what_is_laid_out_replaces_what_lay_there_before() -> None:
    known = Known()
    selected = Selected(Pipeline(2), seed=1, known=known)
    with LocalGrid(app(), NODES) as local:
        state = selected.opened(selected.init(), local)
        assert repr(known) == "Known()"
        _, first = selected.narrow(state, Round(1), local, [1000])
        selected.narrow(first, Round(2), local, [1000, 1001])
        assert known(1001) != {}
        selected.opened(selected.load(selected.dump(first)), local)
    assert known(1001) == {}
    assert known(1000)["battery"] == 0.9


@pytest.mark.parametrize("score", [Oort(), PowerOfChoice(), FedCS(), RoundRobin(), RandomScore()])
def test_ids_as_large_as_flowers_own_choose_the_same_terminals(score: Any) -> None:
    """Flower draws ids of 64 bits without a sign; those of a LocalGrid are small."""

    def asked(shift: int) -> list[list[int]]:
        layer = Selected(Pipeline(3, score=score), seed=5, conditions="none")
        with LocalGrid(toy_app(), 8) as local:
            state, chosen = layer.opened(layer.init(), local), []
            for number in range(1, 6):
                round = Round(number)
                nodes, state = layer.narrow(state, round, local, [1000 + shift + i for i in range(8)])
                messages = [Message(RecordDict(), node, "train") for node in nodes]
                _, state = layer.outbound(state, round, messages)
                replies = []
                for message in messages:
                    metrics = MetricRecord({"loss": float(message.metadata.dst_node_id % 7), "num-examples": 10})
                    replies.append(Message(RecordDict({"metrics": metrics}), reply_to=message))
                _, state = layer.inbound(state, round, replies)
                state = layer.load(layer.dump(state))
                chosen.append([node - shift for node in nodes])
        return chosen

    large = 7 * (2**63 // 7) + 7  # the same rest by seven, so that the losses are the same
    assert asked(large) == asked(0)
