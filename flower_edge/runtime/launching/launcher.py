"""Run a Flower app in simulation with `flwr run`, in a world of its own, and tell truthfully how it went.

`flwr run` leaves a SuperLink behind that all later runs of the machine share, runs what lies in the working directory
instead of the app, and exits with 0 when the app failed. Here every launch has its own SuperLink, port, FLWR_HOME,
working directory and Ray session; the run's status is asked for, not guessed; and at the end, however it comes about,
every process the launch started is gone. Flower is driven by its own command line. Nothing here trains or prints.
"""

from __future__ import annotations

import codecs
import json
import logging
import math
import os
import re
import select
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from ...config import Scalar
from ...errors import ConfigError, LaunchError
from ...store.places import runs_root
from .app import FlowerApp, check_run_config, read_app, run_config_toml
from .environment import CONNECTION, HOST, WorkFolder, answers, claim_run_folder, hold_port, scripts_folder
from .processes import Family, Interrupts

__all__ = ["EXIT_CODES", "LaunchInterrupted", "LaunchResult", "Status", "launch"]

log = logging.getLogger(__name__)

Status = Literal["completed", "failed", "stopped"]
#: What a shell sees. A run broken off by a signal has 128 plus the signal's number: 130 for Ctrl-C.
EXIT_CODES: Final[Mapping[Status, int]] = {"completed": 0, "failed": 1, "stopped": 3}

_POLL_S: Final = 0.1
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
_SUPERLINK_STARTS_WITHIN_S: Final = 120.0


@dataclass(frozen=True)
class LaunchResult:
    """How a run ended.

    Args:
        run_id: Flower's number of the run; None if it was broken off before it had one.
        status: Flower's word for it.
        details: the exception's text of a failed run, the reason a run was stopped for; else empty.
        exit_code: see `EXIT_CODES`.
        seconds: wall-clock seconds from the call to the end of the last process.
        run_folder: what the app wrote, metrics and models; None if it wrote nothing.
        work_folder: Flower's and Ray's own files, if they were to be kept.
    """

    run_id: int | None
    status: Status
    details: str
    exit_code: int
    seconds: float
    run_folder: Path | None = None
    work_folder: Path | None = None


class LaunchInterrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP ended the run; everything it had started is stopped.

    A `KeyboardInterrupt`, so that a loop over runs ends with it. `result` says how far it came.
    """

    def __init__(self, result: LaunchResult) -> None:
        super().__init__(result.details)
        self.result: Final = result


def launch(
    app: str | Path,
    *,
    run_config: Mapping[str, Scalar] | None = None,
    num_supernodes: int | None = None,
    client_cpus: int | None = None,
    total_cpus: int | None = None,
    runs: str | Path | None = None,
    resume: str | Path | None = None,
    on_line: Callable[[str], None] = lambda line: None,
    on_folder: Callable[[Path], None] = lambda folder: None,
    timeout_s: float | None = None,
    keep: bool = False,
) -> LaunchResult:
    """Run a Flower app in simulation and wait until it has ended.

    Relative paths the app writes to end up in the folder `files` of the run folder.

    Args:
        app: the app's folder.
        run_config: replaces values of the app's `[tool.flwr.app.config]`, by flat dotted key.
        num_supernodes: how many nodes to simulate; like the next two, by default what the app's
            `[tool.flower-edge.federation]` says, see `Federation`.
        client_cpus: processor cores one client takes.
        total_cpus: processor cores the simulation may use.
        runs: the folder that run folders go to; by default `FLOWER_EDGE_RUNS`, else `./runs`.
        resume: a run folder to go on from, if the app can (it finds the path in `FLOWER_EDGE_RESUME`).
        on_line: called with every line of the run's log as it comes, without its newline; colours are left in.
        on_folder: called once, before anything starts, with the run folder the app will write to.
        timeout_s: seconds after which the run is stopped; None waits for ever.
        keep: leave the work folder, with Flower's and Ray's own logs, and say in the result where it is.

    Raises:
        ConfigError: the app, the run config or the federation cannot be used as given. Nothing was started.
        LaunchError: Flower is not installed, its SuperLink does not start or dies, or `flwr run` refuses the app.
        LaunchInterrupted: Ctrl-C, SIGTERM or SIGHUP came (only noticed in the main thread).
    """
    begin_s = time.monotonic()
    if timeout_s is not None and not timeout_s > 0:
        raise ConfigError(f"timeout of {timeout_s} s: expected more than 0; leave it out to wait for ever")
    flower_app = read_app(Path(app))
    flower_app = replace(
        flower_app,
        federation=flower_app.federation.override(
            num_supernodes=num_supernodes, client_cpus=client_cpus, total_cpus=total_cpus
        ),
    )
    check_run_config(flower_app, run_config or {})
    overrides = run_config_toml(run_config or {})
    if resume is not None and not Path(resume).expanduser().is_dir():
        raise ConfigError(f"run folder to resume, {resume}, does not exist; expected the path of a folder of runs")
    scripts = scripts_folder()

    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        run_folder = claim_run_folder(runs_root(runs), flower_app.name)
        stack.callback(_remove_if_empty, run_folder)
        on_folder(run_folder)
        work = WorkFolder.make()
        if keep:
            on_line(f"work folder, kept: {work.path}")
        else:
            stack.callback(work.remove)
        stack.callback(_rescue_files, work.cwd, run_folder)
        port = stack.enter_context(hold_port())
        launch_id = uuid.uuid4().hex
        family = Family(launch_id)
        stack.callback(family.stop)
        environment = work.environment(
            os.environ,
            launch_id=launch_id,
            port=port,
            scripts=scripts,
            runs=run_folder.parent,
            run_folder=run_folder,
            resume=None if resume is None else Path(resume).expanduser().absolute(),
        )
        run = _Run(
            app=flower_app,
            overrides=overrides,
            work=work,
            environment=environment,
            scripts=scripts,
            port=port,
            family=family,
            interrupts=interrupts,
            timeout_s=timeout_s,
            deadline_s=math.inf if timeout_s is None else begin_s + timeout_s,
        )
        try:
            status, details = run.complete(on_line)
            exit_code = EXIT_CODES[status]
        except _Stopped as stopped:
            status, details, exit_code = "stopped", str(stopped), stopped.exit_code
    result = LaunchResult(
        run_id=run.run_id,
        status=status,
        details=details,
        exit_code=exit_code,
        seconds=time.monotonic() - begin_s,
        run_folder=run_folder if run_folder.is_dir() else None,
        work_folder=work.path if keep else None,
    )
    if interrupts.signal is not None:
        # Also if it came so late that the run was over: the caller's next run must not start.
        raise LaunchInterrupted(replace(result, exit_code=128 + interrupts.signal))
    return result


class _Stopped(Exception):
    """The run is to be ended now, for a reason of the caller's."""

    def __init__(self, reason: str, exit_code: int) -> None:
        super().__init__(reason)
        self.exit_code = exit_code


@dataclass
class _Run:
    """One run, from the start of its SuperLink to its status; every wait in it can be broken off."""

    app: FlowerApp
    overrides: str
    work: WorkFolder
    environment: dict[str, str]
    scripts: Path
    port: int
    family: Family
    interrupts: Interrupts
    timeout_s: float | None
    deadline_s: float
    run_id: int | None = None
    superlink: subprocess.Popen[bytes] | None = None

    def complete(self, on_line: Callable[[str], None]) -> tuple[Status, str]:
        self.work.write_flower_config(self.port)
        self._start_superlink()
        self.run_id = self._submit()
        for line in self._log_lines(self.run_id):
            on_line(line)
        return self._status(self.run_id)

    def _start_superlink(self) -> None:
        # Started here and not by `flwr run`, which gives its SuperLink 15 s, too few on a busy machine, and tells
        # nobody its process id.
        command = [str(self.scripts / "flower-superlink"), "--insecure", "--simulation", "--isolation", "subprocess"]
        with self.work.superlink_log.open("wb") as out:
            self.superlink = self.family.start(
                [*command, "--host", HOST, "--port", str(self.port)],
                environment=self.environment,
                cwd=self.work.cwd,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        latest_s = time.monotonic() + _SUPERLINK_STARTS_WITHIN_S
        while not answers(self.port):
            if time.monotonic() > latest_s:
                raise LaunchError(
                    f"the SuperLink on port {self.port} did not answer within {_SUPERLINK_STARTS_WITHIN_S:.0f} s; "
                    f"the last it printed:\n{_tail(self.work.superlink_log)}"
                )
            self._pause()
        self._check()

    def _submit(self) -> int:
        overrides = self.work.path / "run-config.toml"
        overrides.write_text(self.overrides, "utf-8")
        options = ["--run-config", str(overrides)] if self.overrides else []
        # With `--stream --format json` Flower swallows the log, so it is followed by a command of its own. With
        # `--format json` it exits with 0 also when it refuses the app.
        reply = self._flwr(
            *["run", str(self.app.folder), CONNECTION, "--format", "json"],
            *["--federation-config", self.app.federation.to_flower(), *options],
        )
        return int(reply["run-id"])

    def _status(self, run_id: int) -> tuple[Status, str]:
        while True:
            row = self._flwr("ls", CONNECTION, "--run-id", str(run_id), "--format", "json")["runs"][0]
            phase, _, outcome = str(row["status"]).partition(":")
            if phase == "finished":
                break
            self._pause(1.0)
        details = "" if row["status-details"] == "N/A" else str(row["status-details"])
        if outcome in EXIT_CODES:
            return outcome, details  # type: ignore[return-value]
        return "failed", details or f"Flower says {row['status']!r}"

    def _flwr(self, verb: str, *arguments: str) -> dict[str, Any]:
        """Run a verb that prints one JSON document, and return that."""
        printed, complained = (self.work.path / f"flwr-{verb}.{stream}" for stream in ("out", "err"))
        with printed.open("wb") as out, complained.open("wb") as err:
            process = self._start_flwr(verb, *arguments, stdout=out, stderr=err)
        while process.poll() is None:
            self._pause()
        with suppress(json.JSONDecodeError):
            reply = json.loads(printed.read_text("utf-8", "replace"))
            if isinstance(reply, dict) and reply.get("success"):
                return reply
            if isinstance(reply, dict) and "error-message" in reply:
                raise LaunchError(f"flwr {verb}: {_without_preamble(str(reply['error-message']))}")
        raise LaunchError(
            f"flwr {verb} exited with {process.returncode} where a JSON document was expected:\n"
            f"{_tail(printed)}\n{_tail(complained)}".rstrip()
        )

    def _start_flwr(self, verb: str, *arguments: str, **pipes: Any) -> subprocess.Popen[bytes]:
        # Unbuffered: or a line of the log would come when the buffer is full, not when it was written.
        environment = self.environment | {"PYTHONUNBUFFERED": "1"}
        command = [str(self.scripts / "flwr"), verb, *arguments]
        return self.family.start(command, environment=environment, cwd=self.work.cwd, **pipes)

    def _log_lines(self, run_id: int) -> Iterator[str]:
        """The lines of the log as they come; ends when Flower says the run is finished."""
        with (self.work.path / "flwr-log.err").open("wb") as err:
            process = self._start_flwr("log", str(run_id), CONNECTION, "--stream", stdout=subprocess.PIPE, stderr=err)
        assert process.stdout is not None
        with process.stdout as pipe:
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            rest = ""
            preamble = True
            while True:
                self._check()
                if not select.select([pipe], [], [], _POLL_S)[0]:
                    continue
                chunk = os.read(pipe.fileno(), 65536)
                *lines, rest = (rest + decoder.decode(chunk, final=not chunk)).split("\n")
                for line in lines + ([rest] if not chunk and rest else []):
                    if not (preamble and line.startswith("Using SuperLink")):
                        yield line.rstrip("\r")
                    preamble = False
                if not chunk:
                    break
        while process.poll() is None:
            self._pause()
        if process.returncode != 0:
            log.warning(
                "the log of run %d broke off (flwr log exited with %d); the run goes on", run_id, process.returncode
            )

    def _pause(self, seconds: float = _POLL_S) -> None:
        self._check()
        time.sleep(seconds)

    def _check(self) -> None:
        """Raise if the run is to end now."""
        if (number := self.interrupts.signal) is not None:
            name = "Ctrl-C" if number == signal.SIGINT else number.name
            raise _Stopped(f"interrupted by {name}", 128 + number)
        if time.monotonic() > self.deadline_s:
            raise _Stopped(f"stopped after its timeout of {self.timeout_s:g} s", EXIT_CODES["stopped"])
        if self.superlink is not None and (code := self.superlink.poll()) is not None:
            raise LaunchError(
                f"the SuperLink of this run on port {self.port} exited with {code}; "
                f"the last it printed:\n{_tail(self.work.superlink_log)}"
            )


def _without_preamble(message: str) -> str:
    return "\n".join(line for line in message.strip().splitlines() if not line.startswith("Using SuperLink")).strip()


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(_COLOURS.sub("", path.read_text("utf-8", "replace")).splitlines()[-lines:])


def _rescue_files(cwd: Path, run_folder: Path) -> None:
    """Move what the app wrote to its working directory to where the user finds it."""
    written = list(cwd.iterdir())
    if written:
        files = run_folder / "files"
        files.mkdir(parents=True, exist_ok=True)
        for path in written:
            shutil.move(path, files / path.name)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
