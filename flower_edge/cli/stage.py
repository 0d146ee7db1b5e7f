"""`flower-edge stage`: one machine of a served pipeline."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from ..errors import ConfigError
from .split_edge import models_named, read_pem, refuse_plain

if TYPE_CHECKING:
    from ..runtime.fringe.stage import StageServer

__all__ = ["register"]

#: For so long one thread may keep others from Python. A version that is loaded would hold up those who are served by
#: five milliseconds at each of a dozen places.
_TURN_S: Final = 0.0005
#: How soon a signal is noticed, should the thread that waits for it not be the one that gets it.
_LOOK_S: Final = 0.2
#: After which the process ends though its stage has not closed.
_END_S: Final = 10.0


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("stage")(stage)


def stage(
    machine: Annotated[str, typer.Option(metavar="NAME", help="This machine's name in the pipeline.")],
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Where it is dialled; port 0 takes a free one.")
    ] = "127.0.0.1:9201",
    deployment: Annotated[
        str, typer.Option(metavar="NAME", help="Of the deployment; others are refused.")
    ] = "pipeline",
    certificate: Annotated[Path | None, typer.Option(metavar="PEM", help="This host's certificate.")] = None,
    key: Annotated[Path | None, typer.Option(metavar="PEM", help="The key that belongs to it.")] = None,
    authority: Annotated[
        Path | None, typer.Option(metavar="PEM", help="Who vouches for the machine behind; none: no TLS.")
    ] = None,
    secret: Annotated[
        Path | None, typer.Option(metavar="FILE", help="16 bytes or more that all machines and clients share.")
    ] = None,
    batch: Annotated[int, typer.Option(metavar="SAMPLES", help="Put together at the entry, at most.")] = 16,
    batch_wait_s: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for a batch to fill.")] = 0.0,
    waiting: Annotated[int, typer.Option(metavar="REQUESTS", help="That may wait; more are refused.")] = 64,
    answer_s: Annotated[
        float, typer.Option(metavar="SECONDS", help="After which the machine behind has failed.")
    ] = 30.0,
    keep_inputs: Annotated[
        int, typer.Option(metavar="SAMPLES", help="Of requests, kept in memory at the entry to heal from; 0: none.")
    ] = 0,
    threads: Annotated[int, typer.Option(metavar="NUMBER", help="Of torch; 0: as many as it chooses.")] = 0,
    models: Annotated[str, typer.Option(metavar="MODULE:NAME", help="A mapping of model factories of your own.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Tell where it listens as one JSON document.")] = False,
    ends_with_input: Annotated[
        bool,
        typer.Option("--ends-with-input", help="End with standard input: with who started it, however that ended."),
    ] = False,
) -> None:
    """Run this machine's part of a pipeline, until Ctrl-C.

    It begins with nothing: whoever controls the deployment loads a part into it, and swaps it for another while it
    serves. With TLS give a certificate and its key, the authority, and a secret.

    Exit code: 0 ended, by Ctrl-C or SIGTERM; 2 a file, address or name that cannot be used.

    Example: flower-edge stage --machine gateway --listen 0.0.0.0:9201 --certificate gateway.pem --key gateway.key
    --authority ca.pem --secret deployment.secret
    """
    from ..runtime.fringe.settings import ServingLimits
    from ..runtime.fringe.stage import StageServer
    from ..transport.credentials import Credentials, Insecure, ServerTls, TrustServer, split_address
    from ..transport.grpc_transport import GrpcTransport

    free = listen.endswith(":0")
    host, port = split_address(f"{listen[:-2]}:1" if free else listen)
    port = 0 if free else port
    if (certificate is None) != (key is None):
        raise ConfigError("--certificate and --key belong together: give both, or neither for no TLS on loopback")
    if certificate is None:
        refuse_plain(f"--listen {listen}", host, "--certificate and --key, with --authority and --secret")
    serving: Credentials = Insecure()
    if certificate is not None and key is not None:
        serving = ServerTls(read_pem(certificate), read_pem(key))
    dialling: Credentials = Insecure() if authority is None else TrustServer(read_pem(authority))
    limits = ServingLimits(
        batch_samples=batch, batch_wait_s=batch_wait_s, waiting=waiting, answer_s=answer_s, keep_inputs=keep_inputs
    )  # fmt: skip
    server = StageServer(
        machine, GrpcTransport(serving), host, port, dialling=GrpcTransport(dialling), deployment=deployment,
        secret=None if secret is None else read_pem(secret).strip(), limits=limits, models=models_named(models),
    )  # fmt: skip
    # Now, and not when the first version is loaded: a stage that is there can serve.
    from ..runtime.fringe.loading_torch import use_threads

    if threads:
        use_threads(threads)
    sys.setswitchinterval(_TURN_S)
    # What was imported stays. Else it is looked through for garbage, most likely while a version is loaded, and all who
    # are served wait for a hundred milliseconds and more.
    gc.collect()
    gc.freeze()
    ended: list[int] = []
    # No lock in a handler: it may come while this thread holds that lock.
    before = signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    try:
        server.open()
        where = f"{host}:{server.port}"
        if as_json:
            typer.echo(json.dumps({"machine": machine, "listening": where}))
        else:
            typer.echo(f"{machine} listens on {where}; deploy a pipeline to it")
        if ends_with_input:
            threading.Thread(target=_input_ended, args=(ended,), name="input", daemon=True).start()
        while not ended:
            time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        pass
    except BaseException:
        server.close()
        signal.signal(signal.SIGTERM, before)
        raise
    _end(server)


def _input_ended(ended: list[int]) -> None:
    """Wait for it. The kernel closes a pipe with whoever held it, even one that was killed."""
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    ended.append(0)


def _end(server: StageServer) -> NoReturn:
    """Close the stage and end the process, both in bounded time.

    Python's own way out takes down torch, seconds on a busy machine, and waits without limit for a thread that gRPC's
    server leaves behind. All that is to be kept or told has been by then. Should even this hang, as writing to a pipe
    does that nobody reads, the kernel ends it.
    """
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 2 * _END_S)
    closing = threading.Thread(target=server.close, name="closing", daemon=True)
    closing.start()
    with suppress(KeyboardInterrupt):  # once more: now
        closing.join(_END_S)
    if closing.is_alive():
        faulthandler.dump_traceback()
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
