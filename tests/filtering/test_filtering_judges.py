"""The tests of replies, one by one, on made-up updates: what each refuses, when it abstains, and its laws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.filtering.copies import Copies
from flower_edge.filtering.cosine import Cosine
from flower_edge.filtering.held_out import AtLeastReference, WithAndWithout
from flower_edge.filtering.norm import Norm
from flower_edge.filtering.track_record import TrackRecord
from flower_edge.filtering.trial import try_updates
from flower_edge.updates.manifest import Manifest, part_manifest, whole_manifest
from flower_edge.updates.merges import Merges
from flower_edge.updates.update import Update

SIZE = 300
TARGET = np.linspace(-1.0, 1.0, SIZE)
SPEC: dict[str, tuple[tuple[int, ...], str]] = {"w": ((SIZE,), "float32")}
BASE = {"w": np.zeros(SIZE, np.float32)}


@dataclass(frozen=True)
class Score:
    loss: float
    accuracy: float


def distance(arrays: Mapping[str, npt.NDArray[Any]]) -> Score:
    loss = float(np.mean((arrays["w"] - TARGET) ** 2))
    return Score(loss, 1.0 / (1.0 + loss))


def updates(moves: Sequence[npt.NDArray[Any]], weights: Sequence[float] | None = None) -> list[Update]:
    manifest = whole_manifest(SPEC)
    return [
        Update(f"{i:02}", {"w": np.asarray(move, np.float32)}, BASE, 1.0 if weights is None else weights[i], manifest)
        for i, move in enumerate(moves)
    ]


def honest(count: int, seed: int = 0, noise: float = 0.5) -> list[npt.NDArray[Any]]:
    """A tenth of the way to the target, each with noise of its own."""
    rng = np.random.default_rng(seed)
    return [0.1 * (TARGET + rng.normal(0, noise, SIZE)) for _ in range(count)]


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


ALL = (Norm(), Copies(), Cosine(), WithAndWithout(distance))


def test_honest_updates_pass_all_tests() -> None:
    trial = try_updates(ALL, updates(honest(12)), rng())
    assert trial.refused == {}
    assert trial.cost == {"evaluations": 14.0}  # the base, each alone, and all together: nobody is worse than it
    assert {"norm", "nearest", "cosine", "loss", "accuracy", "merged_loss"} <= trial.measured[0].keys()


# -- one attack, one test --------------------------------------------------------------------------------------------


def test_a_scaled_update_is_refused_by_its_norm() -> None:
    moves = honest(6)
    moves[2] = 10 * moves[2]
    refused = Norm().judge(updates(moves), rng()).refused
    assert list(refused) == [2]
    assert refused[2][0] == "norm"
    assert "at most 5" in refused[2][1]


def test_a_scaled_update_is_shortened_to_the_bound_where_that_is_asked_for() -> None:
    moves = honest(6)
    moves[2] = 10 * moves[2]
    said = Norm(then="clip").judge(updates(moves), rng())
    assert said.refused == {}
    lengths = [float(np.linalg.norm(move)) for i, move in enumerate(moves) if i != 2]
    assert said.clipped[2] * np.linalg.norm(moves[2]) == pytest.approx(5.0 * np.median(lengths), rel=1e-5)


def test_a_node_that_did_not_train_is_refused_by_its_norm() -> None:
    refused = Norm().judge(updates([*honest(5), np.zeros(SIZE)]), rng()).refused
    assert list(refused) == [5]
    assert "not trained" in refused[5][1]


def test_an_update_turned_around_is_refused_by_its_cosine() -> None:
    moves = honest(6)
    moves[0] = -moves[0]
    assert {i: code for i, (code, _) in Cosine().judge(updates(moves), rng()).refused.items()} == {0: "cosine"}


def test_of_colluders_that_send_one_vector_one_is_heard() -> None:
    moves = honest(12)
    for i in range(5):
        moves[i] = moves[0] * (1.0 + i)  # the length does not hide it
    refused = Copies().judge(updates(moves), rng()).refused
    assert len(refused) == 4
    assert set(refused) < set(range(5))
    assert all(code == "copied" for code, _ in refused.values())


def test_colluders_with_a_little_noise_of_their_own_are_still_copies() -> None:
    draws = np.random.default_rng(1)
    moves = honest(12)
    moves[:5] = [moves[0] + 0.002 * draws.normal(size=SIZE) for _ in range(5)]
    assert len(Copies().judge(updates(moves), rng()).refused) == 4


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
@settings(max_examples=25)
def test_honest_ones_are_no_copies_by_chance_where_little_was_moved(seed: int, moved: int) -> None:
    draws = np.random.default_rng(seed)
    moves = np.zeros((20, SIZE))
    moves[:, :moved] = draws.normal(size=(20, moved))
    assert len(Copies().judge(updates(list(moves)), rng()).refused) <= (moved == 2)


def test_the_model_s_last_step_sent_once_more_is_no_update() -> None:
    before = {"w": np.float32(-0.1 * TARGET)}
    moves = [*honest(8), 0.1 * TARGET, 0.3 * TARGET]  # honest ones go where the last step went, with noise
    sent = [replace(update, before=before) for update in updates(moves)]
    refused = Copies().judge(sent, rng()).refused
    assert {place: code for place, (code, _) in refused.items()} == {8: "replayed", 9: "replayed"}
    assert Copies().judge(updates(moves[:8]), rng()).refused == {}


def test_where_everybody_sends_the_same_nobody_is_a_copy() -> None:
    assert Copies().judge(updates([TARGET] * 6), rng()).refused == {}


@pytest.mark.parametrize("harm", [-0.5, -0.1, 0.0])
def test_eight_of_twenty_that_pull_back_a_little_are_refused_on_held_out_data(harm: float) -> None:
    draws = np.random.default_rng(3)
    bad = [harm * 0.1 * TARGET - 0.3 * TARGET + 0.02 * draws.normal(size=SIZE) for _ in range(8)]
    refused = WithAndWithout(distance).judge(updates([*bad, *honest(12)]), rng()).refused
    assert set(refused) == set(range(8))
    assert all("without it" in text for _, text in refused.values())


def test_held_out_harm_that_is_small_each_time_does_not_add_up() -> None:
    good = updates([*honest(12, noise=0.0)])
    worse = [move - 0.004 * TARGET * k for k, move in enumerate(honest(8, noise=0.0))]
    both = updates([*honest(12, noise=0.0), *worse])
    refused = WithAndWithout(distance).judge(both, rng()).refused
    clean = distance(Merges(BASE, good).of(range(12))).loss
    left = distance(Merges(BASE, both).of(i for i in range(20) if i not in refused)).loss
    assert left <= 1.04 * clean


def test_where_the_best_of_all_replies_is_a_collapse_all_are_refused() -> None:
    refused = WithAndWithout(distance).judge(updates([-3.0 * TARGET, -3.1 * TARGET]), rng()).refused
    assert set(refused) == {0, 1}
    assert "without any" in refused[0][1] or "without any" in refused[1][1]


def test_an_evaluation_that_is_no_number_is_worse_than_any() -> None:
    def lost(arrays: Mapping[str, npt.NDArray[Any]]) -> Score:
        return distance(arrays) if arrays["w"][0] > -0.2 else Score(float("nan"), float("nan"))

    assert set(WithAndWithout(lost).judge(updates([-TARGET * -9, *honest(3)]), rng()).refused) == {0}


def test_one_that_hardly_moved_does_not_make_all_others_look_bad() -> None:
    # Near the end of training: each other is one-sided and worse than the base alone, and all together are better.
    base = {"w": (TARGET + 0.2).astype(np.float32)}
    sides = np.array_split(np.random.default_rng(1).permutation(SIZE), 8)
    moves = [np.full(SIZE, -0.2) for _ in sides]
    for move, side in zip(moves, sides, strict=True):
        move[side] += 1.3
    sent = [replace(update, base=base, arrays={"w": base["w"] + update.arrays["w"]}) for update in updates(moves)]
    still = replace(sent[0], node="still", arrays=base, weight=0.1)
    assert all(distance(Merges(base, sent).of([i])).loss > distance(base).loss for i in range(8))
    assert WithAndWithout(distance).judge([*sent, still], rng()).refused == {}


def test_a_member_of_the_best_merge_without_which_it_is_better_is_refused() -> None:
    # Off the target by 1.00, 1.05 and -1.10, all worse than the base; the best beginning is all three.
    base = {"w": (TARGET + 0.9).astype(np.float32)}
    ends = [{"w": (TARGET + off).astype(np.float32)} for off in (1.0, 1.05, -1.1)]
    sent = [replace(update, base=base, arrays=end) for update, end in zip(updates([TARGET] * 3), ends, strict=True)]
    said = WithAndWithout(distance).judge(sent, rng()).refused
    assert said == {1: ("held-out", "held-out loss 0.1003 with it and 0.0025 without it; margin 6%")}


def test_where_the_model_is_right_already_a_trace_of_a_loss_is_no_harm() -> None:
    def errors(arrays: Mapping[str, npt.NDArray[Any]]) -> Score:
        wrong = float(np.mean(np.abs(arrays["w"]) > 1.0))
        return Score(wrong, 1.0 - wrong)

    moves = honest(5)
    for move, place in zip(moves, (3, 4, 5), strict=False):
        move[place] = 9.0
    assert WithAndWithout(errors).judge(updates(moves), rng()).refused == {}
    assert WithAndWithout(errors, least_loss=0.0).judge(updates(moves), rng()).refused != {}


def fails_at(bad: float) -> Any:
    def evaluate(arrays: Mapping[str, npt.NDArray[Any]]) -> Score:
        if arrays["w"][0] == np.float32(bad):
            raise ArithmeticError("overflow")
        return distance(arrays)

    return evaluate


@pytest.mark.parametrize("judge", [WithAndWithout, AtLeastReference])
def test_a_reply_at_which_the_evaluation_raises_is_refused_and_at_the_operators_model_it_goes_up(judge: Any) -> None:
    moves = [*honest(3), np.full(SIZE, 0.25)]
    refused = judge(fails_at(0.25)).judge(updates(moves), rng()).refused
    assert "ArithmeticError" in refused[3][1]
    with pytest.raises(ArithmeticError):
        judge(fails_at(0.0)).judge(updates(moves), rng())


def test_an_evaluation_that_says_something_else_is_named() -> None:
    with pytest.raises(ConfigError, match="expected what has a loss and an accuracy"):
        WithAndWithout(lambda arrays: (0.3, 0.9)).judge(updates(honest(3)), rng())  # type: ignore[arg-type, return-value]


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
@settings(max_examples=20)
def test_held_out_evaluations_are_at_most_three_for_each_reply(seed: int, count: int) -> None:
    draws = np.random.default_rng(seed)
    moves = [draws.normal(scale=draws.uniform(0.1, 3), size=SIZE) for _ in range(count)]
    cost = WithAndWithout(distance).judge(updates(moves), rng()).cost["evaluations"]
    assert count + 1 <= cost <= 3 * count


def test_the_strict_form_refuses_who_alone_is_worse_than_the_reference() -> None:
    moves = honest(4, noise=0.1)
    moves[1] = -moves[1]
    assert set(AtLeastReference(distance).judge(updates(moves), rng()).refused) == {1}
    assert AtLeastReference(distance, margin=1.0).judge(updates(moves), rng()).refused == {}
    assert set(AtLeastReference(distance, reference=1.0).judge(updates(moves), rng()).refused) == {0, 1, 2, 3}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("judges", [ALL, (Cosine(),), (AtLeastReference(distance),)])
def test_what_is_not_finite_is_refused_and_disturbs_nobody(value: float, judges: Any) -> None:
    moves = honest(6)
    moves[4] = moves[4].copy()
    moves[4][17] = value
    trial = try_updates(judges, updates(moves), rng())
    assert {i: code for i, (code, _) in trial.refused.items()} == {4: "not-finite"}


# -- when there is nothing to compare --------------------------------------------------------------------------------


@pytest.mark.parametrize("judge", [Norm(), Cosine(), Copies()])
def test_with_two_replies_a_test_by_majority_abstains(judge: Any) -> None:
    assert judge.judge(updates([TARGET, -50 * TARGET]), rng()).refused == {}
    assert judge.judge([], rng()).refused == {}


def test_pieces_that_share_nothing_are_not_compared() -> None:
    spec = dict.fromkeys("abc", ((4,), "float32"))
    base = {name: np.zeros(4, np.float32) for name in "abc"}
    sent = [
        Update(name, {name: np.full(4, scale, np.float32)}, base, 1.0, part_manifest(spec, {name: None}))
        for name, scale in zip("abc", (1.0, 1e6, -1.0), strict=True)
    ]
    assert try_updates((Norm(), Copies(), Cosine()), sent, rng()).refused == {}


def test_sub_models_are_compared_where_they_overlap() -> None:
    """Widths of 1, 1/2 and 1/4: the narrow ones turned around and blown up are found by what they share."""

    def narrow(key: str, move: npt.NDArray[Any], width: int) -> Update:
        manifest: Manifest = part_manifest(SPEC, {"w": (np.arange(width),)})
        return Update(key, {"w": move[:width].astype(np.float32)}, BASE, 1.0, manifest)

    moves = honest(9, noise=0.2)
    widths = [SIZE, SIZE, SIZE, 150, 150, 150, 75, 75, 75]
    sent = [narrow(f"{i}", move, width) for i, (move, width) in enumerate(zip(moves, widths, strict=True))]
    assert try_updates((Norm(), Copies(), Cosine()), sent, rng()).refused == {}
    turned = [narrow(u.node, -moves[i] if i == 7 else moves[i], widths[i]) for i, u in enumerate(sent)]
    assert {i: c for i, (c, _) in try_updates((Norm(), Cosine()), turned, rng()).refused.items()} == {7: "cosine"}
    blown = [narrow(u.node, 20 * moves[i] if i == 4 else moves[i], widths[i]) for i, u in enumerate(sent)]
    assert {i: c for i, (c, _) in try_updates((Norm(), Cosine()), blown, rng()).refused.items()} == {4: "norm"}


# -- laws ------------------------------------------------------------------------------------------------------------


@st.composite
def rounds(draw: st.DrawFn) -> list[npt.NDArray[Any]]:
    moves = honest(draw(st.integers(4, 9)), seed=draw(st.integers(0, 99)))
    for place in draw(st.lists(st.integers(0, len(moves) - 1), max_size=3)):
        moves[place] = moves[place] * draw(st.sampled_from([-1.0, 20.0, 0.0]))
    return moves


@settings(max_examples=15)
@given(rounds(), st.randoms(use_true_random=False))
def test_the_order_in_which_replies_come_does_not_matter(moves: list[npt.NDArray[Any]], shuffle: Any) -> None:
    sent = updates(moves)
    order = list(range(len(sent)))
    shuffle.shuffle(order)
    one = try_updates(ALL, sent, rng())
    other = try_updates(ALL, [sent[i] for i in order], rng())
    assert {sent[i].node: why for i, why in one.refused.items()} == {
        sent[order[i]].node: why for i, why in other.refused.items()
    }


@settings(max_examples=15)
@given(rounds(), st.sampled_from([2.0**-10, 0.5, 4.0, 2.0**12]))
def test_scaling_all_updates_changes_no_verdict_of_the_cheap_tests(
    moves: list[npt.NDArray[Any]], factor: float
) -> None:
    cheap = ALL[:3]
    one = try_updates(cheap, updates(moves), rng()).refused
    other = try_updates(cheap, updates([factor * move for move in moves]), rng()).refused
    assert {i: code for i, (code, _) in one.items()} == {i: code for i, (code, _) in other.items()}


def test_each_test_sees_only_what_the_ones_before_let_pass() -> None:
    """Five long ones of eleven raise the medians of the others; once they are heard once, the last is seen."""
    moves = honest(11)
    moves[:5] = [50 * moves[0]] * 5
    trial = try_updates((Copies(), Norm()), updates(moves), rng())
    assert set(trial.refused) == set(range(5))
    assert sorted(code for code, _ in trial.refused.values()) == ["copied"] * 4 + ["norm"]


def test_attackers_on_the_far_side_do_not_make_honest_ones_look_like_copies() -> None:
    moves = honest(12, noise=0.1)
    moves[:5] = [-TARGET] * 5
    assert set(Copies().judge(updates(moves), rng()).refused) < set(range(5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Norm(most=1.0),
        lambda: Norm(least=1.0),
        lambda: Norm(then="drop"),  # type: ignore[arg-type]
        lambda: Norm(least_replies=2),
        lambda: Cosine(least=-2.0),
        lambda: Cosine(coordinates=0),
        lambda: Copies(within=0.0),
        lambda: WithAndWithout(distance, margin=-0.1),
        lambda: WithAndWithout(distance, collapse=0.5),
        lambda: WithAndWithout(distance, accuracy_margin=2.0),
        lambda: AtLeastReference(0.9),  # type: ignore[arg-type]
        lambda: AtLeastReference(distance, reference=90.0),
        lambda: TrackRecord().with_reply(None, 1, half_life=0.0),
    ],
)
def test_an_argument_out_of_its_range_is_refused(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected|a cosine|between|3 or more|0 to 1"):
        make()


def test_reliability_falls_by_half_in_a_half_life_of_refusals_and_comes_back() -> None:
    record = TrackRecord()
    for number in range(1, 11):
        record = record.with_reply("norm", number)
    assert record.reliability == pytest.approx(0.5)
    assert record.row(11)["reliability"] == pytest.approx(0.5)
    assert record.row(21)["reliability"] == pytest.approx(0.75)
    assert record.with_reply(None, 11).reliability > record.reliability
    assert TrackRecord.from_tree(record.to_tree()) == record
    assert record.row(11) | {"reliability": 0} == {"reliability": 0, "accepted": 0, "refused": 10, "rounds": 10}
