"""The server's side of a group's mailbox: what nodes are told to reach it, and what a checkpoint needs of it.

Nothing here reads a letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from flwr.serverapp import Grid

from flower_edge.peers.opening import RELAY
from flower_edge.peers.shared_folder import SharedFolder

from .direct import Direct, DirectPost

__all__ = ["Post"]


class Post:
    """Opens on first use; a folder in shared memory is made only where there is a round.

    Args:
        kind: `relay`, `shared-memory` or `direct`.
        direct: settings of `direct`.
        letters: of a checkpoint, to be put back.
    """

    def __init__(
        self,
        kind: Literal["relay", "shared-memory", "direct"],
        letters: Mapping[str, Any] | None = None,
        direct: Direct | None = None,
    ) -> None:
        self._kind = kind
        #: Where agents bring packets, and each worker is told something else.
        self.direct = DirectPost(direct or Direct(), letters) if kind == "direct" else None
        self._folder: SharedFolder | None = None
        self._letters = letters

    def config(self, grid: Grid) -> Mapping[str, bool | int | float | str]:
        """What every node opens its mailbox from."""
        if self._kind == "relay":
            return RELAY
        if self._folder is None:
            self._folder = SharedFolder(int(grid.run.run_id))
            if self._letters is not None:
                self._folder.load_state_dict(self._letters)
                self._letters = None
        return self._folder.config()

    def letters(self) -> Mapping[str, Any] | None:
        """Letters on their way that only the mailbox holds, for a checkpoint."""
        if self.direct is not None:
            return self.direct.letters()
        return self._letters if self._folder is None else self._folder.state_dict()

    def close(self) -> None:
        """Remove what was left on this host."""
        if self._folder is not None:
            self._folder.remove()
            self._folder = None
