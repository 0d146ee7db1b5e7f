"""Which reward book a person means. Opens it; nothing here prints."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ConfigError
from ..store.places import runs_root
from ..store.run_folder import RunFolder

if TYPE_CHECKING:
    from ..store.reward_book import RewardBook

__all__ = ["BOOK_FILE", "BOOK_VARIABLE", "open_book"]

#: Environment variable: the book, as `--book` takes it.
BOOK_VARIABLE: Final = "FLOWER_EDGE_REWARDS"
#: What a run's book is called, in the run's folder.
BOOK_FILE: Final = "rewards.sqlite"


def open_book(which: str | None, root: Path | None, *, readonly: bool = True) -> RewardBook:
    """The book, opened; one that is not there is never made.

    Args:
        which: a path, a URL, or a run as `flower-edge report` takes it; None for `FLOWER_EDGE_REWARDS`, else for the
            newest run that has a book.
        root: where run folders are.

    Raises:
        ConfigError: no run of that name, or no run with a book.
        RewardError: no book there, or it cannot be opened.
    """
    from ..store.reward_book import RewardBook

    place = _place(which or os.environ.get(BOOK_VARIABLE) or None, root)
    if not readonly and isinstance(place, Path):
        # Opening for writing makes what is not there.
        RewardBook(place, readonly=True).close()
    return RewardBook(place, readonly=readonly)


def _place(which: str | None, root: Path | None) -> str | Path:
    if which is None:
        for run in reversed(RunFolder.all(root)):
            if (run.path / BOOK_FILE).exists():
                return run.path / BOOK_FILE
        raise ConfigError(
            f"no run in {runs_root(root)} has a {BOOK_FILE}; name a book with --book PATH, or set {BOOK_VARIABLE}"
        )
    if "://" in which:
        return which
    path = Path(which).expanduser()
    if path.is_dir():
        return path / BOOK_FILE
    if path.exists() or path.suffix or len(path.parts) > 1:
        return path
    return RunFolder.open(which, root).path / BOOK_FILE
