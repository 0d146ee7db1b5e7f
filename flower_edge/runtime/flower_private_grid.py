"""Replies from Flower's own Grid without waiting for those that are only half uploaded. Feature-checked.

In flwr 1.41 a SuperLink hands out a reply when its node has announced it, and `HttpGrid.pull_messages` then waits for
its contents: as long as the upload takes, for three minutes where the node's link was cut in it, whatever deadline the
round has, and with every other reply behind it. Here a reply that was announced is kept, asked for again with each
look, and handed over once all of it is there.

Touched are names in the module of `HttpGrid` and its `_runtime_client`; `pull_reason` says whether they are there.
Where they are not, Flower's own `pull_messages` stays. Nothing here sends a message, or knows a deadline.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from logging import getLogger
from typing import Any, Final

from flwr.app import Message
from flwr.serverapp import Grid

from .error_codes import MESSAGE_UNAVAILABLE

__all__ = ["pull_reason", "take_whole_replies"]

log = getLogger(__name__)

_HTTP_GRID: Final = "flwr.superlink.grid.http_grid"
#: What must be found in that module.
_NEEDED: Final = (
    "HttpGrid._runtime_client", "HttpGrid.pull_messages", "PullAppMessagesRequest", "ConfirmMessageReceivedRequest",
    "iterate_object_tree", "make_pull_object_fn_protobuf", "pull_objects", "inflate_object_from_contents",
    "ObjectPullError", "make_message", "Metadata", "Error", "SYSTEM_MESSAGE_TYPE", "now", "httpx.HTTPStatusError",
)  # fmt: skip
#: Seconds after which what is there of a reply that nobody has asked for is let go; it can be had again.
_KEPT_S: Final = 30.0
#: How many such replies are known beyond that; of older ones a SuperLink says that they are not there.
_KNOWN: Final = 1000
_told: set[str] = set()


def pull_reason(module: Any) -> str:
    """Why replies of this module's `HttpGrid` cannot be taken so, in words; empty if they can."""
    for path in _NEEDED:
        found = module
        for part in path.split("."):
            found = getattr(found, part, None)
        if found is None:
            return f"this flwr has no {_HTTP_GRID}.{path}"
    if "max_tries_per_object" not in inspect.signature(module.pull_objects).parameters:
        return "its pull_objects takes no max_tries_per_object"
    return ""


def take_whole_replies(grid: Grid) -> bool:
    """Let `pull_messages` of Flower's own Grid give what is whole, and wait for nothing.

    Returns:
        Whether it does so now; a Grid of another kind is left as it is.
    """
    module: Any = sys.modules.get(_HTTP_GRID)  # who has such a Grid has imported it
    if module is None or type(grid) is not module.HttpGrid:
        return False
    if "pull_messages" in vars(grid):
        return True  # done before, by another proxy around it
    if reason := pull_reason(module):
        if reason not in _told:
            log.warning("%s; a terminal that is cut off in the middle of its reply holds up the round", reason)
            _told.add(reason)
        return False
    grid.pull_messages = _WholeReplies(grid, module).pull  # type: ignore[method-assign]
    return True


@dataclass
class _Announced:
    """A reply of which some may still be on its way."""

    proto: Any
    object_ids: list[str]
    asked_s: float
    contents: dict[str, bytes] = field(default_factory=dict)
    gone: str = ""


class _WholeReplies:
    def __init__(self, grid: Any, module: Any) -> None:
        self._grid, self._module = grid, module
        #: By the id of the message that is replied to.
        self._announced: dict[str, _Announced] = {}

    def pull(self, message_ids: Iterable[str]) -> list[Message]:
        """As `Grid.pull_messages`."""
        wanted = list(dict.fromkeys(message_ids))
        self._let_go(set(wanted))
        if new := [message_id for message_id in wanted if message_id not in self._announced]:
            self._ask(new)
        # One that answers nothing is for this process itself: Flower hands it out whoever asks.
        mine = [key for key, one in list(self._announced.items()) if not one.proto.metadata.reply_to_message_id]
        whole: list[Message] = []
        for key in [*wanted, *mine]:
            reply = self._announced.get(key)
            if reply is not None and (message := self._whole(reply)) is not None:
                self._announced.pop(key, None)
                whole.append(message)
        return whole

    def _let_go(self, asked: set[str]) -> None:
        """A terminal that is cut off in each round must not leave a part of a model here each time."""
        now_s = time.monotonic()
        for key, reply in list(self._announced.items()):
            if key in asked or not reply.proto.metadata.reply_to_message_id:
                reply.asked_s = now_s
            elif now_s - reply.asked_s >= _KEPT_S:
                reply.contents.clear()  # a SuperLink has them until it is told that all of it was received
        others = sorted((reply.asked_s, key) for key, reply in list(self._announced.items()) if key not in asked)
        for _, key in others[: max(0, len(others) - _KNOWN)]:
            self._announced.pop(key, None)

    def _ask(self, message_ids: list[str]) -> None:
        request = self._module.PullAppMessagesRequest(message_ids=message_ids)
        try:
            answer = self._grid._runtime_client.PullMessages(request)
        except self._module.httpx.HTTPStatusError as error:
            if error.response.status_code != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                raise
            log.error("%d replies are too many to ask for at once; ask for fewer", len(message_ids))
            return
        for proto, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            key = proto.metadata.reply_to_message_id or proto.metadata.message_id
            object_ids = [one.object_id for one in self._module.iterate_object_tree(tree)]
            self._announced[key] = _Announced(proto, object_ids, time.monotonic())

    def _whole(self, reply: _Announced) -> Message | None:
        """The message, once all of it is there; an error reply where it never will be."""
        module, grid, message_id = self._module, self._grid, reply.proto.metadata.message_id
        pull_now = module.make_pull_object_fn_protobuf(
            pull_object_protobuf=grid._runtime_client.PullObject, node=grid.node, run_id=grid.run.run_id
        )

        def pull(object_id: str) -> bytes:
            if (content := reply.contents.get(object_id)) is None:
                try:
                    content = reply.contents[object_id] = pull_now(object_id)
                except module.ObjectPullError as error:
                    reply.gone = str(error)  # not late, but away: whoever uploaded it has taken too long
                    raise
            return content

        try:
            contents = module.pull_objects(reply.object_ids, pull, max_tries_per_object=1)
        except module.ObjectPullError:
            return self._lost(reply) if reply.gone else None
        confirmed = module.ConfirmMessageReceivedRequest(
            node=grid.node, run_id=grid.run.run_id, message_object_id=message_id
        )
        grid._runtime_client.ConfirmMessageReceived(confirmed)
        message: Message = module.inflate_object_from_contents(message_id, contents)
        message.metadata.__dict__["_message_id"] = message_id
        return message

    def _lost(self, reply: _Announced) -> Message:
        """What Flower makes of a reply whose upload was not finished in its time."""
        module, node_id = self._module, self._grid.node.node_id
        metadata = module.Metadata(
            run_id=self._grid.run.run_id, message_id="", src_node_id=node_id, dst_node_id=node_id,
            message_type=module.SYSTEM_MESSAGE_TYPE, group_id="", ttl=0,
            reply_to_message_id=reply.proto.metadata.reply_to_message_id, created_at=module.now().timestamp(),
        )  # fmt: skip
        reason = f"the reply was not uploaded in time: {reply.gone}"
        lost: Message = module.make_message(metadata=metadata, error=module.Error(MESSAGE_UNAVAILABLE, reason))
        return lost
