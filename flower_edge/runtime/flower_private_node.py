"""What a warm node touches of Flower's private SuperNode, all of it, and the check that it is still there.

In flwr 1.41 a SuperNode sleeps 3 s between two looks for a message and half a second between two for a reply, and every
message starts a `flwr-clientapp`. Nothing of that can be set. So two modules are driven from inside, in processes that
do nothing else:

- `flwr.supernode.start_client_internal`: its `time.sleep`, its `_pull_and_store_message` and its `_push_messages`, to
  look sooner, to be told that a message is there, and to pass on no half replies (`flower_private_reply`). The
  SuperNode itself is Flower's, started by its own command.
- `flwr.supernode.runtime.run_clientapp`: what a `flwr-clientapp` does with one message. The function itself is
  called, once per message, with four names in it exchanged: it must not end the process, not take its signals, and
  neither unpack nor import again what this process has already.
- the SuperNode's state: tasks are claimed from it as Flower's SuperExec does, and the claim of an executor that died is
  let expire at once, so that Flower's own error reply is made then and not a minute later.

`warm_reason` says whether all of it is there. Where it is not, nobody calls the rest, and the stock SuperNode runs.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Final

from .flower_private_reply import give_up_half_replies, whole_reply

__all__ = [
    "CLIENT_APP",
    "Claim",
    "MessageRunner",
    "claim_task",
    "let_expire",
    "run_supernode",
    "start_stock_task",
    "warm_reason",
]

_SUPERNODE: Final = "flwr.supernode.start_client_internal"
_CLIENTAPP: Final = "flwr.supernode.runtime.run_clientapp"
_HANDLERS: Final = "flwr.supernode.servicer.runtime.runtime_handlers"
_STATE: Final = "flwr.supernode.nodestate.in_memory_nodestate"
#: What must be found, by module. Of a name with a dot the rest is an attribute.
_NEEDED: Final = {
    _SUPERNODE: ("time.sleep", "_pull_and_store_message", "_push_messages", "start_client_internal"),
    _CLIENTAPP: (
        "run_clientapp", "flwr_exit", "register_signal_handlers", "install_from_fab", "get_load_client_app_fn",
    ),
    _HANDLERS: ("acquire_task",),
    _STATE: ("InMemoryNodeState.get_tasks", "InMemoryNodeState.get_messages_legacy"),
    "flwr.supernode.cli": ("flower_supernode",),
    "flwr.supercore.exit": ("add_exit_handler",),
    "flwr.supercore.constant": ("TaskType.CLIENT_APP",),
    "flwr.supercore.date": ("now",),
    "flwr.supercore.superexec.executor": ("ExecutionSpec", "SubprocessExecutor.launch"),
    "flwr.proto.runtime_pb2": ("AcquireTaskRequest",),
}  # fmt: skip
#: What Flower calls a task for a ClientApp.
CLIENT_APP: Final = "flwr-clientapp"
#: The sleeps of the SuperNode's loop that are shortened. Others would be shortened, too, and are not known to bear it.
_SLEEPS: Final = {"time.sleep(3)", "time.sleep(0.5)"}


@dataclass(frozen=True)
class Claim:
    """A message that waits to be worked on, claimed.

    Attributes:
        task_id: Flower's number for it.
        run_id: of the run it belongs to.
        fab_hash: SHA-256 of the app that is to work on it, in hex.
        token: what the executor shows to be given the message; a secret.
        kind: what it is for, in Flower's words; `CLIENT_APP` is the one for a ClientApp.
    """

    task_id: int
    run_id: int
    fab_hash: str
    token: str
    kind: str


def warm_reason() -> str:
    """Why this Flower cannot be driven warm, in words; empty if it can."""
    for name, wanted in _NEEDED.items():
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            return f"this flwr has no {name} ({error})"
        for path in wanted:
            found: Any = module
            for part in path.split("."):
                found = getattr(found, part, None)
            if found is None:
                return f"this flwr has no {name}.{path}"
    return _changed_loop() or _changed_call()


def _changed_loop() -> str:
    try:
        source = inspect.getsource(importlib.import_module(_SUPERNODE))
    except OSError as error:
        return f"the source of {_SUPERNODE} cannot be read ({error})"
    used = set(re.findall(r"\btime\.\w+\([^)]*\)", source))
    if used != _SLEEPS:
        return f"the SuperNode's loop calls {sorted(used)}; known are {sorted(_SLEEPS)}"
    return ""


def _changed_call() -> str:
    known = {"runtime_api_address", "token", "insecure", "certificates", "parent_pid", "runtime_dependency_install"}
    has = set(inspect.signature(importlib.import_module(_CLIENTAPP).run_clientapp).parameters)
    return "" if has == known else f"run_clientapp takes {sorted(has)}; known are {sorted(known)}"


def run_supernode(
    arguments: list[str],
    *,
    stored: Callable[[Any], None],
    nap: Callable[[bool], None],
    closing: Callable[[], None],
) -> None:
    """Be a SuperNode, in this process and in the main thread, until it ends; returns only by `SystemExit`.

    Args:
        arguments: as of `flower-supernode`.
        stored: told the SuperNode's state after a message was put there, before anybody looks for the reply.
        nap: sleeps instead of Flower; told whether a message is being worked on.
        closing: called when the process ends in good order, by a signal or by Flower.
    """
    loop = importlib.import_module(_SUPERNODE)
    stock_pull, stock_push = loop._pull_and_store_message, loop._push_messages

    def pull(*positional: Any, **named: Any) -> Any:
        run_id = stock_pull(*positional, **named)
        if run_id is not None:
            stored(named["state"] if "state" in named else positional[0])
        return run_id

    def push(*positional: Any, **named: Any) -> None:
        while not whole_reply(named["state"] if "state" in named else positional[0]):
            nap(True)
        stock_push(*positional, **named)

    loop._pull_and_store_message = pull  # type: ignore[attr-defined]
    loop._push_messages = push  # type: ignore[attr-defined]
    loop.time = SimpleNamespace(sleep=lambda seconds: nap(seconds < 1))  # type: ignore[attr-defined]
    importlib.import_module("flwr.supercore.exit").add_exit_handler(closing)
    # The command reads its arguments from here, and Flower tells from the name which program it is.
    sys.argv = ["flower-supernode", *arguments]
    importlib.import_module("flwr.supernode.cli").flower_supernode()


def claim_task(state: Any) -> Claim | None:
    """Claim the oldest task that waits in a SuperNode's state; `None` where none does."""
    kinds = importlib.import_module("flwr.supercore.constant").TaskType
    request = importlib.import_module("flwr.proto.runtime_pb2").AcquireTaskRequest(supported_task_types=list(kinds))
    answer = importlib.import_module(_HANDLERS).acquire_task(request, state)
    if not (answer.HasField("task") and answer.token):
        return None
    task = answer.task
    return Claim(task.task_id, task.run_id, task.fab_hash, answer.token, task.type)


def let_expire(state: Any, claim: Claim) -> bool:
    """Whoever worked on a claimed task is gone: do now what Flower does when no heartbeat came for a minute.

    A task whose executor had begun ends in Flower's error reply "ClientApp stopped responding" (code 8); one that had
    not begun waits again, to be claimed anew.

    Returns:
        Whether it waits again.
    """
    # An executor that died between taking the task and taking the message: no reply would ever be made for a message
    # that nobody took.
    begun = _status(state, claim) == "running"
    if begun:
        state.get_messages_legacy(run_ids=[claim.run_id], is_reply=False)
        # One that died while it brought its reply.
        give_up_half_replies(state, claim.run_id)
    with state.lock_task_store:
        record = state.task_token_store.get(claim.task_id)
        if record is not None:
            record.active_until = importlib.import_module("flwr.supercore.date").now() - timedelta(seconds=1)
    return _status(state, claim) == "pending"


def task_over(state: Any, claim: Claim) -> bool:
    """Whether Flower waits for nothing more of a claimed task."""
    return _status(state, claim) in ("finished", "gone")


def _status(state: Any, claim: Claim) -> str:
    # Asking for tasks is what makes Flower look for claims that have expired.
    tasks = state.get_tasks(task_ids=[claim.task_id])
    return str(tasks[0].status.status).lower() if tasks else "gone"


def start_stock_task(address: str, claim: Claim) -> None:
    """Have Flower's own program work on a claimed task, in a process of its own, as its SuperExec starts it."""
    executor = importlib.import_module("flwr.supercore.superexec.executor")
    kinds = importlib.import_module("flwr.supercore.constant").TaskType
    executor.SubprocessExecutor().launch(
        executor.ExecutionSpec(
            task_type=kinds(claim.kind),
            runtime_api_address=address,
            token=claim.token,
            insecure=True,
            root_certificates_path=None,
            runtime_dependency_install=False,
            parent_pid=os.getpid(),
            suppress_output=False,
            task_id=claim.task_id,
            fab_hash=claim.fab_hash or None,
        )
    )


class MessageRunner:
    """Works on messages one after the other in this process, as `flwr-clientapp` does on one.

    The app is imported once. A process works for one app only: two apps may call their modules the same.

    Args:
        address: HOST:PORT of the SuperNode's Runtime API on this machine.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._module = importlib.import_module(_CLIENTAPP)
        self._exits: list[Callable[[], None]] = []
        self._installed: set[bytes] = set()
        self._apps: dict[tuple[str, ...], Any] = {}
        self._stock_install = self._module.install_from_fab
        self._stock_loader = self._module.get_load_client_app_fn
        self._module.flwr_exit = self._exit  # type: ignore[attr-defined]
        self._module.register_signal_handlers = self._register  # type: ignore[attr-defined]
        self._module.install_from_fab = self._install  # type: ignore[attr-defined]
        self._module.get_load_client_app_fn = self._loader  # type: ignore[attr-defined]

    def serve(self, token: str) -> None:
        """Work on one message to the end: the reply is with the SuperNode, and so is the node's state.

        An exception of the app becomes an error reply. What ends a process (`SystemExit`) is not caught.
        """
        self._exits = []
        self._module.run_clientapp(runtime_api_address=self._address, token=token, insecure=True)

    def _exit(self, *positional: Any, **named: Any) -> None:
        # Where a flwr-clientapp ends: it hands back the state and stops its heartbeat on the way out.
        del positional, named
        for handler in reversed(self._exits):
            handler()

    def _register(self, *positional: Any, **named: Any) -> None:
        del positional
        self._exits = list(named.get("exit_handlers") or [])

    def _install(self, content: bytes, *positional: Any, **named: Any) -> Any:
        digest = hashlib.sha256(content).digest()
        if digest not in self._installed:
            self._stock_install(content, *positional, **named)
            self._installed.add(digest)

    def _loader(self, *positional: Any, **named: Any) -> Callable[..., Any]:
        load = self._stock_loader(*positional, **named)

        def load_once(*which: str) -> Any:
            if which not in self._apps:
                self._apps[which] = load(*which)
            return self._apps[which]

        return load_once
