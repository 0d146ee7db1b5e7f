"""The folder through which the two programs of an edge host find and trust each other.

    key               a secret that only this user can read; whoever knows it may speak
    address.json      where the edge listens now, and which process that is
    edge.safetensors  what the edge keeps: its model, its strategy's state, its last answer

Nothing here listens, dials or trains.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ...errors import ConfigError
from ...store.atomic import write_bytes
from ...store.process import ProcessMark, is_gone, this_process

__all__ = ["BRIDGE_VARIABLE", "Address", "BridgePlace", "bridge_folder"]

#: Environment variable: the folder, where neither node config nor run config has `bridge`.
BRIDGE_VARIABLE: Final = "FLOWER_EDGE_BRIDGE"
_KEY_BYTES: Final = 32


def bridge_folder(*configs: object) -> Path:
    """The folder that a node config or run config names with `bridge`, else FLOWER_EDGE_BRIDGE.

    Raises:
        ConfigError: none of them does.
    """
    named = [str(config.get("bridge") or "") for config in configs if hasattr(config, "get")]
    chosen = next((name for name in [*named, os.environ.get(BRIDGE_VARIABLE, "")] if name), "")
    if not chosen:
        raise ConfigError(
            "nobody says where the bridge of this edge is; set bridge='/var/lib/flower-edge/edge-0/bridge' in the node "
            f"config of the edge's SuperNode and in the run config of the edge's app, or {BRIDGE_VARIABLE} for both"
        )
    return Path(chosen).expanduser().absolute()


@dataclass(frozen=True)
class Address:
    """Where an edge listens.

    Attributes:
        port: on the loopback address.
        process: the process that listens.
        nonce: another one each time an edge begins to listen.
    """

    port: int
    process: ProcessMark
    nonce: str

    @property
    def gone(self) -> bool:
        """Whether that process has certainly ended."""
        return is_gone(self.process)


@dataclass(frozen=True)
class BridgePlace:
    """One edge's folder."""

    folder: Path

    def make(self) -> None:
        """Make the folder and its key, if they are not there.

        Raises:
            ConfigError: they cannot be made.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._key.exists():
                # Beside it, and then linked to its name: two programs that begin at once have one key.
                part = self._key.with_name(f".key.{secrets.token_hex(4)}")
                handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "w", encoding="ascii") as file:
                    file.write(secrets.token_hex(_KEY_BYTES))
                try:
                    os.link(part, self._key)
                except FileExistsError:
                    pass
                finally:
                    part.unlink()
        except OSError as error:
            raise ConfigError(
                f"bridge folder {self.folder}: {error.strerror or error}; name one that this user can write"
            ) from error

    def key(self) -> bytes:
        """The secret.

        Raises:
            ConfigError: it is not there, others can read it, or it is none.
        """
        try:
            status = self._key.stat()
            text = self._key.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{self._key} cannot be read ({error}); the edge makes it when it begins to listen: has it, with this "
                "folder, and does it run as the same user?"
            ) from None
        if status.st_mode & 0o077:
            raise ConfigError(
                f"{self._key} has the mode {status.st_mode & 0o777:o}, so that others could read or change it; "
                f"remove it, and a new one is made, or: chmod 600 {self._key}"
            )
        try:
            key = bytes.fromhex(text)
        except ValueError:
            key = b""
        if len(key) < _KEY_BYTES:
            raise ConfigError(f"{self._key} holds no key of {_KEY_BYTES} bytes in hex; remove it, and one is made")
        return key

    @property
    def _key(self) -> Path:
        return self.folder / "key"

    @property
    def state(self) -> Path:
        """The file of what the edge keeps."""
        return self.folder / "edge.safetensors"

    def publish(self, port: int) -> Address:
        """Say where this process listens; whoever listened before is nobody's address any more.

        Raises:
            ConfigError: it cannot be written.
        """
        address = Address(port, this_process(), secrets.token_hex(8))
        told = {"port": port, "process": dict(address.process), "nonce": address.nonce}
        try:
            write_bytes(self.folder / "address.json", json.dumps(told).encode())
        except OSError as error:
            raise ConfigError(
                f"bridge folder {self.folder} cannot be written ({error.strerror or error}); make room there, or name "
                "one that this user can write"
            ) from error
        return address

    def address(self) -> Address | None:
        """Where the edge listens, as far as it has said; `None` if it never did."""
        try:
            told = json.loads((self.folder / "address.json").read_bytes())
            mark = told["process"]
            process = ProcessMark(host=str(mark["host"]), pid=int(mark["pid"]), started_ticks=mark["started_ticks"])
            return Address(int(told["port"]), process, str(told["nonce"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
