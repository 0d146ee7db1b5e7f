"""One way in and one way out: the options every benchmark has, progress, tables, and the JSON on the last line.

Progress goes to standard error, results to standard output: `python -m benchmarks.x --json | tail -1` is the object.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["benchmark_parser", "print_json", "print_table", "progress", "versions"]


def benchmark_parser(name: str, description: str) -> argparse.ArgumentParser:
    """The options all benchmarks share; unknown ones exit with 2."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="the short form: without what takes long")
    parser.add_argument("--json", action="store_true", help="print nothing but one JSON object, on the last line")
    return parser


def progress(text: str) -> None:
    """Say on standard error what is being done."""
    Console(stderr=True, soft_wrap=True).print(text, markup=False, highlight=False)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table to standard output; the first column to the left, figures to the right."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_json(result: Mapping[str, Any]) -> None:
    """Print one object in one line to standard output.

    Raises:
        ValueError: it holds NaN or infinity, which JSON has not.

    >>> print_json({"ratio": 20.5, "quick": True})
    {"ratio": 20.5, "quick": true}
    """
    print(json.dumps(result, allow_nan=False), flush=True)


def versions(*distributions: str) -> dict[str, str]:
    """Versions of Python, of the operating system and of installed distributions."""
    found = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    return found | {name: importlib.metadata.version(name) for name in distributions}
