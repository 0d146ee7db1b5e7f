"""The round loop: Flower's own, with what it lacks. It can stop early, record what happened, and resume.

`drive` runs rounds of any `Work`: the flat work of one Flower strategy, or the tiers of `Hierarchical`. Bit for bit it
does what `Strategy.start` of flwr 1.41 does, in the same order.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from logging import getLogger

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result

from flower_edge.errors import NobodyAdmitted
from flower_edge.events import Event
from flower_edge.rounds import Round
from flower_edge.runtime.generators import give_threads_their_own_jitter
from flower_edge.store.run_folder import RunFolder
from flower_edge.telemetry import log_about, log_context, log_to_json
from flower_edge.telemetry.json_lines import wanted_by_environment

from .arguments import check_start, scores_of
from .round_work import Work
from .run_session import RunSession
from .step_events import step_events

__all__ = ["EvaluateFn", "drive"]

# A child of Flower's own logger: progress appears where Flower's does.
log = getLogger("flwr.edge")

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]
#: After so many rounds in a row that brought nothing but refused replies, a run ends: that is no bad luck.
_MOST_REFUSED_ROUNDS = 3


@log_context(round=None)
def drive(
    work: Work,
    grid: Grid,
    initial_arrays: ArrayRecord,
    num_rounds: int = 3,
    timeout: float = 3600,
    train_config: ConfigRecord | None = None,
    evaluate_config: ConfigRecord | None = None,
    evaluate_fn: EvaluateFn | None = None,
    *,
    run: RunFolder | None = None,
    resume: bool = False,
) -> Result:
    """Run rounds. Arguments as `Strategy.start`, and:

    Args:
        work: what a round is made of.
        grid: may be layered; its layers are told of rounds and merges, and asked whether to stop.
        run: where to record metrics, models and checkpoints.
        resume: continue from the newest checkpoint of `run`; rounds keep their numbers.

    Raises:
        ConfigError: what rounds cannot begin with, or an `evaluate_fn` that returns no metrics by name.
        ResumeError: no checkpoint, or one that does not fit this strategy, grid or model.
    """
    check_start(initial_arrays, num_rounds, train_config, evaluate_config)
    train_config = ConfigRecord() if train_config is None else train_config
    evaluate_config = ConfigRecord() if evaluate_config is None else evaluate_config
    if wanted_by_environment():
        log_to_json()
    log_about(run=None if run is None else run.path.name)
    give_threads_their_own_jitter()
    result, arrays, first = Result(), initial_arrays, 1
    session = RunSession(work, grid, run, train_config, evaluate_config)
    refusals = 0

    log.info("Starting %s strategy:", type(work.strategy).__name__)
    work.strategy.summary()
    if resume:
        first, arrays, refusals = session.restore(result, initial_arrays)
        log.info("Resuming at round %d", first)
        if first > 1 and (reason := session.stop(Round(first - 1))):
            log.info("It had stopped after round %d: %s", first - 1, reason)
            return result
    else:
        if run is not None:
            session.check_resumable()
        if evaluate_fn and (found := scores_of(evaluate_fn(0, initial_arrays))) is not None:
            log.info("Initial global evaluation results: %s", found)
            result.evaluate_metrics_serverapp[0] = found
            session.record("central", 0, found)
        session.save(1, arrays, result)

    started_s = time.monotonic()
    for number in range(first, num_rounds + 1):
        log_about(round=number)
        log.info("")
        log.info("[ROUND %s/%s]", number, num_rounds)
        trained = work.train(grid, number, arrays, train_config, timeout)
        if trained.arrays is not None:
            before, arrays = arrays, session.merged(Round(number), arrays, trained.arrays)
            work.adopted(before, arrays)
            result.arrays = arrays
        if trained.metrics is not None:
            log.info("\t└──> Aggregated MetricRecord: %s", trained.metrics)
            result.train_metrics_clientapp[number] = trained.metrics
        session.report("train", number, trained, last=number == num_rounds)
        refusals = 0 if trained.refused is None else refusals + 1
        if trained.refused is not None and refusals >= _MOST_REFUSED_ROUNDS:
            raise NobodyAdmitted(
                f"{refusals} rounds in a row brought nothing but refused replies; the last one, {trained.refused}",
                trained.refused.asked,
            )

        evaluated = work.evaluate(grid, number, arrays, evaluate_config, timeout)
        if evaluated.metrics is not None:
            log.info("\t└──> Aggregated MetricRecord: %s", evaluated.metrics)
            result.evaluate_metrics_clientapp[number] = evaluated.metrics
        session.report("evaluate", number, evaluated)

        central = scores_of(evaluate_fn(number, arrays)) if evaluate_fn else None
        if central is not None:
            log.info("\t└──> Global MetricRecord: %s", central)
            result.evaluate_metrics_serverapp[number] = central
            session.record("central", number, central)

        # What an evaluation measured contains what training did.
        traffic = {**trained.traffic, **evaluated.traffic}
        session.scored(Round(number), central if central is not None else evaluated.metrics)
        scores = central or evaluated.metrics
        session.finish_round(number, arrays, result, scores, traffic, refusals, last=number == num_rounds)
        if reason := session.stop(Round(number)) or session.asked_to_stop():
            log.info("Stopping after round %d: %s", number, reason)
            if number < num_rounds:
                session.events(number, step_events(grid, ended=True))
            session.events(number, [Event("stopped", f"stopped: {reason}")])
            break

    log.info("")
    log.info("Strategy execution finished in %.2fs", time.monotonic() - started_s)
    for line in io.StringIO(str(result)):
        log.info("\t%s", line.rstrip("\n"))
    return result
