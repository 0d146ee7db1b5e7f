"""`LinkWatch`: says when a link has become worse than it was, and when it is as good again. It changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...fringe.links import Link

__all__ = ["LinkWatch", "changed", "described"]

#: A link has degraded when it takes twice as long, and recovered when it takes less than half as long again.
_WORSE, _AGAIN = 2.0, 1.5
#: So often in a row: what is measured of a busy machine swings.
_LOOKS: Final = 3
#: Other frames differ by less, and so do clocks.
_CHANGED: Final = 0.1
_LEAST_S: Final = 0.001


def described(link: Link) -> str:
    """For people.

    >>> described(Link(10e6, 0.01))
    '10 Mbit/s, 10 ms'
    """
    return f"{link.goodput_bps / 1e6:.3g} Mbit/s, {1e3 * link.delay_s:.3g} ms"


def changed(before: Sequence[Link], now: Sequence[Link], sizes_bytes: Sequence[int]) -> bool:
    """Whether some frame takes another time by more than a tenth, and by more than a millisecond.

    >>> changed([Link(1e6)], [Link(0.5e6)], [1000])
    True
    """
    if len(before) != len(now):
        return True
    for was, link, size in zip(before, now, sizes_bytes, strict=True):
        a, b = was.seconds(size), link.seconds(size)
        if abs(b - a) > max(_LEAST_S, _CHANGED * a):
            return True
    return False


class LinkWatch:
    """See the module.

    Args:
        names: of connections.
        links: as they were at first.

    >>> watch = LinkWatch(["a -> b"], [Link(10e6)])
    >>> [watch.look([Link(2e6)], [10_000]) for _ in range(3)]
    [[], [], ['link a -> b has degraded: 10 Mbit/s, 0 ms before, 2 Mbit/s, 0 ms now']]
    """

    def __init__(self, names: Sequence[str], links: Sequence[Link]) -> None:
        self._names = tuple(names)
        self._good = dict(enumerate(links))
        self._worse: set[int] = set()
        self._looks: dict[int, int] = {}
        self._better: dict[int, list[Link]] = {}

    def look(self, links: Sequence[Link], sizes_bytes: Sequence[int]) -> list[str]:
        """Sentences on what has changed since it looked last.

        Args:
            links: as they are measured now.
            sizes_bytes: of the frames that go over them, by which they are compared.
        """
        said = []
        for number, (name, link, size) in enumerate(zip(self._names, links, sizes_bytes, strict=True)):
            good = self._good[number]
            now_s, good_s = link.seconds(size), good.seconds(size)
            worse = number in self._worse
            limit_s = max((_AGAIN if worse else _WORSE) * good_s, good_s + _LEAST_S)
            other = now_s <= limit_s if worse else now_s > limit_s
            self._looks[number] = self._looks.get(number, 0) + 1 if other else 0
            if self._looks[number] == _LOOKS:
                self._looks[number] = 0
                if worse:
                    self._worse.discard(number)
                    said.append(f"link {name} has recovered: {described(link)} now")
                else:
                    self._worse.add(number)
                    said.append(f"link {name} has degraded: {described(good)} before, {described(link)} now")
            # It is as good as it was found so often in a row; one lucky look is not what it has to come back to.
            better = self._better.setdefault(number, [])
            better.append(link)
            del better[:-_LOOKS]
            least = max(better, key=lambda one: one.seconds(size))
            if not worse and len(better) == _LOOKS and least.seconds(size) < good_s:
                self._good[number] = least
        return said
