"""What a device keeps of its join: its key, who vouches for the server, and how its node is started.

    node.key       the key (0600): made here, sent nowhere
    peer.key/.pem  the same key as gRPC takes it, and its certificate for channels between devices
    authority.pem, peers.pem
    join.json      where, as whom, and how the node is started

Nothing here sends or starts anything.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import EnrolmentError
from .server_folder import write_whole

__all__ = ["DeviceFolder", "Joined", "NodeOptions", "default_device_folder", "or_was_it_root"]

_OF_ROOT: Final = Path("/var/lib/flower-edge")

Manner = Literal["systemd", "process", "termux", "foreground"]


class NodeOptions(BaseModel):
    """How the node is run.

    Attributes:
        node_config: as of `flower-supernode --node-config`.
        memory_bytes: at most, where systemd runs it; 0: no limit.
        cpu_share: of one processor: 2.0 are two; 0: no limit.
        stock: Flower's own SuperNode instead of the warm one.
        min_battery: share of a battery that is not plugged in, below which the node is not run; 0: always run.
        more: further options of `flower-edge node`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    node_config: str = ""
    memory_bytes: Annotated[int, Field(ge=0)] = 0
    cpu_share: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    stock: bool = False
    min_battery: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    more: tuple[str, ...] = ()


class Joined(BaseModel):
    """A join as it is kept.

    Attributes:
        url: of the server.
        ca_fingerprint: of its authority.
        name: what the device is called there; a wish until `node_id` is known.
        node_id: Flower's; None while the join is not finished.
        manner: what runs the node.
        unit: the file of the systemd unit, where there is one.
        options: how.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    ca_fingerprint: str
    name: str
    node_id: int | None = None
    manner: Manner
    unit: str = ""
    options: NodeOptions = NodeOptions()


@dataclass(frozen=True)
class DeviceFolder:
    """The folder of one join."""

    path: Path

    #: All that a join writes: what `leave` removes.
    FILES: ClassVar[tuple[str, ...]] = (
        "join.json", "node.key", "peer.key", "peer.pem", "authority.pem", "peers.pem", "keeper.pid", "keeper.lock",
        "node.log", "node.log.old", "start.sh",
    )  # fmt: skip

    def make(self) -> None:
        """Make it.

        Raises:
            EnrolmentError: it cannot be made or written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(self.path, os.W_OK):
                raise PermissionError(13, "it may not be written to")
        except OSError as error:
            why = error.strerror or error
            raise EnrolmentError(f"--state {self.path} cannot be used ({why}); give another folder") from None

    def file(self, name: str) -> Path:
        """One of `FILES`."""
        return self.path / name

    def write(self, name: str, content: bytes, *, mode: int = 0o600) -> None:
        """Write one of `FILES`, whole or not at all.

        Raises:
            EnrolmentError: it cannot be written.
        """
        write_whole(self.file(name), content, mode=mode)

    def joined(self) -> Joined | None:
        """The join that is kept here, finished or not; None where there is none.

        Raises:
            EnrolmentError: the file is damaged.
        """
        try:
            return Joined.model_validate_json(self.file("join.json").read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            first = str(error).splitlines()[0]
            raise EnrolmentError(
                f"{self.file('join.json')} cannot be read ({first}); leave with --force, join anew"
            ) from None

    def keep(self, joined: Joined) -> None:
        """Keep it.

        Raises:
            EnrolmentError: it cannot be written.
        """
        self.write("join.json", joined.model_dump_json(indent=2).encode())

    def command(self, joined: Joined) -> list[str]:
        """What runs the node: `flower-edge node` with this device's files."""
        from .desk_client import ServerUrl

        command = [
            *(sys.executable, "-P", "-m", "flower_edge.cli.main", "node"),
            *("--superlink", ServerUrl.read(joined.url).superlink),
            *("--root-certificates", str(self.file("authority.pem"))),
            *("--auth-supernode-private-key", str(self.file("node.key"))),
        ]
        if joined.options.node_config:
            command += ["--node-config", joined.options.node_config]
        if joined.options.stock:
            command.append("--stock")
        return command + list(joined.options.more)

    def variables(self) -> dict[str, str]:
        """What the node's environment has of its own."""
        return {
            "FLWR_HOME": str(self.path / "flower"),
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            # Threads of a small device wait for each other.
            "OPENBLAS_NUM_THREADS": os.environ.get("OPENBLAS_NUM_THREADS", "1"),
        }


def default_device_folder() -> Path:
    """Where a join is kept unless one says otherwise."""
    if os.geteuid() == 0 and _OF_ROOT.parent.is_dir():
        return _OF_ROOT
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "flower-edge"


def or_was_it_root(verb: str) -> str:
    """What to try where a user finds no join, and root may have made one: the words of a message, or none."""
    return f"; or did root join? sudo flower-edge {verb}" if os.geteuid() != 0 and _OF_ROOT.is_dir() else ""


def describe(joined: Joined) -> dict[str, Any]:
    """For people and programs; nothing in it is secret."""
    return {"url": joined.url, "name": joined.name, "node_id": joined.node_id, "manner": joined.manner}
