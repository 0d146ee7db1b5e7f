"""`FleetExporter`: a server of devices as metrics for Prometheus: who has joined, who is there, what was refused.

Read from the book and the filter at each scrape. Devices are counted and never a label: what they call themselves is
not ours to choose. Nothing here listens.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Mapping
from typing import Final

from ..telemetry import Metrics
from .book import EnrolmentBook
from .desk import EnrolmentDesk
from .superlink import SuperLink

__all__ = ["FleetExporter"]

STATES: Final = ("pending", "joined", "removed")


class FleetExporter:
    """Metrics of a server of devices.

    Args:
        book, desk, superlink: the server's.
        requests: at its public port, by the verdict on them.
        metrics: where to tell them; by default a new one.
    """

    def __init__(
        self,
        book: EnrolmentBook,
        desk: EnrolmentDesk,
        superlink: SuperLink,
        requests: Callable[[], Mapping[str, int]],
        metrics: Metrics | None = None,
    ) -> None:
        self.metrics = metrics = Metrics() if metrics is None else metrics
        self._book, self._desk, self._superlink, self._asked = book, desk, superlink, requests
        self._devices = metrics.gauge("devices", "Devices that this server knows, by their state.", ("state",))
        self._online = metrics.gauge("devices_online", "Devices of which a request was taken in the last minute.")
        self._joined = metrics.counter("devices_joined", "Devices that ever joined.")
        self._removed = metrics.counter("devices_removed", "Devices that were removed or have left.")
        self._uses = metrics.gauge("join_uses_left", "Devices for which join lines are good that have not expired.")
        self._refusals = metrics.counter(
            "join_refusals", "Joins that were refused, by the code of the reason.", ("code",)
        )
        self._requests = metrics.counter(
            "fleet_requests",
            "Requests to the fleet API: taken or refused by the SuperLink, or filtered.",
            ("verdict",),
        )
        self._up = metrics.gauge("superlink_up", "1 where the SuperLink answers, 0 where it does not.")
        self._starts = metrics.counter("superlink_starts", "How often the SuperLink was started.")
        metrics.before(self.refresh)

    def refresh(self) -> None:
        """Look now."""
        devices = self._book.devices(removed=True)
        states = Tally(device.state for device in devices)
        inside = [device for device in devices if device.state != "removed"]
        self._devices.replace({(state,): float(states[state]) for state in STATES})
        self._online.set(sum(self._desk.sightings.online(device.public_key) for device in inside))
        # From the book, so that they go on after a restart: one that joined has a node id, whatever became of it.
        self._joined.replace({(): float(sum(device.node_id is not None for device in devices))})
        self._removed.replace({(): float(states["removed"])})
        self._uses.set(self._book.uses_left())
        self._refusals.replace({(code,): float(number) for code, number in dict(self._desk.refusals).items()})
        self._requests.replace({(verdict,): float(number) for verdict, number in self._asked().items()})
        self._up.set(float(self._superlink.healthy))
        self._starts.replace({(): float(self._superlink.starts)})
