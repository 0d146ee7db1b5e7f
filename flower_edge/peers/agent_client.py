"""`AgentClient`: a program's way to the agent on its host, over the agent's Unix socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ..errors import PeerError
from .agent_frames import read_exactly, read_head, send_head

__all__ = ["AGENT_VARIABLE", "AgentClient"]

#: Environment variable that names the agent's socket, where a node's config does not (`agent`).
AGENT_VARIABLE: Final = "FLOWER_EDGE_AGENT"
#: An agent answers from memory or a local file; what it may wait for besides is said with each call.
_ANSWER_S: Final = 30.0


class AgentClient:
    """An open connection to an agent. A context manager that closes it; not for several threads at once.

    Args:
        path: the agent's socket; empty: what `FLOWER_EDGE_AGENT` says.

    Raises:
        PeerError: no agent is there; says how to start one.
    """

    def __init__(self, path: str | Path = "") -> None:
        self.path = str(path) or os.environ.get(AGENT_VARIABLE, "")
        if not self.path:
            raise PeerError(
                "no agent is known here: start `flower-edge agent` beside the SuperNode, and name its socket in the "
                f"node's config (agent='…/agent.sock') or in {AGENT_VARIABLE}; or choose the mailbox 'relay'"
            )
        if not hasattr(socket, "AF_UNIX"):
            raise PeerError("agents need Unix sockets, which this system lacks; choose the mailbox 'relay'")
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._channel.settimeout(_ANSWER_S)
        try:
            self._channel.connect(self.path)
        except OSError as error:
            self._channel.close()
            raise PeerError(
                f"no agent answers at {self.path} ({error.strerror or error}); start `flower-edge agent` on this host "
                "as the same user, or choose the mailbox 'relay'"
            ) from None

    def call(
        self, head: Mapping[str, Any], body: bytes = b"", *, wait_s: float = 0.0, most_bytes: int = 0
    ) -> tuple[dict[str, Any], bytes]:
        """Ask something.

        Args:
            head: what, as plain JSON values.
            body: bytes that belong to it.
            wait_s: for how long the agent was asked to wait.
            most_bytes: the most an answer may bring besides its JSON.

        Raises:
            PeerError: the agent refused, or is gone.
        """
        self._channel.settimeout(_ANSWER_S + wait_s)
        try:
            send_head(self._channel, head, len(body))
            if body:
                self._channel.sendall(body)
            answer = read_head(self._channel)
            if answer is None:
                raise ConnectionError("it has closed the connection")
            if answer["body_bytes"] > most_bytes:
                raise PeerError(
                    f"the agent sends {answer['body_bytes']} bytes where at most {most_bytes} were asked for"
                )
            came = read_exactly(self._channel, answer["body_bytes"])
        except OSError as error:
            self.close()
            raise PeerError(
                f"the agent at {self.path} went away while it was asked for {head.get('do')!r} ({error}); it loses "
                "nothing it has acknowledged: start it again"
            ) from None
        except PeerError:
            self.close()
            raise
        if (why := answer.get("error")) is not None:
            raise PeerError(f"the agent refuses {head.get('do')!r}: {why}")
        return answer, came

    def status(self) -> dict[str, Any]:
        """What the agent is and has done; `card` is how neighbours reach and know it."""
        return self.call({"do": "status"})[0]

    def close(self) -> None:
        """Safe to call twice."""
        with suppress(OSError):
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
