"""Serves a page in a process of its own: `python page_host.py EPOCHS [TOKEN]` prints where, and ends with its input.

More epochs of healing make an iteration last longer, so that somebody can press a button in the meantime.
"""

from __future__ import annotations

import sys

from page_cases import small_session

from flower_edge.ui import ControlPage

if __name__ == "__main__":
    token = sys.argv[2] if len(sys.argv) > 2 else None
    with small_session(epochs=int(sys.argv[1])) as session, ControlPage(session, port=0, token=token) as page:
        print(page.url, flush=True)
        sys.stdin.read()  # until whoever started it has enough
    print("ended", flush=True)
