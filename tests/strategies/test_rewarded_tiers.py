"""Edges pay their terminals, the centre pays its edges, and what an edge earns there goes on to its terminals."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context, Message
from flwr.serverapp.strategy import FedAvg, Result, Strategy
from hypothesis import given
from hypothesis import strategies as st
from toy import DIMENSION, initial_model, same_model, toy_app

from flower_edge.clients import edge_app
from flower_edge.codecs.error_feedback import stc
from flower_edge.errors import NestingError, RewardError
from flower_edge.events import Event
from flower_edge.models import EvalResult
from flower_edge.rewards.budget import Budget
from flower_edge.rewards.enrolment import Enrolment
from flower_edge.rounds import Round
from flower_edge.runtime.clock.devices import Device, Link
from flower_edge.runtime.clock.virtual_clock import VirtualClock
from flower_edge.runtime.edge_messages import EDGE_RECORD, EVENTS_KEY
from flower_edge.runtime.error_codes import REFUSED
from flower_edge.runtime.flower_private import clone_message, error_in_place
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store.reward_book import RewardBook
from flower_edge.store.run_folder import RunFolder
from flower_edge.strategies import CellTier, Compressed, FedBuff, Hierarchical, Layer, Layered, LocalTier, blocks
from flower_edge.strategies.rewards.payments import booked
from flower_edge.strategies.rewards.replies import credits_told
from flower_edge.strategies.rewards.rewarded import Rewarded
from flower_edge.wire import arrays_of, copy_content

NODES, POT, EDGE_POT = 6, 900_000, 400_000
_X = np.random.default_rng(9).normal(size=(60, DIMENSION)) + 0.5
_Y = _X @ np.arange(1.0, DIMENSION + 1) + 0.5


def evaluate(arrays: Mapping[str, np.ndarray]) -> EvalResult:
    """The toy's held-out data."""
    error = _X @ arrays["weight"].astype(float) + float(arrays["bias"][0]) - _Y
    return EvalResult(float(np.mean(error**2)), float(np.mean(np.abs(error) < 1.0)), len(_X))


def paying(book: Path | RewardBook | None = None, pot: int = POT, **options: Any) -> Rewarded:
    return Rewarded(evaluate, budget=Budget(pot), book=book, run="demo", seed=1, **options)


class AtTheCentre(Layer[None]):
    """Between the centre and its edges: changes an edge's train reply, by the edge's name."""

    def __init__(self, change: Any) -> None:
        self.change = change

    def inbound(self, state: None, round: Round, replies: list[Message]) -> tuple[list[Message], None]:
        if round.kind != "train":
            return replies, state
        cells = [str(reply.content[EDGE_RECORD]["cell"]) for reply in replies]  # type: ignore[index, call-overload]
        return [self.change(cell, reply) for cell, reply in zip(cells, replies, strict=True)], state


def start(strategy: Strategy, rounds: int = 2, **options: Any) -> Result:
    random.seed(4)
    with LocalGrid(toy_app(), NODES) as grid:
        return strategy.start(grid, initial_model(), num_rounds=rounds, **options)


def two_tiers(book: Path | RewardBook | None, *layers: Layer[Any], inside: bool = True, **options: Any) -> Layered:
    def edge(cell: str) -> Strategy:
        inner = FedAvg(fraction_evaluate=0.0)
        return Layered(inner, paying(book, EDGE_POT)) if inside else inner

    tiers = Hierarchical(edge=edge, cells=blocks(2), edge_rounds=2, seed=1, **options)
    return Layered(tiers, *(layers or (paying(book),)))


@pytest.fixture
def book(tmp_path: Path) -> Iterator[RewardBook]:
    with RewardBook(tmp_path / "rewards.sqlite") as opened:
        yield opened
        assert opened.verify().ok


@pytest.fixture
def other(tmp_path: Path) -> Iterator[RewardBook]:
    with RewardBook(tmp_path / "other.sqlite") as opened:
        yield opened


def by_kind(book: RewardBook, kind: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for settlement in book.settlements():
        if settlement.kind == kind:
            for node, micro in settlement.credits.items():
                total[node] = total.get(node, 0) + micro
    return total


def test_rewards_at_both_tiers_change_no_model() -> None:
    plain = start(Hierarchical(edge=lambda cell: FedAvg(fraction_evaluate=0.0), cells=blocks(2), edge_rounds=2, seed=1))
    assert same_model(start(two_tiers(None)).arrays, plain.arrays)


def test_edges_in_the_server_app_and_edges_in_client_apps_pay_the_same_into_one_book(tmp_path: Path) -> None:
    def edge(book: Path) -> Any:
        return lambda cell: Layered(FedAvg(fraction_evaluate=0.0), paying(book, EDGE_POT))

    def members(cell: str, context: Context) -> list[dict[str, int]]:
        first = 3 * int(context.node_config["partition-id"])
        return [{"partition-id": first + i, "num-partitions": NODES} for i in range(3)]

    inside, apart = tmp_path / "inside.sqlite", tmp_path / "apart.sqlite"
    one = start(Hierarchical(tier=CellTier(edge(inside), blocks(2)), edge_rounds=2, seed=1))
    nodes = [{"partition-id": i, "num-partitions": 2, "state-dir": ":memory:"} for i in range(2)]
    with LocalGrid(edge_app(toy_app(), edge(apart), members), nodes) as grid:
        two = Hierarchical(tier=LocalTier(), edge_rounds=2, seed=1).start(grid, initial_model(), num_rounds=2)
    assert same_model(one.arrays, two.arrays)
    with RewardBook(inside) as first, RewardBook(apart) as second:
        assert first.balances() == second.balances()
        assert {one.payer for one in first.settlements()} == {one.payer for one in second.settlements()}
        assert sorted((one.round, one.edge_round) for one in first.settlements() if one.payer == "edge-1") == [
            (1, 1), (1, 2), (2, 1), (2, 2),
        ]  # fmt: skip
        assert set(first.balances()) == {str(k) for k in range(NODES)}


def test_what_an_edge_earns_at_the_centre_goes_on_to_its_terminals_as_it_has_credited_them(book: RewardBook) -> None:
    start(two_tiers(book), rounds=1)
    settlements = list(book.settlements())
    (centre,) = [one for one in settlements if one.kind == "centre"]
    assert (centre.payer, centre.pot, centre.carried) == ("centre", POT, 0)
    assert centre.credits["edge-0"] == centre.credits["edge-1"] == 0
    parts = {cell: centre.details[cell]["passed_on"] for cell in ("edge-0", "edge-1")}
    assert sum(parts.values()) == POT
    for cell, members in (("edge-0", "012"), ("edge-1", "345")):
        told = dict.fromkeys(members, 0)
        for settlement in settlements:
            if settlement.payer == cell:
                for node, micro in settlement.credits.items():
                    told[node] += micro
        assert sum(centre.credits[node] for node in members) == parts[cell]
        for node in members:
            assert abs(centre.credits[node] - parts[cell] * told[node] / sum(told.values())) < 1.0
        assert all(centre.details[node]["through"] == cell for node in members)


def test_without_passing_on_and_without_credits_told_the_edges_are_paid_themselves(
    book: RewardBook, other: RewardBook
) -> None:
    start(two_tiers(book, paying(book, pass_on=False)))
    start(two_tiers(other, inside=False))
    assert set(by_kind(book, "centre")) == {"edge-0", "edge-1"}
    assert by_kind(book, "centre") == by_kind(other, "centre")
    assert sum(by_kind(other, "centre").values()) == 2 * POT


def test_a_refused_edge_and_its_terminals_get_nothing_from_the_centre(book: RewardBook) -> None:
    def refuse(cell: str, reply: Message) -> Message:
        return error_in_place(reply, REFUSED, "refused (held-out): worse") if cell == "edge-1" else reply

    start(two_tiers(book, paying(book), AtTheCentre(refuse)), rounds=1)
    paid = by_kind(book, "centre")
    assert paid["edge-1"] == 0
    assert {node for node, micro in paid.items() if micro} <= {"0", "1", "2"}
    assert sum(paid.values()) == POT
    assert by_kind(book, "training").keys() == set("012345")


@given(
    st.lists(
        st.one_of(
            st.text(max_size=20),
            st.integers(),
            st.fixed_dictionaries(
                {
                    "what": st.sampled_from(["rewarded", "left"]),
                    "node": st.one_of(st.text(max_size=3), st.none(), st.integers()),
                    "values": st.one_of(
                        st.none(),
                        st.fixed_dictionaries(
                            {"micro": st.one_of(st.integers(), st.floats(), st.booleans(), st.just(10**400))}
                        ),
                    ),
                }
            ).map(json.dumps),
        ),
        max_size=6,
    )
)
def test_whatever_an_edge_says_of_its_terminals_it_divides_its_own_part_and_no_more(told: list[Any]) -> None:
    credited = credits_told(told)
    assert all(type(micro) is int and micro >= 0 for micro in credited.values())
    assert all(isinstance(node, str) and node for node in credited)


def test_an_edge_that_lies_about_its_terminals_takes_nothing_from_the_other(
    book: RewardBook, other: RewardBook
) -> None:
    start(two_tiers(book), rounds=1)

    def boast(cell: str, reply: Message) -> Message:
        if cell == "edge-0":
            return reply
        content = copy_content(reply.content)
        said = [("4", 2**62), ("5", -3), ("3", 1e300), ("", 5)]
        events = [Event("rewarded", "earned", node, values={"micro": micro}).to_json() for node, micro in said]
        content[EDGE_RECORD][EVENTS_KEY] = events  # type: ignore[index, call-overload]
        return clone_message(reply, content)

    start(two_tiers(other, paying(other), AtTheCentre(boast)), rounds=1)
    one, two = by_kind(book, "centre"), by_kind(other, "centre")
    assert {node: one[node] for node in "012"} == {node: two[node] for node in "012"}
    assert two["4"] == one["3"] + one["4"] + one["5"]


def test_what_an_edge_calls_its_terminals_can_be_booked_and_read_or_is_no_credit() -> None:
    def told(*nodes: str) -> dict[str, int]:
        return credits_told([Event("rewarded", "earned", node, values={"micro": 5}).to_json() for node in nodes])

    assert told("ü-7", "a\0", "\ud800", "7\n8   999.0", "\x1b[31m", "x" * 201) == {"ü-7": 5}
    assert len(told(*map(str, range(10_000)))) == 10_000
    assert told(*map(str, range(10_001))) == {}, "each would be a row of the book"


def test_one_payer_pays_one_cell_a_round(book: RewardBook) -> None:
    def edge(cell: str) -> Strategy:
        return Layered(FedAvg(fraction_evaluate=0.0), paying(book, payer="me"))

    result = start(Hierarchical(edge=edge, cells=blocks(2), seed=1), rounds=1)
    assert sum(book.balances().values()) == POT
    assert set(book.balances()) == set("012"), "edge-1 is left out, and told why"
    assert result.train_metrics_clientapp
    # And so where the other one was quicker by a moment.
    with pytest.raises(RewardError, match=r"'me' has paid for it .* for cell 'edge-0' and not for 'edge-1'"):
        booked(book, replace(next(book.settlements()), cell="edge-1"), Round(1, 1, "edge-1"))


def test_a_terminal_that_went_to_another_edge_is_paid_through_both(book: RewardBook) -> None:
    def also(cell: str, reply: Message) -> Message:
        if cell == "edge-0":
            return reply
        content = copy_content(reply.content)
        events = [Event("rewarded", "earned", node, values={"micro": 5}).to_json() for node in ("2", "4")]
        content[EDGE_RECORD][EVENTS_KEY] = events  # type: ignore[index, call-overload]
        return clone_message(reply, content)

    start(two_tiers(book, paying(book), AtTheCentre(also)), rounds=1)
    (centre,) = [one for one in book.settlements() if one.kind == "centre"]
    assert centre.details["2"]["through"] == "edge-0, edge-1"
    assert centre.credits["2"] > centre.credits["4"] > 0
    assert centre.paid == POT


def test_an_edge_whose_reply_the_centre_cannot_read_is_neither_merged_nor_paid(book: RewardBook) -> None:
    def garbled(cell: str, reply: Message) -> Message:
        content = copy_content(reply.content)
        content[EDGE_RECORD][EVENTS_KEY] = ["nonsense"]  # type: ignore[index, call-overload]
        return clone_message(reply, content) if cell == "edge-1" else reply

    start(two_tiers(None, paying(book), AtTheCentre(garbled)), rounds=1)
    assert {node for node, micro in by_kind(book, "centre").items() if micro} == set("012")


def test_with_an_asynchronous_centre_each_edge_is_paid_once_for_each_merge_it_is_in(book: RewardBook) -> None:
    def edge(cell: str) -> Strategy:
        return FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)

    strategy = Layered(Hierarchical(edge=edge, cells=blocks(3), asynchronous=FedBuff(2), seed=1), paying(book))
    random.seed(4)
    with LocalGrid(toy_app(), 3) as local:
        clock = VirtualClock(local, [Device(step_s=s) for s in (1.0, 1.5, 4.0)], [Link()] * 3)
        strategy.start(clock, initial_model(), num_rounds=6)
    settlements = list(book.settlements())
    assert [one.round for one in settlements] == [1, 2, 3, 4, 5, 6]
    assert all(len(one.credits) == 2 for one in settlements)
    assert {node for one in settlements for node in one.credits} == {"edge-0", "edge-1", "edge-2"}
    carried = 0
    for one in settlements:
        assert one.pot == carried + POT
        carried = one.carried
    assert sum(book.balances().values()) + carried == 6 * POT


def test_an_edge_that_was_out_of_reach_is_paid_for_what_it_has_moved_by(book: RewardBook) -> None:
    seen: list[tuple[dict[str, Any], dict[str, Any]]] = []

    class Sees(Layer[None]):
        """Keeps the model before and after each merge."""

        def merged(
            self, state: None, round: Round, before: ArrayRecord, after: ArrayRecord
        ) -> tuple[ArrayRecord, None]:
            seen.append((arrays_of(before), arrays_of(after)))
            return after, state

    def reached(round: Round, cell: str) -> bool:
        return cell == "edge-0" or round.cloud != 2

    # What the edges of the toy have: their weights at the centre.
    enrolled = {"edge-0": Enrolment(20 + 23 + 26), "edge-1": Enrolment(29 + 32 + 35)}
    layer = paying(book, enrolled=enrolled, pass_on=False)
    start(two_tiers(None, layer, Sees(), inside=False, reachable=reached), rounds=3)
    settlements = list(book.settlements())
    assert [set(one.credits) for one in settlements] == [{"edge-0", "edge-1"}, {"edge-0"}, {"edge-0", "edge-1"}]
    worth = [sum(details["contribution"] for details in one.details.values()) for one in settlements]
    gained = [evaluate(before).loss - evaluate(after).loss for before, after in seen]
    assert worth[:2] == pytest.approx(gained[:2], rel=1e-4)
    # The centre merges what is late at a part of its change; here it counts as it is.
    assert worth[2] > gained[2] > 0
    assert settlements[2].details["edge-1"]["contribution"] > 0


def test_tiers_that_were_stopped_and_resumed_pay_as_if_they_had_not_been(
    tmp_path: Path, book: RewardBook, other: RewardBook
) -> None:
    start(two_tiers(book), rounds=3)
    with RunFolder.create("run", config={}, seed=1, root=tmp_path) as folder:
        start(two_tiers(other), rounds=2, run=folder)
        start(two_tiers(other), rounds=3, run=folder, resume=True)
        rows = [row for row in folder.rows("event") if row.values["what"] == "rewarded"]
    assert book.balances() == other.balances()
    assert sum(int(row.values["micro"]) for row in rows) == sum(other.balances().values())


def test_replies_folded_into_one_are_refused_with_what_to_write() -> None:
    with pytest.raises(NestingError, match="leave fold=True out"):
        Layered(FedAvg(fraction_evaluate=0.0), paying(), Compressed(stc(0.5), fold=True))
