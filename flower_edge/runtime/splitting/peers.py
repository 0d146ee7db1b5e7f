"""What devices of split learning and the server say to merge units among the devices: values, shards and their mean.

Every array of the units is divided into as many slices as there are devices; all j-th slices are the shard of the j-th.

    post     each device posts to each other one that one's shard of its own arrays
    add      each device adds up what it has of its shard, and posts the mean to all others; the server gets it, too
    gather   each device puts the means together, and keeps them for the next round

So a device sends and receives less than two models, however many devices there are. Shards are added in the order of
the devices' numbers by the operations of Flower's FedAvg: the mean is the server's bit for bit. Nothing here sends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from flwr.app import ConfigRecord
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...codecs.identity import Identity
from ...errors import ProtocolError

__all__ = [
    "LETTER_RECORD",
    "MEAN_RECORD",
    "PEER_RECORD",
    "PeerAnswer",
    "PeerOrder",
    "digest_of",
    "mean_form",
    "mean_of",
    "packed",
    "shard",
    "together",
    "unpacked",
]

#: ConfigRecord with a device's `PeerAnswer`.
PEER_RECORD: Final = "split-peers"
#: Bytes of a relayed packet: in a reply, with the number of whom it is for; in a message, of whom it is from.
LETTER_RECORD: Final = "split-letter-"
#: Bytes of the packet with the mean of a device's shard, for the server.
MEAN_RECORD: Final = "split-mean"
_KEY: Final = "flower-edge.split-peers/1"

Arrays = Mapping[str, npt.NDArray[Any]]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Number = Annotated[int, Field(ge=0, lt=1 << 32)]
Weight = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class _Values(BaseModel):
    """Plain values as text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    def text(self) -> str:
        """As JSON; what has its default is left out."""
        return self.model_dump_json(exclude_defaults=True)

    @classmethod
    def of(cls, text: Any, *, sender: str) -> Self:
        """Inverse of `text`.

        Raises:
            ProtocolError: something else.
        """
        try:
            return cls.model_validate_json(text if isinstance(text, str) else "")
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "it"
            raise ProtocolError(
                f"{sender} sent a {cls.__name__} in which {where} = {str(first['input'])[:80]!r}: {first['msg']}; "
                "install the same flower-edge version on both sides"
            ) from None


class PeerOrder(_Values):
    """What a device is to do for a merge; in `SplitOrder.peers`.

    Attributes:
        act: `train`: it trains, and in the end holds its arrays of these units back. `post`, `add`, `gather`: see this
            module. `give`: the server averages after all: what was held back is sent.
        cut, tail: so many first and last units are merged among devices.
        keeps_optimiser: the state of these units' optimiser goes to the server; else it ends with the merge.
        kept: digest of the merged arrays that it has kept and begins from; empty: all it begins from is in the message.
        ring: numbers of all devices that take part, in order.
        weights: of each, as FedAvg weighs.
        post: number of the packets; those that are collected have the one before.
        mailbox: config of the mailbox.
        digests: of everybody's mean, as the server has it.

    >>> PeerOrder.of(PeerOrder(act="post", ring=(0, 2)).text(), sender="the server").ring
    (0, 2)
    """

    act: Literal["train", "post", "add", "gather", "give"] = "train"
    cut: Count = 0
    tail: Count = 0
    keeps_optimiser: bool = False
    kept: str = ""
    ring: tuple[Number, ...] = ()
    weights: tuple[Weight, ...] = ()
    post: Count = 0
    mailbox: dict[str, bool | int | float | str] = {}
    digests: tuple[str, ...] = ()

    @property
    def holds_back(self) -> bool:
        """Whether arrays of some units stay at the device when it is done."""
        return self.act == "train" and self.cut + self.tail > 0


class PeerAnswer(_Values):
    """How it went at a device.

    Attributes:
        posted_bits: of packets, once per receiver.
        missing: numbers of those whose packet did not come, or was not what it should be.
        digest: of the merged arrays that it has kept; empty for none.
    """

    posted_bits: Count = 0
    missing: tuple[Number, ...] = ()
    digest: str = ""

    def write(self) -> ConfigRecord:
        """As a record."""
        return ConfigRecord({_KEY: self.text()})

    @classmethod
    def read(cls, record: Mapping[str, Any] | None, *, sender: str) -> Self:
        """Inverse of `write`.

        Raises:
            ProtocolError: something else.
        """
        return cls.of({} if record is None else record.get(_KEY), sender=sender)


def shard(arrays: Arrays, place: int, places: int) -> dict[str, npt.NDArray[Any]]:
    """One of so many parts of all arrays, flat, by their names.

    >>> [shard({"w": np.arange(5)}, place, 2)["w"].tolist() for place in range(2)]
    [[0, 1], [2, 3, 4]]
    """
    return {
        name: array.reshape(-1)[array.size * place // places : array.size * (place + 1) // places]
        for name, array in arrays.items()
    }


def together(shards: Iterable[Arrays], like: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Inverse of `shard`, of all in order; shapes as of `like`."""
    parts = list(shards)
    return {name: np.concatenate([part[name] for part in parts]).reshape(array.shape) for name, array in like.items()}


def mean_of(shards: Iterable[tuple[Arrays, float]]) -> dict[str, npt.NDArray[Any]]:
    """Weighted mean, in the order in which they come, with the operations, and so the dtypes, of Flower's FedAvg.

    Args:
        shards: each with its weight; the weights add up to 1.

    >>> mean_of([({"n": np.array([1])}, 0.25), ({"n": np.array([3])}, 0.75)])
    {'n': array([2.5])}
    """
    total: dict[str, npt.NDArray[Any]] = {}
    for arrays, weight in shards:
        for name, array in arrays.items():
            if name in total:
                total[name] += array * weight
            else:
                total[name] = array * weight
    return total


def mean_form(arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Arrays of the shapes and dtypes that their mean has."""
    return mean_of([(arrays, 1.0)])


def packed(arrays: Arrays) -> bytes:
    """The bytes of all arrays, one after the other.

    Raises:
        CodecError: a dtype whose bytes do not mean the same everywhere.
    """
    codec = Identity()
    return codec.encode(arrays, codec.init(arrays))[0]


def unpacked(data: bytes, like: Arrays) -> dict[str, npt.NDArray[Any]]:
    """Inverse of `packed`; names, shapes and dtypes as of `like`.

    Raises:
        CodecError: not so many bytes.
    """
    codec = Identity()
    return codec.decode(data, codec.init(like))[0]


def digest_of(arrays: Arrays) -> str:
    """What tells some arrays from others."""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].dtype} {arrays[name].shape} ".encode())
        found.update(np.ascontiguousarray(arrays[name]).tobytes())
    return found.hexdigest()
