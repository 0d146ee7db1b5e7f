"""The last few numbered files of a folder: checkpoints to go on from, models to look at.

A checkpoint is a tree (`tree.py`); a model is a flat tree, its arrays by name, so that any safetensors reader opens
it. Nothing here knows what is in either. One process writes; every file is old or new, never half.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import ConfigError, DataError, ResumeError, StateError
from .atomic import told_what_to_do
from .json_file import read_json, write_json
from .tree import Tree, load_tree, save_tree

__all__ = ["Checkpoints", "Models", "round_of"]

log = logging.getLogger(__name__)

_NUMBERED = re.compile(r"round-(\d+)\.safetensors")


def _path(folder: Path, round: int) -> Path:
    if round < 0:
        raise ConfigError(f"round {round}: rounds count from 0")
    return folder / f"round-{round:05d}.safetensors"


def round_of(path: Path) -> int:
    """The round in a file's name.

    >>> round_of(Path("checkpoints/round-00013.safetensors"))
    13
    """
    match = _NUMBERED.fullmatch(path.name)
    if match is None:
        raise ConfigError(f"{path.name!r} names no round; expected round-00013.safetensors or the like")
    return int(match[1])


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """Round and path of every numbered file, newest round first."""
    found = (path for path in folder.glob("round-*.safetensors") if _NUMBERED.fullmatch(path.name))
    return sorted(((round_of(path), path) for path in found), reverse=True)


class Checkpoints:
    """Where a run can be taken up again; the newest `keep` are kept."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self._folder, self._keep = folder, keep

    def save(self, next_round: int, tree: Tree) -> Path:
        """Keep `tree` as the state before round `next_round`.

        Raises:
            ConfigError: something in the tree cannot be stored exactly.
            StateError: the disk is full; the checkpoints before are untouched.
        """
        path = _path(self._folder, next_round)
        with told_what_to_do(path):
            self._folder.mkdir(exist_ok=True)
            save_tree(path, tree)
        for _, old in _numbered(self._folder)[self._keep :]:
            old.unlink(missing_ok=True)
        return path

    def latest(self) -> tuple[Path, Tree] | None:
        """Path and tree of the newest whole checkpoint, or None if there never was one.

        A damaged one is passed over with a warning.

        Raises:
            ResumeError: there are checkpoints and every one is damaged.
        """
        complaints = []
        for _, path in _numbered(self._folder):
            try:
                return path, load_tree(path)
            except StateError as error:
                log.warning("checkpoint passed over: %s", error)
                complaints.append(str(error))
        if complaints:
            raise ResumeError("\n  ".join(["every checkpoint is damaged; start the run again:", *complaints]))
        return None


class Models:
    """Models by round: the last few and the best one so far."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._scores_path = folder, folder / "scores.json"

    def save(self, round: int, arrays: Mapping[str, np.ndarray], score: float | None, keep: int) -> Path:
        """Keep the model of `round`; remove all but the last `keep` and the one with the highest score.

        Args:
            round: the round after which the model was like this.
            arrays: name -> array, any shapes.
            score: higher is better; None or NaN for a model nobody scored. Of equal scores the earliest is best.
            keep: how many rounds to keep, at least 1.

        Raises:
            ConfigError: `keep` below 1, or arrays of a dtype that cannot be stored.
            StateError: the disk is full; the models before are untouched.
        """
        if keep < 1:
            raise ConfigError(f"keep = {keep}: at least the model just saved is kept; give 1 or more")
        path = _path(self._folder, round)
        with told_what_to_do(path):
            self._folder.mkdir(exist_ok=True)
            save_tree(path, {name: np.asarray(array) for name, array in arrays.items()})
        scores = self.scores()
        scores.pop(round, None)
        if score is not None and not math.isnan(score):
            scores[round] = float(score)
        best = self._best(scores)
        for old_round, old in _numbered(self._folder)[keep:]:
            if old_round not in (best, round):
                old.unlink(missing_ok=True)
                scores.pop(old_round, None)
        with told_what_to_do(self._scores_path):
            write_json(self._scores_path, {str(at): scores[at] for at in sorted(scores)})
        return path

    def load(self, which: int | Literal["last", "best"] = "last") -> dict[str, np.ndarray]:
        """The model of a round, of the last round kept, or with the highest score.

        Raises:
            StateError: there is no such model, or its file is damaged.
        """
        rounds = list(self.rounds())
        scores = {at: score for at, score in self.scores().items() if at in rounds}
        wanted = max(rounds, default=None) if which == "last" else self._best(scores) if which == "best" else which
        if wanted is None or wanted not in rounds:
            kept = ", ".join(map(str, rounds)) or "none"
            scored = f"; of these {len(scores)} have a score" if which == "best" else ""
            raise StateError(f"{self._folder}: no model for {which!r}; models are kept of round {kept}{scored}")
        model: dict[str, np.ndarray] = load_tree(_path(self._folder, wanted))
        return model

    def rounds(self) -> Iterator[int]:
        """The rounds of which a model is kept, oldest first."""
        return (at for at, _ in reversed(_numbered(self._folder)))

    def scores(self) -> dict[int, float]:
        """Round -> score of the models kept that have one."""
        if not self._scores_path.exists():
            return {}
        try:
            return {int(at): float(score) for at, score in read_json(self._scores_path).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{self._scores_path}: not a table of scores ({error}); remove it") from error

    @staticmethod
    def _best(scores: Mapping[int, float]) -> int | None:
        return min(scores, key=lambda at: (-scores[at], at), default=None)
