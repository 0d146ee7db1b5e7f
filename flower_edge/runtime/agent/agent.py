"""`Agent`: the long-lived process beside a SuperNode that owns the socket to its neighbours.

    ClientApp -- mailbox -- Unix socket -- Agent ==== mutual TLS ==== Agent -- Unix socket -- mailbox -- ClientApp

A ClientApp lives for one message and cannot be dialled; the agent can. It takes packets over from the node's mailbox
and delivers them to the agents of its neighbours, takes theirs, and keeps both in files until they are asked for: a
letter that it has acknowledged is there when the agent that was killed is started again. An agent beside the edge
server relays between those that cannot reach each other.

Who may send is told by the round's table, and proved by certificates and signatures. It knows nothing of Flower, of
models, or of what is in a letter.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from logging import getLogger
from pathlib import Path
from typing import Any, Final

from ...errors import ConfigError, PeerError, TransportRefused
from ...peers.round_table import Card, RoundTable
from ...transport.certificates import fingerprint
from ...transport.credentials import MutualTls
from ...transport.grpc_transport import GrpcTransport
from ...transport.listening import Listening
from ...transport.signing import Signer
from ...transport.transport import Connection, Handler, Hello, Peer
from .counters import Counters
from .dialling import FETCH, LETTERS, Dialler, nonce_in, show
from .fetching import hand_out
from .local_calls import LocalCalls
from .local_server import LocalServer
from .run import Run
from .settings import AgentLimits
from .tables import Standing

try:
    import fcntl
except ImportError:  # not on Windows, where there are no Unix sockets for agents either
    fcntl = None  # type: ignore[assignment]

__all__ = ["Agent"]

log = getLogger("flwr.edge")

_KEY: Final = "signing.key"


class Agent(Listening):
    """An agent; `open` and `close`, or a context manager.

    Args:
        folder: what it remembers; made if it is not there, for its owner alone. One agent per folder.
        credentials: its certificate, which also names the host under which neighbours dial it, and who vouches for
            theirs.
        host, port: where it listens; port 0 takes a free one.
        address: under which neighbours dial it, `host:port`; empty: where it listens.
        socket: of the mailbox; None: `agent.sock` in the folder.
        limits: see `AgentLimits`.
        durable: acknowledge only what the disk has, so that it survives a power cut too; else what the system has, so
            that it survives the end of the agent.

    Raises:
        ConfigError: credentials that are not mutual TLS, or a folder that cannot be used or is in use.
    """

    def __init__(
        self,
        folder: str | Path,
        credentials: MutualTls,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        address: str = "",
        socket: str | Path | None = None,
        limits: AgentLimits | None = None,
        durable: bool = False,
    ) -> None:
        if not isinstance(credentials, MutualTls):
            raise ConfigError("an agent knows its neighbours by their certificates: give it MutualTls credentials")
        self.limits = limits or AgentLimits()
        transport = GrpcTransport(credentials, self.limits.transport())
        super().__init__(transport, host, port)
        self.folder, self._durable, self._address = Path(folder).absolute(), durable, address
        self.socket = self.folder / "agent.sock" if socket is None else Path(socket).absolute()
        self._fingerprint = fingerprint(credentials.certificate_pem)
        self._lock_file = _locked(self.folder)
        try:
            self._signer = _signer(self.folder / _KEY)
        except BaseException:
            os.close(self._lock_file)
            raise
        self._dialler = Dialler(transport, self._fingerprint)
        self._lock = threading.Lock()
        # One table at a time: while the folder of a run that is given up is removed, nobody may begin that run again.
        self._beginning = threading.Lock()
        self._runs: dict[str, Run] = {}
        self._peers: dict[str, int] = {}
        self._local: LocalServer | None = None
        self._began_s = time.monotonic()
        self.counters = Counters()

    @property
    def card(self) -> Card:
        """How neighbours reach and know it; it has to listen."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        address = self._address or f"{host}:{self.port}"
        return Card(address=address, fingerprint=self._fingerprint, key=self._signer.public)

    def open(self) -> None:
        """Listen, and go on with what an earlier agent of this folder has left."""
        if self._local is not None:
            return
        (self.folder / "runs").mkdir(mode=0o700, exist_ok=True)
        for folder in sorted((self.folder / "runs").iterdir()):
            standing = Run.standing_in(folder, self.limits)
            if standing is None:
                log.warning("nothing can be made of %s; it is removed", folder)
                shutil.rmtree(folder, ignore_errors=True)
                continue
            self._runs[standing.table.run] = self._begin(folder, standing)
        super().open()
        calls = LocalCalls(self.run, self.begin, self.status)
        self._local = LocalServer(self.socket, calls)

    def close(self) -> None:
        """End everything; what was acknowledged stays in the folder. Safe to call twice."""
        if self._local is not None:
            self._local.close()
            self._local = None
        with self._lock:
            runs, self._runs = list(self._runs.values()), {}
        for run in runs:
            run.close()
        super().close()
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1

    # -- runs --------------------------------------------------------------------------------------------------------

    def begin(self, table: RoundTable) -> None:
        """A round begins.

        Raises:
            PeerError: a table that is not for this agent.
            OSError: the folder of a new run cannot be written; nothing has changed then.
        """
        with self._beginning:
            removed = None
            with self._lock:
                run = self._runs.get(table.run)
                if run is None:
                    # First the new one: where it cannot be made, on a full disk say, none is given up for it.
                    made = self._make(table)
                    if len(self._runs) >= self.limits.runs:
                        removed = self._runs.pop(min(self._runs, key=lambda name: self._runs[name].used_s))
                    self._runs[table.run] = made
            if removed is not None:
                log.warning("run %r is given up for a newer one", removed.standing.table.run)
                # Takes seconds where links hang, and neighbours of other runs are let in meanwhile.
                removed.remove()
            if run is not None:
                run.update(table)

    def run(self, name: str) -> Run:
        """One that has begun.

        Raises:
            PeerError: it has not.
        """
        with self._lock:
            run = self._runs.get(name)
        if run is None:
            raise PeerError(f"run {name[:40]!r} has not begun at this agent; tell it a round's table first")
        return run

    def _make(self, table: RoundTable) -> Run:
        folder = self.folder / "runs" / hashlib.sha256(table.run.encode()).hexdigest()[:32]
        fresh = not folder.exists()
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            return self._begin(folder, Standing(table, self.limits.rounds))
        except BaseException:
            if fresh:
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def _begin(self, folder: Path, standing: Standing) -> Run:
        return Run(
            folder, standing, self._signer, self._dialler, self.limits, self.counters, durable=self._durable
        )  # fmt: skip

    # -- neighbours --------------------------------------------------------------------------------------------------

    def accept(self, hello: Hello, peer: Peer) -> Handler:
        """Neighbours of a run that has begun, by their certificates."""
        try:
            return self._accept(hello, peer)
        except TransportRefused as refused:
            self.counters.refused(refused.code)
            raise

    def _accept(self, hello: Hello, peer: Peer) -> Handler:
        if hello.purpose not in (LETTERS, FETCH):
            raise TransportRefused(f"purpose {hello.purpose!r}; this is an agent", "other-purpose")
        nonce = nonce_in(hello.data)
        with self._lock:
            run = self._runs.get(hello.run)
        if run is None:
            raise TransportRefused(f"run {hello.run[:40]!r} has not begun here", "other-run")
        with run.changed:
            run.standing.check_peer(hello.node, peer.fingerprint)
        who = str(peer.fingerprint)
        with self._lock:
            if self._peers.get(who, 0) >= self.limits.per_peer:
                raise TransportRefused(f"{self.limits.per_peer} connections of this certificate; close one", "busy")

        def handle(connection: Connection) -> None:
            with self._lock:
                self._peers[who] = self._peers.get(who, 0) + 1
            try:
                show(connection, self._signer, hello.run, nonce)
                if hello.purpose == FETCH:
                    hand_out(run, connection, hello.node)
                else:
                    run.take_from(connection, peer.fingerprint, relayed=False)
            except TransportRefused as refused:
                self.counters.refused(refused.code)
                raise
            finally:
                with self._lock:
                    self._peers[who] -= 1
                    if not self._peers[who]:
                        del self._peers[who]

        return handle

    def status(self) -> dict[str, Any]:
        """What it is and has done, as plain values."""
        with self._lock:
            runs, connections = list(self._runs.values()), sum(self._peers.values())
        return {
            "card": self.card.model_dump(),
            "port": self.port,
            "socket": str(self.socket),
            "up_s": time.monotonic() - self._began_s,
            "connections": connections,
            "counters": self.counters.told(),
            "runs": [run.told() for run in runs],
        }


def _locked(folder: Path) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        opened = os.open(folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise ConfigError(f"agent's folder {folder}: {error.strerror}; give another --folder") from None
    if os.name == "posix" and folder.stat().st_mode & 0o077:
        os.close(opened)
        raise ConfigError(f"agent's folder {folder} is open to others, and keys are in it; chmod 700 it")
    if fcntl is not None:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(opened)
            raise ConfigError(f"an agent runs with the folder {folder}; give this one another --folder") from None
    return opened


def _signer(path: Path) -> Signer:
    """The key of this folder; drawn when there is none yet."""
    if path.exists():
        return Signer.from_pem(path.read_bytes())
    signer = Signer.fresh()
    beside = path.with_suffix(".new")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(signer.pem)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    return signer
