"""What devices and the server say to each other when a device joins, asks, or leaves: JSON, checked whole."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["JoinReply", "JoinRequest", "LeaveReply", "LeaveRequest", "StatusReply", "StatusRequest", "device_name"]

#: Also part of a DNS name, and of a file's name.
NAME: Final = r"^[a-z0-9]([a-z0-9-]{0,46}[a-z0-9])?$"


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Proved(_Told):
    """A request by the owner of a key: what `signature` covers is everything else."""

    public_key: Annotated[str, Field(max_length=1024)]
    challenge: Annotated[str, Field(max_length=2048)]
    signature: Annotated[str, Field(max_length=512)] = ""

    def fields(self) -> dict[str, Any]:
        """What was signed."""
        return self.model_dump(exclude={"signature"})


class JoinRequest(_Proved):
    """Let me in; the token may be missing where the server has let this key in before."""

    name: Annotated[str, Field(pattern=NAME)]
    token: Annotated[str, Field(max_length=256)] | None = None
    certificate_request: Annotated[str, Field(max_length=8192)]


class JoinReply(_Told):
    """You are in.

    Attributes:
        name: what the device is called here; with a number behind it where another has its name.
        node_id: Flower's, a number of 64 bits.
        certificate: for the peer channel, for the key that was proved.
        peer_authority: who vouches for the other devices' certificates.
    """

    name: str
    node_id: int
    certificate: str
    peer_authority: str


class StatusRequest(_Proved):
    """How do you see me?"""


class StatusReply(_Told):
    """How the server sees a device: `online` where the SuperLink has taken a request of its key in the last seconds."""

    name: str
    node_id: int | None
    online: bool
    seen_s_ago: float | None


class LeaveRequest(_Proved):
    """Forget me."""


class LeaveReply(_Told):
    """You are out, and this key is not taken again."""

    name: str
    node_id: int | None


def device_name(name: str) -> str:
    """A name that can be used, as close to this one as can be.

    >>> device_name("Raspberry_Pi.local")
    'raspberry-pi-local'
    >>> device_name("!")
    'device'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:48].strip("-") or "device"
