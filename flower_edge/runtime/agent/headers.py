"""The header of a letter: what is offered before anything is sent, signed by who wrote the letter.

    signature, 64 bytes · JSON

The header goes with the letter wherever it goes, through a relay too, and stays in its file: whoever has the public key
can tell afterwards who sent what to whom in which round. Nothing here sends or stores.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import TransportRefused
from ...transport.signing import SIGNATURE_BYTES, Signer, signed_by

__all__ = ["HEADER_BYTES", "Answer", "LetterHeader", "SignedHeader", "proof", "proves"]

#: The longest header there is, signature included.
HEADER_BYTES: Final = 2048
_LETTER: Final = b"flower-edge letter 1\0"
_AGENT: Final = b"flower-edge agent 1\0"

Index = Annotated[int, Field(ge=0, lt=1 << 32)]


class LetterHeader(BaseModel):
    """What a letter is.

    Attributes:
        version: of all that agents say to each other.
        run, round: when it was posted.
        src, dst: index of the node that posted it, and of the one it is for.
        sequence: of two letters of a round the later counts.
        size: bytes of the letter.
        digest: SHA-256 over those, hex.
        processing_s: seconds the sender took until it was ready; None where nobody told.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    version: Literal[1] = 1
    run: Annotated[str, Field(min_length=1, max_length=128)]
    round: Annotated[int, Field(ge=0, lt=1 << 63)]
    src: Index
    dst: Index
    sequence: Index
    size: Annotated[int, Field(ge=1, lt=1 << 53)]
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    processing_s: Annotated[float, Field(ge=0)] | None = None


@dataclass(frozen=True)
class SignedHeader:
    """A header with its signature, as bytes that stay what they are.

    Attributes:
        header: read from `data`.
        data: its JSON as it was signed.
        signature: over that.
    """

    header: LetterHeader
    data: bytes
    signature: bytes

    @classmethod
    def make(cls, header: LetterHeader, signer: Signer) -> Self:
        """Sign one: the same header gives the same bytes."""
        data = header.model_dump_json().encode()
        return cls(header, data, signer.sign(_LETTER + data))

    def to_bytes(self) -> bytes:
        """To be sent, or stored."""
        return self.signature + self.data

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read one; its signature is not looked at yet.

        Raises:
            TransportRefused: `bad-header`.
        """
        if not SIGNATURE_BYTES < len(data) <= HEADER_BYTES:
            raise TransportRefused(f"a header of {len(data)} bytes, expected at most {HEADER_BYTES}", "bad-header")
        text = bytes(data[SIGNATURE_BYTES:])
        try:
            header = LetterHeader.model_validate_json(text)
        except (ValidationError, RecursionError) as error:
            raise TransportRefused(f"a header that cannot be read: {_first(error)}", "bad-header") from None
        return cls(header, text, bytes(data[:SIGNATURE_BYTES]))

    def check(self, key: str) -> None:
        """Pass, or say that the node with this key has not signed it.

        Raises:
            TransportRefused: `bad-signature`.
        """
        if not signed_by(key, self.signature, _LETTER + self.data):
            raise TransportRefused(f"a header that node {self.header.src} has not signed", "bad-signature")


class Answer(BaseModel):
    """What the receiver says to an offer (`go`, or why not), and to a letter that has come (`ok`, or why not).

    Attributes:
        code: one word for programs.
        why: for people.
        offset: with `go`, how much of the letter is there already.
        took_s: with `ok`, seconds from `go` until the letter was there, by the receiver's clock.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    code: Annotated[str, Field(min_length=1, max_length=32)]
    why: Annotated[str, Field(max_length=1000)] = ""
    offset: Annotated[int, Field(ge=0, lt=1 << 53)] = 0
    took_s: Annotated[float, Field(ge=0)] | None = None

    def to_bytes(self) -> bytes:
        """As JSON."""
        return self.model_dump_json().encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read one.

        Raises:
            TransportRefused: `bad-answer`.
        """
        try:
            if len(data) > 2 * HEADER_BYTES:
                raise TransportRefused(f"an answer of {len(data)} bytes", "bad-answer")
            return cls.model_validate_json(data)
        except (ValidationError, RecursionError) as error:
            raise TransportRefused(f"an answer that cannot be read: {_first(error)}", "bad-answer") from None


def proof(signer: Signer, run: str, nonce: str, fingerprint: str | None) -> bytes:
    """Shows whoever dialled that the agent with this key is there, on the very connection of that certificate."""
    return signer.sign(_proved(run, nonce, fingerprint))


def proves(key: str, signature: bytes, run: str, nonce: str, fingerprint: str) -> bool:
    """Whether it is that: `fingerprint` is the dialling end's own.

    Somebody in between, who has a certificate too and asks the real one, gets a proof for another fingerprint.
    """
    return signed_by(key, signature, _proved(run, nonce, fingerprint))


def _proved(run: str, nonce: str, fingerprint: str | None) -> bytes:
    return _AGENT + json.dumps([run, nonce, fingerprint]).encode()


def _first(error: Any) -> str:
    if not isinstance(error, ValidationError):
        return "nested too deeply"
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
