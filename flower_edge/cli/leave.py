"""`flower-edge leave`: undo a join."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from .join import DeviceStateOption, device_folder

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("leave")(leave)


def leave(
    state: DeviceStateOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Remove everything here also where the server cannot be told.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """Stop the node, let the server forget this device, and remove all that the join has written. Says what it did.

    The server takes the device's key never again. To come back, join with a new token: a new key is made.

    Exit code: 0 all of it is undone; 1 --force, and the server does not know yet; 2 it could not be done, or nothing
    has joined here.

    Example: flower-edge leave
    """
    from ..enrolment import joining

    left = joining.leave(device_folder(state), force=force)
    if as_json:
        typer.echo(json.dumps({"done": list(left.done), "still": left.still}))
    else:
        for line in left.done:
            typer.echo(line)
        if left.still:
            typer.echo(f"still to do: {left.still}")
    raise typer.Exit(1 if left.still else 0)
