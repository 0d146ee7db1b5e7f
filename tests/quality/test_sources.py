"""Who imports what, read from the source: torch, Flower's private modules, pickle; and no path of a build machine."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from source_tree import ROOT, python_files, tracked_files

LIBRARY = ("flower_edge", "strategies", "clients")
#: The modules that Flower means for the public. Others inside of them, as `flwr.serverapp.grid`, are not.
FLOWER_PUBLIC = {
    "flwr",
    "flwr.app",
    "flwr.serverapp",
    "flwr.serverapp.strategy",
    "flwr.clientapp",
    "flwr.clientapp.mod",
    "flwr.clientapp.typing",
}
#: The files that may touch others. Most import by name: where a release has moved one, Flower's own way goes on.
PRIVATE_DOORS = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("flower_edge/runtime/flower_private*.py")}
#: A text that is a dotted name of Flower's: `flwr.a.b`, `flwr.a.b:C`, or the start of one, `flwr.a.`
_DOTTED = re.compile(r"(flwr(?:\.\w+)+)(?:\.|:\w+)?")


@cache
def looked_at(source: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """What `imports` and `by_importlib` say, and texts that are a dotted name of Flower's, as `_DOTTED` finds them.

    Of one walk through the source: several tests ask for each file.
    """
    imported: list[str] = []
    by_name: list[str] = []
    dotted: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__"):
                by_name.append(str(node.args[0].value))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            dotted += [found[1]] if (found := _DOTTED.fullmatch(node.value)) else []
    return tuple(imported), tuple(by_name), tuple(dotted)


def imports(source: str) -> tuple[str, ...]:
    """Every module name in an import statement, wherever it stands; `from a import b` gives `a` and `a.b`."""
    return looked_at(source)[0]


def by_importlib(source: str) -> tuple[str, ...]:
    """Every module name in `import_module("...")` or `__import__("...")`."""
    return looked_at(source)[1]


@cache
def flower_folder() -> Path:
    """Where Flower is installed."""
    spec = importlib.util.find_spec("flwr")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@cache
def module_of_flower(name: str) -> bool:
    """Whether the Flower that is installed has a module of this name."""
    place = flower_folder().joinpath(*name.split(".")[1:])
    return place.is_dir() or place.with_suffix(".py").is_file()


def private_flower(name: str) -> bool:
    """Whether an imported name belongs to Flower and is neither a public module nor something in one."""
    if name in FLOWER_PUBLIC or name.partition(".")[0] != "flwr":
        return False
    return module_of_flower(name) or name.rpartition(".")[0] not in FLOWER_PUBLIC


def told_in_texts(source: str) -> Iterator[str]:
    """Each private module of Flower that a text constant names, however it is imported then.

    A logger's name, as "flwr.edge", names no module; a docstring or message is more than a name.
    """
    for dotted in looked_at(source)[2]:
        parts = dotted.split(".")
        names = [".".join(parts[:end]) for end in range(2, len(parts) + 1)]
        yield from (name for name in names if name not in FLOWER_PUBLIC and module_of_flower(name))


def where(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_scan_sees_imports_in_every_form() -> None:
    source = "import a.b\nfrom c import d\ndef f():\n    import torch as t\nfrom . import e"
    assert set(imports(source)) == {"a.b", "c", "c.d", "torch"}
    assert list(by_importlib("importlib.import_module('torch'); __import__('pickle')")) == ["torch", "pickle"]
    names = ("flwr.app", "flwr.common.x", "flwr.serverapp.grid", "flwr.serverapp.Grid", "flwr", "flwrx.y")
    assert [name for name in names if private_flower(name)] == ["flwr.common.x", "flwr.serverapp.grid"]


def test_the_scan_sees_private_modules_in_texts_and_takes_nothing_else_for_one() -> None:
    source = "getLogger('flwr.edge')\n'See flwr.supercore.retry.'\n'flwr.'\n'flwr.serverapp.strategy'\n"
    assert list(told_in_texts(source)) == []
    for text in ("'flwr.supercore'", "M = ('flwr.supercore.run.Run',)", "f'flwr.supercore.{x}'", "'flwr.supercore:x'"):
        assert "flwr.supercore" in set(told_in_texts(text)), text


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


def private_names(source: str) -> set[str]:
    """Flower's private modules that a source imports, or names in a text."""
    imported = {name for name in (*imports(source), *by_importlib(source)) if private_flower(name)}
    return imported | set(told_in_texts(source))


def test_flowers_private_modules_are_named_only_in_files_that_say_so_in_their_name() -> None:
    found = {
        where(path): sorted(names)
        for path in python_files(*LIBRARY, "scenarios", "benchmarks")
        if where(path) not in PRIVATE_DOORS and (names := private_names(path.read_text()))
    }
    assert found == {}


def test_every_file_that_touches_flowers_private_modules_is_named_where_the_rule_is_told() -> None:
    assert len(PRIVATE_DOORS) > 1
    told = (ROOT / "docs/architecture.md").read_text()
    assert [door for door in sorted(PRIVATE_DOORS) if f"`{Path(door).name}`" not in told] == []


def test_nothing_that_came_from_outside_can_be_run_as_code() -> None:
    found = []
    for path in python_files(*LIBRARY, "scenarios"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            # The whole of a name is written out only where its end, or a keyword, can be one of those: it takes long.
            end = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            called = ast.unparse(node.func) if end in ("load", "loads", "Unpickler", "eval", "exec") else end
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
