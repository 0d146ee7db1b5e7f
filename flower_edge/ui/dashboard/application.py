"""`application`: the dashboard's pages behind their gate, as one ASGI application. Nothing here listens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fastapi import FastAPI
from nicegui import ui

from ..access import Access, Gate
from ..behind_gate import behind_gate, one_per_process
from .device_table import DeviceLine
from .list_page import draw_list
from .run_page import draw_missing, draw_run
from .watched import Watched

__all__ = ["application", "pages"]


def application(place: Path, access: Access, devices: Callable[[], Sequence[DeviceLine]] | None = None) -> Gate:
    """All that is served.

    Args:
        place: a run folder, or a folder of run folders.
        access: who may.
        devices: gives those of a server, to be shown beside the runs.

    Raises:
        ConfigError: this process has or had a page already.
    """
    one_per_process()
    watched = Watched(place, devices)
    served = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    pages(watched, may_stop=access.token is not None)
    return behind_gate(served, "flower-edge dashboard", access, watched.close)


def pages(watched: Watched, *, may_stop: bool) -> None:
    """Make the routes: the list, or the one run; and a page for each run.

    Args:
        watched: the runs.
        may_stop: whether a run may be asked to stop.
    """

    @ui.page("/")
    async def first() -> None:
        if watched.single is None:
            await draw_list(watched)
        else:
            await draw_run(watched, watched.single, may_stop=may_stop, alone=True)

    @ui.page("/run/{name}")
    async def one(name: str) -> None:
        # Only names that are in the list: what came in the address is never a path.
        if await watched.knows(name):
            await draw_run(watched, name, may_stop=may_stop, alone=watched.single is not None)
        else:
            draw_missing(name)
