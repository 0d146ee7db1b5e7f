"""The table beside a picture: a CSV file of the same name that a run left next to it, bounded.

Reads a file; draws nothing. The first line is the head. All is text, and goes into the page as text.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["PictureTable", "numeric_columns", "table_beside"]

#: What a page shows of a table; the file has the rest.
MOST_LINES: Final = 200
MOST_COLUMNS: Final = 24
MOST_CHARACTERS: Final = 300
MOST_BYTES: Final = 1_000_000
#: More columns than this have no room beside their picture, and are below it.
MOST_BESIDE: Final = 6

#: A longer cell is a sentence, and may be broken into lines.
_SENTENCE: Final = 40

_NUMBER: Final = re.compile(r"[-+]?[\d.,]*\d(?:e[-+]?\d+)?\s?%?|-|", re.IGNORECASE)


@dataclass(frozen=True)
class PictureTable:
    """Head and lines, all of one length; `note` says what was left out, `words` that it is more text than numbers."""

    name: str
    head: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str = ""
    words: bool = False

    @property
    def kind(self) -> str:
        """How the page sets it: numbers, words, or words of which the last column is sentences."""
        if not self.words:
            return ""
        sentences = any(len(line[-1]) > _SENTENCE for line in self.lines)
        return "words told sentences" if sentences else "words told"

    @property
    def below(self) -> bool:
        """Whether it needs the whole width of the page."""
        return self.words or len(self.head) > MOST_BESIDE


def numeric_columns(lines: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns are numbers and nothing else, so that their digits belong below each other.

    The first one says what a line is about, and is none of them.

    >>> numeric_columns([["7", "edge-0", "1.5", "-"], ["8", "-", "2", "-"]])
    [False, False, True, False]
    """
    return [
        at > 0 and all(map(_NUMBER.fullmatch, column)) and any(cell.strip("-") for cell in column)
        for at, column in enumerate(zip(*lines, strict=True))
    ]


def table_beside(picture: Path) -> PictureTable | str | None:
    """The table of a picture.

    Args:
        picture: the picture's file; the table's has the same name with the ending `.csv`.

    Returns:
        The table; a sentence where there is a file that cannot be shown; `None` where there is none.
    """
    path = picture.with_suffix(".csv")
    if not path.is_file():
        return None
    try:
        if path.stat().st_size > MOST_BYTES:
            size_mb = path.stat().st_size / 1e6
            return f"{path.name} has {size_mb:.3g} MB, more than the {MOST_BYTES / 1e6:.3g} MB a table may have here"
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
    except OSError as error:
        return f"{path.name} cannot be read ({error.strerror})"
    except (UnicodeDecodeError, csv.Error) as error:
        return f"{path.name} is no CSV of UTF-8 text ({error})"
    if not rows:
        return f"{path.name} is empty"
    width = min(max(map(len, rows)), MOST_COLUMNS)
    head, *lines = [tuple(_short(cell) for cell in (row + [""] * width)[:width]) for row in rows]
    left_out = [
        f"{found - most:,} {what}"
        for found, most, what in (
            (len(lines), MOST_LINES, "lines"),
            (max(map(len, rows)), MOST_COLUMNS, "columns"),
        )
        if found > most
    ]
    note = f"{' and '.join(left_out)} more in {path.name}" if left_out else ""
    words = any(not _NUMBER.fullmatch(cell) for line in lines for cell in line[1:])
    return PictureTable(path.name, head, tuple(lines[:MOST_LINES]), note, words)


def _short(cell: str) -> str:
    return cell if len(cell) <= MOST_CHARACTERS else f"{cell[: MOST_CHARACTERS - 1]}…"
