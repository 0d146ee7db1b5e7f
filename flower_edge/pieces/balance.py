"""Where to cut a model for the terminals there are: so that none waits long for another, and each has the memory.

Nothing here measures; `flower_edge.splitting.measure` times units, and rates of machines are told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from ..errors import SplitError
from ..splitting.chain import Goal, Link, Machine, plan_chain
from ..splitting.costs import PLAIN, CutCodecs, Job, memory_bytes
from ..splitting.profile import ModelProfile
from .heads import head_positions
from .order import Mode

__all__ = ["balanced"]


def balanced(
    profile: ModelProfile,
    machines: Sequence[Machine],
    *,
    job: Job | None = None,
    mode: Mode = "exact",
    links: Sequence[Link] | None = None,
    codecs: CutCodecs = PLAIN,
    goal: Goal = "bottleneck",
) -> tuple[int, ...]:
    """Cuts that give each machine a piece with something to train in it.

    Args:
        profile: of the model; with measured times they count instead of FLOPs.
        machines: by place, place 0 has the samples.
        job: batch size, and what the optimiser keeps.
        mode: `decoupled` cuts only where a head can be put, and sends nothing back.
        links: between each two places; None: as fast as anyone likes.
        codecs: on every link.
        goal: `bottleneck` makes the slowest machine's (or link's) time the least, so that work is shared in proportion
            to speed; `latency` makes a whole step of a chain in exact mode the shortest, which leaves slow machines
            with as little as they can hold.

    Returns:
        Rising positions, one fewer than machines; none for one machine.

    Raises:
        SplitError: more machines than there are pieces to give, or too little memory.
    """
    if not machines:
        raise SplitError("no machine to give a piece to; give one or more")
    allowed = head_positions(profile) if mode == "decoupled" else tuple(range(1, profile.last))
    trained = sum(unit.parameters > 0 for unit in profile.units)
    most = min(trained, len(allowed) + 1)
    if len(machines) > max(most, 1):
        raise SplitError(
            f"{len(machines)} machines for a model of {trained} units with parameters and {len(allowed)} places to cut "
            f"in mode {mode!r}; it makes {most} pieces at most: leave machines out"
        )
    if len(machines) == 1:
        room, needed = machines[0].memory_bytes, memory_bytes(profile, profile.last, job or Job())
        if room is not None and needed > room:
            raise SplitError(_memory(profile, machines, needed))
        return ()
    ways = list(links) if links is not None else [Link()] * (len(machines) - 1)
    if mode == "decoupled":
        # Nothing comes back, and a delay does not hold up the batches that follow.
        ways = [replace(link, down_bps=math.inf, delay_s=0.0) for link in ways]

    def planned(able: Sequence[Machine]) -> tuple[int, ...]:
        return plan_chain(
            profile, able, ways, job=job, codecs=codecs, goal=goal, positions=allowed, all_train=True
        ).cuts

    try:
        return planned(machines)
    except SplitError:
        if all(machine.memory_bytes is None for machine in machines):
            raise
        planned([replace(machine, memory_bytes=None) for machine in machines])  # else it is not for memory
        raise SplitError(_memory(profile, machines, memory_bytes(profile, profile.last, job or Job()))) from None


def _memory(profile: ModelProfile, machines: Sequence[Machine], needed: int) -> str:
    rooms = ", ".join("any" if one.memory_bytes is None else str(one.memory_bytes) for one in machines)
    return (
        f"{len(machines)} machines with memory for {rooms} bytes cannot hold a model that takes about {needed} in "
        f"training, cut at any of its {profile.last - 1} places; add a machine, take a smaller batch_size, or put the "
        "machines in another order"
    )
