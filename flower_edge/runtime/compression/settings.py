"""`CompressionSettings`: a submission, as the page, the command line and a program make it. Values only.

What is left empty is chosen automatically: machines, cuts, how deep the fringes are, methods. Nothing here chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, get_args

from ...errors import FringeError
from ...fringe.actions import METHODS
from ...fringe.goals import Goals

__all__ = ["CompressionSettings", "PolicyName"]

PolicyName = Literal["rules", "learned"]
_POLICIES: Final = get_args(PolicyName)
#: More than that torch does not take.
_SEEDS: Final = 2**63


@dataclass(frozen=True)
class CompressionSettings:
    """What is asked for.

    Attributes:
        machines: names, in the order in which an inference passes them; () chooses among those that there are.
        cuts: one fewer: names of units, of modules to cut after, or positions; None chooses.
        depth: layers of the fringe, counted from a cut: of all machines, or by machine; None chooses.
        methods: of "quantisation", "pruning" and "distillation"; () chooses.
        metric: by which versions are judged, see `METRICS`.
        floor, drop: the worst it may become, or how much worse than uncompressed: one of them.
        bandwidth: bytes of an inference, less by "20x", "95%" or "60 kB".
        latency: of an inference at most, such as "17 ms".
        reduction: of the latency: "79%", "4x" or "60 ms".
        policy: "rules" takes the slowest connection first; "learned" what recorded iterations say saves most.
        follow: whether it goes on following links as they change; see `CompressionSession.automatic`.
        live: heal with inputs that the entry saw, where it keeps some, instead of those of the task.
        weigh_compute: refuse what makes an inference slower for what coding takes. Measured by a clock, so that two
            runs may differ.
        seed: of all that is drawn.

    Raises:
        FringeError: a field that cannot be; the message names it.

    >>> CompressionSettings(drop=0.01, bandwidth="20x").goals().bandwidth
    Amount(kind='factor', value=20.0)
    """

    machines: tuple[str, ...] = ()
    cuts: tuple[str | int, ...] | None = None
    depth: Mapping[str, int] | int | None = None
    methods: tuple[str, ...] = ()
    metric: str = "accuracy"
    floor: float | None = None
    drop: float | None = None
    bandwidth: str | None = None
    latency: str | None = None
    reduction: str | None = None
    policy: PolicyName = "rules"
    follow: bool = True
    live: bool = False
    weigh_compute: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("machines", "methods", "cuts"):
            given = getattr(self, name)
            if name == "cuts" and given is None:
                continue
            if isinstance(given, str) or not isinstance(given, Sequence):
                raise FringeError(f"{name} = {given!r}: expected names one by one, such as ['camera', 'gateway']")
            object.__setattr__(self, name, tuple(given))
        self._check_machines()
        for method in self.methods:
            if method not in METHODS:
                raise FringeError(f"methods = {list(self.methods)}: expected some of {', '.join(METHODS)}; none: all")
        if self.policy not in _POLICIES:
            raise FringeError(f"policy = {self.policy!r}: expected one of {', '.join(_POLICIES)}")
        if not isinstance(self.metric, str):
            raise FringeError(f"metric = {self.metric!r}: expected the name of one, such as 'accuracy'")
        for name in ("follow", "live", "weigh_compute"):
            if not isinstance(getattr(self, name), bool):
                raise FringeError(f"{name} = {getattr(self, name)!r}: expected true or false")
        for name in ("floor", "drop"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise FringeError(f"{name} = {value!r}: expected a number, such as 0.95 for a floor or 0.01 for a drop")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < _SEEDS:
            raise FringeError(f"seed = {self.seed!r}: expected a whole number of 0 or more, below 2**63")
        self.goals()

    def _check_machines(self) -> None:
        wrong = [name for name in self.machines if not isinstance(name, str) or not name]
        if wrong or len(set(self.machines)) != len(self.machines) or len(self.machines) == 1:
            raise FringeError(
                f"machines = {list(self.machines)}: expected two names or more, none twice; none at all: automatic"
            )
        for cut in self.cuts or ():
            if isinstance(cut, bool) or not isinstance(cut, str | int):
                raise FringeError(f"cuts = {list(self.cuts or ())}: expected names of units or modules, or positions")
        if self.cuts is not None and self.machines and len(self.cuts) != len(self.machines) - 1:
            raise FringeError(
                f"{len(self.cuts)} cuts for {len(self.machines)} machines; expected {len(self.machines) - 1}"
            )
        if self.cuts is not None and not self.cuts:
            raise FringeError("cuts = []: expected one per connection; None chooses them")
        depths = self.depth.values() if isinstance(self.depth, Mapping) else () if self.depth is None else (self.depth,)
        for depth in depths:
            if isinstance(depth, bool) or not isinstance(depth, int) or depth < 0:
                raise FringeError(f"depth = {depth!r}: expected layers, 0 or more, of all machines or by machine")
        if isinstance(self.depth, Mapping):
            object.__setattr__(self, "depth", dict(self.depth))
            unknown = [name for name in self.depth if self.machines and name not in self.machines]
            if unknown:
                raise FringeError(f"depth of machine {unknown[0]!r}: expected one of {', '.join(self.machines)}")

    def goals(self) -> Goals:
        """What is to be reached, and the floor.

        Raises:
            FringeError: no goals, as `Goals` says it.
        """
        return Goals(
            floor=self.floor,
            drop=self.drop,
            metric=self.metric,
            bandwidth=self.bandwidth,
            latency_s=self.latency,
            reduction=self.reduction,
        )

    @property
    def asked(self) -> str:
        """The goals in words.

        >>> CompressionSettings(drop=0.01, bandwidth="20x").asked
        'bandwidth 20x, drop 0.01'
        """
        names = ("bandwidth", "latency", "reduction", "floor", "drop")
        return ", ".join(f"{name} {value}" for name in names if (value := getattr(self, name)) is not None)

    def config(self) -> dict[str, Any]:
        """Plain values; `from_config` is its inverse."""
        told = {field.name: getattr(self, field.name) for field in fields(self)}
        told |= {"machines": list(self.machines), "methods": list(self.methods)}
        told["cuts"] = None if self.cuts is None else list(self.cuts)
        told["depth"] = dict(self.depth) if isinstance(self.depth, Mapping) else self.depth
        return told

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> CompressionSettings:
        """Inverse of `config`; what is not in it is as by default.

        Raises:
            FringeError: a field that there is not, or that cannot be.
        """
        known = [field.name for field in fields(cls)]
        unknown = [str(name) for name in config if name not in known]
        if unknown:
            raise FringeError(f"settings with {unknown[0]!r}: expected some of {', '.join(known)}")
        return cls(**config)
