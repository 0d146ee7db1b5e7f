"""How far the edges drift apart, and fewer edge rounds where they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from seeking_toy import ONE, goal, one_each, recorded, run, w

from flower_edge.errors import ConfigError
from flower_edge.strategies import (
    FedBuff,
    Hierarchical,
    LowerEdgeRounds,
    blocks,
)
from flower_edge.wire import arrays_of, record_of


def test_divergence_is_the_distance_between_an_edge_and_the_merge(tmp_path: Path) -> None:
    result, folder = recorded(tmp_path, Hierarchical(one_each, cells=blocks(2)), nodes=2, rounds=1)
    rows = {row.cell: row.number("divergence") for row in folder.rows("train") if row.cell}
    for node in range(2):
        assert rows[f"edge-{node}"] == pytest.approx(float(np.linalg.norm(goal(node) / 3 - w(result))))
    (row,) = folder.rows("nodes")
    assert row.number("divergence") == pytest.approx((1 * rows["edge-0"] + 2 * rows["edge-1"]) / 3)
    assert row.number("divergence_max") == pytest.approx(max(rows.values()))


def test_edge_rounds_are_halved_when_the_edges_drift_apart_and_it_is_told(tmp_path: Path) -> None:
    class Away(FedAvg):
        """Its edge runs away, further every round."""

        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            arrays, metrics = super().aggregate_train(server_round, replies)
            assert arrays is not None
            return record_of({"w": arrays_of(arrays)["w"] + 2.0**server_round}), metrics

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Any) -> None:
            pass

    strategy = Hierarchical(
        lambda cell: Away(**ONE, fraction_evaluate=0.0) if cell == "edge-0" else one_each(cell),
        cells=blocks(2),
        edge_rounds=4,
        lower=LowerEdgeRounds(growth=2.0),
    )
    _, folder = recorded(tmp_path, strategy, nodes=2, rounds=4)
    told = [row.values for row in folder.rows("event") if row.values.get("what") == "edge-rounds-lowered"]
    assert [event["edge_rounds"] for event in told][:1] == [2]
    used = [row.number("edge_rounds") for row in folder.rows("nodes")]
    assert used[0] == used[1] == 4.0
    assert used[2] == 2.0
    assert strategy.edge_rounds == 4, "what the user wrote stays"


def test_without_drift_edge_rounds_stay() -> None:
    strategy = Hierarchical(one_each, cells=blocks(2), edge_rounds=4, lower=LowerEdgeRounds())
    run(strategy, rounds=5)
    assert strategy.progress.edge_rounds == 4


def test_one_edge_alone_says_nothing_about_drift() -> None:
    rule = LowerEdgeRounds()
    assert rule.next(8, 0.0, 1.0) == (8, 1.0)
    assert rule.next(8, float("nan"), 1.0) == (8, 1.0)
    with pytest.raises(ConfigError, match="needs the drift of several edges"):
        Hierarchical(one_each, lower=rule, asynchronous=FedBuff(1))
