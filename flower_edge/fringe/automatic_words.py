"""`told`: a choice, and the sentences that say why it was made, with numbers. Nothing here chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import FringeError
from .automatic_choice import Weighed
from .automatic_values import Chosen, Given, ModelCosts, Reach
from .goals import Goals
from .links import attainable
from .placing import depth_for

__all__ = ["told"]


def told(
    found: Sequence[Weighed],
    machines: Sequence[str],
    costs: ModelCosts,
    goals: Goals,
    reach: Reach,
    given: Given,
    drop: float,
    speeds: Mapping[str, float],
) -> Chosen:
    """The first of what was found.

    Args:
        found: the best of each line-up with its cuts, the best first.
        machines: all there are.
        costs, goals, reach, given, drop, speeds: that it was chosen by.

    Raises:
        FringeError: goals that are not possible with any of them; the most that one could is named.
    """
    best = found[0]
    plain_s = _plain(best, costs, machines, speeds)
    most = attainable(best.before_bytes, best.links, plain_s)
    if not best.possible:
        soonest = min((attainable(one.before_bytes, one.links, _plain(one, costs, machines, speeds)) for one in found),
                      key=lambda one: one.latency_s)  # fmt: skip
        largest = max(
            attainable(one.before_bytes, one.links, _plain(one, costs, machines, speeds)).fraction for one in found
        )
        raise FringeError(
            f"no placement on {', '.join(machines)} can reach these goals: of all {len(found)} an inference takes at "
            f"least {1e3 * soonest.latency_s:.2f} ms, and latency falls by less than {100 * largest:.1f} %, for "
            "compute and delays stay; ask for less, or move a machine nearer"
        )
    names = tuple(machines[one] for one in best.machines)
    methods = best.methods
    dropped = [one for one in methods if not any(place.allows(one) for place in best.places)]
    methods = tuple(one for one in methods if one not in dropped)
    return Chosen(
        names,
        tuple(place.name for place in best.places),
        tuple(place.position for place in best.places),
        _depths(best, names, given, reach),
        methods,
        tuple(_why(best, found, names, machines, goals, reach, drop, plain_s, dropped, given)),
        best.links,
        best.before_bytes,
        tuple(round(size) for size in best.sizes_bytes),
        best.before_s,
        best.latency_s,
        most,
        best.reached,
    )


def _plain(one: Weighed, costs: ModelCosts, machines: Sequence[str], speeds: Mapping[str, float]) -> list[float]:
    """Seconds of its machines, without coding."""
    ends = (0, *(place.position for place in one.places), len(costs.unit_s))
    return [
        sum(costs.unit_s[start:stop]) / speeds.get(machines[machine], 1.0)
        for start, stop, machine in zip(ends, ends[1:], one.machines, strict=False)
    ]


def _depths(best: Weighed, names: Sequence[str], given: Given, reach: Reach) -> dict[str, int]:
    """By rules deeper beside the connections that are to shrink most; else as was learned."""
    found = dict.fromkeys(names, best.depth)
    if not reach.depths:
        found = dict.fromkeys(names, 1)
        for number, (before, after) in enumerate(zip(best.before_bytes, best.sizes_bytes, strict=True)):
            for machine in names[number : number + 2]:
                found[machine] = max(found[machine], depth_for(max(1.0, before / after)))
    return {**found, **{machine: depth for machine, depth in (given.depth or {}).items() if machine in found}}


def _why(
    best: Weighed,
    found: Sequence[Weighed],
    names: Sequence[str],
    machines: Sequence[str],
    goals: Goals,
    reach: Reach,
    drop: float,
    plain_s: Sequence[float],
    dropped: Sequence[str],
    given: Given,
) -> list[str]:
    by = "rules of thumb" if not reach.depths else "what was recorded"
    lines = [f"{len(found)} placements were weighed by {by}, for {goals.judge.name} {drop:.3g} worse at most."]
    if not best.places:
        return [*lines, f"{names[0]} does it all in {_ms(best.latency_s)}; any other machine costs more than it saves."]
    cuts = ", ".join(f"after {place.name} ({place.size_bytes} bytes)" for place in best.places)
    lines.append(f"{' -> '.join(names)}, cut {cuts}: {_ms(best.before_s)} uncompressed, of which compute takes "
                 f"{_ms(sum(plain_s))} and delays {_ms(sum(link.delay_s for link in best.links))}.")  # fmt: skip
    lines.append(f"Expected at the end: {_ms(best.latency_s)} with {sum(best.sizes_bytes):.0f} of "
                 f"{sum(best.before_bytes)} bytes per inference.")  # fmt: skip
    for machine in machines:
        if machine not in names:
            with_it = [one for one in found if machine in [machines[n] for n in one.machines]]
            lines.append(
                f"{machine} is left out: with it {_ms(with_it[0].latency_s)} at best."
                if with_it
                else f"{machine} is left out, as was asked for, or for want of room."
            )
    others = [one for one in found if one.machines == best.machines and one.places != best.places]
    if others and given.cuts is None:
        named = ", ".join(place.name for place in others[0].places)
        lines.append(f"Next best on these machines: cut after {named}, {_ms(others[0].latency_s)}.")
    faster = min(found, key=lambda one: one.latency_s)
    if best.reached and faster.latency_s < 0.9 * best.latency_s:
        cut = ", ".join(place.name for place in faster.places) or "nowhere"
        lines.append(
            f"Cut after {cut} an inference would take {_ms(faster.latency_s)}, but that does not meet the goals."
        )
    if not best.methods:
        lines.append("Nothing is compressed: coding takes longer than it saves, and the goals do not ask for it.")
    else:
        lines.append(f"Methods: {', '.join(one for one in best.methods if one not in dropped)}.")
    for method in ("pruning", "distillation"):
        refused = [place for place in best.places if not place.allows(method)]
        if refused and best.methods and (method in best.methods or given.methods is None):
            reason = refused[0].refusal if method == "pruning" else "no pair takes these tensors"
            lines.append(f"No {method} after {', '.join(place.name for place in refused)}: {reason}.")
    if not best.reached:
        lines.append("The goals are possible, but not expected to be met above the floor.")
    return lines


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms"
