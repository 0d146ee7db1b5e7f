"""What a step costs each device at each cut with each pair of codecs: a table that planners search. Values and sums.

Letters, as in the table's fields:
    i   device, in the order of numbers       [devices]
    o   option: a cut and codecs for it       [options]
    g   part of its own link a device reserves, both ways alike, 0 .. 1

    step_s = compute_s[i, o] + delay_s[i, o] + wire_s[i, o] / g[i] + users cloud_flops[o] / the cloud's flops_per_s

where `users` devices send the cloud work and get equal shares of it. Where a profile was timed, units count by their
seconds instead of their FLOPs: a unit's seconds on a device are those on the host that profiled, times the ratio of the
two machines' rates. Bits are predicted; `FrameCoder` counts real ones. Nothing here chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import SplitError
from .capacity import Cloud
from .plan import DeviceView
from .profile import ModelProfile

__all__ = ["FRAME_BYTES", "PLAIN", "Costs", "CutCodecs", "Job", "Option", "costs_of", "memory_bytes", "unit_flops"]

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

#: Head of a frame and of the message around it, allowed for in predictions.
FRAME_BYTES: Final = 64
#: Of a number that is sent as it is.
_PLAIN_BITS: Final = 32


@dataclass(frozen=True)
class CutCodecs:
    """How tensors and gradients travel at a cut.

    Attributes:
        name: for tables.
        up, down: configs for `WorkOrder`: of tensors to the cloud, of gradients back; None is float32 as it is.
        up_bits, down_bits: predicted, per value, scales within.
    """

    name: str = "none"
    up: Mapping[str, Any] | None = None
    down: Mapping[str, Any] | None = None
    up_bits: float = _PLAIN_BITS
    down_bits: float = _PLAIN_BITS


#: Float32 both ways.
PLAIN: Final = CutCodecs()


@dataclass(frozen=True)
class Job:
    """What a round asks of every device.

    Attributes:
        batch_size: samples per step.
        steps: per round.
        merge_every: rounds between two merges of the whole models.
        labels: who has them, as in `WorkOrder`; `device`: outputs and their gradients travel as well.
        tail: last units that are the device's, too.
        label_bytes: per sample, where labels travel.
        state_copies: numbers the optimiser keeps per parameter: 0 plain SGD, 1 momentum, 2 Adam.

    Raises:
        SplitError: a count below 1, or a tail without labels on the device.
    """

    batch_size: int = 32
    steps: int = 10
    merge_every: int = 5
    labels: Literal["cloud", "device"] = "cloud"
    tail: int = 0
    label_bytes: int = 1
    state_copies: int = 1

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "merge_every"):
            if getattr(self, name) < 1:
                raise SplitError(f"{name} = {getattr(self, name)!r} of a job; expected 1 or more")
        if self.tail < 0 or (self.tail and self.labels == "cloud"):
            raise SplitError(f"tail = {self.tail} with labels at the {self.labels}; a tail needs labels='device'")


class Option(NamedTuple):
    """Where to cut, and what to send there."""

    cut: int
    codecs: CutCodecs


@dataclass(frozen=True, eq=False)
class Costs:
    """The table. Shapes as in the module's letters; `links` are the shared ones of finite rate.

    Attributes:
        numbers: of the devices, sorted.
        options: by cut, then by bits; the last is the whole model.
        compute_s: [devices, options].
        delay_s: [devices, options], of all trips of a step.
        wire_s: [devices, options], both ways, with the whole of the device's own link.
        cloud_flops: [options].
        allowed: [devices, options]: no earlier than the least cut, and fits the device's memory.
        up_bits, down_bits: [options].
        memory: [options], bytes.
        up_bps, down_bps: [devices], of the own link, no more than any shared link on the way.
        load_bps: [links, devices], on each shared link when the device uses all of its own.
        link_bps: [links].
        cloud_bps: FLOPs a second.
    """

    job: Job
    numbers: tuple[int, ...]
    options: tuple[Option, ...]
    compute_s: Floats
    delay_s: Floats
    wire_s: Floats
    cloud_flops: Floats
    allowed: Flags
    up_bits: Floats
    down_bits: Floats
    memory: Floats
    up_bps: Floats
    down_bps: Floats
    load_bps: Floats
    link_bps: Floats
    cloud_flops_per_s: float

    @property
    def whole(self) -> int:
        """The option in which nothing is sent."""
        return len(self.options) - 1

    def fixed_s(self, users: int) -> Floats:
        """[devices, options]: what no bandwidth shortens, when so many devices share the cloud."""
        return self.compute_s + self.delay_s + users * self.cloud_flops / self.cloud_flops_per_s


def costs_of(
    profile: ModelProfile,
    devices: Mapping[int, DeviceView],
    cloud: Cloud,
    job: Job,
    codecs: Sequence[CutCodecs] = (PLAIN,),
    *,
    least_cut: int = 1,
    whole: bool = True,
    jitter: float = 0.0,
) -> Costs:
    """The table for one round.

    Args:
        profile: of the model.
        devices: by number.
        cloud: shared by all.
        job: what a round is.
        codecs: candidates.
        least_cut: units that stay on the device in any case; with 0 the samples themselves may be sent.
        whole: whether a device may train the whole model.
        jitter: a link may fall to 1 - jitter of its rate, and times allow for that; 0 .. 1.

    Raises:
        SplitError: no device or codec, a device that holds no option, or numbers outside of their ranges.
    """
    last, tail_at = profile.last, profile.last - job.tail
    if not devices or not codecs:
        raise SplitError(
            f"{len(devices)} devices and {len(codecs)} candidates of codecs; expected at least one of each"
        )
    if not 0.0 <= jitter < 1.0 or least_cut < 0 or tail_at < 1:
        raise SplitError(
            f"jitter = {jitter!r}, least_cut = {least_cut}, tail = {job.tail} on a model of {last} units; expected a "
            "jitter from 0 to below 1, a cut from 0 on, and a tail shorter than the model"
        )
    by_bits = sorted(codecs, key=lambda one: one.up_bits + one.down_bits)
    options = (*(Option(cut, one) for cut in range(tail_at) for one in by_bits), Option(last, PLAIN))
    numbers = tuple(sorted(devices))
    views = [devices[number] for number in numbers]

    flops = np.concatenate([[0.0], np.cumsum(unit_flops(profile))])
    cuts = np.array([option.cut for option in options])
    own = flops[cuts] + np.where(cuts < last, flops[last] - flops[tail_at], 0.0)
    sent = [_bits(profile, option, job) for option in options]
    up_bits, down_bits = np.array([one[0] for one in sent]), np.array([one[1] for one in sent])
    trips = np.where(cuts < last, 2.0 if job.labels == "cloud" else 4.0, 0.0)

    links = cloud.all_links()
    up_bps = np.array([_narrowest(view.capacity.up_bps, ("cloud-up", *view.up_links), links) for view in views])
    down_bps = np.array([_narrowest(view.capacity.down_bps, ("cloud-down", *view.down_links), links) for view in views])
    shared = [name for name, rate_bps in links.items() if np.isfinite(rate_bps)]
    load = [
        [
            (up if name in ("cloud-up", *view.up_links) else 0.0)
            + (down if name in ("cloud-down", *view.down_links) else 0.0)
            for view, up, down in zip(views, up_bps, down_bps, strict=True)
        ]
        for name in shared
    ]
    memory = np.array([memory_bytes(profile, option.cut, job) for option in options])
    room = np.array([np.inf if (most := view.capacity.memory_bytes) is None else most for view in views])
    fits = memory[None, :] <= room[:, None]
    candidates = (cuts >= least_cut) & ((cuts < last) | whole)
    if not candidates.any():
        raise SplitError(
            f"least_cut = {least_cut} leaves no cut of a model of {last} units"
            + (f" with a tail of {job.tail}" if job.tail else "")
            + f"; expected 0 to {last if whole else tail_at - 1}"
        )
    for number, found, most in zip(numbers, fits & candidates, room, strict=True):
        if not found.any():
            raise SplitError(
                f"device {number} has {most / 1e6:.3g} MB for training and no cut allowed here needs less than "
                f"{memory[candidates].min() / 1e6:.3g} MB; take a smaller batch_size, or leave the device out"
            )
    rate = np.array([view.capacity.flops_per_s for view in views])
    sending_s = up_bits[None, :] / up_bps[:, None] + down_bits[None, :] / down_bps[:, None]
    return Costs(
        job=job,
        numbers=numbers,
        options=options,
        compute_s=job.batch_size * own[None, :] / rate[:, None],
        delay_s=trips[None, :] * np.array([view.capacity.delay_s for view in views])[:, None],
        wire_s=sending_s / (1.0 - jitter),
        cloud_flops=np.where(cuts < last, job.batch_size * (flops[last] - own), 0.0),
        allowed=fits & candidates,
        up_bits=up_bits,
        down_bits=down_bits,
        memory=memory,
        up_bps=up_bps,
        down_bps=down_bps,
        load_bps=np.array(load, dtype=np.float64).reshape(len(shared), len(numbers)),
        link_bps=np.array([links[name] for name in shared]),
        cloud_flops_per_s=cloud.flops_per_s,
    )


def unit_flops(profile: ModelProfile) -> Floats:
    """Of one sample through each unit, both ways; of a timed profile the same sum, divided as the seconds are."""
    flops = np.array([unit.train_flops for unit in profile.units], dtype=np.float64)
    seconds = np.array([unit.forward_s + unit.backward_s for unit in profile.units])
    if len(seconds) == 0 or not np.isfinite(seconds).all() or not seconds.sum() > 0.0:
        return flops
    timed: Floats = flops.sum() * seconds / seconds.sum()
    return timed


def memory_bytes(profile: ModelProfile, cut: int, job: Job) -> int:
    """An estimate of what a device needs for its units: parameters, gradients, optimiser, and tensors at the cuts.

    Tensors inside a unit are not counted; take units as small as tracing gives them.
    """
    ranges = [(0, cut)] if cut == profile.last else [(0, cut), (profile.last - job.tail, profile.last)]
    total = 4 * job.batch_size * profile.cuts[0].values
    for start, stop in ranges:
        parameters = sum(unit.parameters for unit in profile.units[start:stop])
        total += profile.state_bytes(start, stop) + 4 * parameters * (1 + job.state_copies)
        total += 4 * job.batch_size * sum(profile.cuts[position].values for position in range(start + 1, stop + 1))
    return total


def _bits(profile: ModelProfile, option: Option, job: Job) -> tuple[float, float]:
    """Predicted, of one step, up and down."""
    cut, codecs = option
    if cut == profile.last:
        return 0.0, 0.0
    at = profile.cuts[cut]
    plain = at.values - at.gradient_values  # whole numbers and the like: no codec touches them
    up = 8 * FRAME_BYTES + job.batch_size * (at.gradient_values * codecs.up_bits + plain * _PLAIN_BITS)
    down = 8 * FRAME_BYTES + job.batch_size * at.gradient_values * codecs.down_bits
    if job.labels == "cloud":
        return up + 8 * job.batch_size * job.label_bytes, down
    # U-shaped: what the tail takes comes down as tensors do, and its gradient goes up as gradients do.
    values = job.batch_size * profile.cuts[profile.last - job.tail].values
    return up + 8 * FRAME_BYTES + values * codecs.down_bits, down + 8 * FRAME_BYTES + values * codecs.up_bits


def _narrowest(own_bps: float, names: Sequence[str], links: Mapping[str, float]) -> float:
    for name in names:
        if name not in links:
            raise SplitError(f"a device goes over link {name!r}, and the cloud knows {', '.join(links)} only")
    return min(own_bps, *(links[name] for name in names))
