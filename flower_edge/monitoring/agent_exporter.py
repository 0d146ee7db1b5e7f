"""`AgentExporter`: what a peer agent has done, as metrics for Prometheus, asked of it at each scrape.

The agent answers over its Unix socket, so this may stand in any process of its host that its owner starts; or it stands
in the agent itself. One that does not answer is told as such, and its counts are left out: they begin anew later.

How labels stay few: `neighbour` is a number that the server gives, of the hundred that were measured last; `run` is one
of the few that an agent takes part in.
"""

from __future__ import annotations

import logging
from collections import Counter as Tally
from collections.abc import Callable, Mapping
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
    "given_up": ("peer_lost_letters", (), 1.0),
    "lost": ("peer_lost_connections", (), 1.0),
}
_LINK: Final = ("run", "neighbour")
#: figure of a link -> metric; to a neighbour, and from one.
_TO: Final = {
    "goodput_bps": "peer_link_bandwidth_bps",
    "rate_bps": "peer_link_rate_bps",
    "offer_s": "peer_link_offer_seconds",
}
_FROM: Final = {"link_s": "peer_link_delay_seconds"}


class AgentExporter:
    """Metrics of one agent; it is asked when `metrics.text()` is.

    Args:
        agent: its socket, or, in its own process, what gives its status.
        metrics: where to tell them; by default a new one.
    """

    def __init__(self, agent: str | Path | Callable[[], Mapping[str, Any]], metrics: Metrics | None = None) -> None:
        #: Of the agent; empty where it is this process.
        self.socket = "" if callable(agent) else str(agent)
        self._status = agent if callable(agent) else self._asked
        self.metrics = metrics = Metrics() if metrics is None else metrics
        self._counters = {
            name: metrics.counter(name, says, labels)
            for name, says, labels in (
                ("peer_sent_bytes", "Bytes of models sent to neighbours.", ()),
                ("peer_received_bytes", "Bytes of models that came from neighbours.", ()),
                ("peer_relayed_bytes", "Bytes of models for others, taken in and handed out.", ("direction",)),
                ("peer_letters", "Models as they are sent: sent, received, relayed.", ("what",)),
                ("peer_resumed_transfers", "Transfers that went on where they had broken off.", ()),
                ("peer_lost_letters", "Models that were given up: the neighbour will never take them.", ()),
                ("peer_lost_connections", "Connections to neighbours that ended and neither end had closed.", ()),
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
                ("spool_bytes", "Bytes of models that lie in the agent's files.", ("what",)),
                ("spool_letters", "Models that lie in the agent's files.", ("what",)),
                ("peer_link_bandwidth_bps", "Of the newest model to a neighbour, bits per second.", _LINK),
                ("peer_link_rate_bps", "The most to send to a neighbour, as the controller says.", _LINK),
                ("peer_link_offer_seconds", "Round trip of the newest offer to a neighbour.", _LINK),
                ("peer_link_delay_seconds", "What the newest model of a neighbour took to come.", _LINK),
            )
        }
        #: Whether it answered when it was last asked.
        self.up = False
        metrics.before(self.refresh)

    def _asked(self) -> Mapping[str, Any]:
        from ..peers.agent_client import AgentClient

        with AgentClient(self.socket) as client:
            return client.status()

    def refresh(self) -> None:
        """Ask the agent now."""
        try:
            told = self._status()
        except (EdgeError, OSError) as error:
            log.debug("the agent at %s does not answer: %s", self.socket or "this process", error)
            told = {}
        counted: dict[str, dict[Key, float]] = {name: {} for name in self._counters}
        measured: dict[str, dict[Key, float]] = {name: {} for name in self._gauges}
        self.up = bool(told)
        measured["agent_up"][()] = float(self.up)
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
            _measure_spool(runs, measured)
            _measure_links(runs, measured)
            measured["peer_round"] = {(str(run.get("run", "")),): float(run.get("round", 0)) for run in runs}
        for name, values in counted.items():
            self._counters[name].replace(values)
        for name, values in measured.items():
            self._gauges[name].replace(values)


def _measure_spool(runs: list[Mapping[str, Any]], measured: dict[str, dict[Key, float]]) -> None:
    for run in runs:
        for what, size in run.get("spool_bytes", {}).items():
            spool = measured["spool_bytes"]
            spool[(str(what),)] = spool.get((str(what),), 0.0) + float(size)
        for what, number in (("received", "letters"), ("to_relay", "to_relay"), ("posted", "pending")):
            letters = measured["spool_letters"]
            letters[(what,)] = letters.get((what,), 0.0) + float(run.get(number, 0))


def _measure_links(runs: list[Mapping[str, Any]], measured: dict[str, dict[Key, float]]) -> None:
    for run in runs:
        for way, figures in (("to", _TO), ("from", _FROM)):
            for neighbour, entry in run.get("measured", {}).get(way, {}).items():
                for figure, metric in figures.items():
                    if entry.get(figure) is not None:
                        measured[metric][str(run.get("run", "")), str(neighbour)] = float(entry[figure])
