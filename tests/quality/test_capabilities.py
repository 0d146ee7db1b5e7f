"""The table of capabilities in docs/sources.md names what there is: functions, tests, scenarios, pages, claims."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache

import pytest
from named_in_tests import named_by_test, named_in_file
from source_tree import ROOT

#: Claims in force of the three documents that have claims; those left out were cancelled in print.
CLAIMS = {
    "[1]": {*range(1, 9), *range(11, 16), 25, 26, 27, 29, 30, 31, 36},
    "[2]": {*range(1, 21)},
    "[4]": {*range(1, 19)},
}
#: How many paragraphs each of them has, from 1 on; of [4] those of its description.
PARAGRAPHS = {"[1]": 124, "[2]": 64, "[4]": 82}
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


@pytest.mark.parametrize("document", sorted(PARAGRAPHS))
def test_every_paragraph_has_a_row_or_is_said_to_need_none(document: str) -> None:
    def told(cells: list[str]) -> set[int]:
        texts = [text for cell in cells for text in re.findall(r"¶([\d, -]+)", cell)]
        return {number for text in texts for number in numbers(text)}

    text = (ROOT / "docs/sources.md").read_text()
    without = told(re.findall(rf"^\| {re.escape(document)} \| (¶[\d, -]+) \|", text, re.MULTILINE))
    rows = told([row[0] for row in ROWS if row[0].startswith(document)])
    assert rows | without == {*range(1, PARAGRAPHS[document] + 1)}
    assert not rows & without


def test_every_function_can_be_imported_and_takes_the_argument_that_is_named() -> None:
    for _, what, functions, _, _ in ROWS:
        named = re.findall(r"`([\w.]+)(?:\((\w+)=…\))?`", functions)
        assert named, what
        for path, argument in named:
            value = found(path)
            if argument:
                assert callable(value)
                assert argument in inspect.signature(value).parameters, f"{path}({argument}=…)"


def files_and_tests(cell: str) -> list[tuple[str, str]]:
    """File and function of each test of a row."""
    assert re.fullmatch(r"`test_\w+::\w+`(, `test_\w+::\w+`)*", cell), cell
    return [(file, f"test_{name}") for file, name in re.findall(r"`(test_\w+)::(\w+)`", cell)]


def test_every_test_is_there() -> None:
    for _, _, _, tests, _ in ROWS:
        for file, name in files_and_tests(tests):
            assert name in names_in(file), f"{file}::{name}"


def test_every_function_is_used_by_a_test_of_its_row() -> None:
    """By the test itself, by what it uses of the tests' files, or by the scenario that a scenario's test runs."""
    for _, what, functions, tests, shown in ROWS:
        used: set[str] = set()
        for file, name in files_and_tests(tests):
            used |= named_by_test(file, name)
            scenario = re.search(r"\.\./(scenarios/\w+)/", shown)
            if scenario and (ROOT / f"tests/scenarios/{file}.py").is_file():
                used |= {word for code in (ROOT / scenario[1]).rglob("*.py") for word in named_in_file(code)}
        for path_, argument in re.findall(r"`([\w.]+)(?:\((\w+)=…\))?`", functions):
            assert path_.rpartition(".")[2] in used, f"{what}: no test of this row uses {path_}"
            assert not argument or argument in used, f"{what}: no test of this row gives {path_}({argument}=…)"


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
