"""What a worker tells of its own row, held against the delays it was told: what cannot follow from them is not used.

The server told the worker every delay from which its values follow, so it can go through the same motions. A row whose
values it does not find again rests for this round and is handed to its worker anew: a worker's mistake, or lie, moves
nobody's weights. Nothing here decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from logging import getLogger
from typing import Any, TypeVar

import numpy as np

from flower_edge.control.decision import Report, Signals
from flower_edge.errors import ProtocolError
from flower_edge.runtime.gossip_messages import from_json
from flower_edge.topology.topology import Topology

__all__ = ["told_signals", "told_values"]

log = getLogger("flwr.edge")

#: How far what was told may be from what the server finds: machines may round differently.
TOLERANCE = 1e-9
#: The most characters that are read of a row: so many, and so many for each of its links.
MOST_TEXT = (4096, 1024)

Told = TypeVar("Told", Signals, Report)


def told_values(text: str, mirror: Report, topology: Topology, i: int) -> Report | None:
    """The requirement values of worker i, or None where they are none, or not those of its row.

    Args:
        text: JSON, as it came.
        mirror: what the server finds for all rows.
        topology: every link that may be used.
        i: row of the worker.
    """
    return _told(text, mirror, topology, i, Report.from_plain)


def told_signals(text: str, mirror: Report, topology: Topology, i: int) -> Signals | None:
    """As `told_values`, of a worker that tells only what decides."""
    return _told(text, mirror, topology, i, Signals.from_plain)


def _told(
    text: str, mirror: Report, topology: Topology, i: int, read: Callable[[Mapping[str, Any]], Told]
) -> Told | None:
    degree = int(topology.in_degree[i])
    try:
        if len(text) > MOST_TEXT[0] + MOST_TEXT[1] * degree:
            raise ProtocolError(f"{len(text)} characters about {degree} links")
        told = read(from_json(text, sender="it"))
        why = _unlike(told, mirror, topology, i)
    except (ProtocolError, AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        why = repr(error)
    if why:
        log.warning("\twhat worker %d requires is not used, its row rests: %s", i, why)
        return None
    return told


def _unlike(told: Signals | Report, mirror: Report, topology: Topology, i: int) -> str:
    """What of it is not the row's, or nothing."""
    row = topology.row(i)
    signals = told.signals if isinstance(told, Report) else told
    found = mirror.signals
    asked = (found.requests.link >= row.start) & (found.requests.link < row.stop)
    tried = found.probes[(found.probes >= row.start) & (found.probes < row.stop)] - row.start
    pairs: list[tuple[str, Any, Any]] = [
        ("alpha_max", signals.alpha_max[:1], found.alpha_max[i : i + 1]),
        ("probes", signals.probes, tried),
        ("links to drop", signals.requests.link, found.requests.link[asked] - row.start),
    ]
    pairs += [
        (name, getattr(signals.requests, name), getattr(found.requests, name)[asked])
        for name in ("weight", "slope", "always", "lost")
    ]
    if isinstance(told, Report):
        values, own = told.requirements, mirror.requirements
        straggler = own.straggler[i : i + 1]
        pairs += [
            ("weights", values.weights_hat, own.weights_hat[row]),
            ("bandwidth", values.bandwidth_hat_hz, own.bandwidth_hat_hz[row]),
            ("self weight", values.self_weights_hat[:1], own.self_weights_hat[i : i + 1]),
            ("tau", values.tau_s[:1], own.tau_s[i : i + 1]),
            ("straggler", values.straggler[:1], np.where(straggler >= 0, straggler - row.start, -1)),
            ("own straggler", _first(values.own_straggler), _first(own.own_straggler, i)),
            ("ties", _all(values.tied, row.stop - row.start), _all(own.tied, topology.links)[row]),
        ]
        if type(values.clipped) is not int or type(values.impossible) is not int:
            return f"counts {values.clipped!r:.40} and {values.impossible!r:.40}: expected whole numbers"
    for name, came, expected in pairs:
        if not isinstance(came, np.ndarray) or came.shape != expected.shape or came.dtype != expected.dtype:
            return f"{name}: expected {expected.shape} {expected.dtype}, not {came!r:.80}"
        if not np.allclose(came, expected, rtol=TOLERANCE, atol=TOLERANCE):
            return f"{name}: {came!r:.80} does not follow from the delays it was told"
    return ""


def _first(values: Any, i: int = 0) -> Any:
    return np.zeros(1, bool) if values is None else values[i : i + 1]


def _all(values: Any, size: int) -> Any:
    return np.zeros(size, bool) if values is None else values
