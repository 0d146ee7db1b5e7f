"""`modelled`: what an inference of a deployment takes by its model, every term of it measured on the deployment.

    latency = sum of compute + sum of (8 bytes / goodput + delay) + rest

    bytes       of the version's frames: known, not measured
    goodput     of links, from frames that went over them
    compute     of each machine for this version: reading a frame, its part, writing the next
    rest        what a request takes that carries nothing, less the delays

No term is fitted to latencies of requests, so the model can be held against them. Nothing here queues: it is the
latency of a request that finds all machines idle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...errors import FringeError
from ...fringe.links import Inference, Link, inference

if TYPE_CHECKING:
    from .deployment_torch import Deployment

__all__ = ["computing_s", "modelled"]


def computing_s(deployment: Deployment, version: int | None = None) -> tuple[float, ...]:
    """Seconds, median, that each machine spends on a batch of a version; None: of the one that serves.

    Raises:
        FringeError: a machine that cannot be reached, or has served nothing of it yet.
    """
    number = deployment.version if version is None else version
    found = []
    for machine, said in deployment.statistics().items():
        seen = said.get("computes", {}).get(str(number), {"count": 0})
        if not seen["count"]:
            raise FringeError(
                f"machine {machine!r} has computed nothing of version {number} yet"
                f"{': ' + said['error'] if 'error' in said else ''}; ask it something first"
            )
        found.append(float(seen["p50_s"]))
    return tuple(found)


def modelled(
    deployment: Deployment, *, links: Sequence[Link] | None = None, null_s: float | None = None, requests: int = 15
) -> Inference:
    """An inference of one sample by the version that serves.

    Args:
        deployment: that has served some requests of this version.
        links: of its connections; None: as they are measured to be now. Frames of a few hundred bytes say little about
            goodput, so links that were measured while frames were large are worth keeping.
        null_s: see `Deployment.null_s`; None: measured now, with `requests` requests.

    Raises:
        FringeError: nothing is deployed or was served yet, or no frame went over a link.
        NotServed: as of `Deployment.null_s`.
    """
    sizes = [one.size_bytes for one in deployment.pipeline.connections]
    ways = [one.link for one in deployment.links()] if links is None else list(links)
    taken_s = deployment.null_s(requests) if null_s is None else null_s
    return inference(sizes, ways, computing_s(deployment), null_s=taken_s)
