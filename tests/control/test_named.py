"""Controllers by name: every entry runs, and a name that is none is met with one that is."""

from __future__ import annotations

import numpy as np
import pytest

from flower_edge.control.dcent import Dcent
from flower_edge.control.named import CONTROLLERS, find, make_controller, pruning_below
from flower_edge.control.simulate import simulate
from flower_edge.errors import ConfigError
from flower_edge.topology.set_ups import set_up


@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_named_controller_keeps_to_the_constraints_of_table_one(name: str) -> None:
    world = set_up("nlos", seed=1, nodes=8)
    trace = simulate(make_controller(name, seed=1), world, rounds=4)
    trace.control.check(world.topology, world.budget_hz)
    assert np.isfinite(trace.f_s).all()
    assert (trace.f_s >= trace.optimum_s * (1 - 1e-9)).all()


@pytest.mark.parametrize("name", ["one-peer", "matcha", pytest.param("time-optimal", marks=pytest.mark.full), "auto"])
def test_what_is_drawn_follows_from_the_seed(name: str) -> None:
    world = set_up("nlos", seed=2, nodes=8)
    one, again = (simulate(make_controller(name, seed=5), world, rounds=3) for _ in range(2))
    np.testing.assert_array_equal(one.f_s, again.f_s)


def test_only_the_comparator_knows_the_future() -> None:
    assert {name for name in CONTROLLERS if make_controller(name).clairvoyant} == {"optimum"}


def test_every_entry_says_in_one_line_what_it_does() -> None:
    said = [named.says for named in CONTROLLERS.values()]
    assert all(10 < len(text) < 110 and "\n" not in text for text in said)
    assert len(set(said)) == len(said)


def test_a_name_that_is_none_is_met_with_the_nearest_or_with_all() -> None:
    with pytest.raises(ConfigError, match="unknown controller 'dcant'; did you mean 'dcent'"):
        find("dcant")
    with pytest.raises(ConfigError, match="use one of equal, nocomm, "):
        make_controller("xyz")


def test_a_threshold_reaches_a_controller_inside_others_and_is_refused_where_none_prunes() -> None:
    assert pruning_below(Dcent(), 0.1) == Dcent(prune_below=0.1)
    changed = repr(pruning_below(make_controller("dcent-plus"), 0.125))
    assert "prune_below=0.125" in changed
    assert changed.startswith("MinMax(inner=DoublyStochastic(")
    with pytest.raises(ConfigError, match=r"Equal\(\) does not prune by weight"):
        pruning_below(make_controller("equal"), 0.1)
