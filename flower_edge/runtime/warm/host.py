"""The process of a warm node: Flower's SuperNode in its main thread, its executors as children.

    python -P -m flower_edge.runtime.warm.host SETTINGS-JSON|stock PORT ARGUMENTS-OF-FLOWER-SUPERNODE...

Where this Flower cannot be driven so, it becomes the stock `flower-supernode`, and says why.
"""

from __future__ import annotations

import os
import sys
import time
from logging import getLogger
from pathlib import Path
from typing import Any, Final, NoReturn

from ..flower_private_node import run_supernode, warm_reason
from ..flower_private_upload import wait_for_uploads
from .pool import ExecutorPool
from .settings import WarmSettings

__all__ = ["HOST", "main"]

log = getLogger("flwr.flower-edge")

#: The Runtime API is for the node's own executors and for nobody else.
HOST: Final = "127.0.0.1"
#: While a message is worked on. Its end is told at once; this is for what Flower stores before that.
_WORKING_S: Final = 0.05


def main(arguments: list[str]) -> None:
    """Be the node; returns only by `SystemExit`."""
    port, given = int(arguments[1]), arguments[2:]
    # Flower starts its programs by name.
    scripts = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join(filter(None, [scripts, os.environ.get("PATH", "")]))
    given += ["--host", HOST, "--port", str(port)]
    if arguments[0] == "stock":
        _stock(given)
    settings = WarmSettings.from_json(arguments[0])
    if reason := warm_reason():
        print(f"flower-edge node: {reason}; the stock flower-supernode runs instead", file=sys.stderr, flush=True)
        _stock(given)
    wait_for_uploads()
    pool = ExecutorPool(f"{HOST}:{port}", settings)
    last_s = time.monotonic()

    def stored(state: Any) -> None:
        nonlocal last_s
        last_s = time.monotonic()
        pool.stored(state)

    def nap(working: bool) -> None:
        nonlocal last_s
        if working:
            last_s = time.monotonic()
            pool.look(_WORKING_S)
        else:
            pool.look(settings.poll(time.monotonic() - last_s))

    try:
        run_supernode(["--isolation", "process", *given], stored=stored, nap=nap, closing=pool.close)
    finally:
        pool.close()


def _stock(arguments: list[str]) -> NoReturn:
    program = Path(sys.executable).parent / "flower-supernode"
    sys.stdout.flush()
    os.execv(program, [str(program), *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
