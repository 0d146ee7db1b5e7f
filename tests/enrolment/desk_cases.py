"""An enrolment desk behind the fleet filter, over real TLS, and devices that join it; Flower is a list of nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from filter_cases import HOST, Front, front

from flower_edge.enrolment.book import EnrolmentBook
from flower_edge.enrolment.desk import EnrolmentDesk, Sightings
from flower_edge.enrolment.desk_client import ServerUrl
from flower_edge.enrolment.device_folder import DeviceFolder, Joined, NodeOptions
from flower_edge.enrolment.joining import JoinLine, join
from flower_edge.enrolment.server_folder import ServerFolder
from flower_edge.errors import EnrolmentError, EnrolmentRefused


@dataclass
class Register:
    """Who would tell Flower: keeps the nodes it was told of."""

    nodes: dict[int, str] = field(default_factory=dict)
    fails: bool = False
    stuck: set[int] = field(default_factory=set)
    asked: list[int] = field(default_factory=list)

    def register(self, public_key: str, name: str) -> int:
        if self.fails:
            raise EnrolmentError("flwr supernode register: no answer")
        known = [node_id for node_id, key in self.nodes.items() if key == public_key]
        node_id = known[0] if known else 2**63 + len(self.nodes)
        self.nodes[node_id] = public_key
        return node_id

    def find(self, public_key: str, name: str) -> int | None:
        return next((node_id for node_id, key in self.nodes.items() if key == public_key), None)

    def unregister(self, node_id: int) -> None:
        self.asked.append(node_id)
        if node_id in self.stuck:
            raise EnrolmentError("flwr supernode unregister: no answer")
        self.nodes.pop(node_id, None)


@dataclass
class Server:
    """A desk behind the filter, on a port."""

    front: Front
    book: EnrolmentBook
    desk: EnrolmentDesk
    flower: Register
    sightings: Sightings
    fingerprint: str
    told: list[str]

    @property
    def url(self) -> ServerUrl:
        return ServerUrl(HOST, self.front.port)

    def line(self, token: str | None = None, fingerprint: str = "") -> JoinLine:
        return JoinLine(self.url, fingerprint or self.fingerprint, token)


@contextmanager
def desk_in(path: Path) -> Iterator[Server]:
    """A desk whose server keeps its things there."""
    folder = ServerFolder.at(path)
    authority, peers = folder.authority(), folder.peers()
    book, flower, sightings, told = EnrolmentBook(folder.book), Register(), Sightings(), list[str]()
    desk = EnrolmentDesk(
        book, flower, authority_pem=authority.certificate_pem, peers=peers, sightings=sightings, tell=told.append
    )
    with front(folder.path, own=desk) as made:
        yield Server(made, book, desk, flower, sightings, folder.fingerprint(), told)


def let_in(server: Server, folder: DeviceFolder, token: str | None, **line: str) -> Joined:
    given = server.line(token, **line)
    return join(
        folder, given, name="Pi_One.local", manner="foreground", options=NodeOptions(node_config="partition-id=0")
    )


def code_of(server: Server, folder: DeviceFolder, token: str | None) -> str:
    with pytest.raises(EnrolmentRefused) as caught:
        let_in(server, folder, token)
    return caught.value.code
