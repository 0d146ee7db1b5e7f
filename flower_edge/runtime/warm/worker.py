"""The executor process: works on the messages of one app, one after the other, until whoever started it is gone.

    python -P -m flower_edge.runtime.warm.worker FD HOST:PORT

FD is one end of a socket pair. A line {"token": ...} comes for each message, a line {"done": ...} goes back. That the
other end closes is the sign to end, also in the middle of a message: nobody would take the reply.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import socket
import sys
import threading
from pathlib import Path

from ..flower_private_node import MessageRunner

__all__ = ["main", "resident_bytes"]


def resident_bytes() -> int:
    """Bytes of memory this process holds now; where the system does not tell, the most it has held."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def main(arguments: list[str]) -> None:
    """Work until the other end is closed."""
    told = socket.socket(fileno=int(arguments[0]))
    # An app that starts programs must not hand the socket on: the end of this process would go unnoticed.
    told.set_inheritable(False)
    tokens: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(told, tokens), name="told", daemon=True).start()
    runner = MessageRunner(arguments[1])
    _say(told, ready=True)
    while True:
        runner.serve(tokens.get())
        _say(told, done=True)


def _listen(told: socket.socket, tokens: queue.SimpleQueue[str]) -> None:
    with told.makefile("r", encoding="utf-8") as lines:
        for line in lines:
            tokens.put(json.loads(line)["token"])
    # Not sys.exit: the main thread may be in the app.
    os._exit(0)


def _say(told: socket.socket, **words: bool) -> None:
    try:
        told.sendall((json.dumps({**words, "rss_bytes": resident_bytes()}) + "\n").encode())
    except OSError:
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
