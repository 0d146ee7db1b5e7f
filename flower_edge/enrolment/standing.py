"""Whether a device's server still takes it, asked after its node has ended: Flower's node says only that it cannot.

    python -m flower_edge.enrolment.standing FOLDER

A program of its own: who keeps the node stays small, and asks even where a server does not answer for minutes. It
prints why the server refuses this device and exits with `OUT`; else it prints nothing and exits with 0, also where
nobody answers. Nothing here changes anything.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Final

from ..errors import EdgeError, EnrolmentRefused
from .desk_client import DeskClient, ServerUrl
from .device_folder import DeviceFolder, default_device_folder
from .node_keys import NodeKey

__all__ = ["OUT", "main", "why_out"]

#: Exit code where the server says that this device is out; of sysexits(3): no permission.
OUT: Final = os.EX_NOPERM
#: After which it is ended, by SIGALRM: whoever waits for it has a node to start.
_MOST_S: Final = 60


def why_out(folder: DeviceFolder) -> str:
    """What the server says against this device, and what to do; empty where it says nothing, or is not there."""
    try:
        joined = folder.joined()
        if joined is None:
            return ""
        authority = folder.file("authority.pem").read_bytes()
        with DeskClient(ServerUrl.read(joined.url), authority, NodeKey.at(folder.file("node.key"))) as desk:
            desk.status()
    except EnrolmentRefused as refused:
        if refused.code not in ("removed", "unknown"):
            return ""
        state = "" if folder.path == default_device_folder() else f" --state {folder.path}"
        return (
            f"{refused}. This device is not taken there any more: run `flower-edge leave{state}` here; to come back, "
            "join with a new token, which `flower-edge devices invite` on the server makes"
        )
    except (EdgeError, OSError):
        return ""
    return ""


def main(arguments: list[str]) -> int:
    """Ask for the folder that is given; returns the exit code."""
    why = why_out(DeviceFolder(Path(arguments[0])))
    if why:
        print(why, flush=True)
    return OUT if why else 0


if __name__ == "__main__":
    signal.alarm(_MOST_S)
    sys.exit(main(sys.argv[1:]))
