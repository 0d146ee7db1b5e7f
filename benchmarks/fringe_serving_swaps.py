"""What a swap costs those who are served meanwhile: open traffic in windows with swaps and in windows without.

Both windows of a pair have the same times of arrival and follow one another, which first by turns, so that whatever
else the machine does hits both. Only requests that were under way during a swap are compared, and with them the same
requests of the other window. Swaps go to and fro between two versions of as many bytes: a difference in latency is the
swap's, not the version's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flower_edge.fringe.pipeline_torch import Pipeline

from .fringe_serving_hosts import Hosts

__all__ = ["Windows", "p99_ratio", "paired", "swapping"]

#: Times that pairs of windows are drawn anew for the interval of the ratio.
_DRAWS: Final = 2000


@dataclass(frozen=True)
class Windows:
    """How swaps are measured.

    Attributes:
        pairs: of windows, one with and one without swaps.
        seconds_s: of a window.
        rate_per_s: of requests, at random times.
        pause_s: from the end of a swap to the next.
        seed: of the times.
    """

    pairs: int
    seconds_s: float
    rate_per_s: float = 25.0
    pause_s: float = 0.4
    seed: int = 0


class _Pair(NamedTuple):
    """Seconds of the same requests: during swaps, and without any."""

    during_s: NDArray[np.float64]
    steady_s: NDArray[np.float64]


def swapping(
    hosts: Hosts,
    versions: Mapping[str, Pipeline],
    windows: Windows,
    serves: Callable[[int, Pipeline], None],
    check: Callable[[list[dict[str, Any]]], None],
    told: Callable[[str], None],
) -> dict[str, Any]:
    """Measure.

    Args:
        hosts: that serve.
        versions: two, which are swapped to and fro.
        windows: how long and how often.
        serves: is told which number a version was given.
        check: is given all answers.
        told: what is said meanwhile.
    """
    random = np.random.default_rng([windows.seed, 6])
    two = list(versions.values())
    pairs: list[_Pair] = []
    load_s: list[float] = []
    flip_s: list[float] = []
    turn = 0
    _swap(hosts, two[turn], serves)
    for number in range(windows.pairs):
        gaps_s = random.exponential(1.0 / windows.rate_per_s, round(2 * windows.seconds_s * windows.rate_per_s))
        at_s = np.cumsum(gaps_s)
        at_s = at_s[at_s < windows.seconds_s]
        if not len(at_s):
            continue
        found: dict[bool, list[dict[str, Any]]] = {}
        times: list[tuple[float, float]] = []
        for swaps in (True, False) if number % 2 else (False, True):
            begin_s = time.monotonic() + 0.1
            hosts.begin((begin_s + at_s).tolist())
            while swaps and time.monotonic() < begin_s + windows.seconds_s - windows.pause_s:
                time.sleep(windows.pause_s)
                turn = 1 - turn
                began_s = time.monotonic()
                swap = _swap(hosts, two[turn], serves)
                times.append((began_s, time.monotonic()))
                load_s.append(swap[0])
                flip_s.append(swap[1])
            found[swaps] = hosts.end()
            check(found[swaps])
        pairs.append(paired(found[True], found[False], times))
        if number % 5 == 4:
            told(f"serving: {number + 1} of {windows.pairs} pairs of windows, {len(load_s)} swaps")
    during = np.concatenate([pair.during_s for pair in pairs])
    steady = np.concatenate([pair.steady_s for pair in pairs])
    return {
        "ratio": p99_ratio(pairs),
        "interval": list(_interval(pairs, random)),
        "swaps": len(load_s),
        "during": len(during),
        "rate_per_s": windows.rate_per_s,
        "during_p50_ms": 1e3 * float(np.median(during)),
        "during_p99_ms": 1e3 * float(np.quantile(during, 0.99)),
        "steady_p50_ms": 1e3 * float(np.median(steady)),
        "steady_p99_ms": 1e3 * float(np.quantile(steady, 0.99)),
        "load_ms": 1e3 * float(np.median(load_s)),
        "flip_ms": 1e3 * float(np.median(flip_s)),
    }


def _swap(hosts: Hosts, pipeline: Pipeline, serves: Callable[[int, Pipeline], None]) -> tuple[float, float]:
    """Seconds of loading and of the flip."""
    swap = hosts.deployment.swap(pipeline)
    serves(swap.version, pipeline)
    return swap.load_s, swap.flip_s


def paired(with_swaps: list[dict[str, Any]], without: list[dict[str, Any]], times: list[tuple[float, float]]) -> _Pair:
    during, steady = [], []
    for one, same in zip(with_swaps, without, strict=True):
        if "lost" in one or "lost" in same:
            continue
        end_s = one["sent_s"] + one["seconds_s"]
        if any(one["sent_s"] < ended_s and began_s < end_s for began_s, ended_s in times):
            during.append(one["seconds_s"])
            steady.append(same["seconds_s"])
    return _Pair(np.array(during), np.array(steady))


def p99_ratio(pairs: list[_Pair] | list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> float:
    """p99 during swaps over p99 without, of all windows together.

    >>> p99_ratio([(np.array([0.02, 0.03]), np.array([0.01, 0.01]))])
    2.99
    """
    during, steady = (np.quantile(np.concatenate([pair[at] for pair in pairs]), 0.99) for at in (0, 1))
    return round(float(during / steady), 9)


def _interval(pairs: list[_Pair], random: np.random.Generator) -> tuple[float, float]:
    """In which 95 % of the ratios lie when pairs of windows are drawn anew, with repetition."""
    some = [pair for pair in pairs if len(pair.during_s)]
    ratios = [p99_ratio([some[at] for at in random.integers(0, len(some), len(some))]) for _ in range(_DRAWS)]
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)
