"""`Fleet`: the machines there are, the links between them, and what serves on them.

    Modelled        nothing serves; links are what was said of them
    RunningStages   hosts on which `flower-edge stage` runs already
    LocalStages     stages of this machine, started and ended here; see `local_stages`

A fleet knows no model. A pipeline may use some of its machines, in their order; over one that is left out a frame goes
through both of its links.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, Self

from ...errors import FringeError
from ...fringe.links import Link
from ...splitting.order import ArchitectureSpec
from ...transport.transport import PeerTransport

if TYPE_CHECKING:
    from ..fringe.deployment_torch import Deployment

__all__ = ["Fleet", "Modelled", "RunningStages", "checked_links", "connection_named", "links_between", "over"]


class Fleet(Protocol):
    """Machines. The session that is given one does not close it."""

    @property
    def machines(self) -> tuple[str, ...]:
        """Names, in the order in which an inference may pass them."""
        ...

    def links(self) -> tuple[Link | None, ...]:
        """Between each two that follow one another, as they were said to be; None: nothing was said."""
        ...

    def addresses(self) -> Mapping[str, str]:
        """By machine, where its stage listens; of one that nothing serves on, none."""
        ...

    def deployed(self, machines: Sequence[str], architecture: ArchitectureSpec | None = None) -> Deployment | None:
        """What serves a pipeline on some of the machines, in this order; None: nothing serves.

        Args:
            machines: of the pipeline.
            architecture: of a model that cannot be traced.

        Raises:
            EdgeError: a machine that there is not, or that cannot be started.
        """
        ...

    def close(self) -> None:
        """End what it started, and nothing else. Safe to call twice."""
        ...


def checked_links(machines: Sequence[str], links: Sequence[Link | None] | None) -> tuple[Link | None, ...]:
    """One per two neighbours.

    Raises:
        FringeError: no two machines or more of different names, or not as many links.
    """
    if isinstance(machines, str) or len(machines) < 2 or len(set(machines)) != len(machines) or "" in machines:
        raise FringeError(f"machines = {machines!r}: expected two names or more, none twice")
    found = (None,) * (len(machines) - 1) if links is None else tuple(links)
    if len(found) != len(machines) - 1:
        raise FringeError(f"{len(found)} links for {len(machines)} machines; expected {len(machines) - 1}")
    return found


def over(links: Sequence[Link]) -> Link:
    """Several links one after the other, as one: a frame is passed on when all of it is there.

    >>> over([Link(10e6, 0.01), Link(10e6, 0.005)])
    Link(goodput_bps=5000000.0, delay_s=0.015)
    """
    if len(links) == 1:
        return links[0]
    slow = math.fsum(1.0 / link.goodput_bps for link in links)
    return Link(1.0 / slow if slow else math.inf, math.fsum(link.delay_s for link in links))


def links_between(
    known: Sequence[str], links: Sequence[Link | None], machines: Sequence[str]
) -> tuple[Link | None, ...]:
    """Between some of the machines that are known; None where a link on the way is not known.

    Args:
        known: all machines, in order.
        links: between each two that follow one another.
        machines: some of them.

    >>> links_between(["a", "b", "c"], [Link(2e6, 0.01), Link(2e6, 0.01)], ["a", "c"])
    (Link(goodput_bps=1000000.0, delay_s=0.02),)

    Raises:
        FringeError: a machine that there is not, or another order.
    """
    unknown = [name for name in machines if name not in known]
    if unknown:
        raise FringeError(f"machine {unknown[0]!r}: expected one of {', '.join(known)}")
    at = [list(known).index(name) for name in machines]
    if at != sorted(at):
        raise FringeError(
            f"machines = {list(machines)}: expected the order in which they are linked, {', '.join(known)}"
        )
    ways = [links[start:stop] for start, stop in pairwise(at)]
    return tuple(
        over([link for link in way if link is not None]) if all(link is not None for link in way) else None
        for way in ways
    )


def connection_named(machines: Sequence[str], connection: int | str) -> tuple[int, str]:
    """Number and name of a connection between two that follow one another.

    Raises:
        FringeError: there is none.

    >>> connection_named(["a", "b"], "a -> b"), connection_named(["a", "b"], 0)
    ((0, 'a -> b'), (0, 'a -> b'))
    """
    names = [f"{a} -> {b}" for a, b in pairwise(machines)]
    number = names.index(connection) if isinstance(connection, str) and connection in names else connection
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(names):
        raise FringeError(f"connection {connection!r}: expected 0 to {len(names) - 1}, or one of {', '.join(names)}")
    return number, names[number]


class Modelled:
    """Machines on which nothing serves: to find out what compression would give.

    Args:
        machines: names.
        links: between each two that follow one another.

    Raises:
        FringeError: machines and links that do not go together.

    >>> from flower_edge.fringe.links import Link
    >>> Modelled(["camera", "server"], [Link(10e6, 0.010)]).machines
    ('camera', 'server')
    """

    def __init__(self, machines: Sequence[str], links: Sequence[Link]) -> None:
        self._links = checked_links(machines, links)
        self._machines = tuple(machines)

    @property
    def machines(self) -> tuple[str, ...]:
        """See `Fleet`."""
        return self._machines

    def links(self) -> tuple[Link | None, ...]:
        """See `Fleet`."""
        return self._links

    def addresses(self) -> Mapping[str, str]:
        """None."""
        return {}

    def deployed(self, machines: Sequence[str], architecture: ArchitectureSpec | None = None) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing to end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class RunningStages:
    """Hosts on which stages run already; see `flower-edge stage`.

    Args:
        addresses: host:port by machine, in the order in which an inference may pass them.
        transport: with credentials that they believe.
        secret: as they were given it.
        via: by machine, where the one before it dials it, if not at its address.
        deployment: name of the deployment, as they were given it.
        links: what is known of the links; None: they are measured.

    Raises:
        FringeError: machines and links that do not go together.
        ConfigError: an address that is none.
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        transport: PeerTransport,
        secret: bytes | None = None,
        *,
        via: Mapping[str, str] | None = None,
        deployment: str = "pipeline",
        links: Sequence[Link | None] | None = None,
    ) -> None:
        from ...transport.credentials import split_address

        self._links = checked_links(tuple(addresses), links)
        for address in (*addresses.values(), *(via or {}).values()):
            split_address(address)
        self._addresses, self._via = dict(addresses), dict(via or {})
        self._transport, self._secret, self._deployment = transport, secret, deployment

    @property
    def machines(self) -> tuple[str, ...]:
        """See `Fleet`."""
        return tuple(self._addresses)

    def links(self) -> tuple[Link | None, ...]:
        """See `Fleet`."""
        return self._links

    def addresses(self) -> Mapping[str, str]:
        """See `Fleet`."""
        return dict(self._addresses)

    def deployed(self, machines: Sequence[str], architecture: ArchitectureSpec | None = None) -> Deployment:
        """See `Fleet`."""
        from ..fringe.deployment_torch import Deployment

        links_between(self.machines, self._links, machines)
        return Deployment(
            {name: self._addresses[name] for name in machines},
            self._transport,
            via={name: at for name, at in self._via.items() if name in machines},
            deployment=self._deployment,
            secret=self._secret,
            architecture=architecture,
        )

    def close(self) -> None:
        """Nothing was started here: they go on."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
