"""Two tiers with TLS and node keys on both: `flower-edge edge` with every option that says whom to trust.

Terminals of such an edge over a bad network: `tests/runtime/test_edge_network_faults.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.split_deployment import HOST, Deployment, Tls
from benchmarks.split_deployment import deployment as deployed
from benchmarks.two_tiers import EDGE_APP, TwoTiers
from flower_edge.enrolment.node_keys import NodeKey
from flower_edge.runtime.bridge.place import BridgePlace
from flower_edge.transport.certificates import KeyPair, issue, make_authority

pytestmark = [pytest.mark.slow, pytest.mark.flwr, pytest.mark.full, pytest.mark.timeout(900)]

LONG_S = 240.0


class Secured(TwoTiers):
    """One edge, kept going by the verb, with authorities and keys of its own."""

    @property
    def host(self) -> Path:
        return self.made.folder / "host"

    def place(self, edge: int) -> BridgePlace:
        return BridgePlace(self.host / "bridge")

    def start_keeper(self, port: int, edge: Tls, centre: Path, own: Path) -> None:
        serve = ("--serve", f"{HOST}:{port}", "--authority", str(edge.authority), "--node-keys", "--in-memory")
        proof = ("--certificate", str(edge.certificate), "--key", str(edge.key))
        dial = ("--centre", f"{HOST}:{self.made.port}", "--root-certificates", str(centre))
        who = ("--name", "edge-0", "--state", str(self.host), "--auth-supernode-private-key", str(own))
        config = ("--run-config", "terminals=1 run-name='tiers'")
        self.nodes["keeper"] = self.made.start(
            "keeper", "flower-edge", "edge", str(EDGE_APP), *who, *serve, *proof, *dial, *config
        )


def files(folder: Path, name: str, authority: KeyPair, *, node_keys: bool = True) -> Tls:
    """A SuperLink's certificate, by an authority."""
    own = issue(authority, [HOST])
    paths = {part: folder / f"{name}-{part}.pem" for part in ("authority", "certificate", "key")}
    paths["authority"].write_bytes(authority.certificate_pem)
    paths["certificate"].write_bytes(own.certificate_pem)
    paths["key"].write_bytes(own.key_pem)
    return Tls(**paths, node_keys=node_keys)


def key(folder: Path, name: str) -> Path:
    """A node's key, with what is registered of it beside it."""
    (folder / f"{name}.pub").write_text(f"{NodeKey.at(folder / name).public}\n")
    return folder / name


def register(made: Deployment, own: Path, home: Path | None = None) -> None:
    """At the centre, or at the SuperLink that another of Flower's folders knows."""
    variables = None if home is None else {"FLWR_HOME": str(home)}
    verb = ("supernode", "register", str(own.with_suffix(".pub")))
    assert made.start("register", "flwr", *verb, variables=variables).wait(120) == 0, made.log("register")


def test_an_edge_proves_itself_to_its_centre_and_lets_in_only_terminals_that_are_registered(tmp_path: Path) -> None:
    centre_tls = files(tmp_path, "centre", make_authority("the centre"))
    edge_tls = files(tmp_path, "edge", make_authority("the edge"))
    own, terminal, stranger = (key(tmp_path, name) for name in ("edge-0", "terminal", "stranger"))
    with deployed([], tls=centre_tls) as made:
        tiers = Secured(made, [[0]], warm=True, stock_poll=False)
        register(made, own)
        port = made.free_port()
        tiers.start_keeper(port, edge_tls, centre_tls.authority, own)
        try:
            made.wait_for(lambda: "is handed to its SuperLink" in made.log("keeper"), LONG_S, "the edge's SuperLink")
            register(made, terminal, tiers.host / "home")
            for name, key_file in (("terminal", terminal), ("stranger", stranger)):
                trust = ("--root-certificates", str(edge_tls.authority), "--auth-supernode-private-key", str(key_file))
                where = ("--superlink", f"{HOST}:{port}", "--node-config", f"partition-id=0 state-dir='{tmp_path}'")
                tiers.nodes[name] = made.start(name, "flower-edge", "node", *where, *trust)
            tiers.wait_for_edges(LONG_S)
            report = tmp_path / "report.json"
            tiers.start_centre(report, cloud_rounds=2, edge_rounds=1, edges=1, parameters=50, timeout_s=90.0)
            told = tiers.wait_for_report(report, LONG_S)
            # The one that is registered, once a round: the stranger has the same number.
            assert [cell["num-examples"] for cell in told["cells"]] == [10.0, 10.0]
            assert tiers.nodes["stranger"].wait(60) != 0
            assert "Failed to initialize the connection" in made.log("stranger")
        finally:
            tiers.nodes["keeper"].terminate()
            tiers.nodes["keeper"].wait(60)
