"""Sets that are withdrawn, replaced or lost, terminals that move, edges of their own, runs that are resumed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, Context
from flwr.serverapp.strategy import FedAvg
from sharing_toy import START, own_set, run, shared, sharing_app, words
from toy import same_model

from flower_edge.clients.sharing import withdraw_data
from flower_edge.errors import ConfigError, NestingError
from flower_edge.rounds import Round
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.wrapped_grid import WrappedGrid
from flower_edge.sharing import ShareBook, TrainingSet
from flower_edge.store import RunFolder
from flower_edge.strategies import Hierarchical, Layered, LayeredGrid, blocks
from flower_edge.strategies.sharing.shared_state import SharedState

# -- coming, going, taking back --------------------------------------------------------------------------------------


def test_what_an_owner_withdraws_is_dropped_by_everybody_and_not_asked_for_again() -> None:
    def takes_back(context: Context, number: int) -> None:
        if context.node_config["partition-id"] == 1 and number == 2:
            withdraw_data(context)

    seen, state, events = run(shared(every=1), sharing_app(before=takes_back), rounds=4)
    assert seen.trained[1][0] == (26, 4)
    assert seen.trained[2] == {0: (24, 3), 1: (26, 4), 2: (24, 3), 3: (24, 3)}
    assert seen.trained[3] == seen.trained[2]
    assert list(state.pool) == ["1000/own", "1002/own", "1003/own"]
    assert words(events, "withdrawn") == ["terminal 1001 has withdrawn 1001/own"]
    assert len(words(events, "dropped")) == 3


def test_who_has_a_withdrawn_set_though_its_answers_were_lost_is_told_to_drop_it() -> None:
    class Losing(WrappedGrid):
        """Whatever terminal 0 answers when it is handed sets does not arrive."""

        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
            messages = list(messages)
            lost = {m.metadata.dst_node_id for m in messages if m.content.get("request", {}).get("ask") == "take"}
            replies = super().send_and_receive(messages, timeout=timeout)
            return [reply for reply in replies if reply.metadata.src_node_id not in lost & {1000}]

    def takes_back(context: Context, number: int) -> None:
        if context.node_config["partition-id"] == 1 and number == 2:
            withdraw_data(context)

    seen, state, events = run(shared(), sharing_app(before=takes_back), rounds=3, wrap=Losing)
    assert [round[0] for round in seen.trained] == [(26, 4), (26, 4), (24, 3)]
    assert not any(row["receiver"] == "1000" for row in state.book.rows())
    assert len(words(events, "dropped")) == 3
    assert SharedState.load(state.dump()).unsure[1000] == state.unsure[1000] == ("1002/own", "1003/own")


def test_what_an_owner_no_longer_calls_anonymous_is_in_the_pool_no_more() -> None:
    trained: list[int] = []

    def own(context: Context) -> TrainingSet:
        return own_set(context, anonymous=not trained or context.node_config["partition-id"] != 0)

    app = sharing_app(own, before=lambda context, number: trained.append(number))
    seen, state, _ = run(shared("anonymous", every=1), app, rounds=2)
    assert list(state.pool) == ["1001/own", "1002/own", "1003/own"]
    assert [round[1] for round in seen.trained] == [(26, 4), (24, 3)]


def test_the_operator_withdraws_a_set_by_its_key() -> None:
    layer = shared()
    _, state, _ = run(layer, sharing_app())
    after = layer.withdraw(state, "1001/own")
    assert "1001/own" not in after.pool
    assert after.withdrawn == ("1001/own",)
    with pytest.raises(ConfigError, match="the pool has 1000/own"):
        layer.withdraw(state, "nobody/own")


def test_a_newer_set_replaces_the_one_before() -> None:
    number: list[int] = []

    def own(context: Context) -> TrainingSet:
        return own_set(context, made_at_s=float(len(number) > 0 and context.node_config["partition-id"] == 0))

    seen, state, _ = run(
        shared(every=1), sharing_app(own, before=lambda context, round: number.append(round)), rounds=2
    )
    assert "1000/own#2" in state.pool
    assert "1000/own" not in state.pool
    assert seen.trained[1][1] == (26, 4)


def test_a_terminal_that_lost_its_memory_is_given_the_sets_again() -> None:
    def forgets(context: Context, number: int) -> None:
        if number == 2 and context.node_config["partition-id"] == 0:
            for key in [key for key in context.state if "shared-sets" in key]:
                del context.state[key]

    seen, state, _ = run(shared(), sharing_app(before=forgets), rounds=3)
    assert [round[0] for round in seen.trained] == [(26, 4), (20, 1), (26, 4)]
    assert {row["times"] for row in state.book.rows() if row["receiver"] == "1000"} == {2}


def test_a_terminal_that_moves_takes_what_it_holds_and_what_is_to_be_dropped() -> None:
    with LocalGrid(sharing_app(), 4) as grid:
        here, there = (LayeredGrid(grid, [shared()]) for _ in range(2))
        here.announced(Round(1, kind="train"))
        here.get_node_ids()
        here.states[0] = here.layers[0].withdraw(here.states[0], "1001/own")  # type: ignore[attr-defined]
        there.take_over(1000, here.hand_over(1000))
        assert there.states[0].held[1000] == ("1001/own", "1002/own", "1003/own")
        assert there.states[0].withdrawn == ("1001/own",)
        assert 1000 not in here.states[0].held
        assert "1000/own" in here.states[0].pool


def test_every_edge_has_a_pool_of_its_own() -> None:
    books: dict[str, ShareBook] = {}
    trained: list[tuple[int, int]] = []

    class Noting(FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            replies = list(replies)
            trained.extend((r.content["metrics"]["num-examples"], r.content["metrics"]["classes"]) for r in replies)
            return super().aggregate_train(server_round, replies)

    strategy = Hierarchical(
        edge=lambda cell: Layered(Noting(fraction_evaluate=0.0), shared(watch=books.__setitem__)),
        cells=blocks(2),
        edge_rounds=2,
    )
    with LocalGrid(sharing_app(), 4) as grid:
        strategy.start(grid, START, num_rounds=1)
    assert set(trained) == {(22, 2)}
    pairs = {frozenset((row["owner"], row["receiver"])) for book in books.values() for row in book.rows()}
    assert {pair for pair in pairs if "edge" not in pair} == {
        frozenset(("1000", "1001")),
        frozenset(("1002", "1003")),
    }


def test_around_the_tiers_it_is_refused_with_the_right_nesting() -> None:
    strategy = Layered(Hierarchical(edge=lambda cell: FedAvg(), cells=blocks(2)), shared())
    with LocalGrid(sharing_app(), 4) as grid, pytest.raises(NestingError, match="put it inside"):
        strategy.start(grid, START, num_rounds=1)


def test_a_resumed_run_ends_with_the_same_model_and_book(tmp_path: Path) -> None:
    def ended(name: str, rounds: int, before: RunFolder | None = None) -> tuple[RunFolder, ArrayRecord, str]:
        books: dict[str, ShareBook] = {}
        random.seed(1)
        with (
            RunFolder.create(name, config={}, seed=5, root=tmp_path) as folder,
            LocalGrid(sharing_app(), 4) as grid,
        ):
            if before is not None:
                folder.continue_from(RunFolder.open(before.path))
            layered = Layered(FedAvg(fraction_evaluate=0.0), shared(watch=books.__setitem__))
            result = layered.start(grid, START, num_rounds=rounds, run=folder, resume=before is not None)
        return folder, result.arrays, repr(books[""].rows())

    _, model, book = ended("whole", 4)
    half, _, _ = ended("half", 2)
    _, resumed, told = ended("resumed", 4, half)
    assert same_model(model, resumed)
    assert book == told
