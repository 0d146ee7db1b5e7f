"""What the documents show can be run, and what they link to is there. That it runs is the matter of `test_pages`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from document_program import DOCUMENTS, program
from source_tree import ROOT


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
