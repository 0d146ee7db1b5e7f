"""The terminal's half: it decides on the device, takes only what is like its own, and chooses what it trains on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.clients.sharing import SETS, allow_sharing, held_sets, share_data, training_data, withdraw_data
from flower_edge.errors import ConfigError, DataError
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.node_state import NodeState
from flower_edge.runtime.sharing_messages import MOST_SETS, Wanted, take_request
from flower_edge.sharing import Part, TrainingSet
from flower_edge.wire import round_trip

OWN = TrainingSet.of(np.zeros((10, 3), np.float32), np.zeros(10, np.int64), classes=4, made_at_s=40.0)


def other(samples: int = 4, dtype: Any = np.float32, value: float = 1.0, **card: Any) -> TrainingSet:
    x, y = np.full((samples, 3), value, dtype), np.ones(samples, np.int64)
    return TrainingSet.of(x, y, classes=4, origin="shared", **card)


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(run_id=1, node_id=7, node_config={"state-dir": str(tmp_path)}, state=RecordDict(), run_config={})


def ask(content: RecordDict, context: Context, **options: Any) -> RecordDict:
    policy, own = options.pop("policy", "1"), options.pop("own", OWN)
    app = share_data(ClientApp(), lambda context: own, policy, clock=lambda: 100.0, **options)
    # A message belongs to a run, which the Grid begins.
    with LocalGrid(app, 1):
        message = round_trip(Message(content, 7, "query.share"))
        return app(message, context).content


def give(context: Context, sets: dict[str, TrainingSet], parts: list[Part] | None = None, **options: Any) -> Any:
    planned = [Part(key, 0, len(one), len(one)) for key, one in sets.items()] if parts is None else parts
    return dict(ask(take_request(planned, sets), context, **options).config_records["share"])


def offer(context: Context, policy: Any, own: TrainingSet = OWN, **asked: Any) -> RecordDict:
    wanted = Wanted(**{"share": 0.5, "most": -1, "cell": "hall", **asked})
    return ask(RecordDict({"request": wanted.request()}), context, policy=policy, own=own)


# -- giving ----------------------------------------------------------------------------------------------------------


def test_nothing_leaves_the_device_by_default(context: Context) -> None:
    answer = offer(context, None, stop=5)
    assert not answer.array_records
    assert answer.config_records["share"]["agreed"] is False
    assert "public = False" in str(answer.config_records["share"]["why"])


def test_rows_come_only_with_the_owners_consent_and_are_those_of_the_draw(context: Context) -> None:
    answer = offer(context, "receiver_cell == 'hall' and age_s <= 60", start=1, stop=4)
    assert answer.array_records["rows"]["x"].shape == (3, 3)
    told = answer.config_records["share"]
    assert (told["samples"], told["age_s"], told["agreed"]) == (5, 60.0, True)
    assert not offer(context, "receiver_cell == 'barn'", stop=4).array_records


def test_who_asks_often_gets_no_more_samples_than_who_asks_once(context: Context) -> None:
    numbered = TrainingSet.of(np.arange(10, dtype=np.float32)[:, None].repeat(3, 1), np.zeros(10, np.int64), classes=4)

    def rows(**asked: Any) -> set[float]:
        return set(
            offer(context, "samples <= 5", own=numbered, stop=5, **asked).array_records["rows"]["x"].numpy()[:, 0]
        )

    once = rows()
    assert len(once) == 5
    assert rows(cell="another") == once
    assert rows(share=1.0, most=3) < rows(share=0.4) < once
    assert not offer(context, "samples <= 5", own=numbered, share=0.6, stop=6).array_records


def test_the_policy_sees_how_often_the_set_was_used(context: Context) -> None:
    assert not offer(context, "uses >= 2").config_records["share"]["agreed"]
    for _ in range(2):
        training_data(context, OWN)
    assert offer(context, "uses >= 2").config_records["share"]["agreed"]


def test_who_withdraws_gives_nothing_until_it_allows_it_again_also_after_a_restart(context: Context) -> None:
    withdraw_data(context)
    context.state.clear()
    answer = offer(context, "1", stop=5)
    assert not answer.array_records
    assert answer.config_records["share"]["why"] == "withdrawn by its owner"
    allow_sharing(context)
    assert offer(context, "1", stop=5).array_records


# -- taking ----------------------------------------------------------------------------------------------------------


def test_parts_are_put_together_and_used_only_when_whole(context: Context) -> None:
    sets = {"8/own": other(4)}
    assert give(context, sets, [Part("8/own", 0, 3, 4)])["taken"] == ["8/own"]
    assert held_sets(context) == {}
    give(context, sets, [Part("8/own", 3, 4, 4)])
    assert len(held_sets(context)["8/own"]) == 4
    assert (held_sets(context)["8/own"].x == 1.0).all()


@pytest.mark.parametrize(
    ("bad", "options", "why"),
    [
        (other(dtype=np.float64), {}, "float64"),
        (other(value=np.nan), {}, "not finite"),
        (other(50), {"most_bytes": 400}, "does not fit into 400 bytes"),
    ],
)
def test_a_set_unlike_its_own_or_too_large_is_refused_and_the_others_are_taken(
    context: Context, bad: TrainingSet, options: Any, why: str
) -> None:
    told = give(context, {"8/own": bad, "9/own": other()}, **options)
    assert (told["taken"], told["refused"]) == (["9/own"], ["8/own"])
    assert why in told["why"][0]
    assert list(held_sets(context)) == ["9/own"]


def test_a_gap_between_parts_loses_the_set_and_not_the_terminal(context: Context) -> None:
    sets = {"8/own": other(4)}
    give(context, sets, [Part("8/own", 0, 1, 4)])
    assert "rows 2..4 of 4 came and 1 are here" in give(context, sets, [Part("8/own", 2, 4, 4)])["why"][0]
    assert give(context, sets)["taken"] == ["8/own"]


def test_the_last_of_as_many_sets_as_are_held_may_come_in_parts(context: Context) -> None:
    one = other(1)
    entry = {"x": one.x, "y": one.y, "card": one.card.to_mapping(), "samples": 1}
    NodeState(context, SETS).save({f"{place}/own": entry for place in range(MOST_SETS - 1)})
    parts = [Part("last/own", 0, 1, 2), Part("last/own", 1, 2, 2), Part("more/own", 0, 1, 1)]
    told = give(context, {"last/own": other(2), "more/own": one}, parts)
    assert (told["taken"], told["refused"]) == (["last/own"], ["more/own"])
    assert "one more than the 1024 sets" in told["why"][0]


def test_what_is_to_be_dropped_is_gone(context: Context) -> None:
    give(context, {"8/own": other(), "9/own": other()})
    request = ConfigRecord({"ask": "drop", "keys": ["8/own", "nobody/own"]})
    answer = ask(RecordDict({"request": request}), context)
    assert answer.config_records["share"]["dropped"] == ["8/own", "nobody/own"]
    assert list(held_sets(context)) == ["9/own"]


# -- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "samples"),
    [
        ("both", 16),
        ("own", 10),
        ("common", 6),
        ("public", 2),
        ("origin == 'collected' or anonymous", 14),
        ("uses < 1", 16),
    ],
)
def test_the_terminal_decides_whether_it_trains_on_common_own_or_both(context: Context, use: str, samples: int) -> None:
    give(context, {"8/own": other(4, anonymous=True), "9/own": other(2, public=True)})
    data = training_data(context, OWN, use)
    assert len(data) == samples
    assert (data.x.dtype, data.y.dtype) == (OWN.x.dtype, OWN.y.dtype)


def test_its_own_samples_come_first_and_uses_are_counted_per_set(context: Context) -> None:
    give(context, {"8/own": other(4)})
    data = training_data(context, OWN, "uses < 2")
    assert (data.y == [0] * 10 + [1] * 4).all()
    assert len(training_data(context, OWN, "uses < 2")) == 14
    with pytest.raises(DataError, match="leaves none of 2 sets"):
        training_data(context, OWN, "uses < 2")


def test_with_nothing_common_it_trains_on_its_own(context: Context) -> None:
    assert training_data(context, OWN, "both") is OWN
    assert training_data(context, OWN, "common") is OWN


@pytest.mark.parametrize(
    "make",
    [
        lambda: share_data(ClientApp(), lambda context: OWN, "size_bytes <="),
        lambda: share_data(ClientApp(), lambda context: OWN, most_bytes=-1),
        lambda: share_data(ClientApp(), lambda context: OWN, seed=-1),
    ],
)
def test_what_cannot_be_is_refused_when_the_app_is_made(make: Callable[[], ClientApp]) -> None:
    with pytest.raises(ConfigError):
        make()
