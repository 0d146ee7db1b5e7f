"""Flower's command line, as a program uses it: verbs of `flwr` that answer with one JSON document.

For one SuperLink, named in a Flower folder of its own. Nothing here starts anything that stays.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...errors import LaunchError
from .environment import CONNECTION, write_connection

__all__ = ["FlowerVerbs", "RunStatus"]

#: The most that one verb may take: Flower's command line alone takes seconds to begin.
_VERB_S: Final = 120.0
#: Of what it printed, where that is no document.
_LAST: Final = 500


@dataclass(frozen=True)
class RunStatus:
    """How a run is, as Flower says it: `running`, `finished:failed` ...; and why."""

    status: str
    details: str = ""

    @property
    def finished(self) -> bool:
        """Whether it goes on no more."""
        return self.status.startswith("finished")


@dataclass(frozen=True)
class FlowerVerbs:
    """Asks and orders by `flwr`.

    Attributes:
        scripts: the folder of Flower's programs.
        home: FLWR_HOME of the SuperLink that is meant.
        cwd: where the programs run.
        environment: whole, with that FLWR_HOME and the marker of the launch.
    """

    scripts: Path
    home: Path
    cwd: Path
    environment: Mapping[str, str]

    def point_to(self, address: str, authority: Path | None) -> None:
        """Write where the SuperLink is; `authority` vouches for it, None: it has no TLS."""
        write_connection(self.home, address, authority)

    def ask(self, *arguments: str) -> dict[str, Any]:
        """What a verb that prints one JSON document has said.

        Raises:
            LaunchError: it did not work; says what Flower said.
        """
        command = [str(self.scripts / "flwr"), *arguments, "--format", "json"]
        words = " ".join(word for word in arguments[:2] if word.isalpha())
        try:
            # In a session of its own: Ctrl-C is for whoever asks, who lets it end.
            done = subprocess.run(
                command, env=dict(self.environment), cwd=self.cwd, stdin=subprocess.DEVNULL, capture_output=True,
                timeout=_VERB_S, check=False, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise LaunchError(f"flwr {words} has not answered after {_VERB_S:.0f} s") from None
        except OSError as error:
            raise LaunchError(f"{command[0]}: {error.strerror}; install flower-edge there") from None
        out, wrong = (part.decode("utf-8", "replace").strip() for part in (done.stdout, done.stderr))
        # Lines for people may stand before the document.
        begin = out.find("{")
        try:
            answer = json.loads(out[begin:]) if begin >= 0 else {}
        except ValueError:
            answer = {}
        if isinstance(answer, dict) and answer.get("success"):
            return answer
        said = str(answer.get("error-message", "")).strip() if isinstance(answer, dict) else ""
        said = " ".join((said or wrong or out).split())[-_LAST:]
        raise LaunchError(f"flwr {words}: {said or f'ended with {done.returncode}'}")

    def start_run(self, app: Path, run_config: str = "") -> int:
        """Hand an app over; the id of its run. Raises as `ask`."""
        more = ["--run-config", run_config] if run_config else []
        return int(self.ask("run", str(app), CONNECTION, *more)["run-id"])

    def run_status(self, run_id: int) -> RunStatus:
        """How a run is. Raises as `ask`."""
        rows = self.ask("ls", CONNECTION, "--run-id", str(run_id)).get("runs") or [{}]
        return RunStatus(str(rows[0].get("status", "")), str(rows[0].get("status-details") or ""))

    def stop_run(self, run_id: int) -> None:
        """End a run. Raises as `ask`."""
        self.ask("stop", str(run_id), CONNECTION)
