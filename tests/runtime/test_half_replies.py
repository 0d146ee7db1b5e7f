"""A reply that is not whole is not passed on; when nobody can bring the rest, it is the error of a dead process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from warm_cases import add_run, app_fab, put, state_factory

from flower_edge.runtime.flower_private_node import Claim, claim_task, let_expire
from flower_edge.runtime.flower_private_reply import whole_reply


def half(folder: Path) -> tuple[Any, Claim, Callable[[], None]]:
    """A node's state with a reply of which one object is there; what brings the others."""
    state = state_factory().state()
    add_run(state, 7, app_fab(folder, "one"))
    put(state, 7, "answer")
    claim = claim_task(state)
    assert claim is not None
    assert state.activate_task(claim.task_id)
    assert not whole_reply(state)
    (message,) = state.get_messages_legacy(run_ids=[7], is_reply=False)
    reply = Message(RecordDict({"arrays": ArrayRecord({"w": Array(np.arange(9.0))})}), reply_to=message)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    state.store_message(reply)
    assert not whole_reply(state)  # it is told of before its objects are
    state.object_store.preregister(7, get_object_tree(reply))
    first, *others = get_all_nested_objects(reply).items()
    state.object_store.put(first[0], first[1].deflate())

    def bring() -> None:
        for name, each in others:
            state.object_store.put(name, each.deflate())

    return state, claim, bring


def test_a_reply_is_passed_on_when_all_of_it_is_there(tmp_path: Path) -> None:
    state, claim, bring = half(tmp_path)
    assert not whole_reply(state)
    bring()
    assert whole_reply(state)
    # The process that brought it may die now: its reply is there.
    assert not let_expire(state, claim)
    (reply,) = state.get_messages_legacy(is_reply=True)
    assert reply.has_content()


@pytest.mark.parametrize("noticed", [True, False], ids=["it ended", "it was silent for a minute"])
def test_a_reply_that_stays_half_is_an_error_and_the_next_message_is_taken(tmp_path: Path, noticed: bool) -> None:
    state, claim, _ = half(tmp_path)
    if noticed:
        let_expire(state, claim)
    else:
        with state.lock_task_store:
            state.task_token_store[claim.task_id].active_until = now() - timedelta(seconds=1)
    assert whole_reply(state)
    (reply,) = state.get_messages_legacy(is_reply=True)
    assert reply.error.code == 8
    state.delete_messages(message_ids=[reply.metadata.message_id, reply.metadata.reply_to_message_id])
    put(state, 7, "answer")
    assert claim_task(state) is not None
    assert not whole_reply(state)


def test_where_flower_has_moved_its_parts_every_reply_is_passed_on_as_flower_does() -> None:
    assert whole_reply(SimpleNamespace(get_messages_legacy=None))
