"""Public names are a promise, kept in `public_names`; and who imports a room does not wait for what it may not need."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from public_names import CLOSED, PUBLIC
from source_tree import PACKAGES, ROOT


@pytest.mark.parametrize("package", sorted(PUBLIC))
def test_the_public_names_are_those_that_were_promised(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) == PUBLIC[package]
    assert len(module.__all__) == len(set(module.__all__))


@pytest.mark.parametrize("package", sorted(PUBLIC))
def test_every_public_class_and_function_says_what_it_is(package: str) -> None:
    module = importlib.import_module(package)
    silent = []
    for name in PUBLIC[package]:
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        # A dataclass or Protocol gets a made-up docstring from Python: it must have one of its own.
        own = inspect.getdoc(value) or ""
        if not own or own.startswith(f"{name}("):
            silent.append(name)
            continue
        if inspect.isclass(value):
            silent += [
                f"{name}.{member}"
                for member, entry in vars(value).items()
                if not member.startswith("_") and inspect.isroutine(entry) and not inspect.getdoc(entry)
            ]
    assert silent == []


def test_every_package_of_the_library_is_in_the_list() -> None:
    folders = {path.parent for folder in PACKAGES for path in (ROOT / folder).rglob("__init__.py")}
    found = set()
    for folder in folders:
        first, *rest = folder.relative_to(ROOT).parts
        found.add(".".join([PACKAGES[first], *rest]))
    assert found == set(PUBLIC) | CLOSED


def test_every_inner_room_is_on_the_map() -> None:
    on_the_map = (ROOT / "docs/architecture.md").read_text()
    inner = [name.removeprefix("flower_edge.").replace(".", "/") for name in CLOSED if name.count(".") == 2]
    assert [room for room in inner if f"`{room}/`" not in on_the_map] == []
    assert len(inner) > 20


def test_a_name_that_is_not_there_is_refused_and_the_public_ones_are_listed() -> None:
    import flower_edge.runtime as runtime

    with pytest.raises(AttributeError, match="'GridMock'"):
        runtime.GridMock  # noqa: B018
    assert set(runtime.__all__) <= set(dir(runtime))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import flower_edge", ("flwr", "torch", "numpy", "sqlalchemy")),
        ("import flower_edge.models", ("torch", "flwr")),
        ("import flower_edge.data", ("torch", "sklearn", "matplotlib", "flwr")),
        ("from flower_edge.runtime import Device, Link", ("torch", "sqlalchemy", "flwr.serverapp")),
        ("from flower_edge.strategies import Hierarchical", ("torch", "ray", "sqlalchemy")),
        ("from flower_edge.clients import edge_app", ("torch", "ray")),
        ("import flower_edge.control", ("torch", "flwr", "matplotlib", "sqlalchemy")),
        ("import flower_edge.topology", ("torch", "flwr", "matplotlib")),
        ("import flower_edge.splitting", ("torch", "flwr", "scipy")),
        ("from flower_edge.splitting import Dynamic, FrameCoder, Standard, WorkOrder", ("torch", "flwr")),
        ("import flower_edge.transport", ("flwr", "torch", "numpy", "grpc", "cryptography")),
        ("from flower_edge.strategies import Split", ("torch", "ray")),
        ("from flower_edge.clients import split_client", ("torch", "ray")),
        ("import flower_edge.peers", ("flwr", "numpy", "scipy")),
        ("import flower_edge.enrolment", ("flwr", "numpy", "httpx", "uvicorn", "cryptography", "pydantic")),
        ("import flower_edge.telemetry", ("flwr", "numpy", "prometheus_client", "asyncio")),
        ("import flower_edge.codecs", ("torch", "flwr", "numba", "scipy", "networkx")),
    ],
)
def test_importing_a_room_does_not_import_what_it_may_not_need(
    statement: str, absent: tuple[str, ...], tmp_path: Path
) -> None:
    script = f"import sys\n{statement}\nprint([name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
