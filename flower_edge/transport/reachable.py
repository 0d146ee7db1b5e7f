"""`Reachable`: where a service listens, by which name others dial it, and how they know that it is the right one.

By default with an authority and a certificate of its own making, which live as long as the service and in memory
alone: whoever is told the authority believes that one service and no other. Nothing here listens or sends.
"""

from __future__ import annotations

from ..errors import ConfigError
from .certificates import issue, make_authority
from .credentials import Credentials, Insecure, ServerTls, split_address
from .grpc_transport import GrpcTransport
from .transport import Limits

__all__ = ["Reachable"]


class Reachable:
    """A place to be dialled at.

    Args:
        name: of the authority of its own making.
        host, port: where the service listens; port 0 takes a free one.
        address: under which others reach it: a host name or an IP address, with `:port` where it is not the one it
            listens on; None: `host`.
        credentials: `ServerTls` with a certificate for that address, together with `authority`; `Insecure()`: no TLS;
            None makes them.
        authority: PEM of who vouches for the certificate.
        limits: of the channels.
        days: how long a certificate of its own making is good for.

    Raises:
        ConfigError: credentials without an authority, or the other way round; an address that nobody can dial.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        *,
        address: str | None = None,
        credentials: ServerTls | Insecure | None = None,
        authority: bytes | None = None,
        limits: Limits | None = None,
        days: float = 30.0,
    ) -> None:
        outer = host if address is None else address
        if outer in ("0.0.0.0", "::", ""):
            raise ConfigError(
                f"devices cannot dial {outer!r}; give the name they know this host by: address='cloud.example'"
            )
        if (authority is None) == isinstance(credentials, ServerTls):
            raise ConfigError(
                "credentials= and authority= belong together: ServerTls(certificate, key) and the PEM of who vouches "
                "for it; leave both out for ones of its own making"
            )
        self.host, self.port = host, port
        self.limits = limits or Limits()
        self._name, self._days = name, days
        self._outer_host, self._outer_port = _split(outer)
        self._credentials, self._authority = credentials, authority

    def transport(self) -> tuple[GrpcTransport, bytes]:
        """To serve with, and the PEM of who vouches for it: what to tell those who shall dial; empty without TLS."""
        credentials: Credentials | None = self._credentials
        trusted = self._authority or b""
        if credentials is None:
            own = make_authority(self._name, days=self._days)
            pair = issue(own, [self._outer_host], days=self._days)
            credentials, trusted = ServerTls(pair.certificate_pem, pair.key_pem), own.certificate_pem
        return GrpcTransport(credentials, self.limits), trusted

    def address(self, port: int) -> str:
        """What others are told to dial; `port` is the one that is listened on.

        >>> Reachable("demo", "0.0.0.0", 0, address="edge.example").address(9100)
        'edge.example:9100'
        >>> Reachable("demo", "::1", 0).address(9100)
        '[::1]:9100'
        """
        host = f"[{self._outer_host}]" if ":" in self._outer_host else self._outer_host
        return f"{host}:{self._outer_port or port}"


def _split(address: str) -> tuple[str, int | None]:
    """Host and port; no port is None.

    >>> _split("cloud.example:9000"), _split("10.0.0.1"), _split("::1")
    (('cloud.example', 9000), ('10.0.0.1', None), ('::1', None))
    """
    if address.count(":") == 1 or address.startswith("["):
        return split_address(address)
    return address, None
