"""`EdgeKeeper`: starts what an edge host consists of, and starts again what has ended.

    SuperLink     of the edge's own terminals; its state in a file, so that nodes outlive its restart
    run           of the edge's app on that SuperLink, handed over with `flwr run`; it does not end by itself
    SuperNode     at the centre's SuperLink, with the app that asks the edge

Whether the edge is well it says itself, over its bridge: a run that Flower calls running may have lost its process.
What an edge knows is on the disk, in the bridge's folder, so that a new run of it goes on. Flower is driven by its own
command line. Nothing here trains.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ...config import Scalar
from ...errors import ConfigError, EdgeError, LaunchError
from ...store.atomic import write_bytes
from ..launching.app import check_run_config, read_app, run_config_toml
from ..launching.back_off import BackOff
from ..launching.environment import WorkFolder
from ..launching.flower_verbs import FlowerVerbs, RunStatus
from ..launching.kept_process import KeptProcess
from ..launching.processes import Family
from .caller import edge_status
from .messages import Status
from .place import BridgePlace

__all__ = ["EdgeKeeper", "EdgePlan"]

_PROGRAMS: Final = ("flwr", "flower-superlink", "flower-superexec", "flower-edge")
#: Between two looks.
_LOOK_S: Final = 0.5
#: After `flwr run`, until the edge answers; then it is stopped and handed over anew.
_START_S: Final = 180.0
#: An edge whose process is there and does not answer for so long is ended.
_HUNG_S: Final = 60.0


@dataclass(frozen=True)
class EdgePlan:
    """What an edge host is to consist of.

    Attributes:
        name: the edge's name.
        state: folder of everything it keeps; one edge, one folder.
        app: folder of the edge's app, whose run config has the key `bridge`.
        serve: HOST:PORT of the SuperLink to start for the terminals; "": one runs already, see `superlink`.
        superlink: HOST:PORT of a SuperLink that runs on this host.
        superlink_options: further ones of `flower-superlink`: TLS, node keys.
        authority: PEM file that vouches for the SuperLink; `None`: it has no TLS.
        in_memory: keep the SuperLink's state in its memory: faster, and its nodes end with it.
        centre_options: as of `flower-edge node`, for the SuperNode at the centre; `None`: it is started elsewhere.
        node_config: further entries of its node config.
        run_config: of the edge's app.
        stock: Flower's own SuperNode.
    """

    name: str
    state: Path
    app: Path
    serve: str = ""
    superlink: str = ""
    superlink_options: tuple[str, ...] = ()
    authority: Path | None = None
    in_memory: bool = False
    centre_options: tuple[str, ...] | None = None
    node_config: str = ""
    run_config: Mapping[str, Scalar] = field(default_factory=dict)
    stock: bool = False

    @property
    def address(self) -> tuple[str, int]:
        """Where the SuperLink is, as programs of this host dial it.

        Raises:
            ConfigError: neither or both of `serve` and `superlink`, or no address.
        """
        if bool(self.serve) == bool(self.superlink):
            raise ConfigError("give --serve HOST:PORT, to start a SuperLink, or --superlink HOST:PORT, where one runs")
        host, _, port = (self.serve or self.superlink).rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise ConfigError(f"{self.serve or self.superlink!r}: expected HOST:PORT, such as 0.0.0.0:9092")
        return ("127.0.0.1" if self.serve else host), int(port)


class EdgeKeeper:
    """Keeps one edge host going.

    Args:
        plan: what it consists of.
        on_event: told what happens, in words.

    Raises:
        ConfigError: a plan that cannot be carried out: no such app, no `bridge` in its run config, a bad address.
        LaunchError: Flower's programs are not beside this Python.
    """

    def __init__(self, plan: EdgePlan, on_event: Callable[[str], None] = lambda words: None) -> None:
        self._plan, self._on_event = plan, on_event
        self._host, self._port = plan.address
        state = plan.state.expanduser().absolute()
        self.place = BridgePlace(state / "bridge")
        config = {**plan.run_config, "bridge": str(self.place.folder)}
        app = read_app(plan.app)
        if "bridge" not in app.config:
            raise ConfigError(
                f"the run config of {plan.app} has no key 'bridge'; an edge's ServerApp is made by edge_server, and "
                '[tool.flwr.app.config] lists bridge = ""'
            )
        check_run_config(app, config)
        self._app, self._config = app.folder, run_config_toml(config)
        self._scripts = Path(sys.executable).parent
        if missing := [name for name in _PROGRAMS if not os.access(self._scripts / name, os.X_OK)]:
            raise LaunchError(f"{', '.join(missing)} not found in {self._scripts}; install flower-edge there")
        self._state, self._work = state, WorkFolder(state)
        self.place.make()
        for folder in (self._work.home, self._work.cwd):
            folder.mkdir(exist_ok=True)
        # The same again for a keeper that comes after this one: it finds what this one has left.
        self._mark = hashlib.sha256(str(state).encode()).hexdigest()[:24]
        self._environment = self._work.environment(
            os.environ, launch_id=self._mark, port=self._port, scripts=self._scripts,
            runs=state / "runs", run_folder=state / "runs" / "edge",
        )  # fmt: skip
        self._verbs = FlowerVerbs(self._scripts, self._work.home, self._work.cwd, self._environment)
        self._link = self._kept("SuperLink", "link", self._superlink_command) if plan.serve else None
        self._node = self._kept("SuperNode", "node", self._node_command) if plan.centre_options is not None else None
        # An app that takes a minute to fail has not gone well for a minute: `good` alone begins the waits anew.
        self._back_off, self._due_s = BackOff(first_s=1.0, most_s=30.0, good_s=math.inf), 0.0
        self._submitted_s: float | None = None
        self._asked_s = self._well_s = 0.0
        self._run_id: int | None = None
        self._was_well = self._waits = False
        self._trouble = ""

    # -- what is kept ------------------------------------------------------------------------------------------------

    def _kept(self, name: str, mark: str, command: Callable[[], list[str]]) -> KeptProcess:
        log = self._state / f"{mark}.log"
        whole = f"{self._mark}-{mark}"
        return KeptProcess(name, whole, command, self._environment, self._work.cwd, log, self._on_event)

    def _superlink_command(self) -> list[str]:
        host = self._plan.serve.rpartition(":")[0]
        given = [*self._plan.superlink_options, "--disable-runtime-dependency-installation"]
        if not self._plan.in_memory:
            given += ["--database", str(self._state / "superlink.db")]
        return [str(self._scripts / "flower-superlink"), *given, "--host", host, "--port", str(self._port)]

    def _node_command(self) -> list[str]:
        config = f"cell='{self._plan.name}' bridge='{self.place.folder}' {self._plan.node_config}".strip()
        given = [*(self._plan.centre_options or ()), "--node-config", config]
        given += ["--stock"] if self._plan.stock else []
        return [str(self._scripts / "flower-edge"), "node", *given]

    # -- the loop ----------------------------------------------------------------------------------------------------

    def keep(self, ended: Callable[[], bool]) -> None:
        """Keep it going until `ended`; then everything that was started here is ended."""
        self._verbs.point_to(f"{self._host}:{self._port}", self._plan.authority)
        with self._only_keeper():
            try:
                for part in (self._link, self._node):
                    if part is not None:
                        part.clear()
                while not ended():
                    self.look()
                    time.sleep(_LOOK_S)
                self._on_event("ends, and all that it has started ...")
            finally:
                for part in (self._node, self._link):
                    if part is not None:
                        part.stop()
                Family(self._mark).stop()
                if self._link is None and self._run_id is not None:
                    # Somebody else's SuperLink goes on; the run on it was ours.
                    self._stop_run(self._run_id)

    def look(self) -> None:
        """Look once at everything, and start what has ended."""
        if self._link is not None and self._link.look():
            self._forget_run()
        if not self._listens():
            if self._link is None and not self._waits:
                self._on_event(f"nothing listens on {self._plan.superlink} yet; it waits for the SuperLink there")
            self._waits = True
            return
        self._waits = False
        self._look_at_run()
        if self._node is not None:
            self._node.look()

    def status(self) -> Status | None:
        """What the edge says of itself, if it answers."""
        try:
            return edge_status(self.place, within_s=3.0)
        except EdgeError:
            return None

    def _listens(self) -> bool:
        try:
            socket.create_connection((self._host, self._port), timeout=1.0).close()
        except OSError:
            return False
        return True

    def _look_at_run(self) -> None:
        now_s, status = time.monotonic(), self.status()
        if status is not None:
            self._well_s, self._submitted_s = now_s, None
            self._back_off.good()
            if not self._was_well:
                told = f", after round {status.cloud_round}" if status.cloud_round else ""
                self._on_event(f"edge {self._plan.name} answers in run {status.flower_run}{told}")
            self._was_well = True
            if status.trouble != self._trouble:
                self._trouble = status.trouble
                self._on_event(f"edge {self._plan.name}: {self._trouble or 'goes on'}")
            return
        address = self.place.address()
        gone = address is None or address.gone
        if self._submitted_s is not None:
            self._wait_for_start(now_s)
            return
        if self._was_well and gone:
            self._on_event(f"edge {self._plan.name} is gone; its run is started again")
        elif self._was_well and address is not None and now_s - self._well_s > _HUNG_S:
            self._on_event(f"edge {self._plan.name} has not answered for {_HUNG_S:g} s and is ended")
            with suppress(OSError):
                os.kill(address.process["pid"], signal.SIGKILL)
        elif self._was_well or (not gone and now_s < self._due_s):
            return
        self._was_well = False
        if now_s >= self._due_s:
            self._submit()

    def _wait_for_start(self, now_s: float) -> None:
        assert self._submitted_s is not None
        if now_s - self._asked_s < 10.0:
            return
        self._asked_s = now_s
        assert self._run_id is not None
        try:
            now = self._verbs.run_status(self._run_id)
        except LaunchError as error:
            self._on_event(str(error))
            now = RunStatus("unknown")
        if now.finished:
            self._failed(f"run {self._run_id} is {now.status}: {now.details or None}")
        elif now_s - self._submitted_s > _START_S:
            self._stop_run(self._run_id)
            self._failed(f"run {self._run_id} did not answer within {_START_S:g} s")

    def _failed(self, why: str) -> None:
        wait_s = self._back_off.next_s()
        self._submitted_s, self._due_s = None, time.monotonic() + wait_s
        self._on_event(f"{why}; again in {wait_s:g} s")

    def _submit(self) -> None:
        overrides = self._state / "run-config.toml"
        overrides.write_text(self._config, "utf-8")
        before = self._run_id or self._kept_run()
        try:
            self._run_id = self._verbs.start_run(self._app, str(overrides))
        except LaunchError as error:
            # Flower calls it a matter of the network, also where it is one of TLS.
            hint = "; something listens there: does --authority vouch for it?" if "unavailable" in str(error) else ""
            self._failed(f"the edge's app was not taken by its SuperLink ({error}{hint})")
            return
        self._submitted_s = self._asked_s = time.monotonic()
        write_bytes(self._state / "run.json", json.dumps({"run-id": self._run_id}).encode())
        self._on_event(f"run {self._run_id} of the edge's app is handed to its SuperLink")
        if before is not None and self._link_has_state:
            # Its process is gone or will be; Flower need not wait a minute to notice.
            self._stop_run(before)

    @property
    def _link_has_state(self) -> bool:
        return self._link is None or not self._plan.in_memory

    def _kept_run(self) -> int | None:
        try:
            return int(json.loads((self._state / "run.json").read_text())["run-id"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _forget_run(self) -> None:
        """The SuperLink is another process: no run lives on it."""
        self._was_well, self._submitted_s, self._due_s = False, None, 0.0

    def _stop_run(self, run_id: int) -> None:
        try:
            self._verbs.stop_run(run_id)
        except LaunchError as error:
            self._on_event(str(error))

    def _only_keeper(self) -> Any:
        """Held while one keeper works in the folder.

        Raises:
            ConfigError: another one does.
        """
        import fcntl

        file = (self._state / "keeper.lock").open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise ConfigError(
                f"another flower-edge edge works in {self._state}; end it, or give another --state"
            ) from None
        # Children must not hold it on: a keeper that was killed is followed by another at once.
        os.set_inheritable(file.fileno(), False)
        return file
