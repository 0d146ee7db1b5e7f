"""Who imports what, read from the source: torch, Flower's private modules, pickle; and no path of a build machine."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from source_tree import ROOT, python_files, tracked_files

LIBRARY = ("flower_edge", "strategies", "clients")
#: What Flower means for the public, besides `flwr` itself.
FLOWER_PUBLIC = ("flwr.app", "flwr.serverapp", "flwr.clientapp")
#: All but the first import by name, so that a node without a module goes on as Flower's own.
PRIVATE_DOORS = (
    "flower_edge/runtime/flower_private.py",
    "flower_edge/runtime/flower_private_node.py",
    "flower_edge/runtime/flower_private_upload.py",
)


@cache
def looked_at(source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What `imports` and `by_importlib` say, of one walk through the source: several tests ask for each file."""
    imported: list[str] = []
    by_name: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                by_name.append(str(node.args[0].value))
    return tuple(imported), tuple(by_name)


def imports(source: str) -> tuple[str, ...]:
    """Every module name in an import statement, wherever it stands; `from a import b` gives `a` and `a.b`."""
    return looked_at(source)[0]


def by_importlib(source: str) -> tuple[str, ...]:
    """Every module name in `import_module("...")` or `__import__("...")`."""
    return looked_at(source)[1]


def private_flower(name: str) -> bool:
    """Whether a module belongs to Flower and is not public."""
    if name != "flwr" and not name.startswith("flwr."):
        return False
    return not (name == "flwr" or any(name == door or name.startswith(f"{door}.") for door in FLOWER_PUBLIC))


def where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_scan_sees_imports_in_every_form() -> None:
    source = "import a.b\nfrom c import d\ndef f():\n    import torch as t\nfrom . import e"
    assert set(imports(source)) == {"a.b", "c", "c.d", "torch"}
    assert list(by_importlib("importlib.import_module('torch'); __import__('pickle')")) == ["torch", "pickle"]
    assert [
        private_flower(name) for name in ("flwr.app", "flwr.common.x", "flwr.serverapp.grid", "flwr", "flwrx.y")
    ] == [
        False,
        True,
        False,
        False,
        False,
    ]


def test_torch_is_imported_only_in_files_that_say_so_in_their_name() -> None:
    found = [
        where(path)
        for path in python_files(*LIBRARY)
        if not path.stem.endswith("_torch")
        and any(name.partition(".")[0] in ("torch", "torchvision") for name in imports(path.read_text()))
    ]
    assert found == []


def test_torch_by_name_is_asked_for_only_where_generators_are_given_back_or_a_torch_file_is_loaded() -> None:
    found = {
        where(path)
        for path in python_files(*LIBRARY)
        if any(name in ("torch", "torchvision") for name in by_importlib(path.read_text()))
    }
    assert found <= {"flower_edge/runtime/generators.py", "flower_edge/data/extras.py"}


def test_flowers_private_modules_are_imported_behind_two_doors_only() -> None:
    found = {
        where(path): sorted({name for name in (*imports(source), *by_importlib(source)) if private_flower(name)})
        for path in python_files(*LIBRARY, "scenarios", "benchmarks")
        if where(path) not in PRIVATE_DOORS and (source := path.read_text())
    }
    assert {path: names for path, names in found.items() if names} == {}


def test_nothing_that_came_from_outside_can_be_run_as_code() -> None:
    found = []
    for path in python_files(*LIBRARY, "scenarios"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            unpickles = called in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load", "joblib.load")
            allows = any(
                word.arg == "allow_pickle" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
                for word in node.keywords
            )
            if unpickles or allows or called in ("eval", "exec", "yaml.load", "marshal.loads"):
                found.append(f"{where(path)}:{node.lineno}: {called}")
    assert found == []


def test_pickle_is_imported_only_to_check_that_an_app_can_go_to_a_process_pool() -> None:
    found = {where(p) for p in python_files(*LIBRARY) if "pickle" in set(imports(p.read_text()))}
    assert found <= {"flower_edge/runtime/local_grid.py", "flower_edge/runtime/client_call.py"}


def test_no_file_contains_a_path_of_the_machine_it_was_written_on() -> None:
    path_of_a_machine = re.compile(r"(?<![\w.~$}-])/(?:root|(?:home|Users)/(?!me/|you/)\w+)/")
    assert path_of_a_machine.search("see /ro" + "ot/x")
    assert not path_of_a_machine.search("a/ro" + "ot/b and ~/ro" + "ot/")
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{where(path)}:{number}: {line.strip()[:80]}"
            for number, line in enumerate(text.splitlines(), 1)
            if path_of_a_machine.search(line)
        ]
    assert found == []


@pytest.mark.parametrize("folder", LIBRARY)
def test_every_module_says_in_its_first_lines_what_it_is(folder: str) -> None:
    silent = [where(path) for path in python_files(folder) if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []
    vague = [
        where(path) for path in python_files(folder) if path.stem in ("utils", "util", "helpers", "misc", "common")
    ]
    assert vague == []
