"""One call of a `ClientApp` in this process: whatever the client does, there is a reply.

Nothing here queues, sends or counts.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from logging import getLogger

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from ..errors import ConfigError
from .generators import seeded_call

__all__ = ["CLIENT_RAISED", "AppSource", "check_pickles", "reason_of", "run_client"]

log = getLogger(__name__)

#: Flower's error code for a client that raised.
CLIENT_RAISED = 2

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
        context: the node's; the client may change it.
        seed: of the global generators during the call; `None` leaves them alone.
        raise_errors: raise what the client raised instead of answering with an error.

    Returns:
        The reply, an error where the client raised or answered with something that is no reply; and the context.
    """
    try:
        client = app if isinstance(app, ClientApp) else app()
        if seed is None:
            reply = client(message, context)
        else:
            with seeded_call(seed):
                reply = client(message, context)
        if not isinstance(reply, Message):
            raise TypeError(f"the client returned {type(reply).__name__}, expected Message(content, reply_to=message)")
        if reply.metadata.reply_to_message_id != message.metadata.message_id:
            raise ValueError("the client returned a message that is not a reply, expected reply_to=message")
    except Exception as error:
        if raise_errors:
            raise
        log.warning("node %s raised %s", context.node_config.get("partition-id", context.node_id), reason_of(error))
        reply = Message(Error(code=CLIENT_RAISED, reason=reason_of(error)), reply_to=message)
    return reply, context
