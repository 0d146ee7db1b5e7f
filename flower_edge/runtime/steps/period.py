"""`UntilPeriodEnds`: a round as a period of time, in which every terminal makes as many steps as it can.

A policy for `SteppedGrid` around another. Nothing here measures time; `Progress` tells it.

Source: seed patent [4] ¶33: the model is trained for a preset period, and its results are collected at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import ConfigError
from .decisions import (
    Change,
    Continue,
    Decide,
    Decision,
    Detach,
    Drop,
    Progress,
    Renew,
    Replace,
    Stop,
    honour_requests,
)

__all__ = ["UntilPeriodEnds"]


@dataclass(frozen=True)
class UntilPeriodEnds:
    """Stops every task of a round when `period_s` have passed since the first of them was sent.

    Give the strategy more `local-steps` than anybody makes in that time. The terminals report the steps they made and
    the examples they used, so the mean weighs them accordingly. A task ends with the slice in which the period does:
    a slow terminal is late by at most one slice.

    Args:
        period_s: how long a round lasts, seconds.
        then: decides until then; what it stops, drops or replaces earlier is. At the end of the period a replacement
            has no time left: the work of the node it was for is collected where it was to be kept, else dropped. What
            it detaches makes the steps that the rest of the period has room for. Whatever decides goes in here, as
            `MidRound` does: a policy around the period could begin what lasts longer.

    Raises:
        ConfigError: no time at all.

    >>> decide = UntilPeriodEnds(20.0)
    >>> decide(Progress(1000, 8, 9999, now_s=116.0, round_begun_s=100.0))
    Continue(enlist=())
    >>> decide(Progress(1000, 10, 9999, now_s=120.0, round_begun_s=100.0))
    Stop(planned=True)
    """

    period_s: float
    then: Decide = honour_requests

    def __post_init__(self) -> None:
        if not self.period_s > 0:
            raise ConfigError(f"UntilPeriodEnds({self.period_s}): expected more than 0 s")

    def __call__(self, progress: Progress) -> Decision:
        """Decide, as `SteppedGrid` asks."""
        decision = self.then(progress)
        left_s = progress.round_begun_s + self.period_s - progress.now_s
        # Times are sums of floats: a period that ends with a slice must not ask for one more.
        over = left_s <= 1e-9 * max(abs(progress.now_s), self.period_s)
        if isinstance(decision, Detach) and decision.steps is None:
            if over:
                return Detach(steps=0)
            return Detach(steps=max(1, int(left_s / progress.step_s))) if progress.step_s else decision
        if over and isinstance(decision, Continue | Change | Renew):
            return Stop(planned=True)
        if over and isinstance(decision, Replace):
            return Stop(planned=True) if decision.keep_work and progress.error is None else Drop()
        return decision
