"""What an agent has measured: per neighbour and round, and in all. By this host's monotonic clock, where not said
otherwise; times of two hosts are never subtracted."""

from __future__ import annotations

import threading
from typing import Any, Final

from .exchange import Delivered

__all__ = ["Counters", "RoundFigures"]

_ROUNDS: Final = 64
_CODES: Final = 64


class Counters:
    """Sums since the agent was started; of several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, int] = {}
        self._refused: dict[str, int] = {}

    def add(self, **amounts: int) -> None:
        """Some more of each."""
        with self._lock:
            for name, amount in amounts.items():
                self._sums[name] = self._sums.get(name, 0) + amount

    def refused(self, code: str) -> None:
        """Somebody, or a letter, was refused."""
        with self._lock:
            if code in self._refused or len(self._refused) < _CODES:
                self._refused[code] = self._refused.get(code, 0) + 1

    def told(self) -> dict[str, Any]:
        """All of them."""
        with self._lock:
            return {**dict(sorted(self._sums.items())), "refused": dict(sorted(self._refused.items()))}


class RoundFigures:
    """Of a run's last rounds, by neighbour. Its owner has the lock."""

    def __init__(self) -> None:
        self._rounds: dict[int, dict[str, dict[str, dict[str, Any]]]] = {}

    def _of(self, round: int, way: str, node: int) -> dict[str, Any]:
        if round not in self._rounds:
            self._rounds[round] = {"to": {}, "from": {}}
            for old in sorted(self._rounds)[: max(0, len(self._rounds) - _ROUNDS)]:
                del self._rounds[old]
        return self._rounds.get(round, {"to": {}, "from": {}})[way].setdefault(str(node), {})

    def delivered(self, round: int, node: int, size: int, told: Delivered, *, relay: bool, bps: float | None) -> None:
        """An attempt to deliver to `node` has ended."""
        entry = self._of(round, "to", node)
        entry["attempts"] = entry.get("attempts", 0) + 1
        sent = entry.get("sent_bytes", 0) + told.sent_bytes
        entry.update(
            code=told.code,
            via="agent-relay" if relay else "direct",
            size_bytes=size,
            sent_bytes=sent,
            # What a relay carries goes over two legs, and is charged to both.
            charged_bytes=sent * (2 if relay else 1),
            resumed_at=told.offset,
            offer_s=told.offer_s,
            rate_bps=bps,
        )
        if told.first_to_ack_s is not None:
            took_s = told.first_to_ack_s
            entry.update(first_to_ack_s=took_s, receiver_s=told.receiver_s)
            entry["goodput_bps"] = 8 * told.sent_bytes / took_s if took_s > 0 else None

    def failed(self, round: int, node: int, code: str) -> None:
        """An attempt ended without an answer, or with a refusal of the connection."""
        entry = self._of(round, "to", node)
        entry["attempts"] = entry.get("attempts", 0) + 1
        entry["code"] = code

    def received(self, round: int, node: int, size: int, link_s: float, *, relay: bool) -> None:
        """A letter of `node` is there."""
        via = "agent-relay" if relay else "direct"
        self._of(round, "from", node).update(size_bytes=size, link_s=link_s, via=via)

    def mixed(self, round: int, node: int, took_s: float) -> None:
        """What the worker took to decode and mix it."""
        self._of(round, "from", node)["decode_mix_s"] = took_s

    def newest(self, most: int = 100) -> dict[str, dict[str, dict[str, Any]]]:
        """Of each neighbour the round in which it was measured last; of the `most` that were so most lately."""
        found: dict[str, dict[str, dict[str, Any]]] = {"to": {}, "from": {}}
        for round_ in sorted(self._rounds, reverse=True):
            for way, known in found.items():
                for node, entry in self._rounds[round_][way].items():
                    if node not in known and len(known) < most:
                        known[node] = {**entry, "round": round_}
        return found

    def told(self, round: int) -> dict[str, Any]:
        """Of one round."""
        return self._rounds.get(round, {"to": {}, "from": {}})
