"""What the documents show runs: every ```python block of README.md and docs/, and every docstring example.

The blocks of a file run in order, as one program, in an empty folder. A block that cannot run is fenced as
```python no-run, and the line before it says why: `<!-- no-run: needs ten machines -->`.
"""

from __future__ import annotations

import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ROOT, modules

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


def test_blocks_become_one_program_whose_lines_keep_their_numbers() -> None:
    text = "# Title\n```python\na = 1\n```\ntext\n```bash\nls\n```\n<!-- no-run: slow -->\n```python no-run\nb\n```\n"
    made = program(text + "```python\nc = a\n```\n").splitlines()
    assert [(number, line) for number, line in enumerate(made, 1) if line] == [(3, "a = 1"), (14, "c = a")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("```python no-run\nx\n```\n", "say why"),
        ("- a\n  ```python\n  x\n  ```\n", "indented"),
        ("```python title=x\nx\n```\n", "expected 'python'"),
        ("```python\nx\n", "does not end"),
    ],
)
def test_a_block_that_would_silently_not_run_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        program(text)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_python_block_of_the_document_runs(document: Path, tmp_path: Path) -> None:
    source = program(document.read_text())
    if not source.strip():
        return
    # A file of its own, so that what a block defines can be imported by a worker process; the line numbers are those
    # of the document.
    script = tmp_path / f"{document.stem.replace('-', '_')}_blocks.py"
    script.write_text(source)
    folder = tmp_path / "empty"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, f"{document.name}:\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("link_source", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_to_a_file_leads_somewhere(link_source: Path) -> None:
    text = re.sub(r"```.*?```", "", link_source.read_text(), flags=re.S)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    lost = [t for t in targets if "://" not in t and not (link_source.parent / t).exists()]
    assert lost == []


def test_the_index_leads_to_every_document() -> None:
    index = (ROOT / "docs/index.md").read_text()
    lost = [path.name for path in DOCUMENTS if path.parent == ROOT / "docs" and f"({path.name})" not in index]
    assert lost == ["index.md"]


@pytest.mark.parametrize("name", modules())
def test_every_docstring_example_gives_what_it_says(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, report=True)
    assert result.failed == 0
