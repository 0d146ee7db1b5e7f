"""A centre, edges and terminals, brought up one after the other as a person would do it by hand.

    centre      flower-edge up                       a SuperLink behind a filter, which gives join lines to edges
    edge        flower-edge up                       the same for its terminals
                flower-edge edge                     its own rounds, on that SuperLink
                flower-edge join … --foreground      it is a node of the centre
    terminal    flower-edge join … --foreground      it is a node of its edge
                flower-edge agent                    brings its model to its neighbours

Every host proves itself: a token each to join, a key of its own made there, TLS whose authority is known by its
fingerprint, and mutual TLS between agents. Nothing here trains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flower_edge.errors import LaunchError

from .network import Network
from .programs import Program, Programs

__all__ = ["Federation", "Sizes"]

_HERE: Final = Path(__file__).parents[1]
_UP_S: Final = 180.0
_ONLINE_S: Final = 300.0
_AGENT_PORT: Final = 9301


@dataclass(frozen=True)
class Sizes:
    """How large it is, and for how long it trains.

    Attributes:
        edges, terminals: terminals of each edge.
        cloud_rounds, edge_rounds: edge rounds of each cloud round.
        mailbox: how terminals of an edge exchange models: direct or relay.
        mbps: of each terminal's radio, shared among its neighbours; 0: unpaced.
        seed: of data, model and rounds.
    """

    edges: int = 2
    terminals: int = 3
    cloud_rounds: int = 4
    edge_rounds: int = 5
    mailbox: str = "direct"
    mbps: float = 20.0
    seed: int = 5

    @property
    def names(self) -> tuple[str, ...]:
        """Of all hosts."""
        edges = tuple(f"edge-{edge}" for edge in range(self.edges))
        every = tuple(f"terminal-{number}" for number in range(self.edges * self.terminals))
        return ("centre", *edges, *every)


class Federation:
    """See the module.

    Args:
        network: the hosts.
        programs: what starts and ends programs on them.
        sizes: of it.
        folder: of everything the hosts keep; nothing else is written.
        tell: what is said meanwhile.
    """

    def __init__(
        self, network: Network, programs: Programs, sizes: Sizes, folder: Path, tell: Callable[[str], None]
    ) -> None:
        self._hosts, self._programs, self._sizes = network.hosts, programs, sizes
        self._folder, self._tell = folder, tell
        self._shared = len({host.address for host in network.hosts.values()}) < len(network.hosts)
        self.run_folder = folder / "runs" / "three-hosts"

    def train(self) -> Path:
        """Bring all of it up, train, and give the folder of the centre's run.

        Raises:
            LaunchError: a program ended, or something took too long; where to look is in the message.
        """
        sizes = self._sizes
        # Starting takes each program seconds, so all of a kind start together and are waited for one after the other.
        centre = self._up("centre", joining=sizes.edges, app="centre_app", config=(
            f"seed={sizes.seed} edges={sizes.edges} cloud-rounds={sizes.cloud_rounds} edge-rounds={sizes.edge_rounds} "
            f"folder='{self.run_folder}'"
        ))  # fmt: skip
        edges = {name: self._up(name, joining=sizes.terminals) for name in sizes.names if name.startswith("edge-")}
        for name, up in {"centre": centre, **edges}.items():
            self._serves(name, up)
        terminals = [name for name in sizes.names if name.startswith("terminal-")]
        devices = [
            self._terminal(name, number, edges[f"edge-{number // sizes.terminals}"])
            for number, name in enumerate(terminals)
        ]
        if sizes.mailbox == "direct":
            for number, (name, device) in enumerate(zip(terminals, devices, strict=True)):
                self._agent(name, number, device)
        for name, up in edges.items():
            self._online(name, up, sizes.terminals)
        for name, up in edges.items():
            self._edge(name, up, centre)
        self._tell("the edges join the centre ...")
        self._online("centre", centre, sizes.edges)
        self._tell("training")
        self._until_trained(centre)
        return self.run_folder

    # -- hosts ------------------------------------------------------------------------------------------------------

    def _up(self, name: str, *, joining: int, app: str = "", config: str = "") -> Program:
        host = self._hosts[name]
        listen = f"{host.address}:{0 if self._shared else 8000}"
        words = ["up", "--state", str(self._folder / name), "--listen", listen, "--host", host.address, "--json"]
        words += ["--uses", str(joining), "--valid", "1h"]
        if app:
            words += ["--app", str(_HERE / app), "--nodes", str(self._sizes.edges), "--run-config", config]
        return self._programs.start(host, "up", words)

    def _serves(self, name: str, up: Program) -> None:
        told = self._programs.wait(f"{name} is up", lambda: _first(up, "up"), _UP_S)
        self._tell(f"{name} is up: {told['url']}")

    def _edge(self, name: str, up: Program, centre: Program) -> None:
        host, sizes = self._hosts[name], self._sizes
        control, state = _first(up, "up")["control"], self._folder / f"{name}-rounds"
        authority = self._folder / name / "authority.pem"
        config = [
            f"seed={sizes.seed}", f"terminals={sizes.terminals}", f"mailbox='{sizes.mailbox}'",
            f"capacity-mbps={float(sizes.mbps)}",
        ]  # fmt: skip
        words = ["edge", str(_HERE / "edge_app"), "--name", name, "--state", str(state), "--superlink", control]
        words += ["--authority", str(authority), "--run-config", " ".join(config), "--json"]
        self._programs.start(host, "rounds", words)
        self._join(name, centre, f"cell='{name}' bridge='{state / 'bridge'}'")

    def _terminal(self, name: str, number: int, edge: Program) -> Path:
        sizes, agent = self._sizes, self._folder / f"{name}-agent"
        # Edges number their own terminals; by its key the centre knows that no terminal is counted at two of them.
        place = f"partition-id={number % sizes.terminals} num-partitions={sizes.terminals} node-key='{name}'"
        own = f"share={number} shares={sizes.edges * sizes.terminals} agent='{agent / 'agent.sock'}'"
        return self._join(name, edge, f"{place} {own}")

    def _agent(self, name: str, number: int, device: Path) -> None:
        host, agent = self._hosts[name], self._folder / f"{name}-agent"
        files = {option: device / file for option, file in _PEER_FILES.items()}
        self._programs.wait(f"{name} has its certificate", lambda: all(f.exists() for f in files.values()), _UP_S)
        port = _AGENT_PORT + (number if self._shared else 0)
        listen = f"{host.address}:{port}"
        words = ["agent", "--folder", str(agent), "--listen", listen, "--json"]
        for option, file in files.items():
            words += [option, str(file)]
        self._programs.start(host, "agent", words)

    def _join(self, name: str, server: Program, node_config: str) -> Path:
        """By the line that the server printed."""
        line = _first(server, "up")["join"].split()
        url_at = line.index("join") + 1
        device = self._folder / f"{name}-device"
        words = ["join", *line[url_at:], "--name", name, "--state", str(device), "--foreground"]
        self._programs.start(self._hosts[name], "node", [*words, "--node-config", node_config])
        return device

    # -- waiting ----------------------------------------------------------------------------------------------------

    def _online(self, name: str, up: Program, nodes: int) -> None:
        def there() -> bool:
            return any(one.get("online", 0) >= nodes for one in up.documents() if one.get("event") == "status")

        self._programs.wait(f"{name} sees {nodes} nodes", there, _ONLINE_S)
        self._tell(f"{name}: {nodes} nodes online")

    def _until_trained(self, centre: Program) -> None:
        from flower_edge.store import RunFolder

        sizes = self._sizes
        seen = 0

        def done() -> bool:
            nonlocal seen
            if not (self.run_folder / "run.json").exists():
                return False
            run = RunFolder.open(self.run_folder)
            rows = run.rows("central")
            for row in rows[seen:]:
                values: Any = row.values
                self._tell(f"cloud round {row.round}: accuracy {values.get('accuracy', float('nan')):.3f}")
            seen = len(rows)
            if run.status in ("failed", "interrupted", "stopped"):
                raise LaunchError(f"the run is {run.status}: {run.info.get('error') or 'see the log of centre: up'}")
            return run.status == "finished"

        self._programs.wait("the run has ended", done, 120.0 + 300.0 * sizes.cloud_rounds)


#: Options of the agent, and the files of a join that they name.
_PEER_FILES: Final = {"--certificate": "peer.pem", "--key": "peer.key", "--authority": "peers.pem"}


def _first(program: Program, event: str) -> dict[str, Any]:
    """The first document of an event; nothing while there is none."""
    return next((one for one in program.documents() if one.get("event") == event), {})
