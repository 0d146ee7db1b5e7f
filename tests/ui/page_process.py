"""A page in a process of its own: `page_host` or `dashboard_cases`, started, and ended with the test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ending import end_all


@contextmanager
def page_process(script: str, *arguments: str) -> Iterator[str]:
    """Where the page is; warnings of its process are errors."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(Path(__file__).with_name(script)), *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http"), process.communicate(timeout=120)[1]
        yield url
    finally:
        end_all([process])
        process.communicate()  # closes its pipes
