"""The command of a benchmark that has parts: read what is asked for, measure, print a table or the JSON object."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Final

from flower_edge.errors import EdgeError

from .children import available_cpus
from .printing import print_json, print_table, progress, versions
from .targets import Figure, targets_of, verdicts

__all__ = ["WORKERS", "run_parts"]

#: Processes that measure side by side, where that changes no figure.
WORKERS: Final = 2


def run_parts(
    options: argparse.Namespace,
    parts: Sequence[str],
    figures: Sequence[Figure],
    measure: Callable[[Sequence[str], argparse.Namespace], dict[str, Any]],
    show: Callable[[Mapping[str, Any]], None],
    packages: Sequence[str],
) -> int:
    """Measure and print.

    Args:
        options: the command line, with `json` and `quick`.
        parts: what to measure, in order.
        figures: every key with its target.
        measure: the figures of some parts, by key.
        show: prints what is beside the figures.
        packages: whose versions belong to the figures.

    Returns:
        The exit code: 0 also when a target is missed, 1 when a part could not be measured, 128 + signal.
    """
    begin_s = time.monotonic()
    try:
        found = measure(parts, options)
    except (EdgeError, BrokenProcessPool) as error:
        progress(f"error: {error}")
        return 1
    except KeyboardInterrupt as interrupt:
        progress("interrupted; everything that was started is stopped")
        return 128 + int(interrupt.args[1] if interrupt.args else signal.SIGINT)
    if options.json:
        print_json(
            {
                **found,
                "targets": targets_of(figures),
                "parts": list(parts),
                "took_s": time.monotonic() - begin_s,
                "cpus": min(WORKERS, available_cpus()),
                "quick": bool(options.quick),
                "versions": versions(*packages),
            }
        )
        return 0
    show(found)
    print_table("figures", ["key", "value", "target", "reference", ""], verdicts(figures, found))
    print(f"took {time.monotonic() - begin_s:.0f} s")
    return 0
