"""What is said over the bridge: an order or a question with a short head, and what comes back. Bytes to values.

A head is JSON of at most 64 KB, a body a tree of records in safetensors: nothing is unpickled, and what cannot be read
is refused by name. Nothing here sends, or knows what an edge does.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, Literal, Self

from flwr.app import RecordDict
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import ConfigError, ProtocolError
from ...store.tree import tree_from_bytes, tree_to_bytes
from ...wire import records_from_tree, records_to_tree

__all__ = ["FRAME_BYTES", "Answer", "Ask", "Status", "body_of", "content_of", "digest_of"]

#: The longest frame taken unless told otherwise: a model, in its serialised form.
FRAME_BYTES: Final = 1 << 31
_HEAD_BYTES: Final = 1 << 16


class _Head(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def to_bytes(self) -> bytes:
        """As JSON."""
        return self.model_dump_json().encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """From JSON that came in.

        Raises:
            ProtocolError: too long, no JSON, an unknown key, or a value that cannot be.
        """
        if len(data) > _HEAD_BYTES:
            raise ProtocolError(f"a head of {len(data)} bytes came over the bridge, at most {_HEAD_BYTES} are read")
        try:
            return cls.model_validate_json(data)
        except (ValidationError, RecursionError) as error:
            what = "nested too deeply"
            if isinstance(error, ValidationError):
                first = error.errors(include_url=False, include_input=False)[0]
                what = f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}"
            raise ProtocolError(
                f"a head came over the bridge that cannot be read ({what}); install the same flower-edge version for "
                "the centre's app and the edge's"
            ) from None


class Ask(_Head):
    """What is wanted of the edge.

    Attributes:
        what: `handle` the message whose content follows as a body; `status`: say how things are.
        run: name of the centre's run, by which an edge knows whether it goes on or begins anew.
        kind: type of the centre's message, `train` or `evaluate`.
        within_s: seconds after which nobody waits for the answer.
    """

    what: Literal["handle", "status"]
    run: Annotated[str, Field(max_length=256)] = ""
    kind: Annotated[str, Field(max_length=64)] = ""
    within_s: Annotated[float, Field(gt=0, lt=1e9)] = 5.0


class Answer(_Head):
    """What became of it; a body follows where `ok` and a message was to be handled.

    Attributes:
        ok: whether it was done.
        reason: why not.
        again: whether it was done before, and this is the answer of then.
    """

    ok: bool
    reason: Annotated[str, Field(max_length=4096)] = ""
    again: bool = False


class Status(_Head):
    """How things are at an edge.

    Attributes:
        cell: its name; "" until the centre has said it.
        run: name of the centre's run.
        state: what it does.
        cloud_round, version: of the last order.
        handled: messages of the centre since it began to listen.
        alone: cloud rounds trained without the centre since its last message.
        since_s: seconds since the centre's last message, or since it began to listen.
        terminals: how many are on its grid.
        pid: process that answers.
        flower_run: Flower's number of its run.
        trouble: what keeps it from answering its centre, as a full disk; "" where nothing does.
    """

    cell: str = ""
    run: str = ""
    state: Literal["starting", "waiting", "training", "evaluating", "alone"] = "starting"
    cloud_round: int = 0
    version: int = 0
    handled: int = 0
    alone: int = 0
    since_s: float = 0.0
    terminals: int = 0
    pid: int = 0
    flower_run: int = 0
    trouble: Annotated[str, Field(max_length=4096)] = ""


def body_of(content: RecordDict) -> bytes:
    """Records as bytes; the same records give the same bytes."""
    try:
        return tree_to_bytes(records_to_tree(content))
    except ConfigError as error:
        raise ProtocolError(f"this content cannot be sent over the bridge: {error}") from None


def content_of(body: bytes) -> RecordDict:
    """Inverse of `body_of`.

    Raises:
        ProtocolError: no such bytes.
    """
    try:
        tree: Any = tree_from_bytes(body, source="what came over the bridge")
        return records_from_tree(tree)
    except Exception as error:
        # Whatever a reader of bytes that came in raises, it is one thing: they are not what they say they are.
        raise ProtocolError(f"{type(error).__name__}: {error}") from None


def digest_of(ask: Ask, body: bytes) -> str:
    """By what an edge knows that it was asked the same before: all but how long somebody waits."""
    digest = hashlib.sha256(json.dumps([ask.what, ask.run, ask.kind]).encode())
    digest.update(body)
    return digest.hexdigest()
