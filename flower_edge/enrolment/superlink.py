"""Flower's SuperLink as a process of this server: on the loopback address, with TLS and node keys.

It is started again when it ends. Driven by Flower's own command lines: `flower-superlink`, `flwr supernode` and
`flwr run`. What it knows of nodes is in its database, which outlives it. Nothing here listens to devices.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import httpx

from ..errors import EdgeError, EnrolmentError
from ..runtime.launching.back_off import BackOff
from ..runtime.launching.environment import CONNECTION, HOST, flower_environment
from ..runtime.launching.flower_verbs import FlowerVerbs
from ..runtime.launching.kept_process import KeptProcess
from ..store.places import RUN_DIR_VARIABLE, RUNS_VARIABLE, runs_root
from .server_folder import ServerFolder

__all__ = ["SuperLink"]

_START_S: Final = 120.0


class SuperLink:
    """The SuperLink of a server folder.

    Args:
        folder: whose certificates, database and logs it uses.
        port: on the loopback address.
        tell: is called with a line about each start and end.
        variables: that its runs find in their environment, beside those of this process.
    """

    def __init__(
        self,
        folder: ServerFolder,
        port: int,
        tell: Callable[[str], None] = lambda line: None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.port, self._folder, self._tell = port, folder, tell
        self._healthy = False
        self._scripts = Path(sys.executable).parent
        #: Where its runs leave their folders.
        self.runs = runs_root() if os.environ.get(RUNS_VARIABLE) else folder.runs
        base = {name: value for name, value in os.environ.items() if name != RUN_DIR_VARIABLE}
        environment = flower_environment(
            {**base, RUNS_VARIABLE: str(self.runs), **(variables or {})},
            home=folder.home, launch_id=folder.launch_id, scripts=self._scripts,
        )  # fmt: skip
        #: Flower's command line, for this SuperLink.
        self.verbs = FlowerVerbs(self._scripts, folder.home, folder.home, environment)
        self._kept = KeptProcess(
            "the SuperLink", folder.launch_id, self._command, environment, folder.home, self.log, tell,
            BackOff(first_s=1.0, most_s=60.0, good_s=120.0),
        )  # fmt: skip

    @property
    def url(self) -> str:
        """Where the fleet filter finds it."""
        return f"https://{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """What it printed."""
        return self._folder.logs / "superlink.log"

    @property
    def healthy(self) -> bool:
        """Whether it answered when it was last looked at."""
        return self._healthy

    @property
    def starts(self) -> int:
        """How often it was started."""
        return self._kept.starts

    def start(self, ended: Callable[[], bool] = lambda: False) -> None:
        """Start it, and wait until it answers. What an earlier server left behind is ended first.

        Args:
            ended: whether to give up.

        Raises:
            EnrolmentError: it ends, or does not answer, or it was given up.
        """
        self._kept.clear()
        self.verbs.point_to(f"{HOST}:{self.port}", self._folder.authority_file())
        self._kept.start()
        latest_s = time.monotonic() + _START_S
        while not self._answers():
            if (code := self._kept.ended_with) is not None:
                raise EnrolmentError(f"the SuperLink ended with {code}; the last it printed:\n{self.last_words()}")
            if ended():
                raise EnrolmentError("ended before the SuperLink answered")
            if time.monotonic() > latest_s:
                raise EnrolmentError(f"the SuperLink does not answer after {_START_S:.0f} s; see {self.log}")
            time.sleep(0.1)
        self._healthy = True

    def look(self) -> None:
        """Start it again where it has ended; to be called every second or so."""
        self._kept.look()
        was, self._healthy = self._healthy, self._kept.runs and self._answers()
        if self._healthy and not was:
            self._tell("the SuperLink answers again")

    def stop(self) -> None:
        """End it and all that it started."""
        self._kept.stop()

    def last_words(self) -> str:
        """The end of its log."""
        try:
            return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-15:])
        except OSError:
            return ""

    # --- the registrar ---

    def register(self, public_key: str, name: str) -> int:
        """As `Registrar` says. A node that Flower has registered under an id nobody took down is found again."""
        with tempfile.TemporaryDirectory(dir=self._folder.path) as place:
            file = Path(place) / "node.pub"
            file.write_text(f"{public_key}\n", "ascii")
            try:
                return int(self.verbs.ask("supernode", "register", str(file), CONNECTION, "--name", name)["node-id"])
            except EdgeError as error:
                if "already" not in str(error):
                    raise
        return self._untold()

    def find(self, public_key: str, name: str) -> int | None:
        """As `Registrar` says. Flower lists no keys: whether it has this one is seen by registering it."""
        return self.register(public_key, name) if self._strangers() else None

    def unregister(self, node_id: int) -> None:
        """As `Registrar` says."""
        try:
            self.verbs.ask("supernode", "unregister", str(node_id), CONNECTION)
        except EdgeError:
            if node_id in self.nodes():
                raise

    def nodes(self) -> dict[int, str]:
        """Flower's nodes by id: `registered`, `online` or `offline`."""
        rows = self.verbs.ask("supernode", "list", CONNECTION)["nodes"]
        return {int(row["node-id"]): str(row["status"]) for row in rows if row["status"] != "unregistered"}

    def _strangers(self) -> list[int]:
        from .book import EnrolmentBook

        # Those that are out too: Flower has their nodes until it is told, and nobody else may be given one.
        known = {device.node_id for device in EnrolmentBook(self._folder.book).devices(removed=True)}
        return [node_id for node_id in self.nodes() if node_id not in known]

    def _untold(self) -> int:
        found = self._strangers()
        if not found:
            raise EnrolmentError(
                "Flower had this key and let it go, and takes no key twice; run `flower-edge leave --force` on the "
                "device, and join with a new token"
            )
        if len(found) != 1:
            raise EnrolmentError(
                f"Flower has this key already, and {len(found)} nodes that joined in another way; take them out with "
                f"`FLWR_HOME={self._folder.home} flwr supernode unregister NODE-ID {CONNECTION}`"
            )
        return found[0]

    # --- inside ---

    def _command(self) -> list[str]:
        certificate, key = self._folder.inside_certificate()
        return [
            *(str(self._scripts / "flower-superlink"), "--host", HOST, "--port", str(self.port)),
            *("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)),
            *("--ssl-ca-certfile", str(self._folder.authority_file())),
            *("--enable-supernode-auth", "--database", str(self._folder.database)),
            "--disable-runtime-dependency-installation",
        ]

    def _answers(self) -> bool:
        try:
            with httpx.Client(verify=str(self._folder.authority_file()), trust_env=False, timeout=2.0) as client:
                return client.get(f"{self.url}/health").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False
