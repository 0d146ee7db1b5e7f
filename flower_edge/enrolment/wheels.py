"""A folder of wheels as a package index, for devices that reach this server and nothing else (PEP 503).

    pip install --index-url https://server:8000/wheels/ --cert authority.pem flower-edge

Anybody who reaches the port may read it: put in what anybody may have. Only wheels and source archives that lie in the
folder itself are given.
"""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from ..errors import ConfigError

__all__ = ["wheel_routes"]

_ENDINGS: Final = (".whl", ".tar.gz")


def wheel_routes(folder: Path | None) -> list[Route]:
    """The index's pages and files; none without a folder.

    Raises:
        ConfigError: the folder is not there.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise ConfigError(
            f"--wheels {folder}: there is no such folder; `pip download -d {folder} flower-edge` makes it"
        )
    digests: dict[tuple[str, int, float], str] = {}

    def projects() -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in sorted(folder.iterdir()):
            if path.name.endswith(_ENDINGS) and path.is_file() and not path.is_symlink():
                found.setdefault(_project(path.name), []).append(path)
        return found

    def digest(path: Path) -> str:
        seen = path.stat()
        key = (path.name, seen.st_size, seen.st_mtime)
        if key not in digests:
            with path.open("rb") as file:
                digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
        return digests[key]

    # Not `async`: starlette runs what reads files in a thread.
    def index(request: Request) -> Response:
        return _page("".join(f'<a href="{name}/">{name}</a><br>\n' for name in projects()))

    def project(request: Request) -> Response:
        name = request.path_params["project"]
        if name != _normal(name):
            return RedirectResponse(f"../{_normal(name)}/")
        files = projects().get(name, [])
        if not files:
            return PlainTextResponse(f"no wheel of {name} here\n", status_code=404)
        return _page("".join(_link(path.name, digest(path)) for path in files))

    def file(request: Request) -> Response:
        named = request.path_params["file"]
        for path in projects().get(request.path_params["project"], []):
            if path.name == named:
                return FileResponse(path, media_type="application/octet-stream")
        return PlainTextResponse(f"no file {named} here\n", status_code=404)

    pages: list[tuple[str, Callable[[Request], Response]]] = [
        ("/wheels/", index),
        ("/wheels/{project}/", project),
        ("/wheels/{project}/{file}", file),
    ]
    return [Route(path, page, methods=["GET"]) for path, page in pages]


def _project(file: str) -> str:
    if file.endswith(".whl"):
        return _normal(file.split("-")[0])
    return _normal(file.removesuffix(".tar.gz").rpartition("-")[0])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _link(name: str, digest: str) -> str:
    return f'<a href="{html.escape(name.replace("+", "%2B"))}#sha256={digest}">{html.escape(name)}</a><br>\n'


def _page(body: str) -> Response:
    return HTMLResponse(f"<!DOCTYPE html><html><body>\n{body}</body></html>\n")
