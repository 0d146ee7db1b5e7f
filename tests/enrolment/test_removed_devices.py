"""Devices that are out: Flower is told of each sooner or later, whatever broke off, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from desk_cases import Register, Server, code_of, desk_in, let_in

from flower_edge.enrolment import server as server_module
from flower_edge.enrolment.book import EnrolmentBook
from flower_edge.enrolment.desk import EnrolmentDesk, Sightings
from flower_edge.enrolment.device_folder import DeviceFolder
from flower_edge.enrolment.joining import leave
from flower_edge.enrolment.server import EnrolmentServer
from flower_edge.enrolment.server_folder import ServerFolder
from flower_edge.enrolment.standing import OUT, main, why_out
from flower_edge.enrolment.superlink import SuperLink
from flower_edge.errors import EnrolmentError, LaunchError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with desk_in(tmp_path / "server") as made:
        yield made


class Verbs:
    """Flower's command line: no key is taken twice, not one that was let go either, and no keys are listed."""

    def __init__(self, keys: dict[str, int]) -> None:
        self.keys, self.gone = keys, set[int]()

    def ask(self, *words: str) -> dict[str, Any]:
        if words[1] == "register":
            key = Path(words[2]).read_text("ascii").strip()
            if key in self.keys:
                raise LaunchError("flwr supernode: Public key already in use.")
            self.keys[key] = 100 + len(self.keys)
            return {"node-id": str(self.keys[key])}
        if words[1] == "unregister":
            self.gone.add(int(words[2]))
            return {}
        rows = {node_id: "unregistered" if node_id in self.gone else "offline" for node_id in self.keys.values()}
        return {"nodes": [{"node-id": str(node_id), "status": status} for node_id, status in rows.items()]}


def superlink(path: Path, keys: dict[str, int]) -> tuple[SuperLink, EnrolmentBook, Verbs]:
    """One that was not started, with Flower's nodes by their keys."""
    folder, verbs = ServerFolder.at(path), Verbs(keys)
    book, made = EnrolmentBook(folder.book), SuperLink(folder, 9)
    made.verbs = verbs  # type: ignore[assignment]
    return made, book, verbs


def admit(book: EnrolmentBook, key: str, node_id: int | None = None) -> None:
    book.admit(book.invite(), key, key)
    if node_id is not None:
        book.joined(key, node_id)


def test_nobody_is_given_the_node_of_a_device_that_is_out(tmp_path: Path) -> None:
    flower, book, verbs = superlink(tmp_path, {"out": 7, "live": 8})
    admit(book, "out", 7)
    admit(book, "live", 8)
    book.removed("out")  # and Flower has not been told yet
    verbs.gone.add(8)  # somebody let the other one go by hand
    with pytest.raises(EnrolmentError, match="Flower had this key and let it go"):
        flower.register("live", "live")
    verbs.gone.clear()
    admit(book, "new")
    verbs.keys["new"] = 9  # its join broke off before the id was taken down
    assert flower.register("new", "new") == 9


def test_a_device_that_is_taken_out_while_flower_registers_it_is_let_go(server: Server, tmp_path: Path) -> None:
    register = server.flower.register

    def slowly(public_key: str, name: str) -> int:
        server.book.removed(public_key)
        return register(public_key, name)

    server.flower.register = slowly  # type: ignore[method-assign]
    assert code_of(server, DeviceFolder(tmp_path / "device"), server.book.invite()) == "removed"
    (node_id,) = server.flower.nodes
    assert [device.node_id for device in server.book.untold()] == [node_id]  # it is kept until that has worked
    assert [device.name for device in server.desk.tell_flower()] == ["pi-one-local"]
    assert (server.flower.nodes, server.book.untold()) == ({}, [])


def test_one_whose_join_broke_off_before_the_node_id_was_taken_down_is_let_go(server: Server, tmp_path: Path) -> None:
    register = server.flower.register

    def dies(public_key: str, name: str) -> int:
        register(public_key, name)
        raise EnrolmentError("the power is gone")

    server.flower.register = dies  # type: ignore[method-assign]
    with pytest.raises(EnrolmentError, match="the power is gone"):
        let_in(server, DeviceFolder(tmp_path / "device"), server.book.invite())
    (device,) = server.book.devices()
    server.book.removed(device.public_key)
    (node_id,) = server.flower.nodes
    server.desk.tell_flower()
    assert (server.flower.nodes, server.book.untold()) == ({}, [])
    assert server.book.device(device.public_key).node_id == node_id


def test_a_node_that_nobody_took_down_is_found_by_its_key(tmp_path: Path) -> None:
    flower, book, verbs = superlink(tmp_path, {"known": 7})
    admit(book, "known", 7)
    admit(book, "out")
    book.removed("out")
    assert flower.find("out", "out") is None
    assert "out" not in verbs.keys  # nothing was registered to find that out
    verbs.keys["out"] = 8
    assert flower.find("out", "out") == 8
    verbs.keys = {"by hand": 9}
    assert flower.find("out", "out") == verbs.keys["out"]  # not the other's


def removed(path: Path, *node_ids: int) -> tuple[ServerFolder, EnrolmentBook, Register]:
    """A server's folder and book, in which these are out, and Flower, which has them still."""
    folder = ServerFolder.at(path)
    folder.authority(), folder.peers()
    book, flower = EnrolmentBook(folder.book), Register()
    for node_id in node_ids:
        flower.nodes[node_id] = f"key-{node_id}"
        admit(book, f"key-{node_id}", node_id)
        book.removed(f"key-{node_id}")
    return folder, book, flower


def test_one_that_fails_keeps_nobody_waiting_and_is_tried_again_later(tmp_path: Path) -> None:
    folder, book, flower = removed(tmp_path, 1, 2, 3)
    now_s, lines = [100.0], list[str]()
    desk = EnrolmentDesk(
        book, flower, authority_pem=b"", peers=folder.peers(), sightings=Sightings(), tell=lines.append,
        clock=lambda: now_s[0],
    )  # fmt: skip
    flower.stuck = {1}
    assert {device.node_id for device in desk.tell_flower()} == {2, 3}
    (line,) = lines
    assert "told that key-1 is out: flwr supernode unregister: no answer; again in 5 s" in line
    assert desk.tell_flower() == []
    assert sorted(flower.asked) == [1, 2, 3]  # it is not asked again at once
    now_s[0] += 5.0
    assert desk.tell_flower() == []
    assert "again in 10 s" in lines[1]
    flower.stuck.clear()
    now_s[0] += 9.0
    assert desk.tell_flower() == []
    now_s[0] += 1.0
    assert [device.node_id for device in desk.tell_flower()] == [1]
    assert (flower.nodes, book.untold()) == ({}, [])


def test_who_serves_tells_one_at_a_time(tmp_path: Path) -> None:
    folder, book, flower = removed(tmp_path, 1, 2, 3)
    lines = list[str]()
    serving = EnrolmentServer(folder, listen=("127.0.0.1", 0), hosts=["edge"], tell=lines.append)
    serving.book, serving._public = book, SimpleNamespace(alive=True)  # type: ignore[assignment]
    serving.superlink = SimpleNamespace(look=lambda: None, healthy=True)  # type: ignore[assignment]
    serving.desk = EnrolmentDesk(book, flower, authority_pem=b"", peers=folder.peers(), sightings=Sightings())
    flower.stuck = {2}
    for looks in range(1, 4):
        serving.look()
        assert len(flower.asked) == looks
    assert sorted(lines) == ["key-1 (node 1) is out", "key-3 (node 3) is out"]


def test_a_start_is_given_up_between_two_of_those_that_are_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, book, flower = removed(tmp_path, 1, 2, 3)
    stopped = list[bool]()
    begun = SimpleNamespace(
        url="https://127.0.0.1:9", start=lambda ended: None, stop=lambda: stopped.append(True),
        find=flower.find, register=flower.register, unregister=flower.unregister,
    )  # fmt: skip
    monkeypatch.setattr(server_module, "SuperLink", lambda *given: begun)
    serving = EnrolmentServer(folder, listen=("127.0.0.1", 0), hosts=["edge"], ended=lambda: len(flower.asked) == 1)
    with pytest.raises(EnrolmentError, match="ended before the public port was opened"):
        serving.__enter__()
    assert (len(flower.asked), len(book.untold()), stopped) == (1, 2, [True])


def test_a_device_that_is_out_is_told_so_and_leaves_without_force_and_joins_anew(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = DeviceFolder(tmp_path / "device")
    assert why_out(folder) == ""  # nothing has joined
    joined = let_in(server, folder, server.book.invite())
    assert why_out(folder) == ""
    assert main([str(folder.path)]) == 0
    assert capsys.readouterr().out == ""

    server.desk.remove(server.book.called(joined.name))
    why = why_out(folder)
    assert "says no: pi-one-local was removed from this server" in why
    assert f"run `flower-edge leave --state {folder.path}` here; to come back, join with a new token" in why
    assert main([str(folder.path)]) == OUT == 77
    assert capsys.readouterr().out == f"{why}\n"
    assert code_of(server, folder, server.book.invite()) == "removed"

    key = folder.file("node.key").read_bytes()
    assert leave(folder).still == ""
    assert not folder.path.exists()
    assert let_in(server, folder, server.book.invite()).node_id is not None
    assert folder.file("node.key").read_bytes() != key
    assert why_out(folder) == ""


def test_a_server_that_does_not_answer_says_nothing_against_a_device(tmp_path: Path) -> None:
    folder = DeviceFolder(tmp_path / "device")
    with desk_in(tmp_path / "gone") as server:
        let_in(server, folder, server.book.invite())
        server.desk.remove(server.book.devices()[0])
    assert why_out(folder) == ""
