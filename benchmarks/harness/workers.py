"""Run one function on many jobs in a few processes of their own, and say what is done. Nothing here is timed."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from typing import TypeVar

from flower_edge.runtime.launching.processes import Interrupts

from .printing import progress

__all__ = ["run_jobs"]

Job = TypeVar("Job")
Result = TypeVar("Result")

_LOOK_S = 0.5


def run_jobs(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    name: Callable[[Job], str] = str,
) -> list[Result]:
    """The function's results, in the order of the jobs.

    Args:
        function: defined at the top of a module, as are the jobs' types: both travel to other processes.
        jobs: one call each.
        workers: processes; with 1 everything runs here.
        name: what progress calls a job.

    Raises:
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP came, its argument says which; the processes are ended first.
        Exception: whatever the function raised first.
    """
    if workers <= 1 or len(jobs) <= 1:
        results = []
        for count, job in enumerate(jobs, 1):
            results.append(function(job))
            progress(f"    {count} of {len(jobs)}: {name(job)}")
        return results
    # Two processes that each use every core are slower than one.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    before = set(multiprocessing.active_children())

    def ours() -> list[multiprocessing.process.BaseProcess]:
        return [process for process in multiprocessing.active_children() if process not in before]

    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=multiprocessing.get_context("spawn"))
    with Interrupts() as interrupts:
        try:
            futures = [pool.submit(function, job) for job in jobs]
            names = {future: name(job) for future, job in zip(futures, jobs, strict=True)}
            waiting = set(futures)
            while waiting:
                done, waiting = wait(waiting, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                if interrupts.signal is not None:
                    raise KeyboardInterrupt(interrupts.signal)
                for future in done:
                    future.result()
                    progress(f"    {len(jobs) - len(waiting)} of {len(jobs)}: {names[future]}")
            return [future.result() for future in futures]
        except BaseException:
            # A job under way is of no use any more, and may take minutes.
            workers_left = ours()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in workers_left:
                process.kill()
                process.join()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
