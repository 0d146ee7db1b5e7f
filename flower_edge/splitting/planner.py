"""`Planner`: the cut, codecs and bandwidth of each device in a round. The simple ones; `Dynamic` is in `dynamic.py`.

A planner is a frozen value and keeps nothing: what was measured comes in with `DeviceView.history`. The same inputs
give the same plan. Nothing here measures, trains or sends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from ..errors import SplitError
from .capacity import UNLIMITED, Cloud
from .costs import PLAIN, CutCodecs, Job, Option, costs_of
from .plan import DeviceView, Plan
from .profile import ModelProfile
from .settled import settle

__all__ = ["FixedCut", "Planner", "Scheduled", "WholeModel", "with_job"]


class Planner(Protocol):
    """Plans one round after the other."""

    def plan(self, profile: ModelProfile, devices: Mapping[int, DeviceView], round: int) -> Plan:
        """A part for every device.

        Args:
            profile: of the model.
            devices: by number.
            round: that comes, from 1 on.

        Raises:
            SplitError: no device, or a cut that the model does not have.
        """
        ...


P = TypeVar("P")


def with_job(planner: P, job: Job) -> P:
    """The planner for this job, where it has been given none; as it is, where it takes none.

    >>> with_job(FixedCut(2), Job(batch_size=8)).job.batch_size
    8
    """
    if getattr(planner, "job", job) is not None:
        return planner
    return replace(planner, job=job)  # type: ignore[type-var]


@dataclass(frozen=True)
class FixedCut:
    """The same cut for every device in every round. The baseline.

    Attributes:
        cut: units 0 .. cut-1 on the device; negative counts from the end: -1 leaves the last unit to the cloud.
        codecs: at the cut.
        cloud, job: for the modelled times alone.
    """

    cut: int
    codecs: CutCodecs = PLAIN
    cloud: Cloud = UNLIMITED
    job: Job | None = None

    def plan(self, profile: ModelProfile, devices: Mapping[int, DeviceView], round: int) -> Plan:
        """See `Planner.plan`."""
        del round
        cut = self.cut if self.cut >= 0 else profile.last + self.cut
        return _told(profile, devices, self.cloud, self.job, lambda _: cut, self.codecs, f"fixed at {cut}")


@dataclass(frozen=True)
class Scheduled:
    """Cuts that were written down: for tests, replays, comparisons.

    Attributes:
        table: a row per round, a cut per device number in it; after the last row, and the last device of a row, it
            begins anew.
        codecs, cloud, job: as in `FixedCut`.

    >>> Scheduled(((1, 2), (3,))).cut(1, 0), Scheduled(((1, 2), (3,))).cut(2, 5), Scheduled(((1, 2), (3,))).cut(3, 1)
    (1, 3, 2)
    """

    table: tuple[tuple[int, ...], ...]
    codecs: CutCodecs = PLAIN
    cloud: Cloud = UNLIMITED
    job: Job | None = None

    def __post_init__(self) -> None:
        if not self.table or not all(self.table):
            raise SplitError("a schedule of cuts needs a row per round with a cut in each, as in ((1, 2), (2, 3))")

    def cut(self, round: int, number: int) -> int:
        """Of one device in one round, from 1 on."""
        row = self.table[(round - 1) % len(self.table)]
        return row[number % len(row)]

    def plan(self, profile: ModelProfile, devices: Mapping[int, DeviceView], round: int) -> Plan:
        """See `Planner.plan`."""
        return _told(
            profile,
            devices,
            self.cloud,
            self.job,
            lambda number: self.cut(round, number),
            self.codecs,
            f"written down for round {round}",
        )


@dataclass(frozen=True)
class WholeModel:
    """The whole model on every device: plain federated training; nothing is sent at a cut."""

    cloud: Cloud = UNLIMITED
    job: Job | None = None

    def plan(self, profile: ModelProfile, devices: Mapping[int, DeviceView], round: int) -> Plan:
        """See `Planner.plan`."""
        del round
        return _told(profile, devices, self.cloud, self.job, lambda _: profile.last, PLAIN, "the whole model")


def _told(
    profile: ModelProfile,
    devices: Mapping[int, DeviceView],
    cloud: Cloud,
    job: Job | None,
    cut: Callable[[int], int],
    codecs: CutCodecs,
    reason: str,
) -> Plan:
    job = job or Job()
    costs = costs_of(profile, devices, cloud, job, (codecs,), least_cut=0)
    at: dict[int, Any] = {}
    for number in devices:
        option = Option(cut(number), codecs if cut(number) < profile.last else PLAIN)
        if option not in costs.options:
            last = profile.last - job.tail - 1
            raise SplitError(
                f"cut {option.cut} for device {number}; this model has cuts 0 .. {last}, and {profile.last} for the "
                "whole model"
            )
        at[number] = costs.options.index(option)
    return settle(profile, devices, costs, at, dict.fromkeys(devices, reason))
