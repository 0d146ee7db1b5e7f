"""Which kernels run: compiled ones where they can, NumPy's otherwise, and a word about it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flower_edge.codecs.kernels import available, kernels, running, using
from flower_edge.errors import ConfigError

ENCODES = """
import logging
logging.basicConfig()
import numpy as np
from flower_edge.codecs.kernels import running
from flower_edge.codecs.layout import Layout
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.top_k import TopK
data, _ = TopK(0.2).pack(np.arange(-20, 30, dtype=np.float32), Layout.flat(50), {}, Moment())
print(running(), data.hex())
"""


def encoded(**environment: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", ENCODES], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip(), done.stderr


def test_a_numba_that_cannot_be_imported_is_told_and_done_without(tmp_path: Path) -> None:
    """As where it was made for an older NumPy: that must not stop a node that could do without."""
    (tmp_path / "numba.py").write_text("raise ImportError('Numba needs NumPy 1.26 or less')\n")
    plain, told = encoded(PYTHONPATH=str(tmp_path))
    quiet, nothing = encoded(FLOWER_EDGE_FAST="0")
    assert plain == quiet
    assert plain.startswith("reference ")
    assert "Numba needs NumPy 1.26 or less; set NUMBA_CACHE_DIR, or FLOWER_EDGE_FAST=0" in told
    assert not nothing


def test_a_folder_of_ones_own_that_numba_takes_for_another_package_is_done_without(tmp_path: Path) -> None:
    """Numba imports `coverage` where it finds it, and a folder of that name beside the script is what it finds."""
    pytest.importorskip("numba")
    (tmp_path / "coverage").mkdir()
    plain, told = encoded(PYTHONPATH=str(tmp_path))
    quiet, _ = encoded(FLOWER_EDGE_FAST="0")
    assert plain.split()[1] == quiet.split()[1]
    assert ("compiled kernels cannot run here" in told) == plain.startswith("reference ")


def test_a_choice_holds_in_its_own_context_only() -> None:
    """Two nodes in one process, each in its thread, do not switch each other's kernels."""
    with using("reference"):
        assert running() == "reference"
        assert kernels("scatter").__name__.endswith("reference.scatter")
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append(running()))
        thread.start()
        thread.join()
        if available():
            with using("fast"):
                assert running() == "fast"
    assert seen == [running()]


@pytest.mark.skipif(available(), reason="compiled kernels can run here")
def test_compiled_kernels_are_refused_where_there_are_none() -> None:
    with pytest.raises(ConfigError, match=r"need Numba"), using("fast"):
        pass
