"""Two tiers as real processes: the same models as in one process, whoever is killed or moves in between.

One deployment for all: a centre, two edge hosts that `flower-edge edge` keeps going, and four terminals.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, RecordDict

from benchmarks.split_deployment import HOST
from benchmarks.two_tiers import EDGE_APP, TwoTiers, config_text
from benchmarks.two_tiers import deployment as deployed
from flower_edge.runtime import LocalGrid
from flower_edge.runtime.bridge.messages import Status
from flower_edge.runtime.node_state import NodeState
from flower_edge.strategies import Hierarchical, blocks

pytestmark = [pytest.mark.slow, pytest.mark.flwr, pytest.mark.timeout(900)]

PARAMETERS, SEED = 300, 5
#: On a busy machine every part takes long to start; nothing here waits longer than it has to.
LONG_S = 240.0


class Hosts(TwoTiers):
    """Edges kept going by the verb, and terminals that follow a file."""

    ports: tuple[int, ...] = ()

    def bridge_of(self, edge: int) -> Path:
        return self.made.folder / f"host-{edge}"

    def place(self, edge: int) -> Any:
        return type(super().place(edge))(self.bridge_of(edge) / "bridge")

    def start_keeper(self, edge: int, port: int, **config: Any) -> None:
        given = ("edge", str(EDGE_APP), "--name", f"edge-{edge}", "--state", str(self.bridge_of(edge)), "--insecure")
        where = ("--serve", f"{HOST}:{port}", "--centre", f"{HOST}:{self.made.port}", "--in-memory")
        words = config_text(terminals=2, run_name="tiers", **config)
        self.nodes[f"keeper-{edge}"] = self.made.start(
            f"keeper-{edge}", "flower-edge", *given, *where, "--run-config", words
        )

    def start_movable(self, partition: int, port: int) -> None:
        self.move(partition, port)
        config = config_text(partition_id=partition, num_partitions=4, state_dir=str(self.made.folder / "terminals"))
        given = ("node", "--insecure", "--attach", str(self.attachment(partition)), "--node-config", config)
        name = f"terminal-{partition}"
        self.nodes[name] = self.made.start(name, "flower-edge", *given)

    def attachment(self, partition: int) -> Path:
        return self.made.folder / f"attached-{partition}"

    def move(self, partition: int, port: int) -> None:
        part = self.attachment(partition).with_suffix(".part")
        part.write_text(f"{HOST}:{port}\n")
        part.replace(self.attachment(partition))

    def until(self, edge: int, holds: Callable[[Status], bool], what: str) -> Status:
        found: list[Status] = []

        def there() -> bool:
            status = self.status(edge)
            if status is not None and holds(status):
                found.append(status)
            return bool(found)

        self.made.wait_for(there, LONG_S, what)
        return found[0]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with deployed([]) as made:
        tiers = Hosts(made, [[0, 1], [2, 3]], warm=True, stock_poll=False)
        ports = tiers.ports = tuple(made.free_port() for _ in range(2))
        for edge in range(2):
            tiers.start_keeper(edge, ports[edge], slow_s=0.1)
            for partition in tiers.terminals[edge]:
                tiers.start_movable(partition, ports[edge])
        try:
            tiers.wait_for_edges(LONG_S)
            yield tiers
        finally:
            # In good order: what a keeper has started is its own and not the deployment's.
            keepers = [process for name, process in tiers.nodes.items() if name.startswith("keeper")]
            for process in keepers:
                process.send_signal(signal.SIGTERM)
            for process in keepers:
                process.wait(60)


def in_process(rounds: int, edge_rounds: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    monkeypatch.syspath_prepend(str(EDGE_APP))
    from fe_tiers_edge.client_app import app
    from fe_tiers_edge.server_app import inner

    model = ArrayRecord({"w": Array(np.linspace(-1, 1, PARAMETERS, dtype=np.float32))})
    with LocalGrid(app, 4) as grid:
        strategy = Hierarchical(edge=inner, cells=blocks(2), edge_rounds=edge_rounds, seed=SEED)
        return strategy.start(grid, model, num_rounds=rounds).arrays["w"].numpy().tolist()  # type: ignore[no-any-return]


def descendants(pid: int) -> dict[int, str]:
    """Processes below one, with their command lines."""
    listing = subprocess.run(["ps", "-axo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [(int(row[0]), int(row[1]), row[2]) for line in listing.splitlines() if len(row := line.split(None, 2)) > 2]
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        for child, above, words in rows:
            if above == parent and child not in found:
                found[child] = words
                waiting.append(child)
    return found


def kill(hosts: Hosts, part: str, words: str) -> None:
    """SIGKILL the one process below a part whose command line has these words."""
    (pid,) = [pid for pid, line in descendants(hosts.nodes[part].pid).items() if words in line]
    os.kill(pid, signal.SIGKILL)


def test_two_edges_of_real_processes_give_the_models_of_one_process(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Difference exactly 0: samples, messages and sums go by partition, never by arrival or node id."""
    config = {"run_name": "equal", "parameters": PARAMETERS, "seed": SEED, "timeout_s": 200.0}
    report = tmp_path / "equal.json"
    hosts.start_centre(report, cloud_rounds=2, edge_rounds=2, **config)
    told = hosts.wait_for_report(report, LONG_S)
    assert told["model"] == in_process(2, 2, monkeypatch)
    assert [cell["num-examples"] for cell in told["cells"]] == [23.0, 35.0, 23.0, 35.0]


def seen_by(hosts: Hosts, partition: int) -> int:
    """What a terminal remembers, from its disk."""
    config = {"partition-id": partition, "state-dir": str(hosts.made.folder / "terminals")}
    context = Context(2**40, 1, config, RecordDict(), {"run-name": "tiers"})
    return int(NodeState(context, "count").load() or 0)


def kill_in_a_round(hosts: Hosts, report: Path, killing: Callable[[Status], None]) -> dict[str, Any]:
    """Kill somebody while edge 0 is at work in the second of four rounds; what the centre told in the end."""
    config = {"run_name": report.stem, "parameters": PARAMETERS, "timeout_s": 25.0, "edge_rounds": 1}
    hosts.start_centre(report, cloud_rounds=4, **config)
    hosts.wait_for_report(report, LONG_S, rounds=1)
    killing(hosts.until(0, lambda status: status.state == "training", "edge 0 at work"))
    told = hosts.wait_for_report(report, 2 * LONG_S)
    assert told["rounds"] == 4
    # Training and evaluation end by the deadline each, with the rest; then all of it is written down.
    assert max(told["round_s"]) < 2 * 25.0 + 60.0
    return told


def wait_for_counts(hosts: Hosts, folder: Path, expected: dict[str, float]) -> None:
    """Until a round counts these examples at each edge: whoever was killed or moved is there, and counts once.

    Several rounds, because Flower lists a node that was killed for up to a minute more, and starting takes its time.
    """
    for attempt in range(10):
        report = folder / f"after-{attempt}.json"
        name = f"after-{folder.name}-{attempt}"[-90:]
        hosts.start_centre(report, cloud_rounds=1, edge_rounds=1, run_name=name, timeout_s=25.0)
        told = hosts.wait_for_report(report, LONG_S)
        counted = {cell["cell"]: cell["num-examples"] for cell in told["cells"]}
        assert sum(counted.values()) <= 58.0
        if counted == expected:
            return
    raise AssertionError(f"{counted} after all these rounds\n{hosts.made.logs()}")


ALL_AT_HOME = {"edge-0": 23.0, "edge-1": 35.0}


@pytest.mark.full
def test_an_edge_server_a_host_s_node_and_a_terminal_are_killed_in_a_round_and_rejoin(
    hosts: Hosts, tmp_path: Path
) -> None:
    before = {partition: seen_by(hosts, partition) for partition in range(4)}
    killed: list[Status] = []

    def killing(status: Status) -> None:
        killed.append(status)
        os.kill(status.pid, signal.SIGKILL)
        # The SuperNode of the other edge host, and with it the way between the centre and its edge.
        kill(hosts, "keeper-1", "flower_edge.runtime.warm.host")
        kill(hosts, "terminal-3", "flower_edge.runtime.warm.host")

    kill_in_a_round(hosts, tmp_path / "killed.json", killing)
    again = hosts.until(0, lambda status: status.pid != killed[0].pid and status.cell == "edge-0", "edge 0 again")
    # It is the same edge, of the same run, and went on from what it had answered.
    assert (again.run, again.cloud_round >= killed[0].cloud_round - 1) == ("killed", True)
    wait_for_counts(hosts, tmp_path, ALL_AT_HOME)
    assert all(seen_by(hosts, partition) > count for partition, count in before.items())


@pytest.mark.full
def test_an_edge_s_superlink_is_killed_in_a_round_and_its_terminals_come_back(hosts: Hosts, tmp_path: Path) -> None:
    kill_in_a_round(hosts, tmp_path / "link.json", lambda status: kill(hosts, "keeper-0", "flower-superlink"))
    wait_for_counts(hosts, tmp_path, ALL_AT_HOME)


@pytest.mark.full
def test_the_centre_is_killed_in_a_round_and_goes_on_where_it_was(hosts: Hosts, tmp_path: Path) -> None:
    report = tmp_path / "centre.json"
    config = {"run_name": "centre", "parameters": PARAMETERS, "timeout_s": 60.0, "edge_rounds": 1, "cloud_rounds": 4}
    folder = hosts.start_centre(report, **config)
    os.kill(hosts.wait_for_report(report, LONG_S, rounds=2)["pid"], signal.SIGKILL)
    done = hosts.report(report)["rounds"]
    again = tmp_path / "again.json"
    hosts.start_centre(again, resume=str(folder), **config)
    told = hosts.wait_for_report(again, 2 * LONG_S)
    assert told["rounds"] == 4
    # The rounds that had been acknowledged are in its history as they were, and only the others were trained.
    assert len(told["round_s"]) <= 4 - done + 1
    whole = [(number, name, count) for number in range(1, 5) for name, count in ALL_AT_HOME.items()]
    assert [(cell["round"], cell["cell"], cell["num-examples"]) for cell in told["cells"]] == whole


def test_a_terminal_that_moves_goes_on_at_the_other_edge_and_is_counted_once(hosts: Hosts, tmp_path: Path) -> None:
    report = tmp_path / "moved.json"
    hosts.start_centre(report, cloud_rounds=4, edge_rounds=2, run_name="moved", timeout_s=90.0, parameters=PARAMETERS)
    hosts.wait_for_report(report, LONG_S, rounds=1)
    before = seen_by(hosts, 1)
    hosts.move(1, hosts.ports[1])
    told = hosts.wait_for_report(report, 2 * LONG_S)
    # In each round every terminal counts once at most, also in the one in which it moved.
    for number in range(1, 5):
        assert sum(cell["num-examples"] for cell in told["cells"] if cell["round"] == number) <= 58.0
    wait_for_counts(hosts, tmp_path, {"edge-0": 10.0, "edge-1": 48.0})
    # It goes on from what it had counted at the other edge.
    assert seen_by(hosts, 1) > before > 0
