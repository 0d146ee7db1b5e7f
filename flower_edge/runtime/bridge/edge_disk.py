"""What an edge keeps on its disk; an order that finds no room there waits until there is some. Nothing here trains."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from logging import getLogger
from typing import Any, Final

from ...errors import ConfigError, ProtocolError
from ...store.tree import Tree, load_tree, save_tree
from .place import BridgePlace

__all__ = ["EdgeDisk"]

log = getLogger("flwr.edge")

_SCHEMA: Final = "flower-edge.edge-host/1"
#: Between two looks whether there is room.
_LOOK_S: Final = 0.5
#: What is kept beside the models: configs, names, the answer's metrics.
_SLACK_BYTES: Final = 1 << 16


class EdgeDisk:
    """The file of what an edge keeps.

    Args:
        place: the bridge's folder.
        tell: told what is the matter while it is, "" when it is over.
        ended: whether the edge is to end.
    """

    def __init__(self, place: BridgePlace, tell: Callable[[str], None], ended: Callable[[], bool]) -> None:
        self._place, self._tell, self._ended = place, tell, ended

    def wait_for_room(self, body_bytes: int, latest_s: float) -> None:
        """Before terminals are asked to train for what could not be kept.

        Args:
            body_bytes: of the order.
            latest_s: on the monotonic clock.

        Raises:
            ProtocolError: there was none by then.
        """
        path = self._place.state
        # Before the first order it is only known that the answer will be a model, as the order is.
        needed = path.stat().st_size if path.exists() else body_bytes
        needed += _SLACK_BYTES

        def trouble() -> str:
            free = shutil.disk_usage(self._place.folder).free
            return f"{free} bytes are free and {needed} are needed" if free < needed else ""

        self._until(trouble, latest_s)

    def save(self, tree: dict[str, Any], latest_s: float = 0.0) -> None:
        """Keep it: the file is the old one or the new one, never half.

        Args:
            tree: what is kept.
            latest_s: on the monotonic clock; for so long a full disk is waited for.

        Raises:
            ProtocolError: it could not be written by then.
        """

        def trouble() -> str:
            try:
                save_tree(self._place.state, {"schema": _SCHEMA, **tree})
            except OSError as error:
                return error.strerror or str(error)
            return ""

        self._until(trouble, latest_s)

    def load(self) -> Tree | None:
        """What an earlier process of this edge has left; None where there is nothing.

        Raises:
            StateError: it is damaged.
            ConfigError: it is of another version.
        """
        if not self._place.state.exists():
            return None
        tree = load_tree(self._place.state)
        if tree.get("schema") != _SCHEMA:
            raise ConfigError(
                f"{self._place.state} is of another version of flower-edge; remove it to begin this edge anew"
            )
        return tree

    def _until(self, trouble: Callable[[], str], latest_s: float) -> None:
        said = ""
        while why := trouble():
            if not said:
                said = f"the edge's state cannot be written into {self._place.folder} ({why}); make room there"
                log.warning("edge: %s", said)
                self._tell(said)
            if self._ended() or time.monotonic() + _LOOK_S > latest_s:
                raise ProtocolError(said)
            time.sleep(_LOOK_S)
        if said:
            log.info("edge: there is room again")
            self._tell("")
