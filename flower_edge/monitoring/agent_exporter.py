"""`AgentExporter`: what a peer agent has done, as metrics for Prometheus, asked of it at each scrape.

The agent answers over its Unix socket, so this may stand in any process of its host that its owner starts. One that
does not answer is told as such, and its counts are left out: they begin anew when it does.
"""

from __future__ import annotations

import logging
from collections import Counter as Tally
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import EdgeError
from ..telemetry import Metrics
from ..telemetry.instruments import Key

__all__ = ["AgentExporter"]

log = logging.getLogger(__name__)

#: name of a sum of the agent -> metric, its label's value, and what one is worth.
_SUMS: Final[dict[str, tuple[str, Key, float]]] = {
    "sent_bits": ("peer_sent_bytes", (), 1 / 8),
    "received_bits": ("peer_received_bytes", (), 1 / 8),
    "sent_letters": ("peer_letters", ("sent",), 1.0),
    "received_letters": ("peer_letters", ("received",), 1.0),
    "relayed_letters": ("peer_letters", ("relayed",), 1.0),
    "relayed_up_bits": ("peer_relayed_bytes", ("up",), 1 / 8),
    "relayed_down_bits": ("peer_relayed_bytes", ("down",), 1 / 8),
    "resumed": ("peer_resumed_transfers", (), 1.0),
    "lost": ("peer_lost_letters", (), 1.0),
}


class AgentExporter:
    """Metrics of one agent; it is asked when `metrics.text()` is.

    Args:
        socket: the agent's.
        metrics: where to tell them; by default a new one.
    """

    def __init__(self, socket: str | Path, metrics: Metrics | None = None) -> None:
        self.socket = str(socket)
        self.metrics = metrics = Metrics() if metrics is None else metrics
        self._counters = {
            name: metrics.counter(name, says, labels)
            for name, says, labels in (
                ("peer_sent_bytes", "Bytes of models sent to neighbours.", ()),
                ("peer_received_bytes", "Bytes of models that came from neighbours.", ()),
                ("peer_relayed_bytes", "Bytes of models for others, taken in and handed out.", ("direction",)),
                ("peer_letters", "Models as they are sent: sent, received, relayed.", ("what",)),
                ("peer_resumed_transfers", "Transfers that went on where they had broken off.", ()),
                ("peer_lost_letters", "Models that could not be delivered in their round.", ()),
                ("peer_refusals", "Neighbours or models that were refused, by the code of the reason.", ("code",)),
            )
        }
        self._gauges = {
            name: metrics.gauge(name, says, labels)
            for name, says, labels in (
                ("agent_up", "1 where the agent answers, 0 where it does not.", ()),
                ("agent_uptime_seconds", "Since the agent was started.", ()),
                ("peers", "Connections of neighbours that are open.", ()),
                ("peer_links", "Links to neighbours, by their state.", ("state",)),
                ("peer_waiting_letters", "Models that wait to be sent.", ()),
                ("peer_round", "The round of each run that the agent takes part in.", ("run",)),
            )
        }
        metrics.before(self.refresh)

    def refresh(self) -> None:
        """Ask the agent now."""
        from ..peers.agent_client import AgentClient

        try:
            with AgentClient(self.socket) as client:
                told: Mapping[str, Any] = client.status()
        except (EdgeError, OSError) as error:
            log.debug("the agent at %s does not answer: %s", self.socket, error)
            told = {}
        counted: dict[str, dict[Key, float]] = {name: {} for name in self._counters}
        measured: dict[str, dict[Key, float]] = {name: {} for name in self._gauges}
        measured["agent_up"][()] = float(bool(told))
        if told:
            sums = told.get("counters", {})
            for name, (metric, key, worth) in _SUMS.items():
                counted[metric][key] = float(sums.get(name, 0)) * worth
            counted["peer_refusals"] = {(str(code),): float(n) for code, n in sums.get("refused", {}).items()}
            runs = told.get("runs", [])
            links = [link for run in runs for link in run.get("links", [])]
            measured["agent_uptime_seconds"][()] = float(told.get("up_s", 0.0))
            measured["peers"][()] = float(told.get("connections", 0))
            measured["peer_waiting_letters"][()] = float(sum(link.get("waiting", 0) for link in links))
            states = Tally(str(link.get("state", "")) for link in links)
            measured["peer_links"] = {(state,): float(number) for state, number in states.items()}
            measured["peer_round"] = {(str(run.get("run", "")),): float(run.get("round", 0)) for run in runs}
        for name, values in counted.items():
            self._counters[name].replace(values)
        for name, values in measured.items():
            self._gauges[name].replace(values)
