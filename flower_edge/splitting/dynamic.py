"""`Dynamic`: a cut per device and round, so that all finish a step together and each trains what it can.

With budgets, the rule of the draft [3]: a device takes the most layers whose computing keeps T_train and whose
transfers keep T_trans on a rate b = bits / (T_trans - delay) that the shared links admit; refused, it takes another cut
or fewer bits. Without budgets, they are found: the least common step time T that every device, the shared cloud and the
shared links can keep together, and then for each device the most layers within T.

The search for T is exact for the model in `costs`, not a heuristic, for two reasons. A device that can train the whole
model within T should: it then takes nothing from anybody. And a device reserves the same part g of its own link both
ways, so the option that needs the least g asks the least of every shared link at once. So whether T can be kept is one
look at every option, and T is found by bisection; `exhaustive` tries everything and finds the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..errors import SplitError
from ..units import human_s
from .budgets import BudgetRule, Budgets
from .capacity import UNLIMITED, Cloud
from .costs import PLAIN, Costs, CutCodecs, Job, costs_of
from .plan import DeviceView, Plan
from .profile import ModelProfile
from .reservations import Reservations
from .settled import ROUNDING, admitted, least_parts, settle

__all__ = ["Dynamic"]


@dataclass(frozen=True)
class Dynamic:
    """Chooses cuts and codecs from capacities. Holds no state: the same capacities give the same plan.

    Attributes:
        cloud: its speed, and links that devices share.
        job: what a round is; None: `Split` fills in its own.
        budgets: `Budgets`, `QuantileBudgets` (from histories; equalised times until there are any), or None: equalised.
        codecs: candidates. At the same cut the one with the most bits that fits is taken: give only such as the task
            can bear.
        least_cut: units that stay on every device; 0 lets the samples themselves leave it.
        whole: whether single devices may train the whole model.
        jitter: links may fall to 1 - jitter of what is reserved, and budgets are to hold all the same.
        fallback: take the whole model on all devices where the plan is no quicker than plain federated training.
    """

    cloud: Cloud = UNLIMITED
    job: Job | None = None
    budgets: BudgetRule | None = None
    codecs: tuple[CutCodecs, ...] = (PLAIN,)
    least_cut: int = 1
    whole: bool = True
    jitter: float = 0.0
    fallback: bool = True

    def plan(self, profile: ModelProfile, devices: Mapping[int, DeviceView], round: int) -> Plan:
        """See `Planner.plan`.

        Raises:
            SplitError: no device, a device that holds no cut, or nothing to choose from.
        """
        del round
        costs = costs_of(
            profile,
            devices,
            self.cloud,
            self.job or Job(),
            self.codecs,
            least_cut=self.least_cut,
            whole=self.whole,
            jitter=self.jitter,
        )
        budgets = None if self.budgets is None else self.budgets.now([devices[at].history for at in costs.numbers])
        chosen, reasons = _equalised(costs) if budgets is None else _within(costs, budgets)
        plan = settle(profile, devices, costs, chosen, reasons, budgets)
        if plan.worth or not self.fallback or math.isinf(plan.whole_s):
            return plan
        if all(one.cut == profile.last for one in plan.assignments.values()):
            return plan
        alone = settle(
            profile,
            devices,
            costs,
            dict.fromkeys(costs.numbers, costs.whole),
            dict.fromkeys(costs.numbers, "plain federated training is at least as quick"),
            budgets,
        )
        return replace(alone, worth=False, why=plan.why)


def _least(costs: Costs, within_s: float) -> tuple[list[int], float] | None:
    """Options that keep a step time and ask least of others, and the greatest part needed; None: it cannot be kept."""
    alone = costs.allowed[:, costs.whole] & (costs.compute_s[:, costs.whole] <= within_s)
    fixed_s = costs.fixed_s(int(np.count_nonzero(~alone)))
    parts = np.where(costs.allowed, least_parts(fixed_s, costs.wire_s, within_s), np.inf)
    # A device that must send has no use for the whole model, which it cannot finish in time.
    parts[:, costs.whole] = np.where(alone, 0.0, np.inf)
    best = np.where(alone, costs.whole, parts.argmin(axis=1))
    needed = parts[np.arange(len(best)), best]
    if (needed > 1.0).any() or not admitted(costs, needed):
        return None
    return best.tolist(), float(needed.max())


def _equalised(costs: Costs) -> tuple[dict[int, int], dict[int, str]]:
    """The least common T, and then the most layers within it for each device in turn."""
    everybody_s = np.where(costs.allowed, costs.fixed_s(len(costs.numbers)) + costs.wire_s, np.inf)
    low, high = 0.0, float(everybody_s.min(axis=1).max())
    while math.isfinite(high) and _least(costs, high) is None:
        low, high = high, 2.0 * high
    if not math.isfinite(high):
        raise SplitError("a step would take for ever; check the units of the capacities and links given: FLOP/s, bit/s")
    while high - low > ROUNDING * high:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if _least(costs, middle) is not None else (middle, high)
    found = _least(costs, high)
    if found is None:  # the loops above end where it can be kept
        raise SplitError(f"the step time {high!r} s can be kept and cannot")
    best = found[0]

    users = sum(option != costs.whole for option in best)
    parts = np.where(costs.allowed, least_parts(costs.fixed_s(users), costs.wire_s, high), np.inf)
    held = np.array([parts[row, option] if option != costs.whole else 0.0 for row, option in enumerate(best)])
    for row, option in enumerate(best):
        # Options are in the order of cuts, then of bits: the last that fits has most layers, then most bits.
        for other in range(costs.whole - 1, option, -1):
            tried = np.where(np.arange(len(held)) == row, parts[row, other], held)
            if parts[row, other] <= 1.0 and admitted(costs, tried):
                best[row], held = other, tried
                break
    told = f"most layers within the common step time of {human_s(high)}"
    return dict(zip(costs.numbers, best, strict=True)), dict.fromkeys(costs.numbers, told)


def _within(costs: Costs, budgets: Budgets) -> tuple[dict[int, int], dict[int, str]]:
    """The draft's rule, device by device; the slowest ask first, for others can take more layers instead."""
    links = {str(at): float(rate_bps) for at, rate_bps in enumerate(costs.link_bps)}
    reservations = Reservations(links)
    chosen: dict[int, int] = {}
    reasons: dict[int, str] = {}
    slowest_first = sorted(range(len(costs.numbers)), key=lambda row: (-costs.compute_s[row, costs.whole], row))
    for row in slowest_first:
        number = costs.numbers[row]
        parts = least_parts(costs.delay_s[row], costs.wire_s[row], budgets.transfer_s)
        late = np.maximum(costs.compute_s[row] / budgets.train_s, parts)
        if not np.isfinite(late[costs.allowed[row]]).any():
            # The delay alone is over T_trans and no rate would do: then by what the whole of the own link would take.
            whole_link_s = costs.delay_s[row] + costs.wire_s[row]
            late = np.maximum(costs.compute_s[row] / budgets.train_s, whole_link_s / budgets.transfer_s)
        late = np.where(costs.allowed[row], late, np.inf)
        keeps = np.flatnonzero(late <= 1.0)[::-1].tolist()
        # Turned round: of equally late ones more layers come first.
        by_lateness = (costs.whole - np.argsort(late[::-1], kind="stable")).tolist()
        others = [option for option in by_lateness if 1.0 < late[option] < np.inf]
        refused = 0
        asked_bps = np.minimum(parts, 1.0)[:, None] * costs.load_bps[:, row]
        # What is left is rounded, so this rules out only what is clearly too much; summing takes long for many devices.
        left_bps = np.array([reservations.left_bps(name) for name in links])
        hopeless = np.any(asked_bps > left_bps * (1.0 + ROUNDING) + ROUNDING * costs.link_bps, axis=1)
        for option in (*keeps, *others):
            if not hopeless[option] and reservations.admit(
                str(number), dict(zip(links, asked_bps[option].tolist(), strict=True))
            ):
                chosen[number] = option
                break
            refused += 1
        else:
            # Nobody's reservation can be kept then: `settle` divides the links anew.
            asks = np.where(costs.allowed[row], parts, np.inf)
            chosen[number] = int(asks.argmin()) if np.isfinite(asks).any() else others[0]
        told = f"{_spelled(budgets.train_s)} computing and {_spelled(budgets.transfer_s)} transfer"
        if late[chosen[number]] > 1.0:
            reasons[number] = f"no cut keeps {told}; this one comes nearest"
        else:
            reasons[number] = f"most layers within {told}"
        reasons[number] += f"; {refused} refused by shared links" if refused else ""
    return chosen, reasons


def _spelled(within_s: float) -> str:
    return human_s(within_s) if math.isfinite(within_s) else "unlimited"
