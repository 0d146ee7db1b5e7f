"""Threads or processes in which a `LocalGrid` calls its clients; one that breaks is replaced by a new one.

Nothing here knows nodes or messages.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Literal, TypeVar

from .one_parser import parse_one_at_a_time

__all__ = ["ClientPool"]

Result = TypeVar("Result")


class ClientPool:
    """Runs calls side by side. Starts its workers at the first call, and again at the first after `close`.

    Args:
        kind: `threads`, or `processes`, which need calls and results that pickle.
        workers: how many calls run at the same time.
    """

    def __init__(self, kind: Literal["threads", "processes"], workers: int) -> None:
        self._kind, self._workers = kind, workers
        self._executor: Executor | None = None
        self._lock = threading.Lock()

    def submit(self, call: Callable[[], Result], then: Callable[[Result | BaseException], None]) -> None:
        """Have a call made; `then` is told, in some thread, what it returned or whatever it raised.

        `then` is not called where `close` came before the call began. It may submit further calls.

        Raises:
            OSError: no worker can be started.
        """
        executor = self._ready()
        try:
            future = executor.submit(call)
        except BrokenExecutor:  # a call took its worker process down; the others go on in a new pool
            self._forget(executor)
            executor = self._ready()
            future = executor.submit(call)

        def done(finished: Future[Result]) -> None:
            if finished.cancelled():
                return
            error = finished.exception()
            if isinstance(error, BrokenExecutor):
                # This runs under a lock of the broken pool: what follows must not be submitted there.
                self._forget(executor)
            then(finished.result() if error is None else error)

        future.add_done_callback(done)

    def close(self) -> None:
        """Wait for the calls that run, drop those that wait, end the workers."""
        with self._lock:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=True, cancel_futures=True)

    def _ready(self) -> Executor:
        with self._lock:
            if self._executor is None:
                if self._kind == "threads":
                    parse_one_at_a_time()
                    self._executor = ThreadPoolExecutor(self._workers, thread_name_prefix="local-grid")
                else:
                    self._executor = ProcessPoolExecutor(self._workers, mp_context=get_context("spawn"))
            return self._executor

    def _forget(self, executor: Executor) -> None:
        with self._lock:
            if self._executor is executor:
                self._executor = None
