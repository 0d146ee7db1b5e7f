"""What the documents show runs: every ```python block of README.md and docs/.

The blocks of a file run in order, as one program, in an empty folder and in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from document_program import DOCUMENTS, program
from page_server import PageServer
from source_tree import ROOT


@pytest.fixture(scope="module")
def server() -> Iterator[PageServer]:
    with PageServer() as made:
        yield made


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_python_block_of_the_document_runs(document: Path, server: PageServer, tmp_path: Path) -> None:
    source = program(document.read_text())
    if not source.strip():
        return
    # A file of its own, so that what a block defines can be imported by a worker process; the line numbers are those
    # of the document.
    script = tmp_path / f"{document.stem.replace('-', '_')}_blocks.py"
    script.write_text(source)
    folder = tmp_path / "empty"
    folder.mkdir()
    status, errors = server.run(script, folder)
    assert status == 0, f"{document.name}:\n{errors[-4000:]}"


def ran(server: PageServer, folder: Path, source: str, timeout_s: float = 300.0) -> tuple[int, str]:
    script = folder / "program.py"
    script.write_text(source)
    return server.run(script, folder, timeout_s)


def test_a_program_finds_nothing_of_ours_and_nothing_of_the_program_before(server: PageServer, tmp_path: Path) -> None:
    ours = "import sys; assert not [name for name in sys.modules if name.startswith('flower_edge')]\n"
    there = "import os; assert (os.getcwd(), sys.path[0]) == (os.path.dirname(__file__),) * 2\n"
    for _ in range(2):
        assert ran(server, tmp_path, ours + there + "assert 'mine' not in globals(); mine = 1; import flower_edge") == (
            0,
            "",
        )


@pytest.mark.parametrize(
    ("source", "status", "words"),
    [
        ("x = 1\nassert x == 2\n", 1, 'program.py", line 2, in <module>'),
        ("import warnings\nwarnings.warn('gone soon', DeprecationWarning)\n", 1, "DeprecationWarning: gone soon"),
        ("raise SystemExit(3)\n", 3, ""),
        ("raise SystemExit('no')\n", 1, "no"),
        ("import atexit, sys\natexit.register(lambda: sys.stderr.write('at exit'))\n", 0, "at exit"),
        ("import os\nos.kill(os.getpid(), 15)\n", -15, ""),
        (
            "import sys, threading\nthreading.Timer(0.05, sys.stderr.write, ('a thread is waited for',)).start()\n",
            0,
            "a thread is waited for",
        ),
    ],
)
def test_a_program_ends_as_it_would_by_itself(
    server: PageServer, tmp_path: Path, source: str, status: int, words: str
) -> None:
    found, errors = ran(server, tmp_path, source)
    assert found == status
    assert words in errors


def test_a_program_that_does_not_end_is_ended(server: PageServer, tmp_path: Path) -> None:
    assert ran(server, tmp_path, "while True: pass\n", timeout_s=0.2)[0] == -9
