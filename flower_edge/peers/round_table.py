"""`RoundTable`: with whom an agent exchanges letters in a round, how they prove who they are, and how fast.

The edge server writes one for each worker and round; the worker's mailbox hands it to the agent beside it. Values only:
nothing here opens anything.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import PeerError

__all__ = ["MOST_REVOKED", "TABLE_BYTES", "Card", "RoundTable"]

#: The longest table there is, as JSON.
TABLE_BYTES = 1 << 20
#: Fingerprints that one table can take back.
MOST_REVOKED = 4096

Index = Annotated[int, Field(ge=0, lt=1 << 32)]
RoundNumber = Annotated[int, Field(ge=0, lt=1 << 63)]
Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Card(BaseModel):
    """How to reach an agent, and how to know it again.

    Attributes:
        address: `host:port` under which neighbours dial it.
        fingerprint: SHA-256 over its TLS certificate (DER), hex.
        key: the Ed25519 key with which it signs, hex.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    address: Annotated[str, Field(min_length=3, max_length=255)]
    fingerprint: Hex64
    key: Hex64


class RoundTable(BaseModel):
    """A round as an agent has to know it.

    Attributes:
        run: name of the run; letters of others are refused.
        round: which round it is.
        node: index of this agent's own node; None for one that only relays.
        keep_from: letters of earlier rounds are refused.
        neighbours: the agent of each node that this one hears or is heard by, by index. Nobody else is let in.
        hears: whose letters of this round are taken.
        owed: letters of earlier rounds that are still taken: (round, sender).
        links: (sender, receiver) whose letters of this round this agent relays.
        rates_bps: the most to send to a node, bit/s; no limit where it is not named.
        relay: the agent to go through where a neighbour cannot be reached.
        direct_s: for how long reaching a neighbour directly is tried before.
        revoked: fingerprints of certificates that are not taken any more, whatever earlier rounds said.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    run: Annotated[str, Field(min_length=1, max_length=128)]
    round: RoundNumber
    node: Index | None = None
    keep_from: RoundNumber = 0
    neighbours: Annotated[dict[Index, Card], Field(max_length=4096)] = {}
    hears: Annotated[list[Index], Field(max_length=4096)] = []
    owed: Annotated[list[tuple[RoundNumber, Index]], Field(max_length=65536)] = []
    links: Annotated[list[tuple[Index, Index]], Field(max_length=65536)] = []
    rates_bps: Annotated[dict[Index, Annotated[float, Field(gt=0)]], Field(max_length=4096)] = {}
    relay: Card | None = None
    direct_s: Annotated[float, Field(gt=0, le=600)] = 2.0
    revoked: Annotated[list[Hex64], Field(max_length=MOST_REVOKED)] = []

    def to_json(self) -> str:
        """As text."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Inverse of `to_json`.

        Raises:
            PeerError: not one; says what of it.

        >>> RoundTable.from_json('{"run": "7", "round": 3, "hears": [1]}').hears
        [1]
        >>> RoundTable.from_json('{"run": "7", "round": -3}')
        Traceback (most recent call last):
        ...
        flower_edge.errors.PeerError: a round's table that cannot be used: round: Input should be greater than or \
equal to 0; install the same flower-edge version everywhere
        """
        if len(text) > TABLE_BYTES:
            raise PeerError(f"a round's table of {len(text)} bytes, the most is {TABLE_BYTES}; make smaller groups")
        try:
            return cls.model_validate_json(text)
        except (ValidationError, RecursionError) as error:
            what = "nested too deeply"
            if isinstance(error, ValidationError):
                first = error.errors(include_url=False, include_input=False)[0]
                what = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
            raise PeerError(
                f"a round's table that cannot be used: {what}; install the same flower-edge version everywhere"
            ) from None
