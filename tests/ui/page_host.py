"""Serves a page in a process of its own: `python page_host.py [TOKEN]` prints where, and ends with its input.

The first iteration of a compression goes on until a line comes in, so that somebody can press a button in the meantime,
however long that takes.
"""

from __future__ import annotations

import sys
import threading

from page_cases import small_session

from flower_edge.ui import ControlPage


def serve_until_the_end_of_input(token: str | None) -> None:
    go_on = threading.Event()
    with small_session() as session, ControlPage(session, port=0, token=token) as page:

        def held(*_: object) -> None:
            if session.phase in ("running", "paused"):  # and not while it is prepared
                go_on.wait()

        session.task.model[1].register_forward_hook(held)  # type: ignore[operator]  # a sequence of layers
        print(page.url, flush=True)
        for _ in sys.stdin:
            go_on.set()
        go_on.set()


if __name__ == "__main__":
    serve_until_the_end_of_input(sys.argv[1] if len(sys.argv) > 1 else None)
    print("ended", flush=True)
