"""`ControlPage` serves the control page of a session from a thread of its own; `serve` does so until Ctrl-C.

The session stays in this process and goes on whether somebody looks or not. Nothing here draws: see `page`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..access import Access
from ..served_page import ServedPage, reached_by_others, until_ctrl_c

if TYPE_CHECKING:
    from ...runtime.compression.session_torch import CompressionSession

__all__ = ["DEFAULT_PORT", "ControlPage", "serve"]

DEFAULT_PORT: Final = 8808
_WHAT: Final = "control page"


class ControlPage(ServedPage):
    """A session's page, served from a thread of its own. A context manager.

    NiceGUI keeps one application per process, so a process has one page.

    Args:
        session: what it shows and drives. It is not closed with the page.
        host: what to bind to; one that other machines reach needs a token.
        port: of TCP; 0 takes a free one, see `url`.
        token: of 16 characters or more; needed by every request where it is given.
        certificate, key: files in PEM; the page is then served over TLS.
        names: further host names by which it is asked for, such as a proxy's.

    Raises:
        ConfigError: a host without token, no NiceGUI, a port that is taken, half of a certificate, a second page.
    """

    def __init__(
        self,
        session: CompressionSession,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        token: str | None = None,
        *,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        names: Sequence[str] = (),
    ) -> None:
        def build(access: Access) -> Any:
            from .application import application

            return application(session, access)

        super().__init__(build, host, port, token, certificate=certificate, key=key, names=names, what=_WHAT)


def serve(
    session: CompressionSession,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    token: str | None = None,
    *,
    certificate: str | Path | None = None,
    key: str | Path | None = None,
    names: Sequence[str] = (),
) -> None:
    """Serve the page until Ctrl-C; what to open is printed. Arguments and errors as of `ControlPage`.

    Raises:
        ConfigError: see there.
    """
    with ControlPage(session, host, port, token, certificate=certificate, key=key, names=names) as page:
        until_ctrl_c(page, _WHAT, plain=reached_by_others(host) and certificate is None)
