"""Rules and what was learned: which candidate is tried, and how near both come to trying everything."""

from __future__ import annotations

import numpy as np
import pytest
from control_cases import QUICK, controlled, trained
from hypothesis import given, settings
from hypothesis import strategies as st

from flower_edge.errors import FringeError
from flower_edge.fringe.actions import Action, Candidate
from flower_edge.fringe.evaluation_torch import evaluation
from flower_edge.fringe.fringe_torch import fringe
from flower_edge.fringe.goals import Goals
from flower_edge.fringe.history import Iteration
from flower_edge.fringe.policy import SlowestFirst
from flower_edge.fringe.policy_learned import CostModel, Learned
from flower_edge.fringe.pruning_pipeline_torch import heal, prune, rank
from flower_edge.fringe.wire_forms import WireForm
from flower_edge.store import tree_from_bytes, tree_to_bytes


def candidate(method: str, connection: int, amount: int, before: int, after: int, link_s: float = 0.1) -> Candidate:
    saved_s = link_s * (before - after) / before
    return Candidate(Action(method, connection, amount, 1.0), before, after, link_s, saved_s, 8, 8, after / 4000, False)


def recorded(method: str, before: int, after: int, lost: float) -> Iteration:
    row = candidate(method, 0, 4, before, after).row()
    return Iteration(
        1, method, 0, 4, 1.0, True, "", (before,), (after,), 0.1, 0.1, 0.95, 0.95 - lost, False, "", "", "", 1, 0.0, row
    )  # fmt: skip


def test_rules_take_the_slowest_connection_and_there_what_costs_least() -> None:
    slow = [candidate("pruning", 1, 4, 1000, 500, 0.2), candidate("quantisation", 1, 4, 1000, 500, 0.2)]
    fast = [candidate("quantisation", 0, 8, 1000, 250, 0.1)]
    assert SlowestFirst().choose([*fast, *slow], 0.01).action == slow[0].action
    eight = candidate("quantisation", 1, 8, 1000, 250, 0.2)
    pair = candidate("distillation", 1, 60, 1000, 60, 0.2)
    assert SlowestFirst().choose([*slow, pair, eight], 0.01) is eight
    assert SlowestFirst().choose([*slow, pair], 0.01) is pair


def test_what_was_learned_is_that_of_the_method_that_cost() -> None:
    rows = [recorded("quantisation", 4000, 1000, 0.0), recorded("quantisation", 1000, 500, 0.001)] * 4
    rows += [recorded("pruning", 1000, 500, 0.08), recorded("pruning", 1000, 700, 0.04)] * 4
    model = CostModel.fit(rows)
    bits, channels = candidate("quantisation", 0, 4, 1000, 500), candidate("pruning", 0, 4, 1000, 500)
    assert model.lost(bits) < 0.01 < 0.05 < model.lost(channels)
    assert model.holds(bits, 0.02) > 0.9 > 0.1 > model.holds(channels, 0.02)
    assert Learned(model).choose([channels, bits], 0.02) is bits
    more = candidate("pruning", 0, 1, 1000, 100)
    assert Learned(model).choose([bits, more], 0.5) is more  # with room enough it takes the larger step


def test_a_loss_that_rises_is_a_cost() -> None:
    rows = [recorded("pruning", 1000, 500, -0.5)] * 3  # the metric rose by a half
    assert CostModel.fit(rows, "loss").lost(candidate("pruning", 0, 4, 1000, 500)) > 0.3
    assert CostModel.fit(rows, "accuracy").lost(candidate("pruning", 0, 4, 1000, 500)) < -0.3


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(100, 4000), st.floats(0.05, 0.9), st.floats(-0.1, 0.9)), min_size=1, max_size=9))
def test_more_slack_never_makes_a_floor_less_likely(rows: list[tuple[int, float, float]]) -> None:
    model = CostModel.fit([recorded("pruning", size, int(size * share), lost) for size, share, lost in rows])
    one = candidate("pruning", 0, 4, 1000, 500)
    chances = [model.holds(one, slack) for slack in (0.0, 0.01, 0.1, 1.0)]
    assert chances == sorted(chances)
    assert all(0.0 <= chance <= 1.0 for chance in chances)
    kept = CostModel.from_state(tree_from_bytes(tree_to_bytes(model.state())))
    assert kept.lost(one) == model.lost(one)
    assert kept.seen == model.seen


def test_methods_that_it_never_saw_are_tried_last() -> None:
    model = CostModel.fit([recorded("pruning", 1000, 500, 0.0)] * 3)
    unknown = candidate("distillation", 0, 30, 1000, 30)
    known = candidate("pruning", 0, 4, 1000, 900)
    assert Learned(model).choose([unknown, known], 0.0) is known
    assert Learned(model).choose([unknown], 0.0) is unknown


def test_nothing_to_learn_from_and_state_of_something_else_are_refused() -> None:
    with pytest.raises(FringeError, match="0 evaluated iterations"):
        CostModel.fit([])
    for wrong in ({}, {"weights": np.zeros(3), "spread": 1.0, "seen": {}}):
        with pytest.raises(FringeError, match="cost model"):
            CostModel.from_state(wrong)


def test_rules_and_learned_come_near_to_trying_everything() -> None:
    """One connection: all numbers of channels with 4 and 2 bits, against what both policies end at."""
    whole, x, y = trained()
    layers, score = fringe(whole), evaluation(x[240:320], y[240:320])
    least = score(whole) - 0.05 - 1e-9
    ranking = rank(whole, 0, x[:96], layers)
    best = whole.wires[0].size_bytes()
    for count in range(1, 9):
        keep = ranking.keep(count)
        for bits in (4, 2):
            tried = prune(whole, 0, keep, ranking.map(keep), fringe=layers).formed({0: WireForm(bits)})
            if tried.wires[0].size_bytes() < best:
                healed, _ = heal(whole, tried, 0, x[:96], layers, recipe=QUICK, score=score)
                if score(healed) >= least:
                    best = tried.wires[0].size_bytes()
    goals = Goals(drop=0.05, bandwidth="40x")  # more than there is, so that all ends at the floor
    ruled = controlled(goals)
    ruled.run()
    learned = controlled(goals, policy=Learned(CostModel.fit(ruled.iterations)))
    learned.run()
    assert best < 200  # of 2072
    for controller in (ruled, learned):
        assert controller.version.sizes_bytes[0] <= 1.5 * best
        assert controller.version.score >= least
