"""`application`: page and exports of a session behind their gate, as one ASGI application.

Nothing here listens; see `serving`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi import FastAPI
from fastapi.responses import Response
from nicegui import app as nicegui_app
from nicegui import ui

from ..errors import ConfigError
from .access import Access, Gate
from .page import draw
from .theme import ICON
from .watch import Watch

if TYPE_CHECKING:
    from ..runtime.compression.session_torch import CompressionSession

__all__ = ["application"]

_PATIENCE_S: Final = 60.0


def application(session: CompressionSession, access: Access) -> Gate:
    """All that is served.

    Args:
        session: that is shown and driven.
        access: who may.

    Raises:
        ConfigError: this process has or had a page already; NiceGUI has one application per process.
    """
    if nicegui_app.middleware_stack is not None or nicegui_app.is_started:
        raise ConfigError(
            "this process has served a control page already, and NiceGUI has one per process; keep that one open for "
            "as long as the session lives, or start another process"
        )
    watch = Watch(session)
    nicegui_app.on_shutdown(watch.close)
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

    ui.run_with(
        served,
        title="Fringe compression",
        favicon=ICON,
        dark=None,
        # The page has its own style sheet; this one would be compiled in the browser.
        tailwind=False,
        # A browser that is not heard of for so long has to load the page anew and loses what stands in the form. The
        # machine that compresses is busy, and answers late.
        reconnect_timeout=_PATIENCE_S,
        show_welcome_message=False,
    )
    return Gate(served, access)


def _file(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
