"""Who and what is refused, with which code; and that nothing which comes in takes the server down."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta

import pytest
from channel import (
    LIMITS,
    accept_with,
    authority,
    dial,
    echo,
    eventually,
    free_port,
    hello,
    mutual,
    node_pair,
    other_authority,
    serve,
    server_pair,
    server_tls,
)

from flower_edge.errors import ConfigError, TransportError, TransportRefused
from flower_edge.transport.certificates import fingerprint, issue
from flower_edge.transport.credentials import Credentials, Insecure, MutualTls, ServerTls, TrustServer
from flower_edge.transport.grpc_server import GrpcServer
from flower_edge.transport.grpc_transport import GrpcTransport
from flower_edge.transport.tokens import TokenMaker
from flower_edge.transport.transport import HELLO_BYTES, Handler, Hello, Limits, Peer


def still_serves(server: GrpcServer) -> bool:
    with dial(server) as connection:
        connection.send(b"x")
        return connection.receive() == b"x"


def test_a_refusal_arrives_with_its_code_and_words() -> None:
    def accept(said: Hello, peer: Peer) -> Handler:
        if said.node != 3:
            raise TransportRefused(f"node {said.node} is not of this round", "not-asked")
        return echo

    with serve(accept=accept) as server:
        for node in range(100, 130):
            with pytest.raises(TransportRefused, match=f"node {node} is not") as caught:
                dial(server, hello(node=node))
            assert caught.value.code == "not-asked"
        assert server.connections == 0
        assert still_serves(server)


def test_a_token_opens_the_door_it_was_made_for() -> None:
    tokens = TokenMaker.fresh()

    def accept(said: Hello, peer: Peer) -> Handler:
        tokens.check(said.token, run=said.run, node=said.node, purpose=f"{said.purpose}/12")
        return echo

    def token(run: str = "7", node: int = 3, purpose: str = "echo/12") -> str:
        return tokens.make(run=run, node=node, purpose=purpose, valid_s=60)

    with serve(accept=accept) as server:
        with dial(server, hello(token=token())) as connection:
            connection.send(b"x")
            assert connection.receive() == b"x"
        for bad, code in [
            ("", "bad-token"),
            (TokenMaker.fresh().make(run="7", node=3, purpose="echo/12", valid_s=60), "bad-token"),
            (token(run="8"), "other-run"),
            (token(node=4), "other-node"),
            (token(purpose="echo/11"), "other-purpose"),
        ]:
            with pytest.raises(TransportRefused) as caught:
                dial(server, hello(token=bad))
            assert caught.value.code == code


def test_a_server_that_is_full_says_so_and_has_room_again_later() -> None:
    limits = Limits(connections=2)
    with serve(limits=limits) as server:
        first, second = dial(server), dial(server)
        with pytest.raises(TransportRefused, match="2 connections") as caught:
            dial(server)
        assert caught.value.code == "busy"
        first.close()
        assert eventually(lambda: server.connections == 1)
        assert still_serves(server)
        second.close()


def test_an_error_in_accepting_is_the_servers_own_matter() -> None:
    def accept(said: Hello, peer: Peer) -> Handler:
        raise KeyError("a secret of this server")

    with serve(accept=accept) as server:
        with pytest.raises(TransportRefused, match="could not decide") as caught:
            dial(server)
        assert caught.value.code == "failed"
        assert "secret" not in str(caught.value)
        assert server.connections == 0


def expired(pair_of: str) -> ServerTls:
    start = datetime.now(UTC) + (timedelta(days=-30) if pair_of == "expired" else timedelta(days=2))
    pair = issue(authority(), ["127.0.0.1"], days=3, now=start)
    return ServerTls(pair.certificate_pem, pair.key_pem)


def named(host: str) -> ServerTls:
    pair = issue(authority(), [host])
    return ServerTls(pair.certificate_pem, pair.key_pem)


def signed_by_another() -> ServerTls:
    pair = issue(other_authority(), ["127.0.0.1"])
    return ServerTls(pair.certificate_pem, pair.key_pem)


SERVERS_NOBODY_BELIEVES = {
    "of another authority": signed_by_another,
    "expired": lambda: expired("expired"),
    "not yet valid": lambda: expired("early"),
    "of another host": lambda: named("127.0.0.2"),
    "plain text": Insecure,
}


@pytest.mark.parametrize("what", SERVERS_NOBODY_BELIEVES)
def test_a_server_that_cannot_prove_who_it_is_learns_nothing(what: str) -> None:
    said: list[Hello] = []

    def accept(it: Hello, peer: Peer) -> Handler:
        said.append(it)
        return echo

    with serve(accept=accept, credentials=SERVERS_NOBODY_BELIEVES[what]()) as server:
        with pytest.raises(TransportError) as caught:
            dial(server, hello(token="secret"), timeout_s=5.0)
        assert not isinstance(caught.value, TransportRefused)
        assert said == []


def test_a_server_under_another_name_is_believed_where_one_says_which() -> None:
    with serve(credentials=named("cloud.example")) as server:
        believed = TrustServer(authority().certificate_pem, server_name="cloud.example")
        with dial(server, credentials=believed) as connection:
            connection.send(b"x")
            assert connection.receive() == b"x"


def mutual_of_another_authority() -> Credentials:
    pair = issue(other_authority(), [])
    return MutualTls(pair.certificate_pem, pair.key_pem, authority().certificate_pem)


def mutual_expired() -> Credentials:
    return mutual(issue(authority(), [], days=1, now=datetime.now(UTC) - timedelta(days=20)))


NODES_NOBODY_BELIEVES = {
    "no certificate": lambda: TrustServer(authority().certificate_pem),
    "of another authority": mutual_of_another_authority,
    "expired": mutual_expired,
    "plain text": Insecure,
}


@pytest.mark.parametrize("what", NODES_NOBODY_BELIEVES)
def test_a_node_that_cannot_prove_who_it_is_is_not_heard(what: str) -> None:
    said: list[Hello] = []

    def accept(it: Hello, peer: Peer) -> Handler:
        said.append(it)
        return echo

    with serve(accept=accept, credentials=mutual(server_pair())) as server:
        with pytest.raises(TransportError):
            dial(server, credentials=NODES_NOBODY_BELIEVES[what](), timeout_s=5.0)
        assert said == []
        with dial(server, credentials=mutual(node_pair())):
            assert len(said) == 1


def test_mutual_tls_shows_whose_certificate_it_was_and_a_list_may_leave_it_out() -> None:
    peers: list[Peer] = []

    def accept(said: Hello, peer: Peer) -> Handler:
        peers.append(peer)
        return echo

    other = issue(authority(), [])
    allowed = frozenset({fingerprint(node_pair().certificate_pem)})
    with serve(accept=accept, credentials=mutual(server_pair(), allowed)) as server:
        with dial(server, credentials=mutual(node_pair())):
            pass
        with pytest.raises(TransportRefused) as caught:
            dial(server, credentials=mutual(other))
    assert caught.value.code == "not-allowed"
    assert [peer.fingerprint for peer in peers] == [fingerprint(node_pair().certificate_pem)]


def test_plain_text_stays_on_this_machine_unless_told_otherwise() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "cloud.example"):
        with pytest.raises(ConfigError, match="plain text"):
            GrpcTransport(Insecure()).serve(host, 0, accept_with(echo))
        where = f"[{host}]" if ":" in host else host
        with pytest.raises(ConfigError, match="plain text"):
            GrpcTransport(Insecure()).dial(f"{where}:9", hello())
    anywhere = GrpcTransport(Insecure(allow=True), LIMITS)
    with anywhere.serve("0.0.0.0", 0, accept_with(echo)) as server, dial(server, credentials=Insecure()) as connection:
        connection.send(b"x")
        assert connection.receive() == b"x"


def test_credentials_fit_one_end_or_the_other() -> None:
    with pytest.raises(ConfigError, match="is for dialling"):
        serve(credentials=TrustServer(authority().certificate_pem))
    with serve() as server, pytest.raises(ConfigError, match="is for serving"):
        dial(server, credentials=server_tls())


def test_a_port_that_is_taken_is_an_error() -> None:
    with serve() as server, pytest.raises(TransportError, match="taken"):
        GrpcTransport(server_tls()).serve("127.0.0.1", server.port, accept_with(echo))


def test_nobody_there_is_told_at_once() -> None:
    with pytest.raises(TransportError, match="no connection to"):
        GrpcTransport(Insecure()).dial(f"127.0.0.1:{free_port()}", hello(), timeout_s=5.0)


def test_somebody_who_does_not_answer_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TransportError, match="no connection to"):
            GrpcTransport(Insecure()).dial(address, hello(), timeout_s=0.3)


def test_an_honest_end_does_not_send_what_the_other_would_refuse() -> None:
    with serve(limits=Limits(message_bytes=1000)) as server, dial(server) as connection:
        with pytest.raises(TransportRefused, match="takes 1000") as caught:
            connection.send(bytes(1001))
        assert caught.value.code == "too-large"
        connection.send(bytes(1000))
        assert len(connection.receive()) == 1000


def test_what_cannot_be_a_hello_limit_or_address_is_said_before_anything_is_opened() -> None:
    with pytest.raises(ConfigError, match="plain JSON"):
        Hello(purpose="p", run="7", node=3, data={"model": object()}).to_bytes()
    with pytest.raises(ConfigError, match="as a message"):
        Hello(purpose="p", run="7", node=3, data={"x": "a" * HELLO_BYTES}).to_bytes()
    for bad in (
        {"message_bytes": 0},
        {"idle_s": float("inf")},
        {"chunk_bytes": 4095},
        {"connections": True},
        {"connections": 1.5},
        {"idle_s": 1e10},
    ):
        with pytest.raises(ConfigError, match="Limits"):
            Limits(**bad)  # type: ignore[arg-type]
    for address in ("cloud", "cloud:", ":9000", "cloud:0", "cloud:65536", "::1:9000", "cloud:٣"):
        with pytest.raises(ConfigError, match="host:port"):
            GrpcTransport(Insecure()).dial(address, hello())
    with pytest.raises(ConfigError, match="no PEM"):
        GrpcTransport(TrustServer(b"")).dial("127.0.0.1:9", hello())
    assert "token" not in repr(hello(token="token"))
    assert "KEY" not in repr(server_tls())
