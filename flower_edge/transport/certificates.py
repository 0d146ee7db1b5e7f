"""Certificates for a federation that has no authority of its own: one is made, and it vouches for hosts and nodes.

Keys are ECDSA P-256 and everything is PEM bytes, as gRPC and files take them. For a federation that lives as long as a
run, or in one's own network. There is no revocation: certificates are given for a short time, and servers keep lists of
fingerprints. Nothing here sends or stores.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import ConfigError

__all__ = ["KeyPair", "fingerprint", "issue", "make_authority"]

#: Devices' clocks are not exact; a certificate is good from this long before it was made.
_SKEW = timedelta(minutes=5)


@dataclass(frozen=True)
class KeyPair:
    """A certificate and the key that belongs to it.

    Attributes:
        certificate_pem: may be given to anybody.
        key_pem: PKCS 8, not encrypted; may be given to nobody, and is not shown.
    """

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


def make_authority(name: str, *, days: float = 30.0, now: datetime | None = None) -> KeyPair:
    """An authority that vouches for what `issue` makes with it, and for no other authority.

    `now` is when it is good from, None: now.

    Raises:
        ConfigError: no such name or time.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    builder = _builder(subject, subject, key.public_key(), days, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return _pair(builder.sign(key, hashes.SHA256()), key)


def issue(
    authority: KeyPair, hosts: Sequence[str], *, name: str = "", days: float = 7.0, now: datetime | None = None
) -> KeyPair:
    """A certificate for a server or a node, good for both ends of TLS.

    Args:
        authority: who vouches.
        hosts: DNS names and IP addresses under which it is dialled; may be empty for one that only dials.
        name: for people; None of the checks looks at it. Empty: the first host.
        days: how long it is good, from `now`; never longer than its authority.
        now: None: now.

    Raises:
        ConfigError: no such name, host or time.
    """
    try:
        signer = x509.load_pem_x509_certificate(authority.certificate_pem)
        signing_key = serialization.load_pem_private_key(authority.key_pem, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"not an authority, as make_authority makes them: {error}") from None
    if not isinstance(signing_key, ec.EllipticCurvePrivateKey):
        raise ConfigError("the authority's key is not ECDSA; make one with make_authority")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name or next(iter(hosts), "") or "node")
    builder = _builder(subject, signer.subject, key.public_key(), days, now, signer.not_valid_after_utc)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    builder = builder.add_extension(
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
    )
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False
    )
    if hosts:
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    return _pair(builder.sign(signing_key, hashes.SHA256()), key)


def fingerprint(certificate_pem: bytes) -> str:
    """SHA-256 over a certificate (DER), 64 hex digits: what servers' lists are of.

    Raises:
        ConfigError: not a certificate.
    """
    try:
        return x509.load_pem_x509_certificate(certificate_pem).fingerprint(hashes.SHA256()).hex()
    except ValueError as error:
        raise ConfigError(f"not a PEM certificate: {error}") from None


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    days: float,
    now: datetime | None,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    if not 0.0 < days <= 36_500.0:
        raise ConfigError(f"a certificate for {days!r} days: expected a number above 0")
    start = datetime.now(UTC) if now is None else now
    if start.tzinfo is None:
        raise ConfigError(f"now = {start}: say in which time zone, as datetime.now(UTC)")
    end = start + timedelta(days=days)
    if latest is not None:
        end = min(end, latest)
    if end <= start - _SKEW:
        raise ConfigError(f"the authority expires at {latest}, before this certificate begins; make a new authority")
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(start - _SKEW).not_valid_after(end)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _name(name: str) -> x509.Name:
    try:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    except ValueError as error:
        raise ConfigError(f"a certificate named {name!r}: {error}") from None


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        if not host or host != host.strip():
            raise ValueError("it is empty or has spaces around it")
        return x509.DNSName(host)
    except ValueError as error:
        raise ConfigError(f"a certificate for host {host!r}: {error}; give a DNS name or an IP address") from None


def _pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    return KeyPair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
