"""`application`: page and exports of a session behind their gate, as one ASGI application.

Nothing here listens; see `serving`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.responses import Response
from nicegui import ui

from ..access import Access, Gate
from ..behind_gate import behind_gate, one_per_process
from .page import draw
from .watch import Watch

if TYPE_CHECKING:
    from ...runtime.compression.session_torch import CompressionSession

__all__ = ["application"]


def application(session: CompressionSession, access: Access) -> Gate:
    """All that is served.

    Args:
        session: that is shown and driven.
        access: who may.

    Raises:
        ConfigError: this process has or had a page already; NiceGUI has one application per process.
    """
    one_per_process()
    watch = Watch(session)
    served = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @served.get("/export/iterations.csv")
    async def iterations() -> Response:
        text = await watch.exported(session.csv)
        return Response(text, media_type="text/csv", headers=_file("iterations.csv"))

    @served.get("/export/session.json")
    async def everything() -> Response:
        # With the report, for which versions are judged on the test set: that may take as long as an iteration.
        text = await watch.exported(session.json)
        return Response(text, media_type="application/json", headers=_file("session.json"))

    @ui.page("/")
    async def page() -> None:
        await draw(session, watch)

    return behind_gate(served, "Fringe compression", access, watch.close)


def _file(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
