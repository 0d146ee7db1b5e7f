"""Edges out of the centre's reach for some rounds: they train on, and nothing of it is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from seeking_toy import away, goal, one_each, recorded, run, w

from flower_edge.store import RunFolder
from flower_edge.strategies import (
    Hierarchical,
    blocks,
)


@pytest.mark.parametrize("out", [{2}, {2, 3}, {3, 4}, {5}])
def test_an_edge_out_of_reach_trains_on_and_uploads_what_it_learned_since(out: set[int], tmp_path: Path) -> None:
    strategy = Hierarchical(one_each, cells=blocks(2), reachable=away(out))
    result, folder = recorded(tmp_path, strategy, nodes=2, rounds=5)
    # While away it goes on from the model it last sent up; what it has learned since is added to the centre's.
    model, version, began = np.zeros(2), 0, 0
    sent = own = None
    for number in range(1, 6):
        zero = model + (goal(0) - model) / 3
        if number in out:
            assert sent is not None
            own = (sent if own is None else own) + (goal(1) - (sent if own is None else own)) / 3
            model, version = zero, version + 1
            continue
        if own is not None:
            own = own + (goal(1) - own) / 3
            one = model + (1 + version - began) ** -0.5 * (own - sent)
            sent, own = own, None
        else:
            one = model + (goal(1) - model) / 3
            sent, began = one, version
        model, version = (zero + 2 * one) / 3, version + 1
    np.testing.assert_allclose(w(result), model, rtol=1e-12)
    texts = [str(row.values["text"]) for row in folder.rows("event")]
    assert sum("out of the centre's reach; it trains on alone" in text for text in texts) == len(out)
    if max(out) < 5:
        assert any(row.values["what"] == "late-merged" for row in folder.rows("event"))


def test_an_edge_that_never_had_a_model_waits(tmp_path: Path) -> None:
    result, folder = recorded(tmp_path, Hierarchical(one_each, cells=blocks(2), reachable=away({1})), nodes=2, rounds=1)
    np.testing.assert_allclose(w(result), goal(0) / 3)
    assert any("has no model yet and waits" in str(row.values["text"]) for row in folder.rows("event"))


def test_a_run_stopped_while_an_edge_is_away_loses_nothing(tmp_path: Path) -> None:
    def strategy() -> Hierarchical:
        return Hierarchical(one_each, cells=blocks(2), reachable=away({2, 3}))

    whole, _ = run(strategy(), nodes=2, rounds=5)
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        run(strategy(), nodes=2, rounds=3, run=folder)
        rest, _ = run(strategy(), nodes=2, rounds=5, run=folder, resume=True)
    np.testing.assert_array_equal(w(rest), w(whole))
