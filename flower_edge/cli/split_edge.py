"""`flower-edge split-edge`: an edge host between devices and the cloud in streamed split learning."""

from __future__ import annotations

import importlib
import json
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ..errors import ConfigError
from ..loopback import is_loopback

__all__ = ["models_named", "read_pem", "refuse_plain", "register"]

#: Between two looks whether the process was told to end.
_LOOK_S: Final = 0.2


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("split-edge")(split_edge)


def split_edge(
    cloud: Annotated[str, typer.Option(metavar="HOST:PORT", help="The cloud's split service.")],
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where devices dial this host.")] = "127.0.0.1:9101",
    cloud_authority: Annotated[
        Path | None,
        typer.Option(metavar="PEM", help="Who vouches for the cloud's certificate; none: no TLS."),
    ] = None,
    certificate: Annotated[Path | None, typer.Option(metavar="PEM", help="This host's certificate.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="The key that belongs to it.")] = None,
    models: Annotated[
        str, typer.Option(metavar="MODULE:NAME", help="A mapping of model factories of your own, as Split's models=.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Tell where it listens as one JSON document.")] = False,
) -> None:
    """Train the middle units of each device's model here, until Ctrl-C.

    Devices dial this host instead of the cloud, with the token the cloud gave them; the cloud says who may come and
    what to train. Nothing is kept between rounds.

    Exit code: 0 ended, by Ctrl-C or SIGTERM; 2 a file, address or name that cannot be used.

    Example: flower-edge split-edge --listen 0.0.0.0:9101 --cloud cloud.example:9100 --cloud-authority ca.pem
    --certificate edge.pem --key edge.key
    """
    from ..runtime.splitting.relay import SplitRelay
    from ..transport.credentials import Credentials, Insecure, ServerTls, TrustServer, split_address
    from ..transport.grpc_transport import GrpcTransport

    host, port = split_address(listen)
    cloud_host, _ = split_address(cloud)
    if (certificate is None) != (key is None):
        raise ConfigError("--certificate and --key belong together: give both, or neither for no TLS on loopback")
    serving: Credentials = Insecure()
    if certificate is not None and key is not None:
        serving = ServerTls(read_pem(certificate), read_pem(key))
    dialling: Credentials = Insecure() if cloud_authority is None else TrustServer(read_pem(cloud_authority))
    own = models_named(models)
    if certificate is None:
        refuse_plain(f"--listen {listen}", host, "--certificate and --key")
    if cloud_authority is None:
        refuse_plain(f"--cloud {cloud}", cloud_host, "--cloud-authority")
    relay = SplitRelay(GrpcTransport(serving), host, port, GrpcTransport(dialling), cloud, models=own)
    ended: list[int] = []
    # No lock in a handler: it may come while this thread holds that lock.
    before = signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    try:
        with relay:
            if as_json:
                typer.echo(json.dumps({"listening": f"{host}:{relay.port}", "cloud": cloud}))
            else:
                typer.echo(f"listening on {host}:{relay.port} for devices; the cloud is at {cloud}")
            with suppress(KeyboardInterrupt):
                while not ended:
                    time.sleep(_LOOK_S)
    finally:
        signal.signal(signal.SIGTERM, before)


def refuse_plain(option: str, host: str, give: str) -> None:
    """Refuse an address of another machine where no TLS was asked for, in options and not in classes.

    Args:
        option: what was typed.
        host: of it.
        give: the options that bring TLS.

    Raises:
        ConfigError: it is no address of this machine.
    """
    if not is_loopback(host):
        raise ConfigError(
            f"{option}: without TLS everybody on the way could read and change models; give {give}, or an address of "
            "this machine, such as 127.0.0.1, and a tunnel to it"
        )


def read_pem(path: Path) -> bytes:
    """What is in a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error}); expected a PEM file") from None


def models_named(source: str) -> Mapping[str, Callable[..., Any]] | None:
    """The mapping of factories that `module:name` names; None of an empty one.

    Raises:
        ConfigError: there is none.
    """
    if not source:
        return None
    module, _, name = source.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"--models {source}: {error}; expected module:name of a mapping, as app.models:MODELS"
        ) from None
    if not isinstance(found, Mapping):
        raise ConfigError(f"--models {source}: it is a {type(found).__name__}; expected a mapping of factories by name")
    return found
