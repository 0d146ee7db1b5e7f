"""A scenario in this process: its declared config, and a run of its two apps on a `LocalGrid`."""

from __future__ import annotations

import importlib
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict

from flower_edge.runtime.faults import Fault
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.store import RunFolder


def declared(app: Path) -> dict[str, Any]:
    """The run config in the app's `pyproject.toml`, flat, as Flower hands it over."""
    return dict(_flat(tomllib.loads((app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]))


def run_in_process(
    app: Path,
    nodes: int,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    script: Iterable[Fault] = (),
) -> RunFolder:
    """Run the app with `config` over what it declares; its run folder, under `folder`."""
    monkeypatch.syspath_prepend(str(app))
    monkeypatch.setenv("FLOWER_EDGE_RUNS", str(folder))
    monkeypatch.delenv("FLOWER_EDGE_DATA", raising=False)
    (package,) = (path.parent.name for path in app.glob("*/server_app.py"))
    client = importlib.import_module(f"{package}.client_app").app
    server = importlib.import_module(f"{package}.server_app").app
    whole = {**declared(app), **config}
    with LocalGrid(client, nodes, run_config=whole, script=script) as grid:
        server(grid, Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=whole))
    return RunFolder.open("latest", root=folder)


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
