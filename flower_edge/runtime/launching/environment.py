"""What a launch has for itself: a folder, a port, a run folder's name, and the environment its processes are born with.

Every value Flower and Ray would otherwise share between all runs of a machine is set here, once. Nothing here starts
a process or changes this process's own environment.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import shutil
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ...errors import LaunchError
from ...store.places import RUN_DIR_VARIABLE, RUNS_VARIABLE, claim_below
from ..node_state_files import STATE_VARIABLE
from .processes import MARKER

__all__ = [
    "CONNECTION",
    "RESUME_VARIABLE",
    "WorkFolder",
    "answers",
    "claim_run_folder",
    "flower_environment",
    "hold_port",
    "scripts_folder",
    "write_connection",
]

#: Environment variable: the run folder to go on from, for the scenario to honour.
RESUME_VARIABLE: Final = "FLOWER_EDGE_RESUME"
#: What our SuperLink is called in our own Flower configuration.
CONNECTION: Final = "flower-edge"

HOST: Final = "127.0.0.1"
_PROGRAMS: Final = ("flwr", "flower-superlink", "flower-superexec", "flwr-simulation")
#: Ray puts sockets some 75 characters below the work folder (itself 12 more); a socket's path may have 103 (macOS).
_LONGEST_TEMP: Final = 16
#: Of the caller's environment, what would lead our processes to somebody else's services or colour what we parse.
_DROPPED: Final = ("RAY_ADDRESS", "RAY_NAMESPACE", "FORCE_COLOR", "CLICOLOR_FORCE", RESUME_VARIABLE)


@dataclass(frozen=True)
class WorkFolder:
    """The folder of one launch: `home` is its FLWR_HOME, `cwd` the empty working directory of all its processes.

    The working directory matters: Ray's workers look for modules there before they look into the app that Flower
    installed, so a folder with the app's name in it would be run instead, silently.
    """

    path: Path

    @classmethod
    def make(cls) -> WorkFolder:
        """Make a new one in the system's folder for temporary files, in `/tmp` where that has a long name.

        Raises:
            LaunchError: it cannot be made.
        """
        parent = tempfile.gettempdir()
        if len(parent) > _LONGEST_TEMP:
            parent = "/tmp"
        try:
            work = cls(Path(tempfile.mkdtemp(prefix="fe-", dir=parent)))
            work.home.mkdir()
            work.cwd.mkdir()
        except OSError as error:
            raise LaunchError(
                f"cannot write to {parent} ({error.strerror or error}); "
                f"make room there, or set TMPDIR to a folder with a name of at most {_LONGEST_TEMP} characters"
            ) from error
        return work

    @property
    def home(self) -> Path:
        """Flower's own folder: configuration and installed apps."""
        return self.path / "home"

    @property
    def cwd(self) -> Path:
        """The working directory."""
        return self.path / "cwd"

    @property
    def superlink_log(self) -> Path:
        """What the SuperLink printed."""
        return self.path / "superlink.log"

    def write_flower_config(self, port: int) -> None:
        """Tell Flower's command line where our SuperLink is.

        By its address: of a SuperLink called `:local:` the command line would start a second one when ours is gone.
        """
        write_connection(self.home, f"{HOST}:{port}", None)

    def environment(
        self,
        base: Mapping[str, str],
        *,
        launch_id: str,
        port: int,
        scripts: Path,
        runs: Path,
        run_folder: Path,
        resume: Path | None = None,
    ) -> dict[str, str]:
        """`base` with everything set that a launch needs of its own.

        Args:
            base: the environment to start from, usually `os.environ`; it is left alone.
            launch_id: value of the marker by which the launch's processes are found again.
            port: of our SuperLink on the loopback address.
            scripts: the folder of Flower's programs; goes to the front of PATH, because they call each other by name.
            runs: the folder of run folders.
            run_folder: the one run folder of this run.
            resume: the run folder to go on from.
        """
        environment = flower_environment(base, home=self.home, launch_id=launch_id, scripts=scripts)
        environment.update(
            {
                "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(port),
                "RAY_USAGE_STATS_ENABLED": "0",
                # Sessions of its own, so that Ray neither joins a cluster of this machine nor leaves logs behind.
                "RAY_TMPDIR": str(self.path),
                RUNS_VARIABLE: str(runs),
                RUN_DIR_VARIABLE: str(run_folder),
            }
        )
        # Nodes' files belong to the run, not to the home; a resumed run finds those it began with.
        began = run_folder if resume is None else _first_part(resume)
        environment.setdefault(STATE_VARIABLE, str(began / "state"))
        if resume is not None:
            environment[RESUME_VARIABLE] = str(resume)
        return environment

    def remove(self) -> None:
        """Remove the folder and all in it."""
        shutil.rmtree(self.path, ignore_errors=True)


def flower_environment(base: Mapping[str, str], *, home: Path, launch_id: str, scripts: Path) -> dict[str, str]:
    """`base` with what every program of Flower's that we start needs, whatever it is started for.

    Args:
        base: the environment to start from, usually `os.environ`; it is left alone.
        home: FLWR_HOME.
        launch_id: value of the marker by which the processes are found again.
        scripts: the folder of Flower's programs; goes to the front of PATH, because they call each other by name.
    """
    local = {host for host in base.get("NO_PROXY", base.get("no_proxy", "")).split(",") if host}
    no_proxy = ",".join(sorted(local | {HOST, "localhost"}))
    return {
        **{name: value for name, value in base.items() if name not in _DROPPED},
        MARKER: launch_id,
        "FLWR_HOME": str(home),
        # Without it every run fetches all of the app's dependencies anew and uses those.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "NO_COLOR": "1",
        "NO_PROXY": no_proxy,
        "no_proxy": no_proxy,
        "PATH": os.pathsep.join(filter(None, [str(scripts), base.get("PATH", "")])),
    }


def write_connection(home: Path, address: str, authority: Path | None) -> None:
    """Tell Flower's command line, by the folder `home`, where the SuperLink is and who vouches for it; None: no TLS."""
    trust = "insecure = true" if authority is None else f"root-certificates = {json.dumps(str(authority.absolute()))}"
    text = f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\naddress = "{address}"\n{trust}\n'
    (home / "config.toml").write_text(text, "utf-8")


def _first_part(run: Path) -> Path:
    """The run folder that a resumed run, resumed again and again, began with."""
    seen: set[Path] = set()
    while run not in seen:
        seen.add(run)
        try:
            info = json.loads((run / "run.json").read_text())
            earlier = run.parent / str(info["resumed_from"] or "")
        except (OSError, ValueError, KeyError, TypeError):
            return run
        if not info["resumed_from"] or not earlier.is_dir():
            return run
        run = earlier
    return run


def scripts_folder() -> Path:
    """The folder with Flower's programs, those of the environment this Python runs in.

    Raises:
        LaunchError: the programs are not there, Ray is not installed, or this is Windows.
    """
    if os.name != "posix":
        raise LaunchError(
            "flower-edge run needs Linux or macOS; on Windows use WSL, or `flwr run` as in docs/running.md"
        )
    # Not resolved: a virtual environment's python is a link to one that knows nothing of the environment.
    user = sysconfig.get_path("scripts", f"{os.name}_user") if f"{os.name}_user" in sysconfig.get_scheme_names() else ""
    candidates = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts")), Path(user or ".")]
    for folder in candidates:
        if all(os.access(folder / program, os.X_OK) for program in _PROGRAMS):
            break
    else:
        raise LaunchError(
            f"Flower's programs ({', '.join(_PROGRAMS)}) are not beside {sys.executable}; "
            "install them there: pip install 'flower-edge[simulation]'"
        )
    if importlib.util.find_spec("ray") is None:
        raise LaunchError("Ray, which simulates the nodes, is not installed: pip install 'flower-edge[simulation]'")
    return folder


@contextmanager
def hold_port() -> Iterator[int]:
    """A free port on the loopback address; on Linux nobody is given the same one while the context lasts.

    Held by a socket that is bound but does not listen. Linux lets a server that sets SO_REUSEADDR, as the SuperLink
    does, bind beside it, but never hands the port out to somebody who asks for any; elsewhere the port is only found.

    Raises:
        LaunchError: the system has none to give.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            holder.bind((HOST, 0))
        except OSError as error:
            raise LaunchError(
                f"no free port on {HOST} ({error.strerror or error}); end programs that hold many, then try again"
            ) from error
        port = int(holder.getsockname()[1])
        if not sys.platform.startswith("linux"):
            holder.close()
        yield port


def answers(port: int) -> bool:
    """Whether a SuperLink on the loopback address says it is healthy."""
    connection = http.client.HTTPConnection(HOST, port, timeout=0.5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def claim_run_folder(runs: Path, name: str) -> Path:
    """Make the empty folder `<runs>/<UTC yyyymmdd-hhmmss>-<name>`, with `-2`, `-3` ... behind when that is taken.

    Raises:
        LaunchError: it cannot be made.
    """
    try:
        return claim_below(runs, f"{datetime.now(UTC):%Y%m%d-%H%M%S}", name)
    except OSError as error:
        raise LaunchError(
            f"cannot write to the folder of runs, {runs} ({error.strerror or error}); give another with --runs DIR"
        ) from error
