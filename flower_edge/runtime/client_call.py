"""One call of a `ClientApp` in this process: whatever the client does, there is a reply.

A call that fails leaves no trace in the node's memory, as in Flower's simulation: the `Context` stays what it was.

Nothing here queues, sends or counts.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from logging import getLogger

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from ..errors import ConfigError
from ..telemetry import log_context
from ..wire import copy_content
from .call_log import about_call
from .error_codes import CLIENT_RAISED
from .generators import seeded_call
from .node_state import folder_of

__all__ = ["AppSource", "check_pickles", "reason_of", "run_client"]

log = getLogger(__name__)

AppSource = ClientApp | Callable[[], ClientApp]


def reason_of(error: BaseException) -> str:
    """What an error reply says of an exception."""
    return f"{type(error).__name__}: {error}"


def check_pickles(app: AppSource) -> None:
    """Refuse an app that cannot be handed to another process.

    Raises:
        ConfigError: says what does not pickle, and what to pass instead.
    """
    try:
        pickle.dumps(app)
    except Exception as error:
        raise ConfigError(
            f"pool = 'processes' needs an app that pickles ({reason_of(error)}); "
            "pass a function at the top of a module that makes the ClientApp"
        ) from error


def run_client(
    app: AppSource, message: Message, context: Context, seed: int | None, raise_errors: bool = False
) -> tuple[Message, Context]:
    """One call of the client, as a SuperNode would make it. Module level: the process pool pickles it by name.

    Args:
        app: the `ClientApp`, or a function that makes one.
        message: handed to the client as it is.
        context: the node's; not changed, the client gets a copy over the same bytes.
        seed: of the global generators during the call; `None` leaves them alone.
        raise_errors: raise what the client raised instead of answering with an error.

    Returns:
        The reply, an error where the client raised or answered with something that is no reply; and the context
        that the client has left, after an error the one from before.

    A client that calls `sys.exit` has raised like any other; what else is no `Exception` (Ctrl-C) goes through.
    """
    working = _own(context)
    folder = folder_of(context)
    known = frozenset() if folder is None else folder.names()
    try:
        client = app if isinstance(app, ClientApp) else app()
        with log_context(**about_call(message, context)), nullcontext() if seed is None else seeded_call(seed):
            reply = client(message, working)
        if not isinstance(reply, Message):
            raise TypeError(f"the client returned {type(reply).__name__}, expected Message(content, reply_to=message)")
        if reply.metadata.reply_to_message_id != message.metadata.message_id:
            raise ValueError("the client returned a message that is not a reply, expected reply_to=message")
    except (Exception, SystemExit) as error:
        if folder is not None:
            # The context does not know of a name first saved in this call: its files would say that it was lost.
            folder.remove(folder.names() - known)
        if raise_errors:
            raise
        log.warning("node %s raised %s", context.node_config.get("partition-id", context.node_id), reason_of(error))
        return Message(Error(code=CLIENT_RAISED, reason=reason_of(error)), reply_to=message), context
    return reply, working


def _own(context: Context) -> Context:
    own = copy.copy(context)
    own.state = copy_content(context.state)
    own.node_config, own.run_config = dict(context.node_config), dict(context.run_config)
    return own
