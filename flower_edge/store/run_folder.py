"""One folder per run: what was asked, what happened round by round, the models, where to go on from.

    <runs root>/20260131-235959-quickstart/
        config.json     the resolved config
        run.json        name, seed, versions, machine, started, finished, status, error
        metrics.jsonl   metrics.sqlite     the same rows twice, see metrics.py
        models/         round-00012.safetensors: the last few and the best
        checkpoints/    round-00013.safetensors: state before that round, the last two
        summary.json    the result in a few numbers
        artifacts/      pictures and pages
        stop.json       a request to stop after the round that goes on

Nothing here runs a round or draws a picture. One process writes a run folder, any number read it, also while it is
written and after the writer was killed; all that a reader may write is the request to stop.
"""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import numpy as np

from ..errors import ConfigError, DataError, ResumeError, StateError
from .atomic import told_what_to_do
from .checkpoints import Checkpoints, Models, round_of
from .json_file import from_json_value, read_json, write_json
from .metrics import MetricLog, Row, Value, read_rows
from .places import RUN_DIR_VARIABLE, RUNS_VARIABLE, by_age, claim_below, claim_exactly, find, runs_root
from .process import is_gone, this_process, without_secrets
from .tree import Tree

__all__ = ["RUNS_VARIABLE", "RUN_DIR_VARIABLE", "RunFolder", "Status", "runs_root"]

log = logging.getLogger(__name__)

#: "interrupted" is never written: it is a run that says "running" and whose process is gone.
Status = Literal["running", "finished", "failed", "stopped", "interrupted"]

_PACKAGES: Final = ("flower-edge", "flwr", "numpy", "torch", "torchvision")


class RunFolder:
    """A run on disk. `RunFolder.create` writes one, `RunFolder.open` reads one.

    As a context manager it ends the run: finished, or failed with the error's text, or stopped by Ctrl-C. In every
    case what was recorded stays readable.

    >>> import tempfile
    >>> root = tempfile.TemporaryDirectory()
    >>> with RunFolder.create("demo", config={"rounds": 1}, seed=7, root=root.name) as run:
    ...     run.record("central", 1, {"accuracy": 0.5})
    ...     run.finish({"accuracy": 0.5})
    >>> again = RunFolder.open("latest", root=root.name)
    >>> again.name, again.status, again.rows("central")[0].values, again.summary
    ('demo', 'finished', {'accuracy': 0.5}, {'accuracy': 0.5})
    >>> root.cleanup()
    """

    def __init__(self, path: Path, info: dict[str, Any], metrics: MetricLog | None = None) -> None:
        self.path: Final = path
        self._info = info
        self._metrics = metrics
        self._clock_start_s = time.monotonic()
        self.models: Final = Models(path / "models")
        self.checkpoints: Final = Checkpoints(path / "checkpoints")

    # --- making and finding ---

    @classmethod
    def create(
        cls,
        name: str,
        *,
        config: Mapping[str, Any],
        seed: int,
        root: str | Path | None = None,
        path: str | Path | None = None,
    ) -> Self:
        """Make the folder of a run that begins now.

        Args:
            name: what the run is called; characters a folder cannot have become `-` in the folder's name.
            config: the resolved config, JSON values only.
            seed: the run's seed.
            root: where run folders go; the folder is `<root>/<UTC yyyymmdd-hhmmss>-<name>`, with `-2`, `-3` ... behind
                when that is taken. Without `root` and `path` the folder is exactly `FLOWER_EDGE_RUN_DIR` if that is
                set, else below `runs_root()`.
            path: the exact folder, new or empty.

        Raises:
            ConfigError: the folder holds a run already, or `config` is not JSON.
            OSError: the folder cannot be made.
        """
        if path is None and root is None:
            path = os.environ.get(RUN_DIR_VARIABLE) or None
        now = datetime.now(UTC)
        if path is None:
            folder = claim_below(runs_root(root), f"{now:%Y%m%d-%H%M%S}", name)
        else:
            folder = claim_exactly(Path(path))
        for inside in ("models", "checkpoints", "artifacts"):
            (folder / inside).mkdir(exist_ok=True)
        write_json(folder / "config.json", config)
        info = {
            "name": name,
            "seed": int(seed),
            "status": "running",
            "started_at": now.isoformat(timespec="milliseconds"),
            "finished_at": None,
            "error": None,
            "resumed_from": None,
            "versions": {"python": platform.python_version(), **_versions()},
            "platform": platform.platform(),
            "processors": os.cpu_count(),
            "command": without_secrets(sys.argv),
            "process": this_process(),
        }
        write_json(folder / "run.json", info)
        return cls(folder, info, MetricLog(folder / "metrics.jsonl", folder / "metrics.sqlite"))

    @classmethod
    def open(cls, which: str | Path, root: str | Path | None = None) -> Self:
        """Open a run for reading.

        Args:
            which: a run folder's path; or, below `runs_root(root)`, a folder's name or its beginning, the name of a
                run (the newest of that name), or `latest`.
            root: where run folders are.

        Raises:
            ConfigError: no run, or more than one, is meant.
            DataError: the folder's `run.json` is damaged.
        """
        if (Path(which) / "run.json").is_file():
            return cls._read(Path(which).absolute())
        return cls._read(find(str(which), runs_root(root), lambda folder: cls._read(folder).name))

    @classmethod
    def all(cls, root: str | Path | None = None) -> list[Self]:
        """Every run below `runs_root(root)`, oldest first. A damaged one is left out with a warning."""
        runs = []
        for folder in by_age(runs_root(root)):
            try:
                runs.append(cls._read(folder))
            except DataError as error:
                log.warning("run left out: %s", error)
        return runs

    @classmethod
    def _read(cls, path: Path) -> Self:
        info = read_json(path / "run.json")
        if not isinstance(info, dict) or not {"name", "status", "started_at", "process"} <= info.keys():
            raise DataError(f"{path / 'run.json'}: not the run.json of a run folder; restore or remove the folder")
        return cls(path, info)

    # --- what it says ---

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self._info["name"])

    @property
    def info(self) -> Mapping[str, Any]:
        """All of `run.json`."""
        return self._info

    @property
    def config(self) -> dict[str, Any]:
        """The resolved config."""
        return dict(read_json(self.path / "config.json"))

    @property
    def summary(self) -> dict[str, Any]:
        """What `finish` was given; empty while the run goes on and for a run that did not finish."""
        path = self.path / "summary.json"
        values = read_json(path) if path.exists() else {}
        return {name: from_json_value(value) for name, value in values.items()}

    @property
    def status(self) -> Status:
        """As written, but "interrupted" where it says running and its process, on this machine, is gone."""
        status: Status = self._info["status"]
        if status == "running" and self._metrics is None and is_gone(self._info["process"]):
            return "interrupted"
        return status

    def ask_to_stop(self, why: str) -> None:
        """Ask whoever runs it to end it after the round that goes on; it can be resumed like one that a limit stopped.

        The round loop of flower-edge's strategies looks for this; a loop of somebody else's may not.

        Args:
            why: a few words, for the log and the record.

        Raises:
            ConfigError: it does not run.
            OSError: its folder cannot be written to.
        """
        if self.status != "running":
            raise ConfigError(f"{self.path.name} is {self.status}; only a run that goes on can be asked to stop")
        write_json(
            self.path / "stop.json", {"why": why[:300], "asked_at": datetime.now(UTC).isoformat(timespec="seconds")}
        )

    def stop_asked(self) -> str | None:
        """Why it is to stop; None where nobody has asked for it."""
        path = self.path / "stop.json"
        if not path.exists():
            return None
        try:
            return str(read_json(path)["why"])
        except (DataError, KeyError, TypeError):  # written by hand: the wish is plain all the same
            return "stop.json"

    @property
    def artifacts(self) -> Path:
        """The folder for pictures and pages."""
        return self.path / "artifacts"

    def rows(self, kind: str | None = None) -> list[Row]:
        """What was recorded, in order; all kinds or one.

        Raises:
            DataError: both metric files are damaged.
        """
        return read_rows(self.path / "metrics.jsonl", self.path / "metrics.sqlite", kind)

    def load_model(self, which: int | Literal["last", "best"] = "last") -> dict[str, np.ndarray]:
        """The model of a round, of the last round kept, or with the highest score: name -> array.

        Raises:
            StateError: there is no such model, or its file is damaged.
        """
        return self.models.load(which)

    def latest_checkpoint(self) -> tuple[Path, Tree] | None:
        """Path and tree of the newest whole checkpoint, or None if there never was one.

        Raises:
            ResumeError: there are checkpoints and every one is damaged.
        """
        return self.checkpoints.latest()

    # --- what it is told ---

    def record(
        self,
        kind: str,
        round: int,
        values: Mapping[str, Value],
        *,
        cell: str = "",
        node: str = "",
        edge_round: int = 0,
        wall_s: float | None = None,
        virtual_s: float | None = None,
    ) -> None:
        """Record values that belong together.

        Args:
            kind: `train`, `evaluate`, `central`, `traffic`, `nodes`, `event`, or a word of your own.
            round: the round at the centre, from 1; 0 is before the first.
            values: name -> number or text. By convention accuracy, loss, num-examples, up_bits, down_bits,
                nodes_sampled, nodes_replied, nodes_failed, cells_skipped; an event carries a `text`.
            cell: the cell it is about; empty for the whole federation.
            node: the node it is about; empty for more than one.
            edge_round: the round inside the cell, from 1; 0 where it is about no single one.
            wall_s: seconds of real time since the run began; measured here when not given.
            virtual_s: seconds on the run's virtual clock, where it has one.

        Raises:
            ConfigError: a value is neither number nor text, or the run was opened for reading.
            StateError: the disk is full; here and wherever else a run is told something.
        """
        row = Row(
            kind, round, values, cell, node, edge_round, self.elapsed_s() if wall_s is None else wall_s, virtual_s
        )
        self._writing().append([row])

    def record_rows(self, rows: Iterable[Row]) -> None:
        """Record many rows at once, much faster than one by one; for a row a node at a thousand nodes.

        Rows without `wall_s` get the present moment.
        """
        now_s = self.elapsed_s()
        self._writing().append(row if row.wall_s is not None else replace(row, wall_s=now_s) for row in rows)

    def event(self, round: int, text: str) -> None:
        """Record something worth a sentence on the report page."""
        self.record("event", round, {"text": text})

    def elapsed_s(self) -> float:
        """Seconds of real time since the run began (a resumed run counts on from where it was taken up)."""
        return time.monotonic() - self._clock_start_s

    def save_model(
        self, round: int, arrays: Mapping[str, np.ndarray], score: float | None = None, keep: int = 3
    ) -> Path:
        """Keep the model of `round` as plain safetensors; remove all but the last `keep` and the best by `score`.

        Raises:
            ConfigError: `keep` below 1, arrays of a dtype that cannot be stored, or the run was opened for reading.
        """
        self._writing()
        return self.models.save(round, arrays, score, keep)

    def save_checkpoint(self, next_round: int, tree: Tree) -> Path:
        """Keep `tree` as the state before round `next_round`; the last two are kept.

        Raises:
            ConfigError: something in the tree cannot be stored exactly, or the run was opened for reading.
        """
        self._writing()
        return self.checkpoints.save(next_round, tree)

    def continue_from(self, earlier: RunFolder) -> int:
        """Take over where `earlier` can be taken up, so that this folder tells the whole story.

        Its newest whole checkpoint, its models, and what it recorded before the checkpoint's round are copied; what
        it recorded in rounds that are run again stays behind. The clock goes on from the last row taken over.

        Returns:
            The round to go on with.

        Raises:
            ResumeError: `earlier` has no checkpoint, or only damaged ones.
        """
        log_here = self._writing()
        found = earlier.latest_checkpoint()
        if found is None:
            raise ResumeError(f"{earlier.path} holds no checkpoint; start the run again without resuming")
        next_round = round_of(found[0])
        self.save_checkpoint(next_round, found[1])
        scores = earlier.models.scores()
        for at in [at for at in earlier.models.rounds() if at < next_round]:
            try:
                self.save_model(at, earlier.load_model(at), scores.get(at))
            except StateError as error:
                log.warning("model left behind: %s", error)
        rows = [row for row in earlier.rows() if row.round < next_round]
        log_here.append(rows)
        self._clock_start_s -= max((row.wall_s for row in rows if row.wall_s is not None), default=0.0)
        self._info["resumed_from"] = earlier.path.name
        write_json(self.path / "run.json", self._info)
        self.event(next_round, f"resumed from {earlier.path.name} at round {next_round}")
        return next_round

    def finish(self, summary: Mapping[str, Value]) -> None:
        """End the run well, with its result in a few numbers."""
        self._writing()
        with told_what_to_do(self.path / "summary.json"):
            write_json(self.path / "summary.json", summary)
        self._end("finished")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            words = f"{type(error).__name__}: {error}"
            try:
                self._end("stopped" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed", words)
            except StateError as full:
                # What ended the run is told to who ran it; of the folder it will be said that nobody goes on with it.
                log.warning("%s", full)
        elif self._info["status"] == "running" and self._metrics is not None:
            self._end("finished")
        self.close()

    def close(self) -> None:
        """Close the files. Only the writer has any open; closing twice does nothing."""
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None

    def _end(self, status: Status, error: str | None = None) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._info.update(status=status, finished_at=now, error=error)
        with told_what_to_do(self.path / "run.json"):
            write_json(self.path / "run.json", self._info)

    def _writing(self) -> MetricLog:
        if self._metrics is None:
            raise ConfigError(
                f"{self.path} is open for reading; a run is written by the RunFolder.create that began it"
            )
        return self._metrics


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
