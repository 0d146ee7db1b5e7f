"""`flower-edge node` beside Flower's own SuperNode, on a real SuperLink: the same replies; and its end."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.split_deployment import HOST, Deployment, deployment
from flower_edge.cli import node as verb

pytestmark = [pytest.mark.slow, pytest.mark.flwr]

APP = Path(verb.__file__).parents[2] / "benchmarks" / "apps" / "node_echo"


def warm_node(made: Deployment) -> int:
    """Start one; returns its process id."""
    given = ("node", "--insecure", "--superlink", f"{HOST}:{made.port}", "--node-config", "site='warm'")
    return made.start("warm", "flower-edge", *given).pid


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_warm_node_gives_the_replies_of_the_stock_one_bit_for_bit_and_state_survives(tmp_path: Path) -> None:
    with deployment(["site='stock'"]) as made:
        warm_node(made)
        script = "stock count 2;warm count 2;warm kill 1;warm count 1;warm process 2"
        report = tmp_path / "report.json"
        made.run(APP, f"script=\"{script}\" short-poll=0.1 salt=5 report='{report}'")
        rows: list[dict[str, Any]] = json.loads(made.wait_for_file(report, 400.0))
    plain = [{key: value for key, value in row.items() if key not in ("site", "seconds")} for row in rows]
    stock, warm = plain[:2], plain[2:4]
    assert stock == warm
    assert [row["metrics"] for row in stock] == [{"seen": 1}, {"seen": 2}]
    killed, again, first, second = plain[4:]
    assert killed == {"kind": "kill", "error": "ClientApp stopped responding.", "code": 8}
    assert again["metrics"] == {"seen": 3}
    assert (first["metrics"]["calls"], second["metrics"]["calls"]) == (1, 2)
    assert first["metrics"]["pid"] == second["metrics"]["pid"]


@pytest.mark.alone
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for children in /proc, which is not here")
def test_with_the_node_its_executor_ends_be_the_node_asked_to_end_or_killed() -> None:
    with deployment([]) as made:
        asked, killed = warm_node(made), warm_node(made)
        made.wait_for(lambda: made.logs().count("Activated node_id") == 2, 90.0, "nodes")
        executors = [*children(asked), *children(killed)]
        assert len(executors) == 2
        begin_s = time.monotonic()
        os.kill(asked, signal.SIGTERM)
        os.kill(killed, signal.SIGKILL)
        everybody = [asked, killed, *executors]
        made.wait_for(lambda: not any(map(there, everybody)), 30.0, f"the end of {everybody}")
        assert time.monotonic() - begin_s < 15.0
