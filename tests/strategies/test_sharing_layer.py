"""`Shared` collects from the willing, hands to whom both policies allow, and is nothing where nothing is shared."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from laws.layer_laws import LayerLaws, NeutralLayerLaws
from sharing_toy import FIRST, SPEC, START, Seen, own_set, run, shared, sharing_app, words
from toy import initial_model, same_model, toy_app

from flower_edge.clients.sharing import held_sets, share_data, sharing_mod
from flower_edge.errors import ConfigError
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.wrapped_grid import WrappedGrid
from flower_edge.sharing import SetSpec, TrainingSet
from flower_edge.strategies import Layered
from flower_edge.strategies.sharing.shared import Shared
from flower_edge.wire import payload_bits

# -- laws ------------------------------------------------------------------------------------------------------------


def toy_sharing() -> ClientApp:
    return share_data(toy_app([sharing_mod]), own_set, "1", clock=lambda: 0.0)


class TestSharing(LayerLaws):
    app = staticmethod(toy_sharing)

    def make(self) -> Shared:
        return shared(every=2)


class TestNothingShared(NeutralLayerLaws):
    def make(self) -> Shared:
        return Shared(share=0.0)


def test_where_nobody_is_willing_the_model_is_that_of_the_strategy_alone() -> None:
    def model(*layers: Shared) -> ArrayRecord:
        random.seed(1)
        with LocalGrid(sharing_app(policy=None), 4) as grid:
            return Layered(FedAvg(fraction_evaluate=0.0), *layers).start(grid, START, num_rounds=3).arrays

    assert same_model(model(), model(shared()))


def test_terminals_that_do_not_know_the_question_train_as_before() -> None:
    def model(*layers: Shared) -> ArrayRecord:
        random.seed(1)
        with LocalGrid(toy_app(), 4) as grid:
            return Layered(FedAvg(fraction_evaluate=0.0), *layers).start(grid, initial_model(), num_rounds=2).arrays

    assert same_model(model(), model(shared(every=1)))


# -- who is given what -----------------------------------------------------------------------------------------------


def test_everybody_has_a_tenth_of_everybodys_set_before_the_first_training() -> None:
    seen, state, events = run(shared(), sharing_app())
    assert seen.trained == [dict.fromkeys(range(4), (20 + 3 * 2, 4))]
    assert {(row["owner"], row["receiver"]) for row in state.book.rows()} == {
        (str(FIRST + owner), str(FIRST + to) if to is not None else "edge")
        for owner in range(4)
        for to in (0, 1, 2, 3, None)
        if owner != to
    }
    assert len(words(events, "collected")) == len(words(events, "shared")) == 4


def test_sharing_happens_once_and_uses_are_counted_in_every_round() -> None:
    _, state, _ = run(shared(), sharing_app(), rounds=3)
    assert {row["times"] for row in state.book.rows()} == {1}
    assert state.book.total_uses("1001/own") == 3 * 4


def test_an_owner_that_does_not_agree_is_not_collected_and_the_reason_is_told() -> None:
    app = sharing_app(lambda context: own_set(context, anonymous=context.node_config["partition-id"] != 2), "anonymous")
    seen, _, events = run(shared(), app)
    assert [seen.trained[0][node] for node in range(4)] == [(24, 3), (24, 3), (26, 4), (24, 3)]
    assert words(events, "share-refused") == [
        "the set of 1002 is not shared: its owner does not agree: rule anonymous does not hold: anonymous = False"
    ]


def test_an_edge_whose_policy_refuses_collects_nothing_though_owners_would_give() -> None:
    seen, state, events = run(shared(None), sharing_app())
    assert set(seen.trained[0].values()) == {(20, 1)}
    assert not state.pool
    assert len(words(events, "share-refused")) == state.book.refusals == 4
    assert "rule public does not hold" in words(events, "share-refused")[0]


def test_a_policy_may_name_receivers_and_each_refusal_is_told_once() -> None:
    seen, state, events = run(shared("receiver_partition_id < 2"), sharing_app(), rounds=3)
    assert [seen.trained[-1][node] for node in range(4)] == [(26, 4), (26, 4), (20, 1), (20, 1)]
    assert len(words(events, "share-refused")) == 6
    assert {row["receiver"] for row in state.book.rows()} == {"edge", "1000", "1001"}


def test_uses_told_by_terminals_count_in_the_policy() -> None:
    class Late(WrappedGrid):
        """Terminal 3 comes in the third round."""

        def get_node_ids(self) -> list[int]:
            nodes = list(self.inner.get_node_ids())
            return nodes if max(trained, default=0) >= 2 else nodes[:3]

    trained: list[int] = []
    app = sharing_app(before=lambda context, number: trained.append(number))
    fresh, _, _ = run(shared("uses <= 100"), app, rounds=3, wrap=Late)
    trained.clear()
    used, _, events = run(shared("uses <= 5"), app, rounds=3, wrap=Late)
    assert len(used.trained[1]) == 3
    assert fresh.trained[-1][3] == (26, 4)
    assert used.trained[-1][3] == (20, 1)
    assert any("uses = 6" in text for text in words(events, "share-refused"))


def test_a_set_of_the_edge_itself_goes_to_everybody() -> None:
    provided = TrainingSet.of(np.ones((5, 3), np.float32), np.full(5, 7), name="common", classes=8)
    seen, state, _ = run(shared(None, share=0.0, spec=None, provided=provided), sharing_app(policy=None))
    assert set(seen.trained[0].values()) == {(25, 2)}
    assert {row["key"] for row in state.book.rows()} == {"edge/common"}


def test_k_is_measured_on_what_is_shared_and_not_believed() -> None:
    names = ("age", "town", "income")

    def own(context: Context) -> TrainingSet:
        # All rows of a terminal agree in town; ages come in pairs.
        place = int(context.node_config["partition-id"])
        x = np.stack([np.repeat(np.arange(10.0), 2), np.full(20, place), np.arange(20.0)], axis=1).astype(np.float32)
        return TrainingSet.of(x, np.full(20, place), classes=8, columns=names, quasi_identifiers=["town"])

    spec = SetSpec((3,), classes=8, columns=names, quasi_identifiers=("town",))
    strict = SetSpec((3,), classes=8, columns=names, quasi_identifiers=("age", "town"))
    assert set(run(shared("k >= 2", spec=spec), sharing_app(own))[0].trained[0].values()) == {(26, 4)}
    seen, _, events = run(shared("k >= 2", spec=strict), sharing_app(own))
    assert set(seen.trained[0].values()) == {(20, 1)}
    assert any("k = 1" in text for text in words(events, "share-refused"))
    # An edge that has no columns cannot measure, and believes nobody.
    assert set(run(shared("k >= 2"), sharing_app(own))[0].trained[0].values()) == {(20, 1)}
    assert set(run(shared("1"), sharing_app(own))[0].trained[0].values()) == {(26, 4)}


def test_a_pool_that_is_full_takes_no_more() -> None:
    _, state, events = run(shared(pool_bytes=2 * 2 * SPEC.row_bytes), sharing_app())
    assert len(state.pool) == 2
    assert len(words(events, "share-refused")) == 2


def test_no_message_carries_more_of_a_set_than_a_piece() -> None:
    class Weighing(WrappedGrid):
        def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> Any:
            messages = list(messages)
            replies = list(super().send_and_receive(messages, timeout=timeout))
            rows.extend(
                len(record["y"].numpy())
                for message in [*messages, *replies]
                for record in message.content.array_records.values()
                if "y" in record
            )
            bits.append(sum(payload_bits(message.content) for message in messages if "query" in str(message.metadata)))
            return replies

    rows: list[int] = []
    bits: list[int] = []
    layer = shared(share=1.0, piece_bytes=7 * SPEC.row_bytes)
    seen, state, _ = run(layer, sharing_app(), wrap=Weighing)
    assert max(rows) == 7
    assert set(seen.trained[0].values()) == {(80, 4)}
    assert state.down_bits == sum(bits)


def test_what_travels_survives_flowers_own_serialisation() -> None:
    seen = Seen()
    with LocalGrid(sharing_app(), 3, serialise=True) as grid:
        Layered(seen, shared(share=1.0, piece_bytes=7 * SPEC.row_bytes)).start(grid, START, num_rounds=2)
    assert [set(round.values()) for round in seen.trained] == [{(60, 3)}] * 2


# -- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"share": 1.5}, "0 to 1"),
        ({"spec": None}, "without spec"),
        ({"every": -1}, "every=-1"),
        ({"piece_bytes": 0}, "piece_bytes=0"),
        ({"pool_bytes": -1.0}, "pool_bytes"),
        ({"provided": TrainingSet.of(np.zeros((1, 4), np.float32), np.zeros(1, np.int64))}, "not of its own spec"),
    ],
)
def test_arguments_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        shared(**options)


def test_what_is_held_can_be_looked_at() -> None:
    held: list[dict[str, TrainingSet]] = []
    run(shared(), sharing_app(before=lambda context, number: held.append(held_sets(context))))
    assert {card.origin for sets in held for card in (one.card for one in sets.values())} == {"shared"}
    assert all(len(sets) == 3 for sets in held)
