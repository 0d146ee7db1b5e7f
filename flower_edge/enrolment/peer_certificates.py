"""Certificates for devices' own keys: the device sends a request, its key stays where it is. And how long any is good.

They are for channels between devices and vouched for by an authority of their own. The authority of the public port
vouches for no device: else a device could pass for the server. Nothing here sends or stores.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ..errors import EnrolmentError, EnrolmentRefused
from ..transport.certificates import KeyPair

__all__ = ["certify", "validity"]

#: Devices' clocks are not exact.
_SKEW: Final = timedelta(minutes=5)


def certify(
    authority: KeyPair, request_pem: str, *, public_key: str, name: str, address: str = "", days: float = 365.0
) -> bytes:
    """A certificate, in PEM, for both ends of TLS.

    Args:
        authority: who vouches, as `make_authority` makes it.
        request_pem: the device's request. Only its key is taken from it; what else it asks for is not granted.
        public_key: the key that was proved, as OpenSSH writes it; the request has to be for this one.
        name: the device's; it becomes the certificate's name, and a DNS name.
        address: the IP address the device was seen at; empty for none.
        days: how long it is good; never longer than its authority.

    Raises:
        EnrolmentRefused: `bad-request`: not a request for that key.
    """
    try:
        request = x509.load_pem_x509_csr(request_pem.encode("ascii"))
        key = request.public_key()
        formats = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        if not request.is_signature_valid or key.public_bytes(*formats).decode("ascii") != public_key:
            raise ValueError("it is for another key")
    except ValueError as error:
        raise EnrolmentRefused(f"no request for a certificate of this device: {error}", "bad-request") from None
    assert isinstance(key, ec.EllipticCurvePublicKey)
    signer = x509.load_pem_x509_certificate(authority.certificate_pem)
    signing_key = serialization.load_pem_private_key(authority.key_pem, password=None)
    assert isinstance(signing_key, ec.EllipticCurvePrivateKey)
    start = datetime.now(UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    if address:
        names.append(x509.IPAddress(ipaddress.ip_address(address.partition("%")[0])))
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(signer.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _SKEW)
        .not_valid_after(min(start + timedelta(days=days), signer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
    )
    return made.sign(signing_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def validity(certificate_pem: bytes) -> tuple[datetime, datetime]:
    """From when to when a certificate is good.

    Raises:
        EnrolmentError: it is none.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate_pem)
    except ValueError as error:
        raise EnrolmentError(f"not a PEM certificate: {error}") from None
    return found.not_valid_before_utc, found.not_valid_after_utc
