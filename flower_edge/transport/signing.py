"""Signatures that outlive a connection: Ed25519 over a few bytes, so that what was sent can be audited later.

TLS proves who is at the other end while a connection lasts, and to nobody else. A signed header proves it to a relay,
to whom it was relayed, and to whoever looks into the files afterwards. Nothing here sends or stores.

Source: Ed25519 is RFC 8032.
"""

from __future__ import annotations

from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import ConfigError

__all__ = ["SIGNATURE_BYTES", "Signer", "signed_by"]

SIGNATURE_BYTES: Final = 64


class Signer:
    """A private key, which never leaves its host.

    Args:
        key: drawn by `fresh`, or read by `from_pem`.

    >>> signer = Signer.fresh()
    >>> signed_by(signer.public, signer.sign(b"header"), b"header"), signed_by(signer.public, bytes(64), b"header")
    (True, False)
    """

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        #: The public key, 64 hex digits; may be given to anybody.
        self.public: str = key.public_key().public_bytes_raw().hex()

    @classmethod
    def fresh(cls) -> Self:
        """With a new key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> Self:
        """From what `pem` gave.

        Raises:
            ConfigError: another kind of key, or none.
        """
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise ConfigError(f"not a signing key in PEM: {error}; remove the file, and a new one is drawn") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError("the signing key is not Ed25519; remove the file, and a new one is drawn")
        return cls(key)

    @property
    def pem(self) -> bytes:
        """PKCS 8, not encrypted: for a file that only its owner reads."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, data: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(data)


def signed_by(public: str, signature: bytes, data: bytes) -> bool:
    """Whether whoever has the private key to `public` (64 hex digits) has signed exactly these bytes; never raises."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
