"""`flower-edge dashboard`: runs in a browser, live. Looking does not touch them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..store.places import runs_root
from ..store.run_folder import RunFolder
from .runs import RootOption

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("dashboard")(dashboard)


def dashboard(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run folder, the beginning of its name, `latest`, or a folder of runs; left out: all runs.",
        ),
    ] = None,
    root: RootOption = None,
    host: Annotated[str, typer.Option(help="To bind to; any but this machine's own needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.", min=0, max=65535)] = 8809,
    token: Annotated[
        str | None,
        typer.Option(
            help="That the page asks for, 16 characters or more; who has it may ask a run to stop.",
            envvar="FLOWER_EDGE_PAGE_TOKEN",
        ),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(metavar="PEM", help="For TLS.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="That belongs to it.")] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="HOST", help="By which it is asked for, such as a proxy's; may be given again."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print where it is served as one JSON document, then serve.")
    ] = False,
) -> None:
    """Show runs in a browser: map, links, rounds, selection, refusals, rewards; live, until Ctrl-C.

    Without a token it shows and does nothing else.

    Exit code: 0.

    Example: flower-edge dashboard latest
    """
    place = _place(which, root)
    from ..ui.dashboard import Dashboard
    from ..ui.served_page import reached_by_others, until_ctrl_c

    with Dashboard(place, host, port, token, certificate=certificate, key=key, names=name or ()) as page:
        plain = reached_by_others(host) and certificate is None
        document = {"place": str(place), "url": page.url, "may_stop": token is not None}
        until_ctrl_c(page, "dashboard", plain=plain, instead=json.dumps(document) if as_json else None)


def _place(which: str | None, root: Path | None) -> Path:
    if which is None:
        place = runs_root(root)
        if not place.is_dir():
            raise ConfigError(f"no folder {place}; name a run or a folder of runs, or set FLOWER_EDGE_RUNS")
        return place
    path = Path(which).expanduser()
    if path.is_dir() and not (path / "run.json").exists() and any(path.glob("*/run.json")):
        return path.absolute()
    return RunFolder.open(which, root).path
