"""`Copies`: every device's own model between two merges, whole, with the state of its optimiser. Nothing here trains.

Of each device there is the half it works on and the half that the cloud keeps for it; together they are a whole model
under the whole model's names, whatever the cut was. So the cut may move from round to round: layers and their
optimiser's state are handed to either side. With a *shared* cloud half (SplitFed v2) the arrays beyond a device's cut
are one set for all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import ArrayRecord

from flower_edge.errors import ModelMismatch
from flower_edge.splitting.optimiser_state import parameter_of, state_of
from flower_edge.wire import ModelSpec, array_of, arrays_of, cast_like, check_model, record_of

__all__ = ["Copies", "Copy", "check_half", "not_finite"]

Arrays = dict[str, npt.NDArray[Any]]
#: Arrays of some units, and the state of their optimiser.
Half = tuple[Mapping[str, npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]]


@dataclass
class Copy:
    """One device's model.

    Attributes:
        arrays: all of the model, by name.
        optimiser: state of its optimiser, by `<parameter>::<key>`; empty before the first step.
        steps: how many steps it has made in the run; batches go on from there.
        since_merge: how many of them since the last merge.
        losses: sum over steps since the last merge of the mean loss.
    """

    arrays: Arrays
    optimiser: Arrays = field(default_factory=dict)
    steps: int = 0
    since_merge: int = 0
    losses: float = 0.0


class Copies:
    """All devices' models, by number, and the shared half where there is one.

    Args:
        spec: names, shapes and dtypes of the whole model, in its order.
        shared: whether what lies beyond the cuts is one set for all.
    """

    def __init__(self, spec: ModelSpec, *, shared: bool = False) -> None:
        self.spec, self.shared = dict(spec), shared
        self.of: dict[int, Copy] = {}
        #: The shared set: a whole model, of which the units beyond somebody's cut are used.
        self.common = Copy({})

    def begin_from(self, arrays: ArrayRecord, numbers: Collection[int], *, keep_optimiser: bool = False) -> None:
        """All begin from this model.

        Args:
            arrays: whole; cast to the model's own dtypes, counters rounded.
            numbers: of the devices.
            keep_optimiser: leave the optimisers' state as it is.

        Raises:
            ModelMismatch: not this model.
        """
        check_model(arrays, self.spec, sender="the loop")
        model = arrays_of(cast_like(arrays, self.spec))
        model = {name: model[name] for name in self.spec}
        for number in numbers:
            before = self.of.get(number, Copy({}))
            self.of[number] = Copy(dict(model), before.optimiser if keep_optimiser else {}, before.steps)
        self.common = Copy(dict(model), self.common.optimiser if keep_optimiser else {})

    def device_half(self, number: int, names: Collection[str]) -> tuple[Arrays, Arrays]:
        """What a device gets: arrays of these names, and the state of their optimiser."""
        return _part(self.of[number], names)

    def cloud_half(self, number: int, names: Collection[str]) -> tuple[Arrays, Arrays]:
        """What the cloud's end for it gets: arrays of these names, and the state of their optimiser."""
        return _part(self.common if self.shared else self.of[number], names)

    def joined(self, number: int, half: Half, steps: int, loss: float, names: Collection[str]) -> None:
        """A device's round is done: its half, of these names, is the new one."""
        copy = self.of[number]
        _put(copy, half, names)
        copy.steps += steps
        copy.since_merge += steps
        copy.losses += loss * steps

    def cloud_joined(self, number: int, half: Half, names: Collection[str]) -> None:
        """The cloud's half for a device, of these names, is the new one."""
        _put(self.common if self.shared else self.of[number], half, names)

    def whole(self, number: int, device_names: Collection[str]) -> ArrayRecord:
        """A device's model for a merge. With a shared half only these names are the device's own."""
        own = self.of[number].arrays
        if not self.shared:
            return record_of({name: own[name] for name in self.spec})
        kept = set(device_names)
        return record_of({name: own[name] if name in kept else self.common.arrays[name] for name in self.spec})

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "of": {str(number): dict(vars(copy)) for number, copy in self.of.items()},
            "common": dict(vars(self.common)),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.of = {int(number): Copy(**copy) for number, copy in state["of"].items()}
        self.common = Copy(**state["common"])


def check_half(
    arrays: ArrayRecord | None,
    optimiser: ArrayRecord | None,
    spec: ModelSpec,
    *,
    sender: str,
    absent: Collection[str] = (),
    made_with: str = "split_client",
) -> tuple[Arrays, Arrays]:
    """A half that came back, in the model's dtypes, and its optimiser's state. Arrays of `absent` names do not come.
    `made_with`: what builds an app that sends it, for errors.

    Raises:
        ModelMismatch: arrays of other names or shapes; state of no parameter of the half, or of another shape; values
            that are not finite, which would be everybody's after a merge.
    """
    if arrays is None:
        raise ModelMismatch(f"{sender} says it is done and sent no half; build its app with {made_with}")
    came = {name: one for name, one in spec.items() if name not in absent}
    check_model(arrays, came, sender=sender)
    half = arrays_of(cast_like(arrays, came))
    state: Arrays = {}
    for name, array in (optimiser or ArrayRecord()).items():
        parameter = parameter_of(name)
        if parameter not in spec or tuple(array.shape) not in ((), spec[parameter][0]):
            raise ModelMismatch(
                f"{sender} sent {name!r} of shape {tuple(array.shape)} as state of its optimiser; expected "
                "state of its parameters, of their shapes"
            )
        state[name] = array_of(array)
    if bad := not_finite(half, state):
        raise ModelMismatch(f"{sender} sent {bad!r} with values that are not finite; has its training diverged?")
    return {name: half[name] for name in came}, state


def not_finite(*parts: Mapping[str, npt.NDArray[Any]]) -> str:
    """Name of the first array with a value that is not finite; empty where there is none.

    >>> not_finite({"a": np.ones(2)}, {"b": np.array([1.0, np.nan])})
    'b'
    """
    return next((name for part in parts for name, array in part.items() if not np.isfinite(array).all()), "")


def _part(copy: Copy, names: Collection[str]) -> tuple[Arrays, Arrays]:
    return {name: copy.arrays[name] for name in names}, state_of(copy.optimiser, names)


def _put(copy: Copy, half: Half, names: Collection[str]) -> None:
    copy.arrays |= half[0]
    copy.optimiser = _without(copy.optimiser, names) | dict(half[1])


def _without(optimiser: Arrays, names: Collection[str]) -> Arrays:
    gone = set(names)
    return {name: array for name, array in optimiser.items() if parameter_of(name) not in gone}
