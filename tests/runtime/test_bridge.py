"""The bridge of an edge host: only who knows the key is heard, nothing hostile is believed, nothing is done twice."""

from __future__ import annotations

import json
import os
import pickle
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bridge_cases import RunningEdge, edge_at, inner, members, terminal_app
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy
from toy import initial_model

from flower_edge.errors import ConfigError, ProtocolError, StateError, TransportError
from flower_edge.runtime import GridProxy, LocalGrid
from flower_edge.runtime.bridge.caller import ask_edge, edge_status
from flower_edge.runtime.bridge.channel import HOST, Channel, Listener, dial
from flower_edge.runtime.bridge.counting import stable_key
from flower_edge.runtime.bridge.host import EdgeHost, HostSettings
from flower_edge.runtime.bridge.keeper import EdgeKeeper, EdgePlan
from flower_edge.runtime.bridge.messages import Ask, Status, body_of, content_of
from flower_edge.runtime.bridge.place import BridgePlace, bridge_folder
from flower_edge.runtime.edge_messages import EDGE_RECORD, edge_order
from flower_edge.runtime.launching.kept_process import KeptProcess
from flower_edge.runtime.warm.attached import read_attachment, stay_attached

KEY = bytes(range(32))


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


def served(key: bytes = KEY, most_bytes: int = 1 << 20) -> tuple[Listener, list[BaseException]]:
    """A listener that sends every frame back, and what its connections ended with."""
    listener = Listener(key, most_bytes=most_bytes)
    ended: list[BaseException] = []

    def talk(prove: Any) -> None:
        try:
            with prove() as channel:
                while True:
                    channel.send(channel.receive(latest_s=soon()), latest_s=soon())
        except (TransportError, ProtocolError) as error:
            ended.append(error)

    def accept() -> None:
        while (prove := listener.accept()) is not None:
            threading.Thread(target=talk, args=(prove,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener, ended


def order(cell: str = "edge-0", number: int = 1, **config: Any) -> RecordDict:
    content = {"arrays": initial_model(), "config": ConfigRecord({"server-round": number, **config})}
    return RecordDict({**content, EDGE_RECORD: edge_order(cell, number, 2 * number - 1, 2, 20.0, 3, number)})


def ask(edge: RunningEdge, content: RecordDict, *, run: str = "r", kind: str = "train", within_s: float = 30.0) -> Any:
    return ask_edge(edge.place, kind, run, content, within_s=within_s)


# --- the socket ---


def test_frames_of_any_size_come_back_as_they_went() -> None:
    listener, _ = served()
    with dial(listener.port, KEY, most_bytes=1 << 20, latest_s=soon()) as channel:
        for frame in (b"", b"x", os.urandom(1 << 20)):
            channel.send(frame, latest_s=soon())
            assert channel.receive(latest_s=soon()) == frame
    listener.close()


@pytest.mark.parametrize(("theirs", "who"), [(KEY, b"\1" * 32), (b"\2" * 32, KEY)])
def test_who_does_not_know_the_key_is_neither_heard_nor_told_anything(theirs: bytes, who: bytes) -> None:
    listener, ended = served(theirs)
    with pytest.raises(TransportError, match="does not know the key"):
        dial(listener.port, who, most_bytes=1, latest_s=soon())
    for _ in range(200):
        if ended:
            break
        time.sleep(0.02)
    assert isinstance(ended[0], TransportError)
    listener.close()


def test_the_key_itself_is_never_sent_to_a_listener_that_is_none() -> None:
    """Somebody has taken the port of an edge that ended: what it hears is 48 bytes, none of them of the key."""
    with socket.create_server((HOST, 0)) as false:
        heard: list[bytes] = []

        def listen() -> None:
            stream, _ = false.accept()
            with stream:
                heard.append(stream.recv(1000))
                stream.sendall(b"\0" * 64)
                heard.append(stream.recv(1000))

        thread = threading.Thread(target=listen)
        thread.start()
        with pytest.raises(TransportError, match="does not know the key"):
            dial(false.getsockname()[1], KEY, most_bytes=1, latest_s=soon())
        thread.join()
    assert len(heard[0]) == 48
    assert KEY not in heard[0]
    assert heard[1] == b""


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n" + b" " * 40, b"\0" * 200, b"flower-edge-br/1"])
def test_garbage_and_silence_keep_nobody_waiting(said: bytes) -> None:
    listener, _ = served()
    others = [socket.create_connection((HOST, listener.port)) for _ in range(5)]
    for other in others:
        other.sendall(said)
    with dial(listener.port, KEY, most_bytes=100, latest_s=soon()) as channel:
        channel.send(b"still here", latest_s=soon())
        assert channel.receive(latest_s=soon()) == b"still here"
    for other in others:
        other.close()
    listener.close()


def test_an_announced_length_costs_no_memory_and_too_long_a_frame_is_refused() -> None:
    one, two = socket.socketpair()
    channel = Channel(one, most_bytes=1000)
    two.sendall(struct.pack(">Q", 1 << 60))
    with pytest.raises(ProtocolError, match="at most 1000"):
        channel.receive(latest_s=soon())
    wide = Channel(one, most_bytes=1 << 62)
    two.sendall(struct.pack(">Q", 1 << 60) + b"abc")
    with pytest.raises(TransportError, match="in time"):
        wide.receive(latest_s=time.monotonic() + 0.2)
    one.close()
    two.close()


def test_a_frame_that_nobody_takes_ends_in_time() -> None:
    one, two = socket.socketpair()
    with pytest.raises(TransportError, match="take what was sent in time"):
        Channel(one, 10).send(b"x" * (1 << 24), latest_s=time.monotonic() + 0.2)
    one.close()
    two.close()


# --- the folder ---


def test_the_key_is_made_once_and_only_this_user_can_read_it(tmp_path: Path) -> None:
    place = BridgePlace(tmp_path / "bridge")
    makers = [threading.Thread(target=place.make) for _ in range(8)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    key = place.key()
    place.make()
    assert place.key() == key
    assert len(key) == 32
    assert (place.folder / "key").stat().st_mode & 0o777 == 0o600
    assert [found.name for found in place.folder.iterdir()] == ["key"]


def test_a_key_that_others_can_read_or_that_is_none_is_refused_with_the_fix(tmp_path: Path) -> None:
    place = BridgePlace(tmp_path)
    with pytest.raises(ConfigError, match="the edge makes it"):
        place.key()
    place.make()
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        place.key()
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "key").write_text("short")
    with pytest.raises(ConfigError, match="remove it"):
        place.key()


def test_where_the_bridge_is_comes_from_the_node_config_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLOWER_EDGE_BRIDGE", raising=False)
    with pytest.raises(ConfigError, match="set bridge="):
        bridge_folder({}, {"bridge": ""})
    monkeypatch.setenv("FLOWER_EDGE_BRIDGE", str(tmp_path))
    assert bridge_folder({}) == tmp_path
    assert bridge_folder({"bridge": "/elsewhere"}) == Path("/elsewhere")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"port": "x", "process": {}, "nonce": 1}', "\0\1"])
def test_an_address_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "address.json").write_text(text)
    assert BridgePlace(tmp_path).address() is None


# --- what is said ---


def test_records_come_back_bit_for_bit() -> None:
    content = RecordDict(
        {
            "arrays": ArrayRecord({"w": Array(np.array([np.nan, -0.0, 1e-40], np.float32))}),
            "config": ConfigRecord({"a": [1, 2], "b": b"\0\1", "c": "é", "d": [0.5], "e": True}),
        }
    )
    again = content_of(body_of(content))
    assert again["arrays"]["w"].data == content["arrays"]["w"].data
    assert dict(again["config"]) == dict(content["config"])
    assert body_of(again) == body_of(content)


@pytest.mark.parametrize(
    "body", [b"", b"x" * 100, pickle.dumps({"a": 1}), b"\x80" * 8, struct.pack("<Q", 1 << 50) + b"{}", b"{}" * 50]
)
def test_bytes_that_are_no_records_are_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        content_of(body)


@pytest.mark.parametrize(
    "head",
    [b"", b"{}", b'{"what": "exec"}', b'{"what": "status", "more": 1}', b"[" * 50_000, b'"' + b"x" * 70_000 + b'"',
     b'{"what":"status","within_s":-1}', b'{"what":"status","within_s":NaN}'],
)  # fmt: skip
def test_heads_that_say_something_else_are_refused_by_name(head: bytes) -> None:
    with pytest.raises(ProtocolError, match="over the bridge"):
        Ask.from_bytes(head)


# --- the edge behind it ---


def test_the_same_order_is_done_once_and_answered_as_often_as_it_is_asked(tmp_path: Path) -> None:
    with edge_at(tmp_path, members(0)) as edge:
        answers = [body_of(ask(edge, order())) for _ in range(3)]
        assert edge.grid.context_of(1000).state["calls"]["n"] <= 2
        other = body_of(ask(edge, order(number=2)))
    assert answers[0] == answers[1] == answers[2] != other


def test_what_was_answered_is_answered_again_by_the_next_process(tmp_path: Path) -> None:
    with edge_at(tmp_path, members(0)) as edge:
        before = body_of(ask(edge, order()))
    with edge_at(tmp_path, members(0)) as edge:
        again = edge.wait_until(lambda status: status.cell == "edge-0")
        assert (again.run, again.cloud_round, again.handled) == ("r", 1, 0)
        assert body_of(ask(edge, order())) == before
        assert "calls" not in edge.grid.context_of(1000).state


def test_asked_by_two_at_once_it_works_once(tmp_path: Path) -> None:
    with edge_at(tmp_path, members(0)) as edge:
        answers: list[bytes] = []
        askers = [threading.Thread(target=lambda: answers.append(body_of(ask(edge, order())))) for _ in range(4)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert edge.status().handled == 1
    assert len(set(answers)) == 1
    assert len(answers) == 4


class _Odd(FedAvg):
    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        raise ZeroDivisionError("asked for")


def test_an_edge_whose_strategy_raises_says_so_and_lives_on(tmp_path: Path) -> None:
    def factory(cell: str) -> Strategy:
        if cell == "bad":
            raise ValueError("no strategy for it")
        return inner(cell)

    with edge_at(tmp_path, members(0), factory=factory) as edge:
        with pytest.raises(ProtocolError, match="no strategy for it"):
            ask(edge, order("bad"))
        assert "arrays" in ask(edge, order())
        with pytest.raises(ProtocolError, match=r"BridgeTier\(\)"):
            ask(edge, RecordDict({"arrays": initial_model()}))
        with pytest.raises(ProtocolError, match=r"BridgeTier\(\)"):
            ask(edge, order(number=3), kind="query")


def test_a_strategy_that_hides_its_state_is_refused_and_the_fix_is_named(tmp_path: Path) -> None:
    with (
        edge_at(tmp_path, members(0), factory=lambda cell: _Odd()) as edge,
        pytest.raises(ProtocolError, match="state_dict"),
    ):
        ask(edge, order())


def test_nobody_there_is_an_error_in_time_that_says_what_starts_it(tmp_path: Path) -> None:
    began_s = time.monotonic()
    with pytest.raises(ProtocolError, match=r"has never listened here.*flower-edge edge"):
        ask_edge(BridgePlace(tmp_path), "train", "r", order(), within_s=0.5)
    assert time.monotonic() - began_s < 30
    with edge_at(tmp_path, members(0)) as edge:
        pass
    with pytest.raises(ProtocolError, match="did not answer within"):
        ask(edge, order(), within_s=0.5)


def test_who_asks_early_is_answered_when_the_edge_is_there(tmp_path: Path) -> None:
    answers: list[RecordDict] = []
    asker = threading.Thread(
        target=lambda: answers.append(ask_edge(BridgePlace(tmp_path), "train", "r", order(), within_s=60))
    )
    asker.start()
    with edge_at(tmp_path, members(0)):
        asker.join()
    assert "arrays" in answers[0]


def test_when_another_process_listens_for_an_edge_the_first_one_ends(tmp_path: Path) -> None:
    with edge_at(tmp_path, members(0)) as first, edge_at(tmp_path, members(0)) as second:
        first.thread.join(60)
        assert first.why == ["another process listens for this edge now"]
        assert "arrays" in ask(second, order())


def test_damaged_state_is_said_and_not_guessed(tmp_path: Path) -> None:
    with edge_at(tmp_path, members(0)) as edge:
        ask(edge, order())
    state = tmp_path / "edge.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    with LocalGrid(terminal_app(), 0) as grid:
        proxy = GridProxy(grid)
        host = EdgeHost(BridgePlace(tmp_path), inner, proxy, stable=stable_key(proxy))
        with pytest.raises(StateError, match="safetensors"):
            host.run()


@pytest.mark.parametrize(
    "values", [{"alone_after_s": 0}, {"alone_rounds": -1}, {"alone_rounds": 1.5}, {"frame_bytes": 0}]
)
def test_settings_that_cannot_be_meant_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        HostSettings(**values)


def test_a_status_tells_no_more_than_it_says(tmp_path: Path) -> None:
    with edge_at(tmp_path, members(0)) as edge:
        status = edge_status(edge.place)
        assert isinstance(status, Status)
        assert status.pid == os.getpid()
        assert set(json.loads(status.to_bytes())) == set(Status.model_fields)


# --- who keeps it going ---


def plan(tmp_path: Path, **more: Any) -> EdgePlan:
    app = Path(__file__).parents[2] / "benchmarks" / "apps" / "tiers_edge"
    return EdgePlan(**{"name": "e", "state": tmp_path, "app": app, "serve": "127.0.0.1:9092", **more})


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"superlink": "here:1"}, "--serve HOST:PORT, to start"),
        ({"serve": ""}, "--serve HOST:PORT, to start"),
        ({"serve": "9092"}, "expected HOST:PORT"),
        ({"serve": "host:99999"}, "expected HOST:PORT"),
        ({"app": Path("/nowhere")}, "does not exist"),
        ({"app": Path(__file__).parents[1] / "apps" / "pristine"}, "no key 'bridge'"),
        ({"run_config": {"terminal": 3}}, "did you mean 'terminals'"),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused_with_the_fix(
    tmp_path: Path, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        EdgeKeeper(plan(tmp_path, **more))


def test_two_keepers_of_one_edge_are_one_too_many(tmp_path: Path) -> None:
    one, two = EdgeKeeper(plan(tmp_path)), EdgeKeeper(plan(tmp_path))
    with one._only_keeper(), pytest.raises(ConfigError, match="another flower-edge edge"):
        two.keep(lambda: True)


def test_an_edge_says_once_that_nothing_listens_where_its_superlink_should_be(tmp_path: Path) -> None:
    told: list[str] = []
    with socket.socket() as nobody:
        nobody.bind((HOST, 0))  # and does not listen
        where = f"{HOST}:{nobody.getsockname()[1]}"
        made = EdgeKeeper(plan(tmp_path, serve="", superlink=where), told.append)
        for _ in range(3):
            made.look()
    assert told == [f"nothing listens on {where} yet; it waits for the SuperLink there"]


def test_a_program_that_ends_is_started_again_after_a_pause_that_grows(tmp_path: Path) -> None:
    told: list[str] = []
    command = [sys.executable, "-S", "-c", "raise SystemExit(3)"]
    mark = f"test-{os.getpid()}"
    kept = KeptProcess("it", mark, lambda: command, dict(os.environ), tmp_path, tmp_path / "log", told.append)
    for _ in range(1000):
        kept.look()
        if len(told) >= 4:
            break
        time.sleep(0.02)
    kept.stop()
    assert [words.split(", see")[0] for words in told if "ended" in words][:2] == [
        "it has ended (3); it is started again in 0.5 s",
        "it has ended (3); it is started again in 1 s",
    ]


# --- a terminal that follows a file ---


@pytest.mark.parametrize("text", ["edge", "edge:", ":9092", "edge:x"])
def test_a_file_that_names_no_superlink_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "where").write_text(text)
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        read_attachment(tmp_path / "where")


def test_a_node_follows_the_file_and_counts_its_attachments_across_restarts(tmp_path: Path) -> None:
    where, seen = tmp_path / "where", tmp_path / "seen"

    def command(at: Any, count: int) -> list[str]:
        line = f"{at.superlink} {at.authority or '-'} {count}\\n"
        script = f"import time; open({str(seen)!r}, 'a').write({line!r}.replace('\\\\n', chr(10))); time.sleep(600)"
        return [sys.executable, "-S", "-c", script]

    def follow(until: int) -> None:
        began_s = time.monotonic()
        stay_attached(where, command, lambda: len(lines()) >= until or time.monotonic() - began_s > 60)

    def lines() -> list[str]:
        return seen.read_text().splitlines() if seen.exists() else []

    follower = threading.Thread(target=follow, args=(2,))
    follower.start()
    where.write_text("a:1\n")
    while not lines():
        time.sleep(0.02)
    where.write_text("b:2\nca.pem\n")
    follower.join(90)
    follow(3)
    assert lines() == ["a:1 - 1", "b:2 ca.pem 2", "b:2 ca.pem 3"]
