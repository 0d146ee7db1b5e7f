"""Who each end proves to be: values given to a transport. There is one channel, whatever they are.

    serving end                     dialling end
    ServerTls(certificate, key)     TrustServer(authority)      with a token in the hello
    MutualTls(…, allowed)           MutualTls(…)                the certificate says who dials
    Insecure()                      Insecure()                  on this machine only, unless told otherwise

Where no certificate says who dials, `accept` has to check a token; see `tokens`. Nothing here makes certificates or
opens anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from ..errors import ConfigError, TransportRefused
from ..loopback import is_loopback

__all__ = ["Credentials", "Insecure", "MutualTls", "ServerTls", "TrustServer", "split_address"]

#: Options of a gRPC channel.
Options = Sequence[tuple[str, Any]]


class Credentials:
    """What an end shows and whom it believes; which of them it is says which ends it fits."""

    def for_serving(self, host: str) -> Any:
        """gRPC's server credentials; None is plain text.

        Raises:
            ConfigError: these are not for serving, or not there.
        """
        raise ConfigError(f"{type(self).__name__} is for dialling; serve with ServerTls or MutualTls")

    def for_dialling(self, host: str) -> tuple[Any, Options]:
        """gRPC's channel credentials, None is plain text, and what they need of the channel's options.

        Raises:
            ConfigError: these are not for dialling, or not there.
        """
        raise ConfigError(f"{type(self).__name__} is for serving; dial with TrustServer or MutualTls")

    def admit(self, fingerprint: str | None) -> None:
        """Pass, or refuse a certificate by its fingerprint.

        Raises:
            TransportRefused: `not-allowed`.
        """
        del fingerprint  # all that TLS let in


@dataclass(frozen=True)
class Insecure(Credentials):
    """Plain text, and anybody: for tests and for one machine.

    Attributes:
        allow: also on other addresses than this machine's loopback, for a network that is protected otherwise.
    """

    allow: bool = False

    def for_serving(self, host: str) -> Any:
        self._expect_loopback(host, "serve")

    def for_dialling(self, host: str) -> tuple[Any, Options]:
        self._expect_loopback(host, "dial")
        return None, ()

    def _expect_loopback(self, host: str, verb: str) -> None:
        if not self.allow and not is_loopback(host):
            raise ConfigError(
                f"to {verb} {host!r} in plain text lets everybody on the way read and change models; use ServerTls and "
                "TrustServer, or Insecure(allow=True) on a network that is protected otherwise"
            )


@dataclass(frozen=True)
class ServerTls(Credentials):
    """The server proves who it is; whoever dials shows a token.

    Attributes:
        certificate_pem: with the names and addresses it is dialled under, and the chain up to the authority, if any.
        key_pem: that belongs to it.
    """

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)

    def for_serving(self, host: str) -> Any:
        return grpc.ssl_server_credentials([(self.key_pem, self.certificate_pem)])


@dataclass(frozen=True)
class TrustServer(Credentials):
    """Dial only servers this authority vouches for.

    Attributes:
        authority_pem: its certificate; no other authority is believed, the system's included.
        server_name: the name in the server's certificate, where that is not what is dialled; "" is what is dialled.
    """

    authority_pem: bytes
    server_name: str = ""

    def for_dialling(self, host: str) -> tuple[Any, Options]:
        return grpc.ssl_channel_credentials(_expected(self.authority_pem, "authority")), _named(self.server_name)


@dataclass(frozen=True)
class MutualTls(Credentials):
    """Both ends prove who they are; one value for serving and for dialling.

    Attributes:
        certificate_pem: this end's.
        key_pem: that belongs to it.
        authority_pem: who vouches for the other end.
        allowed: fingerprints (see `certificates.fingerprint`) of those who may dial this server; None: all the
            authority vouches for. For a list that changes from round to round look at `Peer.fingerprint` in `accept`.
        server_name: as in `TrustServer`.
    """

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    authority_pem: bytes
    allowed: frozenset[str] | None = None
    server_name: str = ""

    def for_serving(self, host: str) -> Any:
        return grpc.ssl_server_credentials(
            [(self.key_pem, self.certificate_pem)],
            root_certificates=_expected(self.authority_pem, "authority"),
            require_client_auth=True,
        )

    def for_dialling(self, host: str) -> tuple[Any, Options]:
        credentials = grpc.ssl_channel_credentials(
            _expected(self.authority_pem, "authority"), self.key_pem, self.certificate_pem
        )
        return credentials, _named(self.server_name)

    def admit(self, fingerprint: str | None) -> None:
        if self.allowed is not None and fingerprint not in self.allowed:
            raise TransportRefused(f"certificate {str(fingerprint)[:16]}… may not dial this server", "not-allowed")


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port`; IPv6 in brackets.

    Raises:
        ConfigError: not that.

    >>> split_address("[::1]:9000")
    ('::1', 9000)
    """
    host, _, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"address {address!r}: expected host:port, as 'cloud.example:9000' or '[::1]:9000'")
    return host, int(port)


def _named(server_name: str) -> Options:
    return (("grpc.ssl_target_name_override", server_name),) if server_name else ()


def _expected(pem: bytes, what: str) -> bytes:
    # gRPC takes nothing, or rubbish, for "believe whom the system believes".
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise ConfigError(f"{what}_pem is no PEM certificate; read the file that make_authority's was written to")
    return pem
