"""`Trial`: what came of one candidate: compressed, healed, judged. `attempt` makes it; the controller decides.

    compress -> refused?   a tensor that this method cannot make smaller
             -> slower?    computing takes more than the link saves
             -> evaluate, heal where that may help, and keep the better of both
             -> below the floor?

The pipeline that is handed in stays as it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ..errors import FringeError, FrozenMoved
from .actions import Candidate, Operation, pair_of
from .goals import Goals
from .links import Link, inference
from .operations_torch import Compressor
from .pipeline_torch import Pipeline

__all__ = ["SLOWER", "Outcome", "Trial", "attempt"]

#: Why something that the floor would allow was not taken.
SLOWER: Final = "slower: computing takes more than the link saves"

Outcome = Literal["fits", "refused", "slower", "below the floor"]


@dataclass(frozen=True, eq=False)
class Trial:
    """What came of a candidate.

    Attributes:
        outcome: "fits" may be accepted.
        why: in words.
        pipeline: with the candidate's action done, where it came to that.
        operations: that lead to it.
        sizes_bytes: of an inference at each connection.
        compute_s: of each machine; empty where it is not measured.
        latency_s: of an inference; NaN where it was refused.
        score: the metric on validation; None where it did not come to that.
        healed: whether fringe layers were trained.
    """

    outcome: Outcome
    why: str
    pipeline: Pipeline
    operations: tuple[Operation, ...]
    sizes_bytes: tuple[int, ...]
    compute_s: tuple[float, ...] = ()
    latency_s: float = math.nan
    score: float | None = None
    healed: bool = False


def attempt(
    compressor: Compressor,
    pipeline: Pipeline,
    operations: tuple[Operation, ...],
    candidate: Candidate,
    goals: Goals,
    links: Sequence[Link],
    evaluate: Callable[[Pipeline], float],
    *,
    first_score: float,
    latency_s: float,
    compute_s: Callable[[Pipeline], tuple[float, ...]] | None,
) -> Trial:
    """Try a candidate.

    Args:
        compressor: that does it.
        pipeline: as it is now; operations: that led to it.
        candidate: what to try.
        goals: whose floor has to hold.
        links: as they are now.
        evaluate: the metric of a pipeline.
        first_score: without any compression.
        latency_s: of an inference now.
        compute_s: seconds of each machine; None: speed is not looked at.

    Raises:
        FrozenMoved: an array that may not change is another.
    """
    connection = candidate.action.connection
    sizes = [one.size_bytes for one in pipeline.connections]
    try:
        trial, done = compressor.apply(pipeline, operations, candidate.action)
    except FrozenMoved:
        raise
    except FringeError as error:  # such as the stream of a transformer, which cannot be pruned
        sizes[connection] = candidate.after_bytes
        return Trial("refused", f"refused: {error}", pipeline, operations, tuple(sizes))
    sizes = [one.size_bytes for one in trial.connections]
    compute = () if compute_s is None else compute_s(trial)
    after_s = inference(sizes, links, compute).latency_s
    if compute_s is not None and after_s >= latency_s:
        return Trial("slower", SLOWER, trial, done, tuple(sizes), compute, after_s)
    score, healed = evaluate(trial), False
    judge, fits = goals.judge, goals.holds(score, first_score)
    method = candidate.action.method
    # A pair learns by itself; fewer bits mostly need no healing; fewer channels always gain by it, for the next steps.
    if pair_of(done, connection) is None and (method == "pruning" or not fits):
        better, healed = compressor.heal(trial, connection, lambda one: judge.signed(evaluate(one)))
        if healed:
            trial, score = better, evaluate(better)
            fits = goals.holds(score, first_score)
    # It takes much longer, so only for what would be rolled back otherwise.
    if not fits and method != "distillation":
        better, together = compressor.heal_together(trial, lambda one: judge.signed(evaluate(one)))
        if together:
            trial, score, healed = better, evaluate(better), True
            fits = goals.holds(score, first_score)
    floor = f"{judge.name} of {score:.4g}, floor {goals.worst(first_score):.4g}"
    outcome: Outcome = "fits" if fits else "below the floor"
    return Trial(outcome, floor, trial, done, tuple(sizes), compute, after_s, score, healed)
