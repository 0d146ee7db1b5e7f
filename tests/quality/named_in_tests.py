"""What the source of a test names: by itself, and by the helpers of the tests that it uses, as far as they go."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from source_tree import ROOT

__all__ = ["named_by_test", "named_in_file"]


@cache
def _files() -> dict[str, Path]:
    return {path.stem: path for path in (ROOT / "tests").rglob("*.py") if path.stem not in ("__init__", "conftest")}


@cache
def _parts(stem: str) -> tuple[dict[str, list[ast.stmt]], dict[str, tuple[str, str]]]:
    """Of a file of the tests: its statements by the name each binds, and where imported names come from."""
    bound: dict[str, list[ast.stmt]] = {}
    imported: dict[str, tuple[str, str]] = {}
    for statement in ast.parse(_files()[stem].read_text()).body:
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                imported[alias.asname or alias.name] = ((statement.module or "").rpartition(".")[2], alias.name)
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound.setdefault(statement.name, []).append(statement)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for node in (node for target in targets for node in ast.walk(target)):
                if isinstance(node, ast.Name):
                    bound.setdefault(node.id, []).append(statement)
    return bound, imported


def _words(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.arg(arg=word):
                yield word
            case ast.keyword(arg=str(word)):
                yield word
            case ast.ImportFrom(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.Constant(value=str(text)) if "import " in text:  # a program that a test starts
                yield from re.findall(r"\w+", text)
            case ast.Constant(value=str(text)):  # an option by its name, a key of a config
                yield text.replace("-", "_")


@cache
def _words_of(stem: str, name: str) -> frozenset[str]:
    """Those of the statements that bind a name in a file."""
    return frozenset(word for statement in _parts(stem)[0].get(name, []) for word in _words(statement))


def _gathered(stem: str, name: str, found: set[str], seen: set[tuple[str, str]]) -> None:
    if (stem, name) in seen:
        return
    seen.add((stem, name))
    bound, imported = _parts(stem)
    if name in imported:
        module, original = imported[name]
        found.add(original)
        if module in _files():
            _gathered(module, original, found, seen)
    for word in (words := _words_of(stem, name)) & (bound.keys() | imported.keys()):
        _gathered(stem, word, found, seen)
    found |= words


def named_by_test(stem: str, test: str) -> set[str]:
    """Identifiers and options in a test, its decorators and fixtures, and in what it uses of the tests' files."""
    found: set[str] = set()
    _gathered(stem, test, found, set())
    return found


@cache
def named_in_file(path: Path) -> frozenset[str]:
    """Those in a whole file."""
    return frozenset(_words(ast.parse(path.read_text())))
