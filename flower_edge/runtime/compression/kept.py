"""What of a session survives a restart: one file in a folder, written anew after each iteration, old or new but whole.

Settings, choice, the controller's state with all versions, events, counts. Nothing here runs a session.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ...errors import StateError
from ...store.atomic import remove_leftovers
from ...store.tree import load_tree, save_tree

__all__ = ["FILE", "KeptSession"]

#: Its name in the folder.
FILE: Final = "compression.safetensors"
_FORM: Final = "compression-session/1"
_PARTS: Final = ("task", "settings", "choice", "controller", "recorded", "events", "requests", "automatic", "swaps")


class KeptSession:
    """The file in a folder. One session writes a folder at a time.

    Args:
        folder: is made when it is first written to; None keeps nothing.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.path = None if folder is None else Path(folder) / FILE

    @property
    def there(self) -> bool:
        """Whether there is such a file; not whether it can be read."""
        return self.path is not None and self.path.exists()

    def read(self) -> dict[str, Any]:
        """What was kept.

        Raises:
            StateError: there is nothing, or a file that is damaged or something else's.
        """
        if self.path is None:
            raise StateError("a session without a folder keeps nothing; give CompressionSession(…, folder=…)")
        tree = load_tree(self.path)
        if not isinstance(tree, Mapping) or tree.get("form") != _FORM or any(name not in tree for name in _PARTS):
            raise StateError(
                f"{self.path}: not a compression that was kept by this version of flower-edge; use another folder"
            )
        return dict(tree)

    def write(self, parts: Mapping[str, Any]) -> None:
        """Keep it, in place of what was kept before.

        Raises:
            StateError: the folder cannot be written.
        """
        if self.path is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_tree(self.path, {"form": _FORM, **parts})
            remove_leftovers(self.path.parent)
        except OSError as error:
            raise StateError(f"{self.path}: cannot be written ({error.strerror or error})") from error
