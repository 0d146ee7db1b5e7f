"""Cuts of one model over a chain of machines: device, edge, cloud, and longer ones. By dynamic programming.

Letters:
    j      machine, from the one that has the samples on
    k      position of a cut: machines up to j hold units 0 .. k-1
    T_j(k, l)   seconds of machine j on units k .. l-1, forward and backward, one batch
    L_j(k)      seconds of the link after machine j when it is cut at k, both ways; 0 at the last position

    least latency:     best[j+1, l] = min over k <= l of   best[j, k] + L_{j-1}(k) + T_j(k, l)
    least bottleneck:  the same with max in place of +: the time between two batches when batches follow one another

The first machine holds at least what `least_cut` says; a later one may hold nothing and pass on, but with `all_train`.
Nothing here measures or trains.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Literal

import numpy as np

from ..errors import SplitError
from .capacity import above_zero
from .costs import FRAME_BYTES, PLAIN, CutCodecs, Floats, Job, unit_flops
from .profile import ModelProfile

__all__ = ["ChainPlan", "Link", "Machine", "chain_by_trying", "plan_chain"]

Goal = Literal["latency", "bottleneck"]


@dataclass(frozen=True)
class Machine:
    """One of a chain.

    Attributes:
        flops_per_s: in training.
        memory_bytes: None does not limit.
        name: for messages.

    Raises:
        SplitError: a rate that is not above 0.
    """

    flops_per_s: float
    memory_bytes: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        above_zero(f"flops_per_s of machine {self.name!r}", self.flops_per_s)


@dataclass(frozen=True)
class Link:
    """Between two machines that follow one another; `up` leads away from the samples.

    Raises:
        SplitError: a rate that is not above 0, or a delay below 0.
    """

    up_bps: float = math.inf
    down_bps: float = math.inf
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("up_bps", "down_bps"):
            above_zero(f"a link's {name}", getattr(self, name))
        if not 0.0 <= self.delay_s < math.inf:
            raise SplitError(f"a link's delay_s = {self.delay_s!r}; expected seconds, 0 or more")


@dataclass(frozen=True)
class ChainPlan:
    """Where to cut.

    Attributes:
        cuts: one per link, rising: machine j holds units cuts[j-1] .. cuts[j]-1.
        machine_s: seconds of a batch on each machine.
        link_s: on each link, both ways.
    """

    cuts: tuple[int, ...]
    machine_s: tuple[float, ...]
    link_s: tuple[float, ...]

    @property
    def latency_s(self) -> float:
        """Of one batch through all machines and back."""
        return math.fsum((*self.machine_s, *self.link_s))

    @property
    def bottleneck_s(self) -> float:
        """Of the slowest machine or link: between two batches, when batches follow one another closely."""
        return max((*self.machine_s, *self.link_s))


def plan_chain(
    profile: ModelProfile,
    machines: Sequence[Machine],
    links: Sequence[Link],
    *,
    job: Job | None = None,
    codecs: CutCodecs = PLAIN,
    least_cut: int = 1,
    goal: Goal = "latency",
    positions: Collection[int] | None = None,
    all_train: bool = False,
) -> ChainPlan:
    """The best cuts for a chain; of equally good ones those with more units near the samples.

    Args:
        profile: of the model.
        machines: two or more, from the one with the samples on.
        links: between each two that follow one another, one fewer.
        job: batch size and optimiser; the last machine in use computes the loss, so it has the labels.
        codecs: on every link.
        least_cut: units of the first machine.
        goal: see the module's letters.
        positions: where it may be cut; None: anywhere.
        all_train: whether every machine gets a unit with parameters.

    Raises:
        SplitError: counts that do not go together, or a model that does not fit the machines' memory.
    """
    own_s, sent_s = _tables(profile, machines, links, job or Job(), codecs, least_cut)
    if positions is not None:
        closed = ~np.isin(np.arange(profile.last + 1), list(positions))
        sent_s = [np.where(closed, np.inf, seconds) for seconds in sent_s]
    if all_train:
        before_k = np.concatenate([[0], np.cumsum([unit.parameters for unit in profile.units])])
        own_s = [np.where(before_k[None, :] > before_k[:, None], seconds, np.inf) for seconds in own_s]
    best, came = own_s[0][0], []
    for j in range(1, len(machines)):
        before = best + sent_s[j - 1] if goal == "latency" else np.maximum(best, sent_s[j - 1])
        both = before[:, None] + own_s[j] if goal == "latency" else np.maximum(before[:, None], own_s[j])
        # The greatest k among equals: turned round, argmin finds the first.
        came.append(profile.last - both[::-1].argmin(axis=0))
        best = both.min(axis=0)
    if not math.isfinite(best[-1]):
        raise SplitError(
            f"{len(machines)} machines have too little memory for this model, with {least_cut} units at least on the "
            "first; add a machine or take a smaller batch_size"
            + ("" if positions is None and not all_train else ", or ask for fewer pieces")
        )
    cuts, at = [], profile.last
    for origin in reversed(came):
        at = int(origin[at])
        cuts.append(at)
    return _told(tuple(reversed(cuts)), own_s, sent_s, profile.last)


def chain_by_trying(
    profile: ModelProfile,
    machines: Sequence[Machine],
    links: Sequence[Link],
    *,
    job: Job | None = None,
    codecs: CutCodecs = PLAIN,
    least_cut: int = 1,
) -> Iterator[ChainPlan]:
    """Every plan there is that fits the machines' memory: what `plan_chain` is checked against."""
    own_s, sent_s = _tables(profile, machines, links, job or Job(), codecs, least_cut)
    for cuts in combinations_with_replacement(range(least_cut, profile.last + 1), len(links)):
        plan = _told(cuts, own_s, sent_s, profile.last)
        if math.isfinite(plan.latency_s):
            yield plan


def _told(cuts: tuple[int, ...], own_s: list[Floats], sent_s: list[Floats], last: int) -> ChainPlan:
    ends = (0, *cuts, last)
    machine_s = tuple(float(table[ends[j], ends[j + 1]]) for j, table in enumerate(own_s))
    return ChainPlan(cuts, machine_s, tuple(float(table[cut]) for table, cut in zip(sent_s, cuts, strict=True)))


def _tables(
    profile: ModelProfile,
    machines: Sequence[Machine],
    links: Sequence[Link],
    job: Job,
    codecs: CutCodecs,
    least_cut: int,
) -> tuple[list[Floats], list[Floats]]:
    """T_j(k, l), infinite where l < k or memory is too small, and L_j(k)."""
    if len(machines) < 2 or len(links) != len(machines) - 1:
        raise SplitError(
            f"{len(machines)} machines with {len(links)} links between them; expected two machines or more, and one "
            "link fewer"
        )
    if not 0 <= least_cut <= profile.last or job.labels != "cloud":
        raise SplitError(
            f"least_cut = {least_cut} and labels at the {job.labels} on a chain; expected 0 .. {profile.last} units, "
            "and labels='cloud'"
        )
    last = profile.last
    done = np.concatenate([[0.0], np.cumsum(unit_flops(profile))])
    held = np.concatenate([[0], np.cumsum([_bytes(profile, unit, job) for unit in range(last)])])
    positions = np.arange(last + 1)
    possible = positions[:, None] <= positions[None, :]
    entering = np.array([4 * job.batch_size * cut.values for cut in profile.cuts])
    enters = np.where(positions[:, None] < positions[None, :], entering[:, None], 0)
    needed = held[None, :] - held[:, None] + enters
    own_s = []
    for j, machine in enumerate(machines):
        room = math.inf if machine.memory_bytes is None else machine.memory_bytes
        fits = possible & (needed <= room)
        if j == 0:
            fits &= (positions >= least_cut)[None, :]
        seconds = job.batch_size * (done[None, :] - done[:, None]) / machine.flops_per_s
        own_s.append(np.where(fits, seconds, np.inf))
    values = np.array([cut.values for cut in profile.cuts], dtype=np.float64)
    back = np.array([cut.gradient_values for cut in profile.cuts], dtype=np.float64)
    up_bits = 8 * FRAME_BYTES + job.batch_size * (back * codecs.up_bits + (values - back) * 32 + 8 * job.label_bytes)
    down_bits = 8 * FRAME_BYTES + job.batch_size * back * codecs.down_bits
    crosses = positions < last
    return own_s, [
        np.where(crosses, up_bits / link.up_bps + down_bits / link.down_bps + 2.0 * link.delay_s, 0.0) for link in links
    ]


def _bytes(profile: ModelProfile, unit: int, job: Job) -> int:
    """One unit's part of `memory_bytes`: with the tensors at its own end."""
    one = profile.units[unit]
    state = one.state_bytes + 4 * one.parameters * (1 + job.state_copies)
    return state + 4 * job.batch_size * profile.cuts[unit + 1].values
