"""A node's key: made on the device, kept there, and proved to others by signatures. Nothing here sends.

ECDSA P-384 in OpenSSH's format, which is what Flower's SuperNode reads. The signature covers what is asked, of whom,
and a challenge of the server, so that no request can be played again; no clock of the device is needed for it.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ..errors import EnrolmentError, EnrolmentRefused

__all__ = ["NodeKey", "check_proof", "flower_header", "read_public_key"]

_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_MOST_CHARACTERS: Final = 1024


class NodeKey:
    """A device's key. Made by `NodeKey.at`."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def at(cls, path: Path) -> NodeKey:
        """The key in a file; made there, readable by its owner only, where there is none.

        Raises:
            EnrolmentError: the file cannot be written, or holds something else.
        """
        try:
            if not path.exists():
                _write_new(path)
            key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise EnrolmentError(f"the key cannot be kept in {path} ({error.strerror or error})") from None
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise EnrolmentError(f"{path} is no key of this program ({error}); move it away, then join anew") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise EnrolmentError(f"{path} is a {type(key).__name__}, not ECDSA; move it away, then join anew")
        return cls(key)

    @property
    def public(self) -> str:
        """The public key on one line, as OpenSSH writes it."""
        formats = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        return self._key.public_key().public_bytes(*formats).decode("ascii")

    def prove(self, verb: str, fields: Mapping[str, Any]) -> str:
        """A signature over what is asked, in Base64."""
        return base64.b64encode(self._key.sign(_said(verb, fields), ec.ECDSA(hashes.SHA256()))).decode("ascii")

    def certificate_request(self, name: str) -> str:
        """A request for a certificate for this key, in PEM."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(self._key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode("ascii")

    def pem(self) -> bytes:
        """The key as gRPC takes it: PKCS 8, not encrypted. For a file beside this one, and for nobody else."""
        formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return self._key.private_bytes(*formats, serialization.NoEncryption())


def read_public_key(line: str) -> str:
    """A public key as everybody here writes it: OpenSSH, one line, no comment.

    Raises:
        EnrolmentRefused: `bad-key`: not a key that Flower takes.
    """
    try:
        if len(line) > _MOST_CHARACTERS:
            raise ValueError(f"{len(line)} characters long")
        key = serialization.load_ssh_public_key(line.encode("ascii"))
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in _CURVES:
            raise ValueError("not ECDSA on a NIST curve")
    except (ValueError, UnsupportedAlgorithm) as error:
        raise EnrolmentRefused(f"no public key that Flower takes: {error}", "bad-key") from None
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode("ascii")


def check_proof(public_key: str, verb: str, fields: Mapping[str, Any], signature: str) -> None:
    """Pass where the owner of the key asked for just this.

    Raises:
        EnrolmentRefused: `bad-proof`.
    """
    key = serialization.load_ssh_public_key(public_key.encode("ascii"))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    try:
        key.verify(base64.b64decode(signature, validate=True), _said(verb, fields), ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError):
        raise EnrolmentRefused("the request was not signed with the key it names", "bad-proof") from None


def flower_header(public_key: str) -> str:
    """The key as a SuperNode writes it into its requests: Base64 over PEM."""
    key = serialization.load_ssh_public_key(public_key.encode("ascii"))
    assert isinstance(key, ec.EllipticCurvePublicKey)
    formats = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return base64.b64encode(key.public_bytes(*formats)).decode("ascii")


def _said(verb: str, fields: Mapping[str, Any]) -> bytes:
    told = json.dumps(dict(fields), sort_keys=True, separators=(",", ":"))
    return f"flower-edge enrolment 1\0{verb}\0{told}".encode()


def _write_new(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    # Whole or not at all: a device may lose its power here.
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
