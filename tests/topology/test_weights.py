"""Weights chosen from the graph: laws on any graph, closed forms, published values, and a bound no weights can beat."""

from __future__ import annotations

import math
from collections.abc import Callable

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from topology_graphs import SMALL, cut_grid, geometric, topologies, undirected

from flower_edge.errors import TopologyError
from flower_edge.topology.connectivity import connected
from flower_edge.topology.fdla import EXACT, fdla
from flower_edge.topology.mixing import column_sums, second_singular_value
from flower_edge.topology.rows import sum_rows
from flower_edge.topology.topology import Topology
from flower_edge.topology.weights import Weights, best_constant, equal, max_degree, metropolis

few = settings(max_examples=20)
Rule = Callable[..., Weights]
SYMMETRIC: list[Rule] = [metropolis, max_degree, best_constant, fdla]


def sigma2(topology: Topology, weights: Weights) -> float:
    return second_singular_value(topology, *weights)


# -- laws ------------------------------------------------------------------------------------------------------------


@few
@given(topologies())
def test_equal_shares_sum_to_one_on_any_graph(topology: Topology) -> None:
    weights, own = equal(topology)
    np.testing.assert_allclose(sum_rows(weights, topology.indptr) + own, 1.0, atol=1e-12)
    assert np.array_equal(weights, own[topology.receiver])
    assert (own > 0).all()


@pytest.mark.parametrize("rule", SYMMETRIC)
@few
@given(topology=undirected())
def test_symmetric_rules_are_doubly_stochastic_and_never_negative(rule: Rule, topology: Topology) -> None:
    weights, own = rule(topology)
    np.testing.assert_allclose(sum_rows(weights, topology.indptr) + own, 1.0, atol=1e-12)
    np.testing.assert_allclose(column_sums(topology, weights, own), 1.0, atol=1e-12)
    assert np.array_equal(weights, weights[topology.reverse_link])
    assert weights.min() >= 0
    assert own.min() >= 0


@pytest.mark.parametrize("rule", [equal, *SYMMETRIC])
@few
@given(topology=undirected(least=3), data=st.data())
def test_links_not_in_use_count_as_if_they_were_not_there(rule: Rule, topology: Topology, data: st.DataObject) -> None:
    edges = np.flatnonzero(topology.receiver < topology.sender)
    in_use = np.ones(topology.links, bool)
    for k in data.draw(st.lists(st.sampled_from(edges.tolist()), unique=True)):
        in_use[[k, topology.reverse_link[k]]] = False
        if not connected(topology, in_use):
            in_use[[k, topology.reverse_link[k]]] = True
    weights, own = rule(topology, in_use)
    fewer, fewer_own = rule(topology.keep(in_use))
    np.testing.assert_allclose(weights[in_use], fewer, atol=1e-9)
    np.testing.assert_allclose(own, fewer_own, atol=1e-9)
    assert (weights[~in_use] == 0).all()


@few
@given(undirected())
def test_weights_made_to_mix_mix_no_worse_than_what_they_could_have_copied(topology: Topology) -> None:
    optimum = sigma2(topology, fdla(topology))
    assert optimum <= min(sigma2(topology, rule(topology)) for rule in (metropolis, max_degree, best_constant)) + 1e-5
    assert sigma2(topology, fdla(topology, nonnegative=False)) <= optimum + 1e-5
    any_sign = best_constant(topology, nonnegative=False)
    assert sigma2(topology, any_sign) <= sigma2(topology, best_constant(topology)) + 1e-9


@pytest.mark.parametrize("rule", SYMMETRIC)
def test_a_one_way_edge_is_refused_by_name(rule: Rule) -> None:
    path = Topology(3, receiver=[1, 0, 2], sender=[0, 1, 1])
    with pytest.raises(TopologyError, match="edge 1 -> 2 exists in one direction only; add 2 -> 1"):
        rule(path)
    both = Topology.complete(3)
    in_use = np.ones(both.links, bool)
    in_use[both.find(0, 1)] = False
    with pytest.raises(TopologyError, match="edge 0 -> 1 exists in one direction only"):
        rule(both, in_use)


@pytest.mark.parametrize("rule", [best_constant, fdla])
def test_a_network_in_pieces_has_no_fastest_weights(rule: Rule) -> None:
    with pytest.raises(TopologyError, match="2 pieces, nodes 0 and 2"):
        rule(Topology(4, receiver=[0, 1, 2, 3], sender=[1, 0, 3, 2]))


@pytest.mark.parametrize("rule", [equal, *SYMMETRIC])
def test_a_node_alone_keeps_its_model(rule: Rule) -> None:
    weights, own = rule(Topology(1, [], []))
    assert (weights.shape, own.tolist()) == ((0,), [1.0])


# -- values ----------------------------------------------------------------------------------------------------------


def test_heuristics_reach_the_published_norms() -> None:
    """The two examples that come with Boyd, "Convex optimization of graph Laplacian eigenvalues", ICM 2006 (CVX)."""
    for topology, expected in ((SMALL, (0.7743, 0.7793, 0.7119)), (cut_grid(), (0.9917, 0.9927, 0.9921))):
        found = (
            metropolis(topology, lazy=False),
            max_degree(topology, lazy=False),
            best_constant(topology, nonnegative=False),
        )
        assert [round(sigma2(topology, weights), 4) for weights in found] == list(expected)


@pytest.mark.parametrize(
    ("topology", "nonnegative", "published", "percent"),
    [(SMALL, False, 0.643331, 0.3), (SMALL, True, 0.680961, 0.3), (cut_grid(), False, 0.9883, 0.05)],
    ids=["small-fdla", "small-fmmc", "cut-grid-fdla"],
)
def test_the_optimum_is_the_published_one(
    topology: Topology, nonnegative: bool, published: float, percent: float
) -> None:
    """Both methods; solved there as semidefinite programs."""
    exact = sigma2(topology, fdla(topology, nonnegative=nonnegative, method="exact"))
    digits = 6 if topology is SMALL else 4
    assert round(exact, digits) == published
    rough = sigma2(topology, fdla(topology, nonnegative=nonnegative, method="subgradient"))
    assert exact - 1e-5 <= rough <= exact * (1.0 + percent / 100)


def test_the_fastest_chain_on_the_cut_grid_is_the_published_one() -> None:
    topology = cut_grid()
    for method in ("exact", "subgradient"):
        assert round(sigma2(topology, fdla(topology, method=method)), 4) == 0.9888  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("graph", "least"),
    [
        (nx.path_graph(2), 0.0),
        (nx.path_graph(4), math.cos(math.pi / 4)),
        (nx.path_graph(7), math.cos(math.pi / 7)),
        (nx.complete_graph(5), 0.0),
        (nx.complete_bipartite_graph(3, 3), 1 / 3),
        (nx.hypercube_graph(3), 1 / 2),
        (nx.petersen_graph(), 3 / 7),
        (nx.cycle_graph(6), 3 / 5),
    ],
    ids=lambda value: str(value),
)
def test_graphs_with_a_known_optimum_reach_it(graph: nx.Graph, least: float) -> None:
    """Where all edges are alike, the best constant is the optimum: (l_max - l_2) / (l_max + l_2) of the Laplacian."""
    topology = Topology.from_networkx(graph)
    for nonnegative in (True, False):
        assert sigma2(topology, fdla(topology, nonnegative=nonnegative)) == pytest.approx(least, abs=1e-5)
        rough = sigma2(topology, fdla(topology, nonnegative=nonnegative, method="subgradient"))
        assert rough == pytest.approx(least, abs=1e-2)
    assert sigma2(topology, best_constant(topology)) == pytest.approx(least, abs=1e-9)


def test_a_star_mixes_fastest_with_a_negative_weight_of_its_centre() -> None:
    star = Topology.from_networkx(nx.star_graph(5))
    weights, own = best_constant(star, nonnegative=False)
    np.testing.assert_allclose(weights, 2 / 7)
    assert own[0] == pytest.approx(1 - 5 * 2 / 7)
    assert sigma2(star, (weights, own)) == pytest.approx(5 / 7)
    assert sigma2(star, fdla(star, nonnegative=False)) == pytest.approx(5 / 7, abs=1e-5)
    # Held at 0, its centre slows it down.
    assert sigma2(star, fdla(star)) == pytest.approx(4 / 5, abs=1e-5)


def floor_of(topology: Topology, nonnegative: bool, gap: float) -> float:
    """A norm that no symmetric weights beat, by cutting planes: each step a linear program over what bounds it."""
    first = topology.receiver < topology.sender
    a, b, n = topology.receiver[first], topology.sender[first], topology.nodes
    m = len(a)
    touches = np.zeros((n, m))
    touches[a, np.arange(m)] = touches[b, np.arange(m)] = 1.0
    cuts = [np.append(row, 0.0) for row in touches] if nonnegative else []
    bounds = [1.0] * len(cuts)
    w, best = np.full(m, 1.0 / (1.0 + touches.sum(axis=1).max())), math.inf
    while True:
        matrix = np.eye(n) - 1.0 / n
        for k in range(m):
            u = np.zeros(n)
            u[a[k]], u[b[k]] = 1.0, -1.0
            matrix -= w[k] * np.outer(u, u)
        values, vectors = np.linalg.eigh(matrix)
        best = min(best, max(values[-1], -values[0]))
        for sign, k in ((1, -1), (1, -2), (-1, 0), (-1, 1)):
            u = vectors[:, k]
            cuts.append(np.append(-sign * (u[a] - u[b]) ** 2, -1.0))
            bounds.append(-sign * (1.0 - u.sum() ** 2 / n))
        solved = linprog(
            np.append(np.zeros(m), 1.0),
            A_ub=np.array(cuts),
            b_ub=bounds,
            bounds=[(0.0 if nonnegative else -2.0, 2.0)] * m + [(0.0, 1.0)],
        )
        w, floor = solved.x[:-1], float(solved.x[-1])
        if best - floor < gap:
            return floor


@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("seed", [1, 2, 5])
def test_the_optimum_is_a_norm_that_no_weights_beat(seed: int, nonnegative: bool) -> None:
    topology = Topology.from_networkx(nx.gnm_random_graph(6, 9, seed=seed))
    floor = floor_of(topology, nonnegative, 1e-5)
    assert floor - 1e-6 <= sigma2(topology, fdla(topology, nonnegative=nonnegative)) <= floor + 1e-4


def test_a_large_network_is_improved_on_with_sparse_steps() -> None:
    topology = geometric(400, seed=3)
    assert topology.links // 2 > EXACT
    before = 1.0 - sigma2(topology, metropolis(topology))
    weights = fdla(topology, steps=25)
    after = 1.0 - sigma2(topology, weights)
    assert after > 1.5 * before
    assert min(weights[0].min(), weights[1].min()) >= 0
    constant = best_constant(topology)
    laplacian = np.linalg.eigvalsh(topology.dense(-1.0, topology.in_degree))
    wanted = min(2.0 / (laplacian[1] + laplacian[-1]), 1.0 / topology.in_degree.max())
    assert constant[0][0] == pytest.approx(wanted, rel=1e-3)
    assert np.array_equal(fdla(topology, steps=2)[0], fdla(topology, steps=2)[0])
    with pytest.raises(TopologyError, match="'auto', 'exact' or 'subgradient'"):
        fdla(topology, method="sdp")  # type: ignore[arg-type]
