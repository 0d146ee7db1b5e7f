"""A SuperNode's state with its Runtime API and no SuperLink, and messages put into it, for tests of executors."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.cli.build import build_fab_from_disk
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory
from flwr.supernode.start_client_internal import _insert_message

from flower_edge.runtime.flower_private import borrowed_identity
from flower_edge.runtime.warm.pool import ExecutorPool

PROJECT = """
[project]
name = "warm-case"
version = "1.0.0"
dependencies = []

[tool.flwr.app]
publisher = "tests"

[tool.flwr.app.components]
serverapp = "same_name.server_app:app"
clientapp = "same_name.client_app:app"
"""

CLIENT = """
import os, time
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from .helper import WHO

app = ClientApp()
calls = []

@app.query()
def answer(msg, context):
    what = str(msg.content["config"]["what"])
    calls.append(what)
    seen = int(context.state["seen"]["n"]) + 1 if "seen" in context.state else 1
    context.state["seen"] = ConfigRecord({"n": seen})
    if what == "raise":
        raise ValueError("asked for")
    if what == "exit":
        raise SystemExit(3)
    if what == "hang":
        time.sleep(3600)
    if what == "grow":
        calls.append(bytearray(80_000_000))
    told = {"who": WHO, "pid": os.getpid(), "calls": len(calls), "seen": seen, "file": __file__}
    return Message(RecordDict({"told": ConfigRecord(told)}), reply_to=msg)
"""


def state_factory(node_id: int = 1) -> Any:
    """Makes the state of a SuperNode with this id, the same one every time."""
    factory = NodeStateFactory(ObjectStoreFactory())
    factory.state().set_node_id(node_id)
    return factory


def app_fab(folder: Path, who: str, client: str = CLIENT) -> Fab:
    """An app that calls its modules as all others here, and answers `who` it is."""
    package = folder / who / "same_name"
    package.mkdir(parents=True)
    (folder / who / "pyproject.toml").write_text(PROJECT, "utf-8")
    (package / "__init__.py").write_text("", "utf-8")
    (package / "helper.py").write_text(f"WHO = {who!r}\n", "utf-8")
    (package / "client_app.py").write_text(client, "utf-8")
    (package / "server_app.py").write_text("from flwr.serverapp import ServerApp\napp = ServerApp()\n", "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a library, by Flower's use of it
        content = build_fab_from_disk(folder / who)
    return Fab("", content, {})


def add_run(state: Any, run_id: int, fab: Fab, node_config: Any = None, run_config: Any = None) -> None:
    """A run of an app, as a SuperNode learns of it with the first message."""
    run = Run.create_empty(run_id)
    run.fab_id, run.fab_version, run.series_id = "tests/warm-case", "1.0.0", run_id
    run.fab_hash = state.store_fab(fab)
    configs = {"node_config": node_config or {}, "run_config": run_config or {}}
    context = Context(run_id, state.get_node_id(), state=RecordDict(), series_id=run_id, **configs)
    state.set_run_series_context(run_id, context)
    state.store_run(run)


def put(state: Any, run_id: int, what: str) -> None:
    """A message for a run: its objects, and a task that waits to be claimed."""
    with borrowed_identity():
        TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = 1, run_id, 1
        message = Message(RecordDict({"config": ConfigRecord({"what": what, "at": time.monotonic()})}), 1, "query")
    _insert_message(message, state, state.object_store)
    run = state.get_run(run_id)
    assert state.create_task(task_type=TaskType.CLIENT_APP, run_id=run_id, fab_hash=run.fab_hash) is not None


def answer_of(state: Any, pool: ExecutorPool, seconds: float = 60.0) -> dict[str, Any]:
    """What came back for the one message that is being worked on, waited for as a SuperNode does.

    The app's words, or `error` and `code`.
    """
    latest_s = time.monotonic() + seconds
    while not (replies := state.get_messages_legacy(is_reply=True)):
        assert time.monotonic() < latest_s, "no reply"
        pool.look(0.05)
    (reply,) = replies
    if reply.has_error():
        answer: dict[str, Any] = {"error": reply.error.reason, "code": reply.error.code}
    else:
        store, whole = state.object_store, reply.metadata.message_id
        wanted = [tree.object_id for tree in iterate_object_tree(store.get_object_tree(whole))]
        while not all((contents := {name: store.get(name) for name in wanted}).values()):
            pool.look(0.01)
        answer = dict(inflate_object_from_contents(whole, contents).content["told"])
    state.delete_messages(message_ids=[reply.metadata.message_id, reply.metadata.reply_to_message_id])
    return answer


def ask(state: Any, pool: ExecutorPool, run_id: int, what: str = "answer") -> dict[str, Any]:
    """Put a message, have it worked on, and take the answer."""
    put(state, run_id, what)
    pool.stored(state)
    return answer_of(state, pool)


@contextmanager
def runtime_api(factory: Any) -> Iterator[str]:
    """The Runtime API of a SuperNode on a free port of the loopback address, in a thread."""
    config = uvicorn.Config(create_app(state_factory=factory), host="127.0.0.1", port=0, log_level="warning", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
