"""`split_client`: a device of split learning, from a function that gives its data.

    app = split_client(lambda context: my_samples(context))

It answers two messages of `Split`: `query.split`, whether it has enough data and what it has left, and `train.split`, a
part of a round. The model is built from the architecture the cloud names; no code travels. A device keeps nothing
between rounds that it may not lose. What it does with a message is in split_round.py and split_peers.py.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from flower_edge.errors import DataError, SplitError
from flower_edge.runtime.splitting.messages import SPLIT_RECORD, Asked, Offered, SplitOrder
from flower_edge.splitting.capacity import Capacity
from flower_edge.splitting.order import ArchitectureSpec
from flower_edge.splitting.standardise import Standard

from .built_models import BuiltModels
from .split_capacity import measured_capacity, offered_capacity
from .split_peers import add_kept, hold_back, merge_with_peers
from .split_round import begin, go_on

if TYPE_CHECKING:
    from flower_edge.splitting.cutting_torch import CutModel

__all__ = ["split_client"]

Data = tuple[npt.NDArray[Any], npt.NDArray[Any]]
#: Of devices' data in the round under way, so many are kept in a process.
_DATA = 64


def split_client(
    data: Callable[[Context], Data],
    *,
    app: ClientApp | None = None,
    models: Mapping[str, Callable[..., Any]] | None = None,
    capacity: Callable[[Context, int], Capacity] | None = None,
    modelled: bool = False,
    least_moments: int = 1,
) -> ClientApp:
    """Register the answers to `Split` on an app, and return it.

    Args:
        data: gives a device's samples [samples, ...] and targets, before standardisation. Asked when a round begins and
            between rounds, so it may grow; within a round it must not change.
        app: yours, with train and evaluate of its own; a new one by default.
        models: factories of models of your own by name, as `Split` has them.
        capacity: what the device has left in a round; by default it is measured: `measured_capacity`.
        modelled: report the times that training and transfers would take with that capacity, instead of those they
            took: for simulations.
        least_moments: with fewer samples a device tells no moments for standardisation: too few would stand for
            themselves.

    Raises:
        SplitError: (as an error reply) a model that cannot be built here, or is not the cloud's.

    >>> import numpy as np
    >>> app = split_client(lambda context: (np.zeros((8, 4), np.float32), np.zeros(8, np.int64)))
    """
    app = ClientApp() if app is None else app
    kept = _Kept(data, models, capacity or measured_capacity)

    @app.query("split")
    def answer(message: Message, context: Context) -> Message:
        asked = Asked.read(message.content.config_records.get(SPLIT_RECORD), sender="the server")
        offered = kept.offer(asked, context, least_moments)
        return Message(RecordDict({SPLIT_RECORD: offered.write()}), reply_to=message)

    @app.train("split")
    def train(message: Message, context: Context) -> Message:
        order = SplitOrder.read(message.content.config_records.get(SPLIT_RECORD), sender="the server")
        if (merged := merge_with_peers(order, message, context)) is not None:
            return merged
        model = kept.model(order.work.architecture)
        samples = kept.data(context, order)

        def now() -> Capacity | None:
            return kept.capacity(context, order.work.round) if modelled else None

        if not order.peers:
            return (begin if order.begin else go_on)(order, message, context, model, samples, now)
        if order.begin:
            add_kept(order, message, context, model)
        reply = (begin if order.begin else go_on)(order, message, context, model, samples, now)
        return hold_back(order, reply, context, model)

    return app


@dataclass
class _Kept:
    """What a process need not make anew with every message: models, which are never written to, and data of a round.

    All of it can be made again, so a device does not depend on it. Models keep no arrays: halves bring their own.
    """

    source: Callable[[Context], Data]
    models: Mapping[str, Callable[..., Any]] | None
    capacity: Callable[[Context, int], Capacity]
    _data: OrderedDict[tuple[int, int], tuple[str, int, Data]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._built = BuiltModels(self.models, machine="device", same="split_client and Split")

    def __reduce__(self) -> tuple[Any, ...]:
        # Ray sends its processes a copy of the app with every message: locks cannot travel, and what was kept is there.
        return _again, (self.source, None if self.models is None else tuple(self.models.items()), self.capacity)

    def model(self, spec: ArchitectureSpec) -> CutModel:
        """Of an architecture, see `BuiltModels.of`."""
        return self._built.of(spec)

    def data(self, context: Context, order: SplitOrder) -> Data:
        """A device's, the same within a round."""
        key = (context.run_id, context.node_id)
        with self._lock:
            found = self._data.get(key)
        if found is not None and not order.begin and found[:2] == (order.session, order.work.round):
            return found[2]
        samples = self.source(context)
        with self._lock:
            self._data[key] = (order.session, order.work.round, samples)
            self._data.move_to_end(key)
            while len(self._data) > _DATA:
                self._data.popitem(last=False)
        return samples

    def offer(self, asked: Asked, context: Context, least_moments: int) -> Offered:
        """What a device answers."""
        try:
            x, y = self.source(context)
            if len(x) != len(y):
                raise DataError(f"{len(x)} samples and {len(y)} targets")
        except DataError as error:
            return Offered(requests=False, samples=0, why=str(error))
        found: dict[str, Any] = {"samples": len(x), "requests": len(x) >= asked.least_samples}
        if not found["requests"]:
            found["why"] = f"it has {len(x)} of {asked.least_samples} samples"
        if asked.moments is not None:
            moments = Standard.from_config(asked.moments).moments(x, least_samples=least_moments)
            found["moments"] = None if moments is None else moments.to_plain()
        if asked.architecture is not None:
            try:
                # The digest it comes to is told: the cloud compares.
                found["digest"] = self.model(asked.architecture.model_copy(update={"digest": ""})).digest
            except SplitError as error:
                found["why"] = str(error)
        if asked.capacity:
            found |= offered_capacity(self.capacity(context, asked.round))
        return Offered(**found)


@lru_cache(maxsize=8)
def _again(
    source: Callable[[Context], Data],
    models: tuple[tuple[str, Callable[..., Any]], ...] | None,
    capacity: Callable[[Context, int], Capacity],
) -> _Kept:
    """What a process keeps for an app, the same one however often it is sent a copy of the app."""
    return _Kept(source, None if models is None else dict(models), capacity)
