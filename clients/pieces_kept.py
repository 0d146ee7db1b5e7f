"""What a terminal of `Pieces` need not make anew with every message: models, and the samples of a round.

All of it can be made again, so a terminal does not depend on it. Nothing here trains or sends.
"""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from flwr.app import Context

from flower_edge.errors import DataError, ProtocolError
from flower_edge.runtime.pieces.messages import PieceCall
from flower_edge.splitting.order import ArchitectureSpec

from .built_models import BuiltModels

if TYPE_CHECKING:
    from flower_edge.splitting.cutting_torch import CutModel

__all__ = ["Data", "Kept", "Source"]

Data = tuple[npt.NDArray[Any], npt.NDArray[Any]]
#: Of (context), or of (context, segment).
Source = Callable[..., Data]
#: Of samples of the round under way, so many are kept in a process.
_DATA = 16


@dataclass
class Kept:
    """Of one app in one process.

    Attributes:
        source: gives samples and targets; None: this terminal has none.
        models: factories of models by name.
    """

    source: Source | None
    models: Mapping[str, Callable[..., Any]] | None
    _data: OrderedDict[tuple[int, int], tuple[tuple[Any, ...], Data]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._built = BuiltModels(self.models, machine="terminal", same="pieces_client and Pieces")

    def __reduce__(self) -> tuple[Any, ...]:
        # Ray sends its processes a copy of the app with every message: locks cannot travel, and what was kept is there.
        return _again, (self.source, None if self.models is None else tuple(self.models.items()))

    @property
    def segments(self) -> bool:
        """Whether the source loads any segment of the training data."""
        # A second argument with a default is the program's own affair.
        return self.source is not None and not _takes(self.source, 1) and _takes(self.source, 2)

    def model(self, spec: ArchitectureSpec) -> CutModel:
        """Of an architecture, see `BuiltModels.of`."""
        return self._built.of(spec)

    def own_samples(self, context: Context) -> int:
        """How many it has itself; 0 where it has none, or loads segments.

        Raises:
            DataError: another number of targets.
        """
        if self.source is None or self.segments:
            return 0
        return len(_checked(self.source(context))[0])

    def data(self, context: Context, call: PieceCall) -> Data | None:
        """What place 0 draws from, the same within a round; None at all other places.

        Raises:
            DataError: another number of targets.
            ProtocolError: it has no samples, or cannot load segments.
        """
        if not call.piece.first:
            return None
        if self.source is None or (call.segment is not None and not self.segments):
            raise ProtocolError(
                f"the server asks this terminal to begin chain {call.piece.work.number} with "
                + ("its own samples" if call.segment is None else f"segment {call.segment} of the training data")
                + ", which it cannot load; give pieces_client a function of "
                + ("(context)" if call.segment is None else "(context, segment)")
            )
        node = (context.run_id, context.node_id)
        of = (call.session, call.piece.work.round, call.attempt, call.segment)
        with self._lock:
            found = self._data.get(node)
        if found is not None and call.what != "begin" and found[0] == of:
            return found[1]
        samples = _checked(self.source(context) if call.segment is None else self.source(context, call.segment))
        with self._lock:
            self._data[node] = (of, samples)
            self._data.move_to_end(node)
            while len(self._data) > _DATA:
                self._data.popitem(last=False)
        return samples


def _takes(source: Source, arguments: int) -> bool:
    try:
        inspect.signature(source).bind(*range(arguments))
    except TypeError:
        return False
    return True


def _checked(samples: Data) -> Data:
    x, y = samples
    if len(x) != len(y):
        raise DataError(f"{len(x)} samples and {len(y)} targets")
    return x, y


@lru_cache(maxsize=8)
def _again(source: Source | None, models: tuple[tuple[str, Callable[..., Any]], ...] | None) -> Kept:
    """What a process keeps for an app, the same one however often it is sent a copy of the app."""
    return Kept(source, None if models is None else dict(models))
