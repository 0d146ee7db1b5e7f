"""Who proves not to be a neighbour is neither heard nor sent anything: eight ways, from either end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from agent_cases import LIMITS, RUN, Group, authority, credentials, eventually, pair

from flower_edge.errors import TransportError
from flower_edge.peers.agent_client import AgentClient
from flower_edge.peers.round_table import RoundTable
from flower_edge.runtime.agent.dialling import LETTERS, show
from flower_edge.transport.certificates import KeyPair, issue, make_authority
from flower_edge.transport.credentials import Credentials, Insecure, MutualTls, ServerTls, TrustServer
from flower_edge.transport.grpc_transport import GrpcTransport
from flower_edge.transport.signing import Signer
from flower_edge.transport.transport import Connection, Handler, Hello, Peer

pytestmark = pytest.mark.slow


def of(own: KeyPair) -> MutualTls:
    return credentials(own)


def at(**when: int) -> KeyPair:
    return issue(authority(), ["127.0.0.1"], days=3, now=datetime.now(UTC) + timedelta(**when))


def of_no_agent() -> Credentials:
    """The host's own, and whoever dials need show none."""
    own = issue(authority(), ["127.0.0.1"])
    return ServerTls(own.certificate_pem, own.key_pem)


def rogue() -> Credentials:
    own = issue(make_authority("tests of agents"), ["127.0.0.1"])
    return MutualTls(own.certificate_pem, own.key_pem, authority().certificate_pem)


#: What an impostor of node 1 shows when it dials, and when it is dialled.
CASES: dict[str, tuple[Callable[[], Credentials], Callable[[], Credentials]]] = {
    "no certificate": (lambda: TrustServer(authority().certificate_pem), of_no_agent),
    "of another authority": (rogue, rogue),
    "expired": (lambda: of(at(days=-30)), lambda: of(at(days=-30))),
    "not yet valid": (lambda: of(at(days=2)), lambda: of(at(days=2))),
    "of another host": (
        lambda: of(issue(authority(), ["elsewhere.example"])),
        lambda: of(issue(authority(), ["elsewhere.example"])),
    ),
    "plain text": (Insecure, Insecure),
    "another neighbour's": (lambda: of(pair("node 2")), lambda: of(pair("node 2"))),
}


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    with Group(tmp_path, [0, 1, 2]) as made:
        made.begin(1)
        yield made


@pytest.mark.parametrize("case", CASES)
def test_an_impostor_that_dials_is_not_heard(group: Group, case: str) -> None:
    shown = CASES[case][0]()
    transport = GrpcTransport(shown, LIMITS.transport())
    hello = Hello(purpose=LETTERS, run=RUN, node=1, data={"nonce": "0" * 64})
    with pytest.raises(TransportError):
        transport.dial(group.cards[0].address, hello, timeout_s=20.0)
    assert group.agents[0].status()["connections"] == 0
    # The one that it claims to be is.
    post(group, 1, 1, [0])
    assert group.agents[0].counters.told()["received_letters"] == 1


class Impostor:
    """Serves at an address that the table has for node 1, and signs with a key of its own."""

    def __init__(self, shown: Credentials, key: Signer) -> None:
        self.offers: list[bytes] = []
        self._key = key
        self.server = GrpcTransport(shown, LIMITS.transport()).serve("127.0.0.1", 0, self.accept)

    def accept(self, hello: Hello, peer: Peer) -> Handler:
        def handle(connection: Connection) -> None:
            show(connection, self._key, hello.run, hello.data["nonce"])
            self.offers.append(connection.receive(20.0))

        return handle


def post(group: Group, node: int, round: int, to: list[int], wait_s: float = 60.0) -> int:
    with AgentClient(group.agents[node].socket) as client:
        head = {"do": "post", "run": RUN, "round": round, "sequence": 0, "to": to}
        client.call(head, b"a packet")
        told, _ = client.call({"do": "flush", "run": RUN, "wait_s": wait_s}, wait_s=wait_s)
    return int(told["pending"])


@pytest.mark.parametrize("case", CASES)
def test_an_impostor_that_is_dialled_gets_nothing(group: Group, case: str) -> None:
    impostor = Impostor(CASES[case][1](), Signer.fresh())
    with impostor.server as server:
        card = group.cards[1].model_copy(update={"address": f"127.0.0.1:{server.port}"})
        group.agents[0].begin(group.table(0, 2, neighbours={1: card}, hears=[1], direct_s=1.0))
        assert post(group, 0, 2, [1], wait_s=0.0) == 1
        run = group.agents[0].run(RUN)
        assert eventually(lambda: run.report(2)["to"].get("1", {}).get("attempts", 0) >= 2)
        assert impostor.offers == []
        assert run.told()["pending"] == 1
        # When the table has the right address again, the packet arrives.
        group.agents[1].begin(group.table(1, 2))
        group.agents[0].begin(group.table(0, 2))
        assert run.flush(60.0) == 0


def test_a_removed_neighbour_is_not_heard_neither_anew_nor_on_the_connection_that_it_has(group: Group) -> None:
    assert post(group, 1, 1, [0]) == 0
    group.agents[0].begin(group.table(0, 2, neighbours={2: group.cards[2]}, hears=[2], keep_from=2))
    group.agents[1].begin(group.table(1, 2))
    # It is told at once that it will never be taken, and gives the packet up.
    assert post(group, 1, 2, [0]) == 0
    assert group.agents[1].run(RUN).report(2)["to"]["0"]["code"] == "not-neighbour"
    assert group.agents[1].counters.told()["given_up"] == 1
    transport = GrpcTransport(of(pair("node 1")), LIMITS.transport())
    hello = Hello(purpose=LETTERS, run=RUN, node=1, data={"nonce": "0" * 64})
    with pytest.raises(TransportError, match="not that of a neighbour"):
        transport.dial(group.cards[0].address, hello, timeout_s=20.0)
    assert group.agents[0].counters.told()["received_letters"] == 1


def test_a_removed_neighbour_is_sent_nothing(group: Group) -> None:
    assert post(group, 0, 1, [1]) == 0
    group.agents[0].begin(group.table(0, 2, neighbours={2: group.cards[2]}, hears=[2]))
    assert post(group, 0, 2, [1], wait_s=0.0) == 1
    run = group.agents[0].run(RUN)
    assert eventually(lambda: run.report(2)["to"].get("1", {}).get("attempts", 0) >= 2)
    assert group.agents[1].counters.told()["received_letters"] == 1
    assert group.agents[1].counters.told()["refused"] == {}


def test_a_revoked_certificate_is_not_taken_for_letters_of_any_round_nor_after_a_restart(group: Group) -> None:
    assert post(group, 1, 1, [0]) == 0
    out = group.cards[1].fingerprint
    # Node 1 is still in the table, and was heard in round 1: what is revoked outranks both.
    group.agents[0].begin(group.table(0, 2, revoked=[out]))
    group.agents[1].begin(group.table(1, 2))
    assert post(group, 1, 2, [0]) == 0
    assert group.agents[1].run(RUN).report(2)["to"]["0"]["code"] == "revoked"
    assert group.agents[0].run(RUN).fetch(1, 1) is None, "nor is what it sent before given to the node"

    def dialled() -> None:
        transport = GrpcTransport(of(pair("node 1")), LIMITS.transport())
        hello = Hello(purpose=LETTERS, run=RUN, node=1, data={"nonce": "0" * 64})
        with pytest.raises(TransportError, match="was revoked"):
            transport.dial(group.cards[0].address, hello, timeout_s=20.0)

    dialled()
    assert post(group, 0, 2, [1], wait_s=0.0) == 1, "and nothing is sent to it"
    run = group.agents[0].run(RUN)
    assert eventually(lambda: run.report(2)["to"].get("1", {}).get("attempts", 0) >= 2)
    assert group.agents[1].counters.told().get("received_letters", 0) == 0
    port = group.agents[0].port
    group.stop(0)
    group.start(0, port)
    group.agents[0].begin(group.table(0, 3))
    dialled()
    assert group.agents[0].counters.told()["refused"]["revoked"] >= 1
    assert post(group, 2, 1, [0]) == 0, "its neighbours are heard as before"


def test_a_relay_hands_nothing_to_whose_certificate_is_revoked(tmp_path: Path) -> None:
    with Group(tmp_path, [0, 1], relay=True) as group:
        assert group.relay is not None
        far = {node: card.model_copy(update={"address": "127.0.0.1:9"}) for node, card in group.cards.items()}
        relay = group.relay.card
        links = [(0, 1), (1, 0)]
        group.relay.begin(RoundTable(run=RUN, round=1, neighbours=group.cards, links=links))
        group.agents[0].begin(group.table(0, 1, neighbours={1: far[1]}, relay=relay, direct_s=0.2))
        assert post(group, 0, 1, [1]) == 0  # it lies at the relay
        table = RoundTable(run=RUN, round=2, links=links, neighbours=group.cards, revoked=[group.cards[1].fingerprint])
        group.relay.begin(table)
        group.agents[1].begin(group.table(1, 1, relay=relay))
        assert eventually(lambda: group.relay.counters.told()["refused"].get("revoked", 0) >= 2)  # type: ignore[union-attr]
        assert group.agents[1].counters.told().get("received_letters", 0) == 0
