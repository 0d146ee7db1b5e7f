"""Certificates: what is in them, and what cannot be one."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from channel import authority, other_authority
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from flower_edge.errors import ConfigError
from flower_edge.transport.certificates import fingerprint, issue, make_authority


def test_an_issued_certificate_names_hosts_and_is_vouched_for_by_its_authority_only() -> None:
    pair = issue(authority(), ["cloud.example", "192.0.2.7", "::1"], name="cloud")
    certificate = x509.load_pem_x509_certificate(pair.certificate_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["cloud.example"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7", "::1"]
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority().certificate_pem))
    with pytest.raises(Exception, match=r"^$"):
        certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(other_authority().certificate_pem))


def test_an_issued_certificate_cannot_issue_and_ends_with_its_authority() -> None:
    short = make_authority("short", days=1)
    certificate = x509.load_pem_x509_certificate(issue(short, ["a"], days=90).certificate_pem)
    signer = x509.load_pem_x509_certificate(short.certificate_pem)
    assert certificate.not_valid_after_utc <= signer.not_valid_after_utc
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert signer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_every_certificate_has_a_key_of_its_own_which_is_not_shown() -> None:
    one, two = issue(authority(), ["a"]), issue(authority(), ["a"])
    assert one.key_pem != two.key_pem
    assert fingerprint(one.certificate_pem) != fingerprint(two.certificate_pem)
    assert "PRIVATE" not in repr(one)
    assert serialization.load_pem_private_key(one.key_pem, None)


def test_a_fingerprint_is_sha_256_over_der() -> None:
    der = x509.load_pem_x509_certificate(authority().certificate_pem).public_bytes(serialization.Encoding.DER)
    assert fingerprint(authority().certificate_pem) == hashlib.sha256(der).hexdigest()


def test_what_cannot_be_a_certificate_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a PEM"):
        fingerprint(b"rubbish")
    for host in ("", " a", "ü.example"):
        with pytest.raises(ConfigError, match="host"):
            issue(authority(), [host])
    for days in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="above 0"):
            make_authority("a", days=days)
    with pytest.raises(ConfigError, match="time zone"):
        make_authority("a", now=datetime(2030, 1, 1))
    with pytest.raises(ConfigError, match="new authority"):
        issue(authority(), ["a"], now=datetime.now(UTC) + timedelta(days=90))
    with pytest.raises(ConfigError, match="not an authority"):
        issue(type(authority())(b"rubbish", b"rubbish"), ["a"])
    with pytest.raises(ConfigError, match="named ''"):
        make_authority("")
