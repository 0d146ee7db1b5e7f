"""`flower-edge doctor`: can this machine run what flower-edge does? Looks, changes nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import chain
from typing import Annotated, Final

import typer

from .checks import Check, every_check
from .device_checks import device_checks
from .join import DeviceStateOption, device_folder
from .join_checks import join_checks
from .runs import RootOption

__all__ = ["register"]

_SIGNS: Final = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
_COLOURS: Final = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("doctor")(doctor)


def doctor(
    root: RootOption = None,
    state: DeviceStateOption = None,
    url: Annotated[str, typer.Option(metavar="URL", help="Of a server that is to be joined.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Check this machine and environment, and say what to do about what is missing.

    Where the machine has joined a server: whether that is reached, the clocks agree, and its node is online.

    Exit code: 0 runs can be made here (warnings are about extras), 1 something fails.

    Example: flower-edge doctor
    """
    checks: list[Check] = []
    for check in chain(every_check(root), device_checks(), join_checks(device_folder(state), url)):
        checks.append(check)
        if not as_json:
            _show(check)
    failed = [check.name for check in checks if check.level == "fail"]
    if as_json:
        print(json.dumps({"ok": not failed, "checks": [asdict(check) for check in checks]}, indent=2))
    elif failed:
        print(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
    else:
        print(f"{len(checks)} checks, none failed")
    raise typer.Exit(1 if failed else 0)


def _show(check: Check) -> None:
    typer.secho(_SIGNS[check.level], fg=_COLOURS[check.level], nl=False)
    print(f"  {check.name}: {check.found}", flush=True)
    if check.advice:
        print(f"      -> {check.advice}")
