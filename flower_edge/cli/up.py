"""`flower-edge up`: a server that devices join with one line."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, EnrolmentError
from .served_beside import Address, MetricsOption, MetricsTokenOption, address_of, serve_beside

if TYPE_CHECKING:
    from ..enrolment.server import EnrolmentServer

__all__ = ["StateOption", "parse_duration", "register"]

StateOption = Annotated[
    Path,
    typer.Option(
        "--state", metavar="DIR", help="What the server keeps: authority, tokens, devices, Flower's database."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("up")(up)


def up(
    state: StateOption = Path("flower-edge-server"),
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="For devices; port 0 takes a free one.")
    ] = "0.0.0.0:8000",
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Under which devices dial it; may be given more than once. Not given: this machine's addresses.",
        ),
    ] = None,
    uses: Annotated[
        int, typer.Option(metavar="DEVICES", help="For how many the printed line is good; 0: print none.")
    ] = 1,
    valid: Annotated[str, typer.Option(metavar="TIME", help="And how long: 30m, 12h, 7d.")] = "1h",
    wheels: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Packages to give to anybody, as an index at /wheels/.")
    ] = None,
    app: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A Flower app to run once devices are online.")
    ] = None,
    run_config: Annotated[str, typer.Option(metavar="TEXT", help='As of flwr run: "num-server-rounds=3".')] = "",
    nodes: Annotated[int, typer.Option(metavar="NUMBER", help="So many have to be online before the app is run.")] = 1,
    again: Annotated[
        bool, typer.Option("--again", help="Run the app again when it ends; an edge of a centre: flower-edge edge.")
    ] = False,
    control_port: Annotated[
        int, typer.Option(metavar="PORT", help="Of the control API, on the loopback address; 0 takes a free one.")
    ] = 0,
    page: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Serve a page of devices and runs, as 127.0.0.1:8809; needs flower-edge's extra 'ui'.",
        ),
    ] = "",
    page_token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            help="That it asks for, 16 characters or more; who has it may stop a run. Needed, with TLS, where other "
            "machines reach it.",
            envvar="FLOWER_EDGE_PAGE_TOKEN",
        ),
    ] = None,
    metrics: MetricsOption = "",
    metrics_token: MetricsTokenOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Tell everything as JSON, a document per line.")] = False,
) -> None:
    """Serve devices until Ctrl-C: an authority, Flower's SuperLink, a filter before it, and a desk where they join.

    Prints the line that lets a device join. Only the fleet part of Flower is reached from outside; runs are started
    on this machine, with FLWR_HOME as it is printed. What is in --state is found again at the next start, also after
    a power cut: devices stay joined.

    Exit code: 0 ended, by Ctrl-C or SIGTERM; 1 it could not go on; 2 an option, folder or port that cannot be used.

    Example: flower-edge up --state /srv/flower --host edge.example --uses 10 --valid 2d
    """
    from ..enrolment.listening import bind
    from ..enrolment.server import AppRun, EnrolmentServer, addresses_here
    from ..enrolment.server_folder import ServerFolder
    from ..runtime.launching.processes import Interrupts

    at, port = address_of(listen)
    valid_s = parse_duration(valid)
    if uses < 0:
        raise ConfigError(f"--uses {uses}: expected 0 or more")
    page_at, metrics_at = Address.of("--page", page, page_token), Address.of("--metrics", metrics, metrics_token)
    for option, beside in (("--page", page_at), ("--metrics", metrics_at)):
        if beside is not None:
            # Before Flower is started, which takes seconds.
            bind(beside.host, beside.port, option).close()
    run = None if app is None else AppRun(app.absolute(), run_config, nodes, again)
    say, hosts = _Saying(as_json), host or addresses_here()
    with Interrupts() as interrupts, ExitStack() as stack:
        folder = ServerFolder.at(state)
        say.line("starting", "starting the SuperLink ...")
        server = EnrolmentServer(
            folder, listen=(at, port), hosts=hosts, wheels=wheels, run=run, control_port=control_port,
            tell=lambda line: say.line("news", line), ended=lambda: interrupts.signal is not None,
        )  # fmt: skip
        try:
            stack.enter_context(server)
        except EnrolmentError:
            if interrupts.signal is None:
                raise
            return
        served = serve_beside(stack, server, hosts, page=page_at, metrics=metrics_at)
        joined = server.invite(uses=uses, valid_s=valid_s) if uses else ""
        say.opening(server, joined, uses, valid, served)
        while interrupts.signal is None:
            server.look()
            say.status(server)
            time.sleep(0.5)
        say.line("ending", "ending the SuperLink and all that runs on it ...")


class _Saying:
    """What `up` prints: lines for people, or JSON documents."""

    def __init__(self, as_json: bool) -> None:
        self._as_json, self._before = as_json, ""

    def line(self, kind: str, words: str) -> None:
        self._put({"event": kind, "message": words}, words)

    def opening(self, server: EnrolmentServer, joined: str, uses: int, valid: str, served: dict[str, str]) -> None:
        from rich.console import Console
        from rich.markup import escape

        folder, superlink = server.folder, server.superlink
        told: dict[str, Any] = {
            "event": "up",
            "url": server.url,
            "ca_fingerprint": folder.fingerprint(),
            "join": joined,
            "control": f"127.0.0.1:{superlink.port}",
            "flwr_home": str(folder.home),
            "state": str(folder.path),
            "devices": len(server.book.devices()),
            **served,
        }
        if self._as_json:
            self._put(told, "")
            return
        console = Console(highlight=False, soft_wrap=True)
        console.print(f"[bold]up[/bold]  {escape(server.url)}   devices that have joined: {told['devices']}")
        console.print(f"    authority  {told['ca_fingerprint']}")
        console.print(f"    runs       FLWR_HOME={folder.home} flwr run APP   (on this machine only)")
        for what, url in served.items():
            console.print(f"    {what:<10} {escape(url)}")
        if joined:
            many = "one device" if uses == 1 else f"{uses} devices"
            console.print(f"    join line, for {many}, for {valid}:\n\n[bold]{escape(joined)}[/bold]\n")
        console.print(f"    another one: flower-edge devices invite --state {folder.path}")
        console.print("    Ctrl-C ends it; devices stay joined", style="dim")

    def status(self, server: EnrolmentServer) -> None:
        online, all_of_them = len(server.online()), len(server.book.devices())
        there = "up" if server.superlink.healthy else "away"
        words = f"{online} of {all_of_them} devices online, SuperLink {there}"
        if words != self._before:
            self._before = words
            self._put({"event": "status", "online": online, "devices": all_of_them, "superlink": there}, words)

    def _put(self, told: dict[str, Any], words: str) -> None:
        print(json.dumps(told) if self._as_json else f"{time.strftime('%H:%M:%S')}  {words}", flush=True)
        sys.stdout.flush()


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `30m`, `12h` or `7d`.

    Raises:
        ConfigError: it is none.

    >>> parse_duration("12h")
    43200.0
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    try:
        seconds = float(text[:-1]) * units[text[-1:]]
        if not 0.0 < seconds < float("inf"):
            raise ValueError
    except (ValueError, KeyError):
        raise ConfigError(f"{text!r} is no time; write a number and s, m, h or d, as 12h") from None
    return seconds
