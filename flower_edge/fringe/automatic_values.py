"""What automatic control chooses, and from what: `Given` by the user, `ModelCosts` of the model, `Chosen`.

Values, and sentences about them. `automatic_choice` chooses, `automatic_torch` measures. Nothing here runs a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from ..errors import FringeError
from .actions import checked_methods
from .links import Attainable, Link

__all__ = ["Chosen", "CutPlace", "Given", "Kind", "ModelCosts", "Reach"]

Kind = Literal["picture", "sequence", "vector", "other"]


@dataclass(frozen=True)
class Given:
    """What the user has decided; None and what is not named is left to the choice.

    Attributes:
        machines: all that are used, in the order an inference passes them.
        cuts: units, modules or positions, one fewer than machines.
        depth: of the fringe, by machine.
        methods: some of `METHODS`.

    Raises:
        FringeError: cuts and machines that do not go together, a depth below 0, or no such method.

    >>> Given(machines=("camera", "cloud"), cuts=("conv2",)).cuts
    ('conv2',)
    """

    machines: Sequence[str] | None = None
    cuts: Sequence[str | int] | None = None
    depth: Mapping[str, int] | None = None
    methods: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.machines, str) or isinstance(self.cuts, str):
            raise FringeError(f"machines = {self.machines!r} and cuts = {self.cuts!r}: expected lists of names")
        if self.machines is not None and self.cuts is not None and len(self.machines) != len(self.cuts) + 1:
            raise FringeError(
                f"{len(self.cuts)} cuts for {len(self.machines)} machines; expected {len(self.machines) - 1}"
            )
        for machine, depth in (self.depth or {}).items():
            if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0:
                raise FringeError(f"depth = {depth!r} of machine {machine!r}: expected layers, 0 or more")
        if self.methods is not None:
            object.__setattr__(self, "methods", checked_methods(self.methods))


@dataclass(frozen=True)
class CutPlace:
    """A place where the model may be cut.

    Attributes:
        position: units before it.
        name: of the unit that it comes after.
        kind: of the largest tensor that crosses: a picture [C, H, W], a sequence [T, F], a vector [F], or another.
        channels: of the same; 0 of whole numbers alone.
        values: numbers that cross, all tensors.
        size_bytes: of a frame of one sample without compression; `eight_bytes` with 8 bits per number, `four_bytes` 4.
        pair_bytes: of the smallest code that a pair makes of them; None where no pair takes them.
        prunable: whether fewer channels can cross; `refusal` says why not.
        code_s: seconds to encode and to decode a frame of 4 bits, on a machine of speed 1.
        pair_s: the same of an encoder and of a decoder.
    """

    position: int
    name: str
    kind: Kind
    channels: int
    values: int
    size_bytes: int
    eight_bytes: int
    four_bytes: int
    pair_bytes: int | None
    prunable: bool
    refusal: str = ""
    code_s: tuple[float, float] = (0.0, 0.0)
    pair_s: tuple[float, float] = (0.0, 0.0)

    def allows(self, method: str) -> bool:
        """Whether a method can be used here at all."""
        return {"pruning": self.prunable, "distillation": self.pair_bytes is not None}.get(method, True)


@dataclass(frozen=True)
class ModelCosts:
    """What a model costs unit by unit, and the places where it may be cut.

    Attributes:
        unit_s: seconds of each unit for one inference, on a machine of speed 1.
        unit_bytes: of its parameters and buffers.
        places: rising.
    """

    unit_s: tuple[float, ...]
    unit_bytes: tuple[int, ...]
    places: tuple[CutPlace, ...]

    def __post_init__(self) -> None:
        at = [place.position for place in self.places]
        if not self.unit_s or len(self.unit_s) != len(self.unit_bytes) or at != sorted(set(at)):
            raise FringeError(
                f"{len(self.unit_s)} units with bytes of {len(self.unit_bytes)} and places at {at}; expected as many, "
                "and rising places"
            )

    def share(self, place: CutPlace) -> float:
        """Of all compute, what comes before a place.

        >>> place = CutPlace(1, "a", "vector", 4, 4, 40, 28, 26, 25, True)
        >>> ModelCosts((1.0, 3.0), (0, 0), (place,)).share(place)
        0.25
        """
        whole = sum(self.unit_s)
        return sum(self.unit_s[: place.position]) / whole if whole > 0 else 0.0

    def timed(self, unit_s: Sequence[float]) -> ModelCosts:
        """With other seconds, as of another machine.

        Raises:
            FringeError: not one for each unit.
        """
        if len(unit_s) != len(self.unit_s):
            raise FringeError(f"{len(unit_s)} seconds for {len(self.unit_s)} units; expected one each")
        return replace(self, unit_s=tuple(unit_s))


class Reach(Protocol):
    """How few bytes compression can be expected to leave at a cut."""

    @property
    def depths(self) -> tuple[int, ...]:
        """Depths of fringe that it tells apart; none: `depth_for` decides."""
        ...

    def least_bytes(self, place: CutPlace, share: float, methods: Sequence[str], depth: int, drop: float) -> float:
        """Of a frame, at the floor.

        Args:
            place: of the cut.
            share: of all compute, what comes before it.
            methods: that may be used; none of them leaves the frame as it is.
            depth: of the fringe on both sides.
            drop: how much worse the metric may become.
        """
        ...

    def trials(self, methods: Sequence[str]) -> float:
        """Iterations that methods take until nothing is left to try."""
        ...


@dataclass(frozen=True)
class Chosen:
    """Machines, cuts, depths and methods, and why.

    Attributes:
        machines: that are used, in order.
        cuts: names of the units that they end with, one fewer; `positions` the same as numbers.
        depth: of the fringe, by machine.
        methods: to allow; none where nothing that saves bytes saves time, or where one machine does it all.
        why: sentences.
        links: between the machines that are used.
        before_bytes, sizes_bytes: of each connection, uncompressed and as expected when it ends.
        before_s, latency_s: of an inference, the same.
        attainable: the most that sending less could do here.
        reached: whether the goals can be expected to be met above the floor.
    """

    machines: tuple[str, ...]
    cuts: tuple[str, ...]
    positions: tuple[int, ...]
    depth: dict[str, int]
    methods: tuple[str, ...]
    why: tuple[str, ...]
    links: tuple[Link, ...]
    before_bytes: tuple[int, ...]
    sizes_bytes: tuple[int, ...]
    before_s: float
    latency_s: float
    attainable: Attainable
    reached: bool
