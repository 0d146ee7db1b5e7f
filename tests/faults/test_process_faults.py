"""Sixty faults of processes: who is struck, when, and how, is in `fault_table.py`, with what has to be so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_agents import AgentPair, agent_pair, check_agent
from fault_edges import check_edge, sweep_edge
from fault_nodes import Nodes, worker_nodes
from fault_nursery import Nursery
from fault_servers import check_server, sweep_server
from fault_table import CASES, HOW, SAMPLED, WHEN, WHO, Case
from fault_workers import check_worker

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as started:
        yield started


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentPair]:
    with agent_pair(tmp_path_factory.mktemp("agents")) as started:
        yield started


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with worker_nodes(tmp_path_factory.mktemp("nodes")) as started:
        yield started


def _params(*who: str) -> list[object]:
    return [
        pytest.param(case, id=case.name, marks=() if case.name in SAMPLED else pytest.mark.full)
        for case in CASES
        if case.who in who
    ]


@pytest.mark.parametrize("case", _params("worker"))
def test_worker(case: Case, nodes: Nodes, tmp_path: Path) -> None:
    check_worker(case, nodes, tmp_path)


@pytest.mark.parametrize("case", _params("agent"))
def test_agent(case: Case, agents: AgentPair) -> None:
    check_agent(case, agents)


@pytest.mark.parametrize("case", _params("edge"))
def test_edge(case: Case, nursery: Nursery, tmp_path: Path) -> None:
    check_edge(case, nursery, tmp_path)


@pytest.mark.parametrize("case", _params("server"))
def test_server(case: Case, nursery: Nursery, tmp_path: Path) -> None:
    check_server(case, nursery, tmp_path)


@pytest.mark.full
def test_an_edge_is_killed_at_every_call_to_its_disk(nursery: Nursery, tmp_path: Path) -> None:
    assert sweep_edge(nursery, tmp_path) > 10


@pytest.mark.full
def test_a_server_is_killed_at_every_call_to_its_disk(nursery: Nursery, tmp_path: Path) -> None:
    assert sweep_server(nursery, tmp_path) > 10


def test_the_table_is_whole_and_its_sample_is_spread() -> None:
    assert len(CASES) == 60
    assert len(SAMPLED) == 12
    sample = [case for case in CASES if case.name in SAMPLED]
    assert len(sample) == 12
    for part, names in ((0, WHO), (1, WHEN), (2, HOW)):
        counts = [sum((case.who, case.when, case.how)[part] == name for case in sample) for name in names]
        assert min(counts) >= 2, dict(zip(names, counts, strict=True))
    assert all(case.strikes and case.promise for case in CASES)
