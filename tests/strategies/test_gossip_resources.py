"""Gossip in a world whose links wait for more than the band: its round times are those of control alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp import Grid
from test_gossip import NODES, make_app, model, run

from flower_edge.control import Bandwidth, Dcent, DynamicOpt, Equal, Joint, VectorDcent
from flower_edge.control.resources import ResourceControl, processor
from flower_edge.control.simulate import simulate
from flower_edge.control.with_resources import WithResources
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.clock.round_clock import RoundClock
from flower_edge.store import RunFolder
from flower_edge.strategies import Gossip
from flower_edge.strategies.gossip.environment import Among
from flower_edge.topology.set_ups import set_up
from flower_edge.wire import arrays_of

BITS, ROUNDS = 61_706 * 32.0, 6
CPU = processor(2e8, cycles_per_bit=100.0)
CONTROLLERS: dict[str, Any] = {
    "told of them": Joint(Equal(), (Bandwidth(), CPU)),
    "moving all": VectorDcent((Bandwidth(), CPU), Dcent(step_cap=0.1)),
    "knowing none": Dcent(step_cap=0.1),
}


def gossip(controller: Any, world: Any, **options: Any) -> Gossip:
    return Gossip(controller, world=world, payload_bits=BITS, fraction_evaluate=0.0, **options)


def times_s(result: Any) -> list[float]:
    return [float(told["round_time_s"]) for told in result.train_metrics_clientapp.values()]


@pytest.mark.parametrize("name", CONTROLLERS)
def test_rounds_take_as_long_as_control_alone_says(name: str) -> None:
    world = WithResources(set_up("nlos", 1, nodes=NODES), (CPU,), BITS)
    strategy = gossip(CONTROLLERS[name], world)
    result, _ = run(strategy, rounds=ROUNDS)
    alone = simulate(CONTROLLERS[name], world, ROUNDS, payload_bits=BITS)
    np.testing.assert_allclose(times_s(result), alone.true_s, rtol=1e-12)
    assert strategy.group is not None
    assert isinstance(strategy.group.control, ResourceControl) == (name != "knowing none")
    # The processor does matter: without it rounds were shorter.
    assert alone.true_s.sum() > 1.1 * simulate(CONTROLLERS[name], world.world, ROUNDS, payload_bits=BITS).true_s.sum()


@pytest.mark.parametrize("name", CONTROLLERS)
def test_so_they_do_with_chosen_workers_of_a_larger_world(name: str) -> None:
    radio, chosen = set_up("nlos", 1, nodes=8), [1, 3, 4, 6]

    def workers(grid: Grid, nodes: Any) -> list[int]:
        return [nodes[k] for k in chosen]

    result, _ = run(
        gossip(CONTROLLERS[name], WithResources(radio, (CPU,), BITS), workers=workers), rounds=ROUNDS, nodes=8
    )
    alone = simulate(CONTROLLERS[name], WithResources(Among(radio, chosen), (CPU,), BITS), ROUNDS, payload_bits=BITS)
    np.testing.assert_allclose(times_s(result), alone.true_s, rtol=1e-12)


def test_a_narrowed_world_answers_in_the_order_of_its_nodes_whatever_that_is() -> None:
    radio, order = set_up("nlos", 1, nodes=6), [4, 0, 5, 2]
    outside, inside = WithResources(Among(radio, order), (CPU,), BITS), Among(WithResources(radio, (CPU,), BITS), order)
    control = simulate(CONTROLLERS["told of them"], outside, 3, payload_bits=BITS).control
    np.testing.assert_allclose(inside.under(control).latency_s(2), outside.under(control).latency_s(2), rtol=1e-12)
    assert len(set(outside.under(control).latency_s(2).round(9))) > 4
    calm = Among(radio, order)
    assert calm.under(control) is calm


def test_who_is_shown_the_coming_round_is_shown_what_its_links_wait_for() -> None:
    class Shown(DynamicOpt):
        def step(self, state: Any, observation: Any) -> Any:
            seen.append(observation.latency_s.min())
            return super().step(state, observation)

    seen: list[float] = []
    run(gossip(Shown(), WithResources(set_up("nlos", 1, nodes=NODES), (CPU,), BITS)), rounds=2)
    assert len(seen) == 2
    # All links are in use: each has the same part of the processor.
    assert seen == pytest.approx([BITS * 100.0 / (2e8 / (NODES - 1))] * 2)


@pytest.mark.parametrize("name", ["told of them", "moving all"])
def test_amounts_of_resources_survive_a_resume_bit_for_bit(tmp_path: Path, name: str) -> None:
    world = WithResources(set_up("nlos", 2, nodes=NODES), (CPU,), BITS)
    whole, means = run(gossip(CONTROLLERS[name], world), rounds=ROUNDS)
    with RunFolder.create("test", config={}, seed=0, root=tmp_path) as folder:
        with LocalGrid(make_app(), NODES) as grid:
            gossip(CONTROLLERS[name], world).start(RoundClock(grid), model(), 3, run=folder)
        with LocalGrid(make_app(), NODES) as other:
            again = gossip(CONTROLLERS[name], world).start(RoundClock(other), model(), ROUNDS, run=folder, resume=True)
    np.testing.assert_array_equal(arrays_of(again.arrays)["weight"], means[-1])
    assert times_s(again) == times_s(whole)
