"""`Requests`: how many were served and lost, by which version, and how long they took. Safe for several threads.

Who asks through a session is counted here one by one. Others ask the entry themselves, so what the entry counts is
looked at, too: served are the more of both, and lost are those that failed there besides one's own.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..fringe.measures import Window
from .told import RequestsTold

__all__ = ["Requests"]


class Requests:
    """See the module.

    >>> requests = Requests()
    >>> requests.asked(); requests.answered(3, 0.02)
    >>> requests.told(2)["by_version"], requests.p50_s(3)
    ({'3': 1}, 0.02)
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way = 0
        self._by_version: Counter[int] = Counter()
        self._earlier = 0  # served by versions of earlier runs
        self._windows: dict[int, Window] = {}
        self._lost = self._failed_there = self._refused = 0
        self._entry: Counter[str] = Counter()
        self._last: dict[str, int] = {}
        self._of: object = None

    def asked(self) -> None:
        """One is under way."""
        with self._changed:
            self._under_way += 1

    def answered(self, version: int | None, seconds: float) -> None:
        """It was answered by a version, after so long; None: by one of an earlier run."""
        with self._changed:
            if version is None:
                self._earlier += 1
            else:
                self._by_version[version] += 1
                self._windows.setdefault(version, Window()).add(seconds)
            self._ended()

    def tried(self, version: int, count: int, seconds: Sequence[float]) -> None:
        """So many requests of the session's own were answered: measurements, which count as no requests.

        Args:
            version: that answered.
            count: that the entry has counted.
            seconds: of those that tell how long it takes.
        """
        with self._changed:
            for one in seconds:
                self._windows.setdefault(version, Window()).add(one)
            self._entry["served"] -= count

    def anew(self) -> None:
        """Versions begin at 0 again."""
        with self._changed:
            self._earlier += sum(self._by_version.values())
            self._by_version.clear()
            self._windows.clear()

    def failed(self, code: str, by_entry: bool) -> None:
        """It was not.

        Args:
            code: of `NotServed`; "busy" counts as refused.
            by_entry: whether the entry itself said so, and has counted it.
        """
        with self._changed:
            if code == "busy":
                self._refused += 1
            else:
                self._lost += 1
                self._failed_there += by_entry
            self._ended()

    def _ended(self) -> None:
        self._under_way -= 1
        self._changed.notify_all()

    def idle(self, timeout_s: float) -> bool:
        """Wait until none is under way; whether that came in time."""
        until_s = time.monotonic() + timeout_s
        with self._changed:
            return self._changed.wait_for(lambda: not self._under_way, max(0.0, until_s - time.monotonic()))

    def begin(self, entry: Mapping[str, Any] | None, of: object) -> None:
        """From here on this entry's counts are looked at: what it has counted so far is no matter.

        Args:
            entry: what it counts; None: nothing serves, or it did not say.
            of: what it is the entry of; counts of any other are passed over.
        """
        with self._changed:
            self._last, self._of = {} if entry is None else _counts(entry), of

    def look(self, entry: Mapping[str, Any], of: object) -> None:
        """Take up what the entry counts; one that counts less than before was started anew.

        Args:
            entry, of: as of `begin`.
        """
        now = _counts(entry)
        with self._changed:
            if of is not self._of:  # machines were exchanged since somebody asked it
                return
            for name, count in now.items():
                last = self._last.get(name, 0)
                self._entry[name] += count - last if count >= last else count
            self._last = now

    def p50_s(self, version: int) -> float | None:
        """Median seconds of the latest answers of a version, as who asked saw them; None: there were none."""
        with self._changed:
            window = self._windows.get(version)
        return None if window is None else float(window.summary()["p50_s"])

    def told(self, swaps: int) -> RequestsTold:
        """Plain values."""
        with self._changed:
            others = max(0, self._entry["failed"] - self._failed_there)
            return {
                "served": max(self._earlier + sum(self._by_version.values()), self._entry["served"]),
                "lost": self._lost + others,
                "refused": max(self._refused, self._entry["refused"]),
                "under_way": self._under_way,
                "swaps": swaps,
                "by_version": {str(number): count for number, count in sorted(self._by_version.items())},
            }

    def state(self) -> dict[str, Any]:
        """Plain values for `resume`; times are not among them."""
        told = self.told(0)
        return {name: told[name] for name in ("served", "lost", "refused", "by_version")}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Count on from there.

        Raises:
            KeyError, TypeError, ValueError: no such state.
        """
        by_version = Counter({int(number): int(count) for number, count in state["by_version"].items()})
        served, lost, refused = (int(state[name]) for name in ("served", "lost", "refused"))
        with self._changed:
            self._by_version, self._earlier = by_version, served - sum(by_version.values())
            self._lost, self._refused, self._failed_there = lost, refused, 0
            self._entry = Counter(served=served, refused=refused)


def _counts(entry: Mapping[str, Any]) -> dict[str, int]:
    return {name: int(entry[name]) for name in ("served", "failed", "refused")}
