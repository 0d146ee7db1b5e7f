"""`flower-edge controllers`: all controllers over seeds, side by side. Runs and compares; decides nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .controller_trials import Plan, Trial

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("controllers")(controllers)


def controllers(
    names: Annotated[
        str | None,
        typer.Option("--controllers", metavar="NAMES", help="Names with commas between them; else all. See --list."),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Like '0-7' or '0,2,5': a seed is a world, data and a first model.")
    ] = "0-3",
    set_up: Annotated[str, typer.Option("--set-up", help="Radio and devices; see --list.")] = "nlos",
    nodes: Annotated[int, typer.Option(help="Nodes in an area of 500 m x 500 m.")] = 15,
    rounds: Annotated[int, typer.Option(help="Rounds of a trial.")] = 150,
    task: Annotated[
        str,
        typer.Option(
            help="What is learned through the Gossip strategy and real ClientApps, 6 labels a node: 'digits' (a small "
            "MLP), 'mnist' (LeNet), or 'none': control only, in seconds.",
        ),
    ] = "digits",
    data: Annotated[str | None, typer.Option(metavar="DIR", help="Where MNIST lies; else $FLOWER_EDGE_DATA.")] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for trials, table and pictures; finished trials are kept.")
    ] = Path("controllers"),
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Draw FIGS. 8 to 11 of [1].")] = True,
    list_names: Annotated[bool, typer.Option("--list", help="Say which controllers and set-ups there are.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Compare controllers of weights and bandwidth over seeds, in this process, and draw what they do.

    Every trial, a controller with a seed, is written to DIR/trials when it ends: the same command goes on where it was
    stopped, and one with more names or seeds adds to what is there. At the end: DIR/controllers.csv,
    DIR/controllers.json and pictures, and a line per controller, means over the seeds:

    f/OPT and regret s: the weighted latency of [1] against the least possible in the same round.
    time/floor: true time of a round against the slowest device's computing. links, sigma2: left in use; how slowly
    what one node knows reaches all (1: never). rounds, s to 90 %: until the mean accuracy is 90 %; speed-up: against
    EQUAL, seed by seed. accuracy, worst: at the end, mean and worst device.

    Exit code: 0 done, 2 a name or number that is none, 130 Ctrl-C.

    Example: flower-edge controllers --controllers equal,dcent,one-peer --seeds 0-1 --task none
    """
    from ..control.named import CONTROLLERS, find
    from ..topology.set_ups import SET_UPS

    if list_names:
        told = {name: named.says for name, named in CONTROLLERS.items()}
        if as_json:
            print(json.dumps({"controllers": told, "set_ups": list(SET_UPS)}, indent=2))
        else:
            width = max(map(len, told))
            print("\n".join(f"{name.ljust(width)}  {says}" for name, says in told.items()))
            print(f"set-ups: {', '.join(SET_UPS)}")
        return

    from .controller_table import draw_figures, export, lines_of, table
    from .controller_trials import Plan, write_plan

    chosen = list(CONTROLLERS) if names is None else [name.strip() for name in names.split(",") if name.strip()]
    for name in chosen:
        find(name)
    plan, numbers = Plan(set_up, nodes, rounds, task), seeds_of(seeds)
    out = out.expanduser()
    write_plan(out, plan)
    trials = _run(plan, chosen, numbers, out, data, quiet=as_json)
    lines = lines_of(trials)
    export(out, plan, lines)
    drawn = draw_figures(out, plan, trials) if pictures else []
    if as_json:
        found = {"plan": vars(plan), "seeds": numbers, "lines": lines, "folder": str(out), "pictures": drawn}
        print(json.dumps(found, indent=2, default=str))
        return
    print(table(lines))
    print(f"{len(trials)} trials, {len(numbers)} seeds; table{' and pictures' if drawn else ''} in {out}")


def seeds_of(text: str) -> list[int]:
    """Seeds as typed.

    Raises:
        ConfigError: something that is no list of seeds.

    >>> seeds_of("0-2,7")
    [0, 1, 2, 7]
    """
    from ..errors import ConfigError

    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise ConfigError(
                f"--seeds {text!r}: {part.strip()!r} is no seed and no range; type for example 0-7 or 0,2,5"
            )
        found += range(int(first), int(last if dash else first) + 1)
    return sorted(set(found))


def _run(plan: Plan, names: list[str], seeds: list[int], out: Path, data: str | None, *, quiet: bool) -> list[Trial]:
    from logging import WARNING, getLogger

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from .controller_trials import read_trial, run_trial, write_trial

    # Flower logs every round; here a round is one of thousands.
    getLogger("flwr").setLevel(WARNING)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    trials: list[Trial] = []
    # On stderr: what comes on stdout is the result alone.
    console = Console(file=sys.stderr, quiet=quiet)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("trials", total=len(names) * len(seeds))
        for name in names:
            for seed in seeds:
                progress.update(task, description=f"{name}, seed {seed}")
                trial = read_trial(out, name, seed)
                if trial is None:
                    trial = run_trial(plan, name, seed, path=data)
                    write_trial(out, trial)
                    if not console.is_terminal:
                        console.print(f"{len(trials) + 1} of {len(names) * len(seeds)}: {name}, seed {seed}")
                trials.append(trial)
                progress.advance(task)
    return trials
