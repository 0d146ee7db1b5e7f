"""The table of capabilities in docs/sources.md names what there is: functions, tests, scenarios, pages, claims."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache

import pytest
from source_tree import ROOT

#: Claims in force of the three documents that have claims; those left out were cancelled in print.
CLAIMS = {
    "[1]": {*range(1, 9), *range(11, 16), 25, 26, 27, 29, 30, 31, 36},
    "[2]": {*range(1, 21)},
    "[4]": {*range(1, 19)},
}
SOURCES = {"[1]", "[2]", "[3]", "[4]", "[5]"}


def rows() -> list[tuple[str, str, str, str, str]]:
    """From, what it asks for, function, test, shown by."""
    text = (ROOT / "docs/sources.md").read_text().partition("## Every capability")[2].partition("\n\nClaims that")[0]
    lines = [line for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert [int(row[0]) for row in cells] == list(range(1, len(cells) + 1))
    return [(row[1], row[2], row[3], row[4], row[5]) for row in cells]


ROWS = rows()


def numbers(text: str) -> Iterator[int]:
    """Those of "1, 3-5"."""
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        yield from range(int(first), int(last or first) + 1)


@cache
def names_in(name: str) -> frozenset[str]:
    (path,) = (ROOT / "tests").rglob(f"{name}.py")
    return frozenset(node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))


def found(path: str) -> object:
    """What `flower_edge.<path>` is: the longest part that is a module, then attributes."""
    parts = ["flower_edge", *path.split(".")]
    for end in range(len(parts), 0, -1):
        try:
            value: object = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for name in parts[end:]:
            value = getattr(value, name)
        return value
    raise AssertionError(path)


def test_there_are_rows_enough_of_every_document_and_none_twice() -> None:
    assert len(ROWS) >= 80
    assert {row[0][:3] for row in ROWS} == SOURCES
    assert len({(row[0], row[1]) for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("document", sorted(CLAIMS))
def test_every_claim_has_a_row(document: str) -> None:
    told = [
        match[1] for row in ROWS if row[0].startswith(document) and (match := re.search(r"cl\. ([\d, -]+)", row[0]))
    ]
    assert {number for text in told for number in numbers(text)} == CLAIMS[document]


def test_every_function_can_be_imported_and_takes_the_argument_that_is_named() -> None:
    for _, what, functions, _, _ in ROWS:
        named = re.findall(r"`([\w.]+)(?:\((\w+)=…\))?`", functions)
        assert named, what
        for path, argument in named:
            value = found(path)
            if argument:
                assert callable(value)
                assert argument in inspect.signature(value).parameters, f"{path}({argument}=…)"


def test_every_test_is_there() -> None:
    for _, what, _, test, _ in ROWS:
        match = re.fullmatch(r"`(test_\w+)::(\w+)`", test)
        assert match, what
        assert f"test_{match[2]}" in names_in(match[1]), test


def test_what_shows_it_is_there() -> None:
    from flower_edge.cli.main import app

    verbs = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    verbs |= {group.name for group in app.registered_groups}
    for _, what, _, _, shown in ROWS:
        if verb := re.fullmatch(r"`flower-edge ([\w-]+)`", shown):
            assert verb[1].replace("_", "-") in {str(name).replace("_", "-") for name in verbs}, shown
        elif benchmark := re.fullmatch(r"`python -m benchmarks\.(\w+)`", shown):
            assert (ROOT / f"benchmarks/{benchmark[1]}.py").is_file(), shown
        else:
            link = re.fullmatch(r"\[[\w/]+\]\(([\w./]+\.md)\)", shown)
            assert link, what
            assert (ROOT / "docs" / link[1]).is_file(), shown
