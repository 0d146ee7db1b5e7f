"""A terminal that moves: its SuperNode ends at one edge and begins at another, with the same key and the same memory.

A file says where it is to be attached: `HOST:PORT` in its first line, and, if the edge has another authority, the path
of a PEM file in its second. Whoever knows where the terminal is writes it anew. How often the terminal has attached
itself is kept beside the file and told to the edge, so that a centre knows which of two edges had it last.

What it remembers moves with it, because it is on its own disk: `NodeState` by `node-key` or `partition-id` and run
name. Nothing here speaks with an edge.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...errors import ConfigError
from ...store.atomic import write_bytes

__all__ = ["Attachment", "read_attachment", "stay_attached"]

_LOOK_S: Final = 0.2
#: From SIGTERM to SIGKILL: the node says goodbye to its SuperLink in between.
_GRACE_S: Final = 20.0
_LEAST_S, _MOST_S = 1.0, 30.0
#: A node that lived for so long was well.
_WELL_S: Final = 60.0


@dataclass(frozen=True)
class Attachment:
    """Where a terminal is to be attached.

    Attributes:
        superlink: HOST:PORT.
        authority: PEM file that vouches for it; "": the one the terminal was given.
    """

    superlink: str
    authority: str = ""


def read_attachment(file: Path) -> Attachment | None:
    """What the file says; `None` where there is none, or it is empty: then the terminal is nowhere.

    Raises:
        ConfigError: it says something else.
    """
    try:
        lines = file.read_text("utf-8").split("\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--attach {file}: cannot be read ({error}); expected HOST:PORT in its first line") from None
    superlink, authority = lines[0].strip(), (lines[1].strip() if len(lines) > 1 else "")
    if not superlink:
        return None
    host, _, port = superlink.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--attach {file} says {superlink!r}; expected HOST:PORT in its first line, as edge-1:9092")
    return Attachment(superlink, authority)


def stay_attached(
    file: Path,
    command: Callable[[Attachment, int], list[str]],
    ended: Callable[[], bool],
    on_event: Callable[[str], None] = lambda words: None,
) -> None:
    """Keep a node at whichever SuperLink the file names, until `ended`.

    Args:
        file: see above. While it cannot be read the terminal stays where it is.
        command: makes the node's command line from where it is to be, and how often it has attached itself before and
            with this.
        ended: whether to end.
        on_event: told what happens, in words.
    """
    node: subprocess.Popen[bytes] | None = None
    now: Attachment | None = None
    began_s = due_s = wait_s = 0.0
    if not file.exists():
        on_event(f"waits until {file} names a SuperLink")
    try:
        while not ended():
            try:
                wanted = read_attachment(file)
            except ConfigError as error:
                if node is None:
                    raise
                on_event(f"{error}; it stays at {now.superlink if now else 'none'}")
                wanted = now
            if wanted != now:
                if node is not None and now is not None:
                    on_event(f"leaves {now.superlink}")
                    _end(node)
                node, now, due_s, wait_s = None, wanted, 0.0, 0.0
            if node is not None and (code := node.poll()) is not None:
                well = time.monotonic() - began_s > _WELL_S
                wait_s = _LEAST_S if well or not wait_s else min(_MOST_S, 2 * wait_s)
                node, due_s = None, time.monotonic() + wait_s
                on_event(f"the node has ended ({code}); again in {wait_s:g} s")
            if node is None and now is not None and time.monotonic() >= due_s:
                count = _attached_once_more(file)
                on_event(f"attaches to {now.superlink}, for the {count}. time")
                node, began_s = subprocess.Popen(command(now, count), stdin=subprocess.DEVNULL), time.monotonic()
            time.sleep(_LOOK_S)
    finally:
        if node is not None:
            _end(node)


def _end(node: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        node.send_signal(signal.SIGTERM)
    try:
        node.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        node.kill()
        node.wait()


def _attached_once_more(file: Path) -> int:
    """Count an attachment; the count is on the disk before the node begins, so that none is told twice."""
    counter = file.with_name(f"{file.name}.count")
    try:
        count = int(counter.read_text("ascii"))
    except (OSError, ValueError):
        count = 0
    write_bytes(counter, str(count + 1).encode())
    return count + 1
