"""What the cloud prepares before training divided: the model, what it costs, how samples are standardised. Values.

Made once for a session, and again, from plain values, when it is resumed. torch is needed from here on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flower_edge.errors import SplitError
from flower_edge.splitting.agreed import parts
from flower_edge.splitting.architecture import build, described
from flower_edge.splitting.order import ArchitectureSpec, OptimiserSpec, WorkOrder
from flower_edge.splitting.profile import ModelProfile
from flower_edge.wire import ModelSpec

if TYPE_CHECKING:
    from flower_edge.splitting.cutting_torch import CutModel

__all__ = ["Prepared", "device_names", "state_copies"]

Models = Mapping[str, Callable[..., Any]]


@dataclass(frozen=True)
class Prepared:
    """For a session.

    Attributes:
        architecture: with its digest.
        model: cut; says how units compute. Its arrays are not used.
        profile: of it.
        spec: names, shapes and dtypes of its arrays.
    """

    architecture: ArchitectureSpec
    model: CutModel
    profile: ModelProfile
    spec: ModelSpec

    @classmethod
    def of(cls, spec: ArchitectureSpec, models: Models | None, profile: ModelProfile | None = None) -> Prepared:
        """Build and profile a model.

        Args:
            spec: which; a digest in it is compared.
            models: a program's own factories by name.
            profile: known already, as in a resumed run; measured by default.

        Raises:
            SplitError: the model cannot be built or cut, has another digest, or is not the profile's.
        """
        from flower_edge.splitting.halves_torch import let_go

        model = build(spec, models=models)
        told = described(spec, model)
        if profile is None:
            profile = model.profile()
        elif profile.digest != told.digest:
            raise SplitError(
                f"the profile is that of a model with digest {profile.digest[:12]!r}, this one has "
                f"{told.digest[:12]!r}; resume with the model the run began with"
            )
        state = model.model.state_dict()
        arrays = {name: (tuple(tensor.shape), str(tensor.cpu().numpy().dtype)) for name, tensor in state.items()}
        let_go(model)
        return cls(told, model, profile, arrays)


def device_names(model: CutModel, order: WorkOrder) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the arrays that are the device's, and of those that are the cloud's.

    Raises:
        SplitError: the order does not fit the model.
    """
    found = parts(order, model)
    device = tuple(name for start, stop in found.device for name in model.names(start, stop))
    return device, model.names(found.cut, found.tail)


def state_copies(spec: OptimiserSpec) -> int:
    """Numbers that an optimiser keeps per parameter.

    >>> state_copies(OptimiserSpec()), state_copies(OptimiserSpec(options={"momentum": 0.9}))
    (0, 1)
    >>> state_copies(OptimiserSpec(name="adam"))
    2
    """
    if spec.name == "sgd":
        return 1 if spec.options.get("momentum") else 0
    return 2
