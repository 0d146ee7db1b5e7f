"""Flower's SuperLink as a process of this server: on the loopback address, with TLS and node keys.

It is started again when it ends. Driven by Flower's own command lines: `flower-superlink`, `flwr supernode` and
`flwr run`. What it knows of nodes is in its database, which outlives it. Nothing here listens to devices.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import httpx

from ..errors import EnrolmentError
from ..runtime.launching.environment import HOST
from ..runtime.launching.processes import MARKER, Family
from .back_off import BackOff
from .server_folder import ServerFolder

__all__ = ["CONNECTION", "SuperLink"]

#: What the SuperLink is called in Flower's configuration of this server.
CONNECTION: Final = "flower-edge"
_START_S: Final = 120.0
_VERB_S: Final = 120.0


class SuperLink:
    """The SuperLink of a server folder.

    Args:
        folder: whose certificates, database and logs it uses.
        port: on the loopback address.
        tell: is called with a line about each start and end.
    """

    def __init__(self, folder: ServerFolder, port: int, tell: Callable[[str], None] = lambda line: None) -> None:
        self.port, self._folder, self._tell = port, folder, tell
        self._family = Family(folder.launch_id)
        self._process: subprocess.Popen[bytes] | None = None
        self._back_off = BackOff(first_s=1.0, most_s=60.0, good_s=120.0)
        self._again_s = 0.0
        self._healthy = False
        self._scripts = Path(sys.executable).parent

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

    def start(self) -> None:
        """Start it, and wait until it answers. What an earlier server left behind is ended first.

        Raises:
            EnrolmentError: it ends, or does not answer.
        """
        self._family.stop()
        self._configure()
        self._begin()
        latest_s = time.monotonic() + _START_S
        while not self._answers():
            assert self._process is not None
            if (code := self._process.poll()) is not None:
                raise EnrolmentError(f"the SuperLink ended with {code}; the last it printed:\n{self.last_words()}")
            if time.monotonic() > latest_s:
                raise EnrolmentError(f"the SuperLink does not answer after {_START_S:.0f} s; see {self.log}")
            time.sleep(0.1)
        self._healthy = True

    def look(self) -> None:
        """Start it again where it has ended; to be called every second or so."""
        if self._process is None:
            return
        if self._process.poll() is None:
            was, self._healthy = self._healthy, self._answers()
            if self._healthy and not was:
                self._tell("the SuperLink answers again")
            return
        now_s = time.monotonic()
        if self._again_s == 0.0:
            self._healthy = False
            wait_s = self._back_off.next_s()
            self._again_s = now_s + wait_s
            self._tell(f"the SuperLink ended with {self._process.returncode}; it is started again in {wait_s:.0f} s")
        elif now_s >= self._again_s:
            self._again_s = 0.0
            self._begin()

    def stop(self) -> None:
        """End it and all that it started."""
        self._family.stop()
        self._process = None

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
                return int(self._flwr("supernode", "register", str(file), CONNECTION, "--name", name)["node-id"])
            except EnrolmentError as error:
                if "already" not in str(error):
                    raise
        return self._untold()

    def unregister(self, node_id: int) -> None:
        """As `Registrar` says."""
        try:
            self._flwr("supernode", "unregister", str(node_id), CONNECTION)
        except EnrolmentError:
            if node_id in self.nodes():
                raise

    def nodes(self) -> dict[int, str]:
        """Flower's nodes by id: `registered`, `online` or `offline`."""
        rows = self._flwr("supernode", "list", CONNECTION)["nodes"]
        return {int(row["node-id"]): str(row["status"]) for row in rows if row["status"] != "unregistered"}

    def _untold(self) -> int:
        from .book import EnrolmentBook

        known = {device.node_id for device in EnrolmentBook(self._folder.book).devices()}
        found = [node_id for node_id in self.nodes() if node_id not in known]
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

    # --- runs ---

    def run(self, app: Path, run_config: str = "") -> int:
        """Start a run of an app; its id.

        Raises:
            EnrolmentError: Flower would not.
        """
        more = ["--run-config", run_config] if run_config else []
        return int(self._flwr("run", str(app), CONNECTION, *more)["run-id"])

    def run_status(self, run_id: int) -> str:
        """As Flower says it: `running`, `finished:completed` ..."""
        return str(self._flwr("ls", CONNECTION, "--run-id", str(run_id))["runs"][0]["status"])

    # --- inside ---

    def _configure(self) -> None:
        text = f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\naddress = "{HOST}:{self.port}"\n'
        text += f"root-certificates = {json.dumps(str(self._folder.authority_file()))}\n"
        (self._folder.home / "config.toml").write_text(text, "utf-8")

    def _begin(self) -> None:
        certificate, key = self._folder.inside_certificate()
        with self.log.open("ab") as out:
            self._process = self._family.start(
                [
                    *(str(self._scripts / "flower-superlink"), "--host", HOST, "--port", str(self.port)),
                    *("--ssl-certfile", str(certificate), "--ssl-keyfile", str(key)),
                    *("--ssl-ca-certfile", str(self._folder.authority_file())),
                    *("--enable-supernode-auth", "--database", str(self._folder.database)),
                    "--disable-runtime-dependency-installation",
                ],
                environment=self._environment(),
                cwd=self._folder.home,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._back_off.began()

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            MARKER: self._folder.launch_id,
            "FLWR_HOME": str(self._folder.home),
            # Without it every run fetches all of the app's dependencies anew and uses those.
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "NO_COLOR": "1",
            "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY", ""), HOST])),
            "PATH": os.pathsep.join([str(self._scripts), os.environ.get("PATH", "")]),
        }

    def _answers(self) -> bool:
        try:
            with httpx.Client(verify=str(self._folder.authority_file()), trust_env=False, timeout=2.0) as client:
                return client.get(f"{self.url}/health").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def _flwr(self, *arguments: str) -> dict[str, Any]:
        """Run a verb of Flower's command line that answers with one JSON document."""
        command = [str(self._scripts / "flwr"), *arguments, "--format", "json"]
        words = " ".join(arguments[:2])
        try:
            done = subprocess.run(
                command,
                env=self._environment(),
                cwd=self._folder.home,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_VERB_S,
            )
        except subprocess.TimeoutExpired:
            raise EnrolmentError(f"flwr {words} has not answered after {_VERB_S:.0f} s") from None
        # Lines for people may stand before the document.
        begin = done.stdout.find("{")
        try:
            answer = json.loads(done.stdout[begin:]) if begin >= 0 else {}
        except ValueError:
            answer = {}
        if isinstance(answer, dict) and answer.get("success"):
            return answer
        said = str(answer.get("error-message", "")) if isinstance(answer, dict) else ""
        said = said.strip() or (done.stderr.strip() or done.stdout.strip())[-500:]
        raise EnrolmentError(f"flwr {words}: {said or f'ended with {done.returncode}'}")
