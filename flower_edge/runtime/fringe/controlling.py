"""`Controlling`: what a stage does for who controls it: load, flip, drain, drop, tell, and hand out kept inputs.

    ask     load    a version beside the others      {"digest": of what was built}
            flip    the entry's requests to one      {"before": number}
            drain   wait until none is under way     {"drained": whether}
            drop    forget one that is not served    {"held": numbers}
            statistics, inputs

Whoever is let in to the control channel may ask all of it. Nothing here serves a request.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from logging import getLogger
from typing import Any, Final

from ...errors import EdgeError, FringeError, ProtocolError
from ...transport.transport import Connection
from .gently import Gently
from .incoming import messages_of, whole_number
from .kept_inputs import KeptInputs
from .messages import pack_tree, unpack_tree
from .onward import Onward
from .versions import Held, Versions
from .ways import Ways

__all__ = ["Controlling"]

log = getLogger("flwr.edge")

_REPLY_S: Final = 5.0
_MOST_BEHIND: Final = 1000


class Controlling:
    """Of one stage; threads may call all of it.

    Args:
        machine: its name.
        versions, ways, inputs: its own; no inputs where none are kept.
        models: factories by name, see `StageServer`.
        statistics: what it tells of itself.
    """

    def __init__(
        self,
        machine: str,
        versions: Versions,
        ways: Ways,
        inputs: KeptInputs | None,
        models: Mapping[str, Callable[..., Any]] | None,
        statistics: Callable[[], dict[str, Any]],
    ) -> None:
        self._machine, self._versions, self._ways, self._inputs, self._models = machine, versions, ways, inputs, models
        # One ends ways that no version takes; the other must not be about to take one.
        self._changing = threading.Lock()
        self._asks: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "load": self.load,
            "flip": lambda ask: {"before": versions.flip(whole_number(ask, "version"))},
            "drain": lambda ask: {"drained": versions.drained(whole_number(ask, "version"), _seconds(ask))},
            "drop": self._drop,
            "statistics": lambda ask: statistics(),
            "inputs": self.kept,
        }

    def serve(self, connection: Connection) -> None:
        """One ask after the other, until the channel ends."""
        for data in messages_of(connection):
            try:
                ask = unpack_tree(data)
                name = str(ask.get("ask"))
                if name not in self._asks:
                    raise ProtocolError(f"asked {name[:40]!r}; expected one of {', '.join(self._asks)}")
                answer: dict[str, Any] = {"said": self._asks[name](ask), "error": None}
            except Exception as error:  # what is asked must not end the stage that serves
                if not isinstance(error, EdgeError):
                    log.exception("stage %s: control", self._machine)
                answer = {"said": None, "error": f"{type(error).__name__}: {error}"}
            connection.send(pack_tree(answer), timeout_s=_REPLY_S)

    def load(self, ask: Mapping[str, Any]) -> dict[str, Any]:
        """Build a version as it is told, try it, and hold it.

        Raises:
            EdgeError: there is no room, or it cannot be built here.
        """
        from .loading_torch import load

        number, behind = whole_number(ask, "version"), ask.get("next")
        self._versions.room()
        # Where others are served meanwhile it may take longer, but not their time.
        pause = Gently() if self._versions.numbers else Gently(1.0)
        part, takes, gives, digest = load(ask, self._machine, self._models, pause)
        with self._changing:
            onward = None if gives is None else self._way(behind)
            self._versions.put(Held(number, part, takes, gives, onward, digest))
        return {"digest": digest}

    def _way(self, behind: object) -> Onward:
        more = behind.get("behind", 0) if isinstance(behind, Mapping) else None
        if not isinstance(behind, Mapping) or type(more) is not int or not 0 <= more <= _MOST_BEHIND:
            raise FringeError(
                f"next = {behind!r:.80}: expected the machine behind {self._machine!r}, its address, and how many are "
                f"behind that, 0 to {_MOST_BEHIND}"
            )
        return self._ways.to(str(behind.get("machine")), str(behind.get("address")), more)

    def _drop(self, ask: Mapping[str, Any]) -> dict[str, Any]:
        self._versions.drop(whole_number(ask, "version"))
        with self._changing:
            self._ways.keep([one.onward for one in self._versions.held if one.onward is not None])
        return {"held": list(self._versions.numbers)}

    def kept(self, ask: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs at the places that are asked for; without any, how much is kept."""
        if self._inputs is None:
            return {"kept": 0, "seen": 0, "most": 0, "sample_bytes": 0}
        at = ask.get("at")
        return {"inputs": self._inputs.take(at)} if isinstance(at, list) and at else self._inputs.about()


def _seconds(ask: Mapping[str, Any]) -> float:
    value = ask.get("timeout_s")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise ProtocolError(f"timeout_s = {value!r:.40}: expected seconds, 0 or more")
    return float(value)
