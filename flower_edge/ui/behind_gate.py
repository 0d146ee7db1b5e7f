"""`behind_gate`: pages made with NiceGUI, and what is served beside them, as one ASGI application.

Nothing here listens or draws. NiceGUI keeps one application per process, see `one_per_process`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui

from ..errors import ConfigError
from .access import Access, Gate
from .theme import ICON

__all__ = ["behind_gate", "one_per_process"]

#: A browser that is not heard of for so long has to load the page anew and loses what stands in its fields. The machine
#: may be busy, and answer late.
_RECONNECT_S: Final = 60.0


def one_per_process() -> None:
    """To be called before pages are made.

    Raises:
        ConfigError: this process has or had pages already.
    """
    if nicegui_app.middleware_stack is not None or nicegui_app.is_started:
        raise ConfigError(
            "this process has served a page already, and NiceGUI has one per process; keep that one open "
            "for as long as it is needed, or start another process"
        )


def behind_gate(served: FastAPI, title: str, access: Access, at_end: Callable[[], None]) -> Gate:
    """All pages that were made, and what `served` has beside them.

    Args:
        served: has its own routes already.
        title: of the browser's tab.
        access: who may.
        at_end: is called when it is served no longer.
    """
    nicegui_app.on_shutdown(at_end)
    ui.run_with(
        served,
        title=title,
        favicon=ICON,
        dark=None,
        # The pages have their own style sheet; this one would be compiled in the browser.
        tailwind=False,
        reconnect_timeout=_RECONNECT_S,
        show_welcome_message=False,
    )
    return Gate(served, access)
