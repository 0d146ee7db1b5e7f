"""Rows that the server sends, rows that workers move by a step, rows that take O(1) numbers: the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, MetricRecord
from test_gossip import NODES, make_app, model

from flower_edge.control.dcent import Dcent
from flower_edge.runtime import Fault, LocalGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.strategies import Gossip
from flower_edge.topology.set_ups import set_up
from flower_edge.wire import arrays_of

CONTROLLERS: dict[str, Any] = {
    "recommended": Dcent(step_cap=0.1),
    "literal": Dcent.literal(),
    "split": Dcent(theta=0.5, step_cap=0.3),
    "one step per row": Dcent(steps="row", step_cap=0.3),
    "one step per link": Dcent(steps="link", step_cap=0.3),
    "pruned, tried again": Dcent(step_cap=0.3, prune_below=0.08, probe_every=3),
    "pruned, min-max": Dcent(step_cap=0.3, prune_below=0.08, hand_over="min-max", connect="within tau", tau=4),
    "dolbie": Dcent.dolbie(step_cap=0.2),
    "full self entry, shared ties": Dcent(self_entry="full", ties="shared", step_cap=0.2),
}
LEARNED_BITS = 61_706 * 32.0


def run(controller: Dcent, signalling: Any, rounds: int, script: Any = (), serialise: bool = False) -> dict[str, Any]:
    """Mean models and controls after each round."""
    strategy = Gossip(
        controller,
        world=set_up("nlos", 3, nodes=NODES),
        signalling=signalling,
        payload_bits=LEARNED_BITS,
        fraction_evaluate=0.0,
    )
    means, rows, bands = [], [], []

    def look(number: int, arrays: ArrayRecord) -> MetricRecord | None:
        if number:
            assert strategy.group is not None
            assert strategy.group.mixing is not None
            means.append(arrays_of(arrays)["weight"])
            rows.append(strategy.group.mixing.weights)
            bands.append(strategy.group.mixing.bandwidth_hz)
        return None

    with LocalGrid(make_app(), NODES, script=script, serialise=serialise) as grid:
        clock = RoundClock(grid)
        result = strategy.start(clock, model(), rounds, evaluate_fn=look)
        return {"means": means, "rows": rows, "bands": bands, "s": clock.now_s, "result": result}


def same_whoever_computes(name: str, rounds: int) -> None:
    """Rows, bands, models and times."""
    sent = run(CONTROLLERS[name], "rows", rounds)
    for signalling in ("requirements", "scalars"):
        moved = run(CONTROLLERS[name], signalling, rounds)
        np.testing.assert_allclose(moved["rows"], sent["rows"], atol=1e-12)
        np.testing.assert_allclose(moved["bands"], sent["bands"], rtol=1e-12)
        np.testing.assert_allclose(moved["means"], sent["means"], rtol=1e-12)
        assert moved["s"] == pytest.approx(sent["s"], rel=1e-12)
    assert not np.array_equal(sent["rows"][0], sent["rows"][-1])


@pytest.mark.parametrize("name", ["recommended", "one step per link", "pruned, tried again", "pruned, min-max"])
def test_all_ways_of_signalling_give_the_same_rows_and_models(name: str) -> None:
    same_whoever_computes(name, rounds=8)


@pytest.mark.full
@pytest.mark.parametrize("name", CONTROLLERS)
def test_so_they_do_with_every_rule_and_in_longer_runs(name: str) -> None:
    same_whoever_computes(name, rounds=15)


@pytest.mark.parametrize("signalling", ["requirements", "scalars"])
def test_what_workers_tell_survives_flowers_own_serialisation(signalling: Any) -> None:
    plain = run(CONTROLLERS["recommended"], signalling, 5)
    through = run(CONTROLLERS["recommended"], signalling, 5, serialise=True)
    np.testing.assert_array_equal(through["means"], plain["means"])


@pytest.mark.parametrize("signalling", ["rows", "requirements", "scalars"])
@pytest.mark.parametrize("kind", ["raise", "silent"])
def test_a_worker_that_was_away_is_handed_its_row_again(signalling: Any, kind: Any) -> None:
    found = run(CONTROLLERS["recommended"], signalling, 10, script=[Fault(node=2, kind=kind, at=4)])
    assert len(found["means"]) == 10
    assert np.isfinite(found["means"]).all()
    told = found["result"].train_metrics_clientapp
    assert told[5]["links"] > 0
