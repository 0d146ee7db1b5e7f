"""Pictures that a run left in its `artifacts/`, such as a map, as parts of a page that stands alone.

Reads files; draws nothing. A picture goes into the page as it is, in a data URI inside an `<img>`, where a browser runs
no script of an SVG and fetches nothing for it. A CSV file of the same name is the table beside it.
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .picture_tables import PictureTable, table_beside

__all__ = ["Picture", "pictures_in"]

#: What one picture, and what all of them together, may add to a page, before the third that base64 adds.
MOST_BYTES: Final = 2_000_000
MOST_BYTES_TOGETHER: Final = 8_000_000

_KINDS: Final = {".png": "image/png", ".svg": "image/svg+xml"}
_PNG: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """One picture: its place below the folder, its title in words, its data URI, and the table beside it."""

    name: str
    title: str
    uri: str
    table: PictureTable | None = None


def pictures_in(
    folder: Path,
    without: Collection[str] = (),
    *,
    most_bytes: int = MOST_BYTES,
    most_bytes_together: int = MOST_BYTES_TOGETHER,
) -> tuple[list[Picture], list[str]]:
    """The PNG and SVG files in a folder and below it, by name, and a sentence for each that is left out.

    Args:
        folder: where to look; it need not be there.
        without: names of files that are no pictures of the run's own.
        most_bytes, most_bytes_together: larger ones are left out.
    """
    found: list[Picture] = []
    notes: list[str] = []
    spent = 0
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        kind = _KINDS.get(path.suffix.lower())
        name = path.relative_to(folder).as_posix()
        if kind is None or name in without or not path.is_file():
            continue
        try:
            size = path.stat().st_size
            if size > most_bytes:
                notes.append(f"{name} has {_mb(size)}, more than the {_mb(most_bytes)} a picture may have in this page")
                continue
            if spent + size > most_bytes_together:
                notes.append(f"{name} ({_mb(size)}) would bring the pictures above {_mb(most_bytes_together)} together")
                continue
            data = path.read_bytes()
        except OSError as error:
            notes.append(f"{name} cannot be read ({error.strerror})")
            continue
        if not (data.startswith(_PNG) if kind == "image/png" else b"<svg" in data[:4096]):
            notes.append(f"{name} is not what its name says, {kind}")
            continue
        spent += size
        title = Path(name).stem.replace("-", " ").replace("_", " ")
        table = table_beside(path)
        if isinstance(table, str):
            notes.append(table)
            table = None
        found.append(Picture(name, title, f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}", table))
    return found, notes


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.3g} MB"
