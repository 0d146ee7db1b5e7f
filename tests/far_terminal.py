"""`flower-edge edge` with one terminal beside it and one at the far end of a wire: real processes, TLS and node keys.

The edge and the near terminal are in one network namespace, the far terminal in the other, see `wire_cases`. Tests are
the edge's centre: they ask it over its bridge, as an edge host's ClientApp does.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from ending import end_all
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, RecordDict
from wire_cases import Wire, inside

from flower_edge.enrolment.node_keys import NodeKey
from flower_edge.errors import EdgeError
from flower_edge.runtime.bridge.caller import ask_edge, edge_status
from flower_edge.runtime.bridge.place import BridgePlace
from flower_edge.runtime.edge_messages import COUNTED_NODES, COUNTED_WEIGHTS, EDGE_RECORD, edge_order
from flower_edge.runtime.node_state import NodeState
from flower_edge.transport.certificates import issue, make_authority

APP: Final = Path(__file__).parents[1] / "benchmarks" / "apps" / "tiers_edge"
#: Partitions: the terminal at the far end of the wire, and the one beside the edge.
FAR, NEAR = 0, 1
#: Floats of the model: 100 KB.
PARAMETERS: Final = 25_000
_PORT: Final = 9092
_RUN: Final = "wire"
_SCRIPTS: Final = Path(sys.executable).parent
#: On a busy machine every part takes long to start; nothing here waits longer than it has to.
_START_S: Final = 240.0


@dataclass(frozen=True)
class Told:
    """What an edge told after a round.

    Attributes:
        number: of the round.
        seconds: that it took.
        counted: weights of the terminals it has merged, by their names.
        seen: mean, by these weights, of how many rounds they remember.
        model: after it.
        trouble: why there is no model, where nobody has been merged.
    """

    number: int
    seconds: float
    counted: dict[str, float]
    seen: float
    model: np.ndarray
    trouble: str = ""


def start(parameters: int) -> np.ndarray:
    """A model of so many."""
    return np.linspace(-1, 1, parameters, dtype=np.float32)


class FarTerminal:
    """All of it, running. Made by `far_terminal`."""

    def __init__(self, folder: Path, wire: Wire) -> None:
        self.folder, self.wire = folder, wire
        self.model = start(PARAMETERS)
        self.number = 0
        self.nodes: dict[int, subprocess.Popen[bytes]] = {}
        self._place = BridgePlace(folder / "host" / "bridge")
        self._threads = ThreadPoolExecutor(1)
        self._keeper: subprocess.Popen[bytes] | None = None
        self._started: list[subprocess.Popen[bytes]] = []
        self._write_certificates()

    # -- processes ---------------------------------------------------------------------------------------------------

    def _write_certificates(self) -> None:
        authority = make_authority("tests of edges")
        own = issue(authority, [self.wire.addresses[1], "127.0.0.1"])
        for name, pem in (("ca", authority.certificate_pem), ("edge", own.certificate_pem), ("edge-key", own.key_pem)):
            (self.folder / f"{name}.pem").write_bytes(pem)
        for partition in (FAR, NEAR):
            public = NodeKey.at(self.folder / f"node-{partition}").public
            (self.folder / f"node-{partition}.pub").write_text(f"{public}\n")

    def _command(self, space: int, program: str, *words: str) -> list[str]:
        return self.wire.command(space, [str(_SCRIPTS / program), *words])

    def _variables(self, home: Path) -> dict[str, str]:
        more = {"FLWR_HOME": str(home), "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_TELEMETRY_ENABLED": "0"}
        return {**os.environ, **more, "NO_PROXY": ",".join(["127.0.0.1", *self.wire.addresses])}

    def _start(self, log: str, space: int, *words: str) -> subprocess.Popen[bytes]:
        home = self.folder / f"{log}-home"
        home.mkdir(exist_ok=True)
        with (self.folder / f"{log}.log").open("ab") as out:
            process = subprocess.Popen(
                self._command(space, "flower-edge", *words),
                cwd=home, env=self._variables(home), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._started.append(process)
        return process

    def start(self) -> None:
        """Start the edge, let both keys in, and start the terminals."""
        files = {"--authority": "ca.pem", "--certificate": "edge.pem", "--key": "edge-key.pem"}
        trust = [word for option, name in files.items() for word in (option, str(self.folder / name))]
        where = ("--name", "edge-0", "--state", str(self.folder / "host"), "--serve", f"0.0.0.0:{_PORT}")
        config = ("--run-config", f"terminals=2 run-name='{_RUN}'")
        self._keeper = self._start("edge", 1, "edge", str(APP), *where, *trust, "--node-keys", *config)
        self._until(self._listens, "the edge's SuperLink")
        registering = [self._flwr("supernode", "register", str(self.folder / f"node-{p}.pub")) for p in (FAR, NEAR)]
        assert all(json.loads(one.communicate(timeout=_START_S)[0])["success"] for one in registering)
        for partition, space in ((FAR, 0), (NEAR, 1)):
            self.start_node(partition, space)
        self._until(self._ready, "an edge with two terminals")

    def start_node(self, partition: int, space: int) -> None:
        """Start a terminal, with its key."""
        config = f"partition-id={partition} num-partitions=2 state-dir='{self.folder / 'remembered'}'"
        self.nodes[partition] = self._node(f"node-{partition}", space, config)

    def start_stranger(self) -> subprocess.Popen[bytes]:
        """Start a terminal whose key the edge does not know; it is waited for by whoever wanted it."""
        NodeKey.at(self.folder / "stranger")
        return self._node("stranger", 0, "partition-id=2")

    def _node(self, name: str, space: int, config: str) -> subprocess.Popen[bytes]:
        given = ("--root-certificates", str(self.folder / "ca.pem"), "--node-config", config)
        key = ("--auth-supernode-private-key", str(self.folder / name))
        link = f"{self.wire.addresses[1]}:{_PORT}"
        return self._start(name, space, "node", "--superlink", link, *given, *key)

    def _flwr(self, *words: str) -> subprocess.Popen[bytes]:
        """A verb of Flower's, asked of the edge's SuperLink where it runs."""
        process = subprocess.Popen(
            self._command(1, "flwr", *words, "--format", "json"), cwd=self.folder,
            env=self._variables(self.folder / "host" / "home"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._started.append(process)
        return process

    def nodes_there(self) -> dict[int, str]:
        """Flower's nodes, by id, and whether they are online."""
        rows = json.loads(self._flwr("supernode", "list").communicate(timeout=_START_S)[0])["nodes"]
        return {int(row["node-id"]): str(row["status"]) for row in rows}

    def _listens(self) -> bool:
        with suppress(OSError), inside(self.wire.spaces[1]):
            socket.create_connection(("127.0.0.1", _PORT), timeout=1.0).close()
            return (self.folder / "host" / "home" / "config.toml").exists()
        return False

    def _ready(self) -> bool:
        with suppress(EdgeError), inside(self.wire.spaces[1]):
            status = edge_status(self._place, within_s=2.0)
            return (status.state, status.terminals) == ("waiting", 2)
        return False

    def _until(self, there: Callable[[], bool], what: str) -> None:
        latest_s = time.monotonic() + _START_S
        while not there():
            assert time.monotonic() < latest_s, f"{what} not there\n{self.logs()}"
            assert self._keeper is not None
            assert self._keeper.poll() is None, self.logs()
            time.sleep(0.1)

    def log(self, name: str) -> str:
        """What a program has printed."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def logs(self) -> str:
        """The end of what each program printed."""
        paths = [*self.folder.glob("*.log"), *self.folder.glob("host/*.log")]
        return "\n".join(f"--- {path.name}\n{path.read_text('utf-8', 'replace')[-3000:]}" for path in paths)

    def close(self) -> None:
        """End all that was started, the edge's own with it; the namespaces go next."""
        self.wire.as_new()
        end_all(self._started)
        for process in self._started:
            if process.stdout is not None:
                process.stdout.close()
        self._threads.shutdown()

    # -- rounds ------------------------------------------------------------------------------------------------------

    def begin(self, deadline_s: float) -> Future[Told]:
        """Ask the edge for its next round; it is waited for elsewhere."""
        self.number += 1
        return self._threads.submit(self._round, self.number, deadline_s)

    def ask(self, number: int, deadline_s: float) -> RecordDict:
        """What the edge answers when it is asked for this round of the model as it is now."""
        order = edge_order("edge-0", number, number, 1, deadline_s, seed=5)
        arrays = ArrayRecord({"w": Array(self.model)})
        content = RecordDict({"arrays": arrays, EDGE_RECORD: order, "config": ConfigRecord()})
        with inside(self.wire.spaces[1]):
            return ask_edge(self._place, "train", _RUN, content, within_s=2 * deadline_s + 60.0)

    def _round(self, number: int, deadline_s: float) -> Told:
        began_s = time.monotonic()
        answer = self.ask(number, deadline_s)
        seconds, report = time.monotonic() - began_s, answer.config_records[EDGE_RECORD]
        if "arrays" not in answer:
            return Told(number, seconds, {}, 0.0, np.empty(0), str(report.get("trouble", "")))
        names, weights = report[COUNTED_NODES], report[COUNTED_WEIGHTS]
        assert isinstance(names, list)
        assert isinstance(weights, list)
        assert len(set(names)) == len(names)
        counted: dict[str, Any] = dict(zip(map(str, names), weights, strict=True))
        seen: Any = answer.metric_records["metrics"]["seen"]
        return Told(number, seconds, counted, float(seen), answer.array_records["arrays"]["w"].numpy())

    def remembers(self, partition: int) -> int:
        """How many rounds a terminal has trained in, from its disk."""
        config = {"partition-id": partition, "state-dir": str(self.folder / "remembered")}
        return int(NodeState(Context(2**40, 1, config, RecordDict(), {"run-name": _RUN}), "count").load() or 0)


@contextmanager
def far_terminal(folder: Path) -> Iterator[FarTerminal]:
    """All of it, started; ended with the context."""
    with Wire() as wire:
        made = FarTerminal(folder, wire)
        try:
            made.start()
            yield made
        finally:
            made.close()
