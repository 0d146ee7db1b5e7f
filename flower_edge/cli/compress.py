"""`flower-edge compress`: compress a pipeline step by step, while it serves if there is something that serves it.

Drives the same session as the control page. Nothing here compresses.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..errors import ConfigError
from .compress_files import plain_json, write_all
from .compress_inputs import cuts_from, depth_from, names_from, writable
from .compress_kept import go_on, typed_of
from .compress_live import Watcher
from .compress_machines import DEPLOYMENT, LINK, MACHINES, Where, fleet_of
from .compress_table import proposal, summary

if TYPE_CHECKING:
    from ..runtime.compression.session_torch import CompressionSession
    from ..runtime.compression.settings import CompressionSettings
    from ..runtime.compression.told import Phase

__all__ = ["register"]

#: Panels of --help.
_WHAT, _GOALS, _WHERE = "What is compressed", "Goals", "Machines and links"
_RUNNING, _TOLD = "While it runs", "What is told"
#: What is asked for where nothing is.
_DROP, _BANDWIDTH = 0.01, "20x"
_CODES: Final[dict[Phase, int]] = {"goals met": 0, "failed": 1, "floor reached": 3}
_INTERRUPTED: Final = 130
#: How long requests that are under way may take when it ends.
_LAST_ANSWERS_S: Final = 5.0


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("compress")(compress)


def compress(
    context: typer.Context,
    task: Annotated[
        str,
        typer.Option(
            metavar="TASK",
            help="digits, or module:NAME of a function that returns a CompressionTask.",
            rich_help_panel=_WHAT,
        ),
    ] = "digits",
    machines: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help=f"In the order of an inference; left out: some of {', '.join(MACHINES)}.",
            rich_help_panel=_WHAT,
        ),
    ] = "",
    cuts: Annotated[
        str,
        typer.Option(metavar="UNITS", help="After which the model is cut; left out: chosen.", rich_help_panel=_WHAT),
    ] = "",
    depth: Annotated[
        str,
        typer.Option(
            metavar="LAYERS", help="That may change beside a cut: 2, or camera=2,server=1.", rich_help_panel=_WHAT
        ),
    ] = "",
    methods: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="Of quantisation, pruning, distillation; left out: chosen.", rich_help_panel=_WHAT
        ),
    ] = "",
    metric: Annotated[
        str, typer.Option(metavar="NAME", help="accuracy, recall, precision, loss or error.", rich_help_panel=_GOALS)
    ] = "accuracy",
    floor: Annotated[
        float | None, typer.Option(help="The worst that the metric may become.", rich_help_panel=_GOALS)
    ] = None,
    drop: Annotated[
        float | None,
        typer.Option(help=f"Or how much worse it may be; {_DROP} where neither is given.", rich_help_panel=_GOALS),
    ] = None,
    bandwidth: Annotated[
        str | None,
        typer.Option(
            metavar="LESS",
            help=f"Bytes less: 20x, 95% or '60 kB'; {_BANDWIDTH} where no goal is given.",
            rich_help_panel=_GOALS,
        ),
    ] = None,
    latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="Of an inference at most: '17 ms'.", rich_help_panel=_GOALS)
    ] = None,
    reduction: Annotated[
        str | None, typer.Option(metavar="LESS", help="Of the latency: 79%, 4x or '60 ms'.", rich_help_panel=_GOALS)
    ] = None,
    policy: Annotated[
        str, typer.Option(metavar="NAME", help="rules, or learned from recorded iterations.", rich_help_panel=_WHAT)
    ] = "rules",
    seed: Annotated[
        int, typer.Option(help="Of training, and of what is drawn.", min=0, max=2**32 - 1, rich_help_panel=_WHAT)
    ] = 0,
    link: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LINK",
            help=f"One for each connection, or one for all; '{LINK}' where none is given. With --serve, 'none': as "
            "fast as this machine.",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option("--serve", help="Serve on processes of this machine, over such links.", rich_help_panel=_WHERE),
    ] = False,
    stages: Annotated[
        str,
        typer.Option(
            metavar="ADDRESSES",
            help="Or on stages that run: camera=host:port,gateway=host:port,…",
            rich_help_panel=_WHERE,
        ),
    ] = "",
    certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Ours, where stages ask for one.", rich_help_panel=_WHERE)
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="That belongs to it.", rich_help_panel=_WHERE)] = None,
    authority: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Who vouches for the stages.", rich_help_panel=_WHERE)
    ] = None,
    secret: Annotated[
        Path | None, typer.Option(metavar="FILE", help="As the stages were given it.", rich_help_panel=_WHERE)
    ] = None,
    deployment: Annotated[
        str, typer.Option(metavar="NAME", help="As the stages were given it.", rich_help_panel=_WHERE)
    ] = DEPLOYMENT,
    models: Annotated[
        str,
        typer.Option(
            metavar="MODULE:NAME", help="With --serve: factories that stages build from.", rich_help_panel=_WHERE
        ),
    ] = "",
    requests: Annotated[
        float,
        typer.Option(
            metavar="PER_S",
            help="Ask what serves so often, at random times, about validation inputs.",
            rich_help_panel=_RUNNING,
        ),
    ] = 0.0,
    live: Annotated[
        bool,
        typer.Option(
            "--live", help="Heal with inputs that were served, where they are kept.", rich_help_panel=_RUNNING
        ),
    ] = False,
    weigh_compute: Annotated[
        bool,
        typer.Option(
            "--weigh-compute", help="Refuse what takes longer to compute than it saves.", rich_help_panel=_RUNNING
        ),
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Keep all of it there, and go on from what is there.", rich_help_panel=_RUNNING
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", help="Go on when the goals are met: follow the links, until Ctrl-C.", rich_help_panel=_RUNNING
        ),
    ] = False,
    page: Annotated[
        bool, typer.Option("--page", help="Serve the control page, until Ctrl-C.", rich_help_panel=_RUNNING)
    ] = False,
    host: Annotated[
        str, typer.Option(help="Of the page; any but this machine's own needs a token.", rich_help_panel=_RUNNING)
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Of the page; 0 takes a free one.", min=0, max=65535, rich_help_panel=_RUNNING)
    ] = 8808,
    token: Annotated[
        str | None,
        typer.Option(
            help="That the page asks for, 16 characters or more.",
            envvar="FLOWER_EDGE_PAGE_TOKEN",
            rich_help_panel=_RUNNING,
        ),
    ] = None,
    page_certificate: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Of the page, for TLS.", rich_help_panel=_RUNNING)
    ] = None,
    page_key: Annotated[
        Path | None, typer.Option(metavar="PEM", help="That belongs to it.", rich_help_panel=_RUNNING)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write iterations (CSV), all of it (JSON) and pictures there.",
            rich_help_panel=_TOLD,
        ),
    ] = None,
    propose: Annotated[
        bool,
        typer.Option(
            "--propose",
            help="Say what would be chosen, and what could be had at most; do nothing.",
            rich_help_panel=_TOLD,
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON document at the end, and nothing else.", rich_help_panel=_TOLD),
    ] = False,
) -> None:
    """Send fewer bytes between the machines of a pipeline, step by step, and never below a floor of its metric.

    Without --serve and --stages nothing serves, and latencies are modelled from the links. Ctrl-C stops after the
    iteration that goes on; a second one ends at once. What is kept with --state goes on from the last iteration.

    Exit code: 0 goals met, or proposed; 1 failed; 2 options or goals that cannot be; 3 the floor was reached first; 130
    Ctrl-C before either.

    Example: flower-edge compress --bandwidth 20x --drop 0.01 --link "10 Mbit/s,10 ms"

    Example: flower-edge compress --serve --requests 5 --link "2 Mbit/s,10 ms" --latency "60 ms" --state kept --page
    """
    if find_spec("torch") is None:
        raise ConfigError("compress needs torch, which is not installed; type: pip install 'flower-edge[torch]'")
    if not 0 <= requests < math.inf or (requests and not (serve or stages)):
        raise ConfigError(f"--requests {requests:g}: expected 0 or more, and --serve or --stages that answer them")
    if (page_certificate or page_key) and not page:
        raise ConfigError("--page-certificate and --page-key are of the page; give --page with them")
    writable("--out", out)
    writable("--state", state)
    goals: dict[str, float | str | None] = {
        "floor": floor,
        "drop": drop,
        "bandwidth": bandwidth,
        "latency": latency,
        "reduction": reduction,
    }
    asked = any(value is not None for value in goals.values())
    if floor is None and drop is None:
        goals["drop"] = _DROP
    if bandwidth is None and latency is None and reduction is None:
        goals["bandwidth"] = _BANDWIDTH
    named = names_from(machines, "--machines")
    from ..runtime.compression.settings import CompressionSettings

    settings = CompressionSettings.from_config(
        {
            "machines": named, "cuts": cuts_from(cuts), "depth": depth_from(depth), "metric": metric, **goals,
            "methods": names_from(methods, "--methods"), "policy": policy, "follow": follow or page, "live": live,
            "weigh_compute": weigh_compute, "seed": seed,
        }
    )  # fmt: skip
    where = Where(
        named, link or (), serve, stages, certificate, key, authority, secret, deployment, models
    )  # fmt: skip
    from rich.console import Console

    console = None if as_json else Console()
    with ExitStack() as running:
        running.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, signal.default_int_handler))
        fleet = fleet_of(where)
        running.callback(fleet.close)
        from ..runtime.compression.session_torch import CompressionSession
        from ..runtime.compression.task_torch import task_named

        if console is not None:
            console.print(f"task {task}", markup=False)
        work = task_named(task, seed)
        session = running.enter_context(
            CompressionSession(work, fleet, folder=None if propose else state, rate_per_s=requests or 1.0)
        )
        if propose:
            _propose(session, settings, as_json=as_json)
            return
        if session.continued():
            go_on(session, typed_of(context, settings.config()), follow=follow or page)
        elif asked or not page:
            session.submit(settings)
        traffic = None
        if requests:
            from ..runtime.fringe.open_traffic import OpenTraffic

            traffic = OpenTraffic(session.ask, work.validation[0].numpy(), requests, seed=seed)
            running.callback(traffic.stop, _LAST_ANSWERS_S)
        if page:
            from ..ui.compression import ControlPage

            shown = running.enter_context(
                ControlPage(session, host, port, token, certificate=page_certificate, key=page_key)
            )
            print(f"control page: {shown.entrance}", file=sys.stderr if as_json else sys.stdout, flush=True)
        watcher = Watcher(session, console, stay=follow or page, served=None if traffic is None else traffic.start)
        try:
            phase = watcher.watch()
            _tell(session, out, as_json=as_json)
        except KeyboardInterrupt:  # the second one: without waiting for the iteration that goes on
            fleet.close()
            sys.stdout.flush()
            os._exit(_INTERRUPTED)
    raise typer.Exit(_CODES.get(phase, _INTERRUPTED))


def _propose(session: CompressionSession, settings: CompressionSettings, *, as_json: bool) -> None:
    found = session.propose(settings, refuse=False)
    print(plain_json(found) if as_json else "\n".join(proposal(found)))
    if found["refused"] is not None:
        raise typer.Exit(2)


def _tell(session: CompressionSession, out: Path | None, *, as_json: bool) -> None:
    """The end of it: with the test set, where anything was compressed."""
    report = session.report() if session.told()["total"] is not None else {}
    told = session.told()
    written = [] if out is None else write_all(session, out)
    if as_json:
        files = [str(path) for path in written]
        print(plain_json({"phase": told["phase"], "error": told["error"], "report": report, "files": files}))
        return
    print("\n".join(summary(told)))
    for path in written:
        print(f"written: {path}")
