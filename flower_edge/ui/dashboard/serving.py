"""`Dashboard` serves the pages of runs from a thread of its own; `serve_dashboard` does so until Ctrl-C.

Nothing here draws: see `run_page` and `list_page`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from ..access import Access
from ..served_page import ServedPage, reached_by_others, until_ctrl_c
from .device_table import DeviceLine

__all__ = ["DEFAULT_DASHBOARD_PORT", "Dashboard", "serve_dashboard"]

DEFAULT_DASHBOARD_PORT: Final = 8809
_WHAT: Final = "dashboard"


class Dashboard(ServedPage):
    """Pages of one run, or of a folder of runs. A context manager.

    Without a token it shows and does nothing else. With one, whoever has it may also ask a run to stop.

    Args:
        place: a run folder, or a folder of run folders; runs that come later are found.
        host: what to bind to; one that other machines reach needs a token.
        port: of TCP; 0 takes a free one, see `url`.
        token: of 16 characters or more; needed by every request where it is given.
        certificate, key: files in PEM; the pages are then served over TLS.
        names: further host names by which it is asked for, such as a proxy's.
        devices: gives those of a server, which are then shown above the runs.

    Raises:
        ConfigError: a host without token, no NiceGUI, a port that is taken, half of a certificate, a second page.
    """

    def __init__(
        self,
        place: str | Path,
        host: str = "127.0.0.1",
        port: int = DEFAULT_DASHBOARD_PORT,
        token: str | None = None,
        *,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        names: Sequence[str] = (),
        devices: Callable[[], Sequence[DeviceLine]] | None = None,
    ) -> None:
        def build(access: Access) -> Any:
            from .application import application

            return application(Path(place).absolute(), access, devices)

        super().__init__(build, host, port, token, certificate=certificate, key=key, names=names, what=_WHAT)


def serve_dashboard(
    place: str | Path,
    host: str = "127.0.0.1",
    port: int = DEFAULT_DASHBOARD_PORT,
    token: str | None = None,
    *,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    names: Sequence[str] = (),
) -> None:
    """Serve the dashboard until Ctrl-C; what to open is printed. Arguments and errors as of `Dashboard`.

    Raises:
        ConfigError: see there.
    """
    with Dashboard(place, host, port, token, certificate=certificate, key=key, names=names) as page:
        until_ctrl_c(page, _WHAT, plain=reached_by_others(host) and certificate is None)
