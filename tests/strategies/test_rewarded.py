"""Who is paid what for a merge: shares add up, and who makes the model no better earns nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message
from flwr.serverapp.strategy import FedXgbBagging
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.layer_laws import NeutralLayerLaws
from paying import POT, Replies, credits_of, evaluate, exchange, fedavg, paying, rewarded, session_of, with_arrays
from toy import DIMENSION, initial_model, toy_app

from flower_edge.errors import ConfigError, NestingError
from flower_edge.models import EvalResult
from flower_edge.rewards.budget import Budget
from flower_edge.rewards.enrolment import Enrolment
from flower_edge.rounds import Round
from flower_edge.runtime.error_codes import REFUSED
from flower_edge.runtime.flower_private import clone_message, error_in_place
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store.reward_book import RewardBook
from flower_edge.strategies import Gossip, Layer, Layered, LayeredGrid, Metered
from flower_edge.strategies.rewards.rewarded import Rewarded
from flower_edge.updates import merges
from flower_edge.wire import arrays_of, copy_content


class TestRewardedIsNeutral(NeutralLayerLaws):
    def make(self) -> Layer[Any]:
        return paying()


class TestRewardedByLeaveOneOutIsNeutral(NeutralLayerLaws):
    def make(self) -> Layer[Any]:
        return paying(method="leave-one-out", enrolled=Enrolment(100), budget=Budget(run=1000, rounds=2))


# -- what is paid ----------------------------------------------------------------------------------------------------


def test_a_round_pays_its_whole_pot_to_those_who_made_the_model_better() -> None:
    grid, told, _ = session_of(rewarded(), rounds=1)
    credits = credits_of(told)
    assert set(credits) == {"0", "1", "2", "3"}
    assert sum(credits.values()) == POT
    worth = {event.node: event.values["contribution"] for event in told if event.what == "rewarded"}
    assert {key for key, micro in credits.items() if micro > 0} == {key for key, value in worth.items() if value > 0}
    assert sorted(credits, key=credits.__getitem__) == sorted(worth, key=lambda key: max(0.0, worth[key]))
    assert grid.metrics() == {"paid_micro": POT, "carried_micro": 0, "contribution_evaluations": 16}
    settled = next(event for event in told if event.what == "settled")
    assert settled.values["method"] == "exact"
    assert settled.values["pot"] == settled.values["paid"] == POT


@given(
    pots=st.integers(0, 10**7),
    cap=st.none() | st.integers(0, 2 * 10**7),
    worth=st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=1, max_size=4),
)
@settings(max_examples=25, deadline=None)
def test_paid_and_carried_are_what_was_granted_after_every_round(
    pots: int, cap: int | None, worth: list[list[float]]
) -> None:
    layer = rewarded(budget=Budget(pots, run=cap))
    granted = 0

    def moved(number: int) -> Callable[[int, Message], list[Message]]:
        def change(k: int, reply: Message) -> list[Message]:
            base = np.arange(1.0, DIMENSION + 1, dtype=np.float32)
            return [
                with_arrays(reply, weight=base + np.float32(worth[number][k]), bias=np.zeros(1, np.float32) + number)
            ]

        return change

    with LocalGrid(toy_app(), 3) as local:
        grid = LayeredGrid(local, [layer])
        before = initial_model()
        for number in range(len(worth)):
            exchange(grid, Round(number + 1), before, moved(number))
            left = None if cap is None else cap - granted
            granted += pots if left is None else min(pots, left)
            merged = grid.merged(Round(number + 1), before, before)
            assert merged is before
            told = grid.events()
            found = grid.metrics()
            assert found["paid_micro"] + found["carried_micro"] == granted
            settled = next(event for event in told if event.what == "settled")
            assert sum(credits_of(told).values()) == settled.values["paid"]
            assert settled.values["paid"] in (0, settled.values["pot"])


def test_a_round_without_a_merge_pays_nothing_and_its_pot_is_carried_over() -> None:
    with LocalGrid(toy_app(), 3) as local:
        grid = LayeredGrid(local, [rewarded()])
        exchange(grid, Round(1), initial_model())
        assert grid.metrics() == {"paid_micro": 0, "carried_micro": POT}
        exchange(grid, Round(2), initial_model())
        grid.merged(Round(2), initial_model(), initial_model())
        assert grid.metrics()["paid_micro"] == 2 * POT
        assert {event.edge_round for event in grid.events()} == {0}


def test_where_nothing_made_the_model_better_nobody_is_paid() -> None:
    def away(k: int, reply: Message) -> list[Message]:
        return [with_arrays(reply, weight=np.full(DIMENSION, -50.0 - k, np.float32), bias=np.zeros(1, np.float32))]

    grid, told, _ = session_of(rewarded(), Replies(away), rounds=1)
    assert set(credits_of(told).values()) == {0}
    assert grid.metrics()["carried_micro"] == POT


def test_clients_that_are_equal_in_all_that_counts_differ_by_one_micro_credit_at_most() -> None:
    def same(k: int, reply: Message) -> list[Message]:
        target = np.arange(1.0, DIMENSION + 1, dtype=np.float32)
        return [with_arrays(reply, weight=target, bias=np.zeros(1, np.float32))]

    for nodes, method in ((3, "auto"), (10, "auto"), (7, "exact")):
        _, told, _ = session_of(rewarded(method=method), Replies(same), rounds=1, nodes=nodes)
        credits = credits_of(told)
        assert sum(credits.values()) == POT
        assert max(credits.values()) - min(credits.values()) <= 1


def test_where_all_are_enrolled_with_what_they_have_contributions_share_out_what_the_merge_has_gained() -> None:
    seen: list[tuple[ArrayRecord, ArrayRecord]] = []

    class Sees(Layer[None]):
        """Keeps the model before and after each merge."""

        def merged(
            self, state: None, round: Round, before: ArrayRecord, after: ArrayRecord
        ) -> tuple[ArrayRecord, None]:
            seen.append((before, after))
            return after, state

    enrolled = {str(k): Enrolment(most_examples=20 + 3 * k) for k in range(4)}
    _, told, _ = session_of(rewarded(enrolled=enrolled), Sees(), rounds=3)
    totals = [event.values["total"] for event in told if event.what == "settled"]
    for place, (before, after) in enumerate(seen):
        gained = evaluate(arrays_of(before)).loss - evaluate(arrays_of(after)).loss
        assert totals[place] == pytest.approx(gained, rel=1e-5)
    values = [float(event.values["contribution"]) for event in told if event.what == "rewarded"]
    assert sum(values) == pytest.approx(sum(map(float, totals)), abs=1e-9)


@pytest.mark.parametrize("nodes", [4, 10])
def test_a_large_model_is_paid_for_like_a_small_one(nodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small = credits_of(session_of(rewarded(), nodes=nodes, rounds=1)[1])
    monkeypatch.setattr(merges, "_MOST_KEPT", 0)
    large = credits_of(session_of(rewarded(), nodes=nodes, rounds=1)[1])
    assert large == pytest.approx(small, abs=POT * 1e-5)


def test_more_than_eight_are_sampled_and_the_same_seed_pays_the_same() -> None:
    one, two = (session_of(rewarded(), nodes=10, rounds=1)[1] for _ in range(2))
    assert credits_of(one) == credits_of(two)
    assert next(event for event in one if event.what == "settled").values["method"] == "truncated"


def test_a_score_by_accuracy_is_another_one_than_by_loss() -> None:
    by_loss, by_accuracy = (
        credits_of(session_of(rewarded(score=score), rounds=12)[1]) for score in ("loss", "accuracy")
    )
    assert by_loss != by_accuracy


# -- who earns nothing -----------------------------------------------------------------------------------------------


def test_who_returns_the_model_it_was_given_earns_nothing() -> None:
    kept: dict[str, ArrayRecord] = {}

    class Lazy(Layer[None]):
        """Node 0 of the first round sends back what it was sent."""

        def outbound(self, state: None, round: Round, messages: list[Message]) -> tuple[list[Message], None]:
            kept["sent"] = messages[0].content.array_records["arrays"] if messages else initial_model()
            return messages, state

        def inbound(self, state: None, round: Round, replies: list[Message]) -> tuple[list[Message], None]:
            out = []
            for k, reply in enumerate(sorted(replies, key=lambda reply: reply.metadata.src_node_id)):
                content = copy_content(reply.content)
                if k == 0:
                    content["arrays"] = kept["sent"]
                out.append(clone_message(reply, content))
            return out, state

    _, told, _ = session_of(rewarded(), Lazy(), rounds=5)
    credits = credits_of(told)
    assert sorted(credits.values())[0] == 0
    assert sorted(credits.values())[1] > 0
    unchanged = [event for event in told if event.values.get("unchanged")]
    assert {event.values["frequency"] for event in unchanged} == {0.0}, "and takes no part"
    # But for the last bits of float32 models.
    assert [event.values["contribution"] for event in unchanged] == pytest.approx([0.0] * 5, abs=1e-5)

    _, told, _ = session_of(rewarded(absent="left-out"), Lazy(), rounds=1)
    (unchanged,) = [[event for event in told if event.values.get("unchanged")]]
    assert abs(float(unchanged[0].values["contribution"])) > 1.0, "it keeps the mean of the others back"
    assert credits_of(unchanged) == {unchanged[0].node: 0}


def test_a_second_reply_to_one_assignment_earns_nothing_more() -> None:
    once = credits_of(session_of(rewarded(), rounds=1)[1])

    def twice(k: int, reply: Message) -> list[Message]:
        return [reply, clone_message(reply)] if k == 1 else [reply]

    with LocalGrid(toy_app(), 4) as local:
        grid = LayeredGrid(local, [rewarded()])
        random.seed(2)
        assert len(exchange(grid, Round(1), initial_model(), twice)) == 5
        grid.merged(Round(1), initial_model(), initial_model())
        assert credits_of(grid.events()) == once


def test_what_nobody_asked_for_earns_nothing() -> None:
    with LocalGrid(toy_app(), 3) as local:
        grid = LayeredGrid(local, [rewarded()])
        old = exchange(grid, Round(1), initial_model())
        grid.merged(Round(1), initial_model(), initial_model())
        paid = credits_of(grid.events())
        grid.announced(Round(2))
        # The same replies, played once more into a round in which nobody was asked.
        grid.hop([], lambda outgoing: old)
        grid.merged(Round(2), initial_model(), initial_model())
        assert credits_of(grid.events()) == {}
        assert sum(paid.values()) == grid.metrics()["paid_micro"]


def test_a_refused_reply_earns_nothing_and_is_in_the_settlement_with_its_reason(tmp_path: Path) -> None:
    def refuse(k: int, reply: Message) -> list[Message]:
        return [error_in_place(reply, REFUSED, "refused (norm): 90 times the others") if k == 0 else reply]

    _, told, _ = session_of(rewarded(book=tmp_path / "b.sqlite", run="r"), Replies(refuse), rounds=1)
    credits = credits_of(told)
    (refused,) = [event for event in told if "refused" in event.values]
    assert credits[refused.node] == 0
    assert sum(credits.values()) == POT
    with RewardBook(tmp_path / "b.sqlite") as book:
        (settlement,) = book.settlements()
        assert settlement.details[refused.node]["refused"] == "refused (norm): 90 times the others"


@pytest.mark.parametrize("most_kept", [0, 10**6])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_reply_that_breaks_the_merge_earns_nothing_and_the_others_are_still_paid(
    value: float, most_kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of large models merges are grown member by member; then, too, nothing of it stays behind for the others.
    monkeypatch.setattr(merges, "_MOST_KEPT", most_kept)
    with LocalGrid(toy_app(), 4) as local:
        grid = LayeredGrid(local, [rewarded()])

        def broken(k: int, reply: Message) -> list[Message]:
            bad = np.full(DIMENSION, value, np.float32)
            return [with_arrays(reply, weight=bad, bias=np.zeros(1, np.float32)) if k == 2 else reply]

        exchange(grid, Round(1), initial_model(), broken)
        grid.merged(Round(1), initial_model(), initial_model())
        paid = sorted(credits_of(grid.events()).values())
        assert paid[0] == 0
        assert paid[1] > 0
        assert sum(paid) == POT


def test_a_merge_that_the_held_out_test_refuses_is_the_worst_and_a_mistake_in_the_test_is_told() -> None:
    def strict(arrays: Mapping[str, np.ndarray]) -> EvalResult:
        if abs(arrays["weight"]).max() > 1e6:
            raise ValueError("Input contains infinity or a value too large for dtype('float32')")
        return evaluate(arrays)

    def broken(k: int, reply: Message) -> list[Message]:
        huge = np.full(DIMENSION, 1e9, np.float32)
        return [with_arrays(reply, weight=huge, bias=np.zeros(1, np.float32)) if k == 2 else reply]

    with LocalGrid(toy_app(), 4) as local:
        grid = LayeredGrid(local, [Rewarded(strict, budget=Budget(POT), seed=3)])
        exchange(grid, Round(1), initial_model(), broken)
        grid.merged(Round(1), initial_model(), initial_model())
        paid = credits_of(grid.events())
        assert (paid["2"], sum(paid.values())) == (0, POT)
        grid = LayeredGrid(local, [Rewarded(lambda arrays: EvalResult(1.0 / 0, 0.0, 1))])
        exchange(grid, Round(1), initial_model())
        with pytest.raises(ZeroDivisionError):
            grid.merged(Round(1), initial_model(), initial_model())


@pytest.mark.parametrize("arrays", [{}, {"weight": np.zeros(2, np.float32)}, {"other": np.zeros(2, np.float32)}])
def test_a_reply_that_is_no_model_is_not_looked_at(arrays: dict[str, np.ndarray]) -> None:
    with LocalGrid(toy_app(), 3) as local:
        grid = LayeredGrid(local, [rewarded()])
        exchange(grid, Round(1), initial_model(), lambda k, reply: [with_arrays(reply, **arrays) if k == 2 else reply])
        grid.merged(Round(1), initial_model(), initial_model())
        assert len(credits_of(grid.events())) == 2


# -- what is refused -------------------------------------------------------------------------------------------------


def test_the_order_of_layers_is_told() -> None:
    with pytest.raises(NestingError, match=r"Layered\(strategy, Rewarded\(...\), Replies\(...\)\)"):
        Layered(fedavg(), Replies(lambda k, reply: [reply]), paying())
    Layered(fedavg(), rewarded(), Replies(lambda k, reply: [reply]), Metered())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "guess"}, "method = 'guess'"),
        ({"score": "f1"}, "score = 'f1'"),
        ({"absent": "gone"}, "absent = 'gone'"),
        ({"budget": 5}, "budget = 5"),
        ({"book": "x.sqlite"}, "needs run="),
    ],
)
def test_arguments_out_of_their_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        rewarded(**options)
    with pytest.raises(ConfigError, match="evaluate = 3"):
        Rewarded(3)  # type: ignore[arg-type]


def test_strategies_without_models_to_merge_are_refused() -> None:
    with pytest.raises(NestingError, match="boosters"):
        Layered(FedXgbBagging(), rewarded())
    with pytest.raises(NestingError, match="Gossip"):
        Layered(Gossip(), rewarded())


def test_an_evaluation_that_is_one_number_is_refused_and_it_says_what_to_return() -> None:
    one_number: Any = lambda arrays: 0.5  # noqa: E731
    with LocalGrid(toy_app(), 3) as grid, pytest.raises(ConfigError, match=r"evaluate returned 0\.5; .*EvalResult\("):
        Layered(fedavg(), Rewarded(one_number, seed=1)).start(grid, initial_model(), num_rounds=1)
