"""What a model costs unit by unit, and what each cut lets through: values that a plan is made from.

A *unit* is what lies between two neighbouring cuts; a cut at position k gives units 0 .. k-1 to the device and the rest
to the cloud. Position 0 is the input itself, position `len(units)` is the output: the whole model on the device.
Nothing here traces, times or decides; `profile_torch` fills it in.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from ..errors import SplitError

__all__ = ["CutProfile", "ModelProfile", "UnitProfile"]

# Checked where a profile is read.
Count = Annotated[int, Field(ge=0)]
Flops = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


@dataclass(frozen=True)
class UnitProfile:
    """One unit of a model.

    Attributes:
        name: of the module or operation that ends it.
        forward_flops, backward_flops: per sample. Backward includes the gradient of the input, but for the first unit.
        forward_s, backward_s: measured seconds per sample on the host that profiled, NaN where nothing was timed.
        parameters, buffers: how many numbers it holds that are trained, and how many that are not.
        state_bytes: of parameters and buffers together.
    """

    name: str
    forward_flops: Flops
    backward_flops: Flops
    forward_s: float = math.nan
    backward_s: float = math.nan
    parameters: Count = 0
    buffers: Count = 0
    state_bytes: Count = 0

    @property
    def train_flops(self) -> float:
        """Forward and backward, per sample."""
        return self.forward_flops + self.backward_flops


@dataclass(frozen=True)
class CutProfile:
    """What crosses one cut in one direction; gradients have the same shapes the other way.

    Attributes:
        position: units before it.
        shapes: of every live tensor, of one sample, in order. Skip connections across the cut are among them.
        differentiable: whether each of them gets a gradient.
        name: of the unit it follows; "input" at 0.
    """

    position: int
    shapes: tuple[tuple[Count, ...], ...]
    differentiable: tuple[bool, ...]
    name: str = ""

    @property
    def values(self) -> int:
        """Numbers per sample, all tensors."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def gradient_values(self) -> int:
        """Numbers per sample that come back."""
        return sum(math.prod(shape) for shape, back in zip(self.shapes, self.differentiable, strict=True) if back)


@dataclass(frozen=True)
class ModelProfile:
    """A model, unit by unit, and its cuts.

    Attributes:
        units: in the order they run.
        cuts: positions 0 .. len(units), one more than units.
        batch: samples per batch while it was timed.
        digest: of the cut model, see `ArchitectureSpec.digest`.
    """

    units: tuple[UnitProfile, ...]
    cuts: tuple[CutProfile, ...]
    batch: int = 1
    digest: str = ""

    def __post_init__(self) -> None:
        if len(self.cuts) != len(self.units) + 1 or [cut.position for cut in self.cuts] != list(range(len(self.cuts))):
            raise SplitError(
                f"a profile of {len(self.units)} units with cuts at {[cut.position for cut in self.cuts]}; "
                f"expected one at each position from 0 to {len(self.units)}"
            )
        for cut in self.cuts:
            if len(cut.shapes) != len(cut.differentiable):
                raise SplitError(
                    f"cut {cut.position} of a profile lets {len(cut.shapes)} tensors through and says of "
                    f"{len(cut.differentiable)} whether a gradient comes back; expected as many"
                )

    @property
    def last(self) -> int:
        """Position at which the whole model is the device's."""
        return len(self.units)

    def train_flops(self, start: int, stop: int) -> float:
        """Of one sample through units start .. stop-1, forward and backward."""
        return sum(unit.train_flops for unit in self.units[start:stop])

    def state_bytes(self, start: int, stop: int) -> int:
        """Of the parameters and buffers of units start .. stop-1."""
        return sum(unit.state_bytes for unit in self.units[start:stop])

    def to_json(self) -> str:
        """One line; `from_json` is its inverse."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ModelProfile:
        """Inverse of `to_json`.

        Raises:
            SplitError: no profile.
        """
        try:
            return TypeAdapter(cls).validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise SplitError(
                f"not a model's profile: {'.'.join(map(str, first['loc'])) or 'it'}: {first['msg']}; write one with "
                "`flower-edge plan-split --save-profile`"
            ) from None
