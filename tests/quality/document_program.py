"""The documents of the repository, and the Python blocks of one of them as a program.

A block that cannot run is fenced as ```python no-run, and the line before it says why:
`<!-- no-run: needs ten machines -->`.
"""

from __future__ import annotations

import re

from source_tree import ROOT

DOCUMENTS = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
_REASON = re.compile(r"<!-- no-run: .*\S.* -->")


def program(text: str) -> str:
    """The Python blocks of a document as one program; every line keeps its number, all other lines are empty.

    Raises:
        ValueError: a block that is not run without a reason, that is indented, or that does not end.
    """
    lines: list[str] = []
    fence = ""
    before = ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if fence and line.startswith("```"):
            fence = ""
            lines.append("")
        elif fence:
            lines.append(line if fence == "run" else "")
        elif stripped.startswith("```"):
            info = stripped.removeprefix("```").strip()
            if info.startswith("python") and not line.startswith("```"):
                raise ValueError(f"line {number}: an indented Python block is not run; move it to the margin")
            if info.startswith("python") and info not in ("python", "python no-run"):
                raise ValueError(f"line {number}: {info!r}, expected 'python' or 'python no-run'")
            if info == "python no-run" and not _REASON.fullmatch(before):
                raise ValueError(f"line {number}: say why before a block that is not run: <!-- no-run: reason -->")
            fence = "run" if info == "python" else "skip"
            lines.append("")
        else:
            lines.append("")
        before = stripped or before
    if fence:
        raise ValueError("the last block does not end")
    return "\n".join(lines) + "\n"
