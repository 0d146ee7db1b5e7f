"""`replacement`: whether another placement suits links as they are now so much better that it is worth moving.

While links change a little, `Controller.follow` compresses on or backs off, on the cuts that there are. It cannot move
a cut: that makes a pipeline anew, whose compression begins anew. So a move has to pay by a margin, and only those who
ask are told. Nothing here moves.
"""

from __future__ import annotations

from ..errors import FringeError
from .automatic_values import Chosen

__all__ = ["replacement"]


def replacement(stays: Chosen, moves: Chosen, *, margin: float = 0.3) -> str:
    """Why to move, in a sentence; empty where it is better to stay.

    Args:
        stays: chosen on the links of now with `Given(machines=…, cuts=…)` as they are.
        moves: chosen on the same links, for the same goals, freely.
        margin: share of the latency by which the move has to be faster.

    Raises:
        FringeError: a margin outside [0, 1).
    """
    if not 0.0 <= margin < 1.0:
        raise FringeError(f"margin = {margin}: expected 0 to below 1")
    if (moves.machines, moves.positions) == (stays.machines, stays.positions):
        return ""
    where = f"{' -> '.join(moves.machines)}" + (f", cut after {', '.join(moves.cuts)}" if moves.cuts else "")
    told = f"{1e3 * moves.latency_s:.2f} ms instead of {1e3 * stays.latency_s:.2f} ms"
    if moves.reached and not stays.reached:
        return f"Move to {where}: it can be expected to meet the goals, which the cuts of now cannot ({told})."
    if stays.reached and not moves.reached:
        return ""
    if moves.latency_s < (1.0 - margin) * stays.latency_s:
        return f"Move to {where}: {told} are expected on links as they are now."
    return ""
