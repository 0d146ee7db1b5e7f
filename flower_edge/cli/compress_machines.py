"""The machines of `flower-edge compress`: modelled, processes of this machine, or hosts that run already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ConfigError
from .compress_inputs import addresses_from, links_from
from .split_edge import read_pem, refuse_plain

if TYPE_CHECKING:
    from ..runtime.compression.fleets import Fleet

__all__ = ["DEPLOYMENT", "LINK", "MACHINES", "Where", "fleet_of"]

#: Where none are named.
MACHINES: Final = ("camera", "gateway", "server")
#: Of all connections, where nothing is said of them and the machines are no real ones.
LINK: Final = "10 Mbit/s,10 ms"
#: Typed for stages of this machine whose links are not slowed down.
UNSHAPED: Final = "none"
#: As of `flower-edge stage`.
DEPLOYMENT: Final = "pipeline"


@dataclass(frozen=True)
class Where:
    """What was typed of machines.

    Attributes:
        machines: names; none: those of `stages`, or `MACHINES`.
        links: as typed, see `links_from`; none: `LINK`, but for running stages, whose links are measured.
        serve: start stages on this machine.
        stages: as typed, see `addresses_from`; "" for none.
        certificate, key, authority, secret: files, for running stages.
        deployment: its name, as running stages were given it.
        models: factories of one's own that stages of this machine build from; see `flower-edge stage --models`.
    """

    machines: tuple[str, ...]
    links: Sequence[str]
    serve: bool
    stages: str
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    secret: Path | None = None
    deployment: str = DEPLOYMENT
    models: str = ""


def fleet_of(where: Where) -> Fleet:
    """The fleet; whoever gets it closes it.

    Raises:
        ConfigError: options that do not go together, or a file that cannot be read.
        FringeError: machines and links that do not go together.
    """
    if where.serve and where.stages:
        raise ConfigError("--serve starts stages here and --stages names running ones; give one of the two")
    own = {"--certificate": where.certificate, "--key": where.key, "--authority": where.authority}
    own["--secret"] = where.secret
    without = [option for option, file in own.items() if file is not None]
    if without and not where.stages:
        raise ConfigError(f"{without[0]} is for stages that run already; give --stages name=host:port,… with it")
    if where.deployment != DEPLOYMENT and not where.stages:
        raise ConfigError(f"--deployment {where.deployment} is of stages that run already; give --stages with it")
    if where.models and not where.serve:
        raise ConfigError(f"--models {where.models} is for stages that are started here; give --serve with it")
    if where.stages:
        return _running(where)
    machines = where.machines or MACHINES
    if where.serve and list(where.links) == [UNSHAPED]:
        links = None
    else:
        links = links_from(where.links or [LINK], len(machines) - 1)
    if where.serve:
        from ..runtime.compression.local_stages import LocalStages

        return LocalStages(machines, links, options=("--models", where.models) if where.models else ())
    from ..runtime.compression.fleets import Modelled

    return Modelled(machines, links or ())


def _running(where: Where) -> Fleet:
    from ..runtime.compression.fleets import RunningStages
    from ..transport.credentials import Credentials, Insecure, MutualTls, TrustServer, split_address
    from ..transport.grpc_transport import GrpcTransport

    addresses = addresses_from(where.stages, where.machines)
    if where.machines:
        addresses = {name: addresses[name] for name in where.machines}
    credentials: Credentials = Insecure()
    if (where.certificate is None) != (where.key is None) or (where.certificate and where.authority is None):
        raise ConfigError("--certificate, --key and --authority: give all three, or --authority alone")
    secret = None if where.secret is None else read_pem(where.secret).strip()
    for name, address in addresses.items() if where.authority is None else ():
        refuse_plain(f"--stages {name}={address}", split_address(address)[0], "--authority")
    if where.authority is not None:
        authority = read_pem(where.authority)
        credentials = TrustServer(authority)
        if where.certificate is not None and where.key is not None:
            credentials = MutualTls(read_pem(where.certificate), read_pem(where.key), authority)
    return RunningStages(
        addresses,
        GrpcTransport(credentials),
        secret,
        deployment=where.deployment,
        links=links_from(where.links, len(addresses) - 1),
    )
