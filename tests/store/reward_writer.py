"""A process that forks writers of reward books, one for each job on its input; imports are done once.

A job is a line of JSON: `{"place", "payer", "first", "count", "nodes", "die_at", "limit", "grow"}`. A writer prints a
line for each settlement once it is acknowledged, so that what was printed must be found, however the writer ended.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from flower_edge.errors import RewardError
from flower_edge.store.reward_book import RewardBook
from flower_edge.store.reward_rows import Settlement


def say(*words: object) -> None:
    """One line, at once and whole."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def settlement(job: dict[str, Any], at: int) -> Settlement:
    credits = {str(node): node for node in range(job["nodes"])}
    return Settlement("demo", at, 0, job["payer"], sum(credits.values()) + 1, 1, credits)


def die_at(engine: sa.Engine, statement: int) -> None:
    """Kill this process before (even) or after (odd) a statement to come, counted from here on."""
    seen = 0

    def step(*_: Any) -> None:
        nonlocal seen
        if seen == statement:
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    sa.event.listen(engine, "before_cursor_execute", step)
    sa.event.listen(engine, "after_cursor_execute", step)


def write(job: dict[str, Any]) -> None:
    book = RewardBook(job["place"])
    say("open")
    for at in range(job["first"], job["first"] + job["count"]):
        if at == job["first"] + job.get("calm", 0):
            if "die_at" in job:
                die_at(book._database._open(), job["die_at"])
            if "limit" in job:
                # Where the log ends, and so many bytes more.
                end = Path(job["place"] + "-wal").stat().st_size + job["limit"]
                # Python does not die of it; `cut` says that this process is to.
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL if job["cut"] else signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (end, resource.RLIM_INFINITY))
        try:
            book.settle(settlement(job, at))
        except RewardError as error:
            say("refused", at, error)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            if not job.get("again"):
                break
            book.settle(settlement(job, at))
        say("booked", at)
        if job.get("reopen"):
            book.close()
            book = RewardBook(job["place"])
    book.close()
    say("closed")


def main() -> None:
    for line in sys.stdin:
        jobs = json.loads(line)
        children = []
        for job in jobs:
            child = os.fork()
            if child == 0:
                try:
                    write(job)
                except BaseException as error:
                    say("failed", repr(error).replace("\n", " "))
                    os._exit(1)
                os._exit(0)
            children.append(child)
        say("pids", *children)
        for child in children:
            say("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        say("done")


if __name__ == "__main__":
    main()
