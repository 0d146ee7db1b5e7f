"""What verbs serve beside what they do: `/metrics` for Prometheus, and a page.

On this machine alone it is served as it is. Where other machines reach it a token is needed, and it goes over TLS with
the certificate that the verb has anyway.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from ..errors import ConfigError

if TYPE_CHECKING:
    from ..enrolment.server import EnrolmentServer, SeenDevice
    from ..telemetry import Metrics, MetricsServer
    from ..ui.dashboard.device_table import DeviceLine

__all__ = ["Address", "MetricsOption", "MetricsTokenOption", "address_of", "serve_beside", "serve_metrics"]

MetricsOption = Annotated[
    str,
    typer.Option(
        "--metrics", metavar="HOST:PORT", help="Serve /metrics for Prometheus, as 127.0.0.1:9464; port 0: a free one."
    ),
]
MetricsTokenOption = Annotated[
    str | None,
    typer.Option(
        "--metrics-token",
        metavar="TOKEN",
        help="That it asks for, 16 characters or more; needed, with TLS, where other machines reach it.",
        envvar="FLOWER_EDGE_METRICS_TOKEN",
    ),
]
_FREE: Final = ":0"


@dataclass(frozen=True)
class Address:
    """Where something is served, and what it asks for."""

    host: str
    port: int
    token: str | None = None

    @classmethod
    def of(cls, option: str, text: str, token: str | None) -> Address | None:
        """What was given; None where nothing was.

        Raises:
            ConfigError: no address, or one that other machines reach without a token.
        """
        from ..loopback import is_loopback

        if not text:
            return None
        host, port = address_of(text)
        if token is None and not is_loopback(host):
            raise ConfigError(
                f"{option} {text}: other machines reach it, and there is no token; add {option}-token "
                f"{secrets.token_urlsafe(18)}, or serve it on 127.0.0.1"
            )
        return cls(host, port, token)

    def pem(self, files: tuple[Path, Path]) -> tuple[Path, Path] | tuple[None, None]:
        """Certificate and key to serve it with; none on this machine alone."""
        from ..loopback import is_loopback

        return (None, None) if is_loopback(self.host) else files


def address_of(text: str) -> tuple[str, int]:
    """Host and port; 0 takes a free one.

    Raises:
        ConfigError: it is none.

    >>> address_of("127.0.0.1:0"), address_of("[::1]:9464")
    (('127.0.0.1', 0), ('::1', 9464))
    """
    from ..transport.credentials import split_address

    if text.endswith(_FREE):
        return split_address(f"{text.removesuffix(_FREE)}:1")[0], 0
    return split_address(text)


def serve_metrics(metrics: Metrics, at: Address, files: tuple[Path, Path]) -> MetricsServer:
    """Serve them until they are closed; `files` are the certificate and key of the verb."""
    from ..telemetry import MetricsServer

    certificate, key = at.pem(files)
    return MetricsServer(metrics, at.host, at.port, at.token, certificate=certificate, key=key)


def serve_beside(
    stack: ExitStack, server: EnrolmentServer, hosts: Sequence[str], *, page: Address | None, metrics: Address | None
) -> dict[str, str]:
    """Serve a page and metrics of a server of devices and of its runs; what to open, by what it is.

    Raises:
        ConfigError: a port that is taken, no NiceGUI.
    """
    told: dict[str, str] = {}
    server.superlink.runs.mkdir(parents=True, exist_ok=True)
    if metrics is not None:
        from ..enrolment.fleet_exporter import FleetExporter
        from ..monitoring.exporter import RunExporter

        exporter = FleetExporter(server.book, server.desk, server.superlink, server.requests)
        RunExporter(server.superlink.runs, exporter.metrics)
        numbers = stack.enter_context(serve_metrics(exporter.metrics, metrics, server.certificate()))
        server.renewed.append(numbers.renew)
        told["metrics"] = numbers.url
    if page is not None:
        from ..ui.dashboard import Dashboard

        certificate, key = page.pem(server.certificate())
        shown = Dashboard(
            server.superlink.runs, page.host, page.port, page.token, certificate=certificate, key=key, names=hosts,
            devices=_devices_of(server),
        )  # fmt: skip
        stack.enter_context(shown)
        server.renewed.append(shown.renew)
        # Its address, and not the token: lines of a service are kept in a journal that others may read.
        told["page"] = shown.url
    return told


def _devices_of(server: EnrolmentServer) -> Callable[[], Sequence[DeviceLine]]:
    from ..ui.dashboard.device_table import DeviceLine

    def line(seen: SeenDevice) -> DeviceLine:
        one = seen.device
        return DeviceLine(one.name, one.node_id, one.state, one.since_s, seen.seen_s_ago, seen.online)

    return lambda: [line(seen) for seen in server.seen()]
