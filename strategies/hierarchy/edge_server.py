"""`edge_server`: the ServerApp of an edge. It runs the edge's own rounds whenever the centre asks for some.

It is one run on the edge's own SuperLink that does not end: terminals keep what they remember, and nothing is started
in a round. The centre's ClientApp on the same host, `bridge_app`, asks it over a socket of this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from logging import getLogger
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from flower_edge.errors import ConfigError
from flower_edge.runtime.bridge.counting import stable_key
from flower_edge.runtime.bridge.host import EdgeHost, HostSettings
from flower_edge.runtime.bridge.place import BridgePlace, bridge_folder
from flower_edge.runtime.grid_proxy import GridProxy

from .tiers import EdgeFactory

__all__ = ["edge_server", "serve_edge"]

log = getLogger("flwr.edge")


def edge_server(
    edge: EdgeFactory,
    *,
    terminals: int = 0,
    join_timeout_s: float = 60.0,
    deadline_s: float | None = None,
    quorum: float = 1.0,
    poll_s: float = 0.1,
    resend_after_s: float | None = None,
    alone_after_s: float = 120.0,
    alone_rounds: int = 10,
    around: Callable[[Grid], Grid] = lambda grid: grid,
) -> ServerApp:
    """A ServerApp that is an edge of a `Hierarchical(tier=BridgeTier())` centre.

    `bridge` in the run config names the folder in which the two halves of an edge host find each other; list it in the
    app's `[tool.flwr.app.config]`. Without it the environment variable FLOWER_EDGE_BRIDGE counts.

    Args:
        edge: makes the inner strategy from the cell's name; the function that `CellTier` would get. It has to say what
            its state is, as all of Flower's do: it is kept on the disk.
        terminals: before the first order is taken, wait until so many are on the grid; for at most `join_timeout_s`.
        join_timeout_s: that, and how long a new terminal has to tell its properties.
        deadline_s: the most an edge round takes; the centre's own deadline is kept in any case.
        quorum: of usable replies that end an edge round, as in `GridProxy`.
        poll_s: seconds between two looks for replies.
        resend_after_s: a terminal silent for so long is sent one more copy, as in `GridProxy`.
        alone_after_s: seconds without a word of the centre after which the edge trains on alone.
        alone_rounds: edge rounds it trains alone at most; what it has learned goes up when the centre is back.
        around: puts more around the grid: a virtual clock, slices.

    Raises:
        ConfigError: a number that cannot be meant.
    """
    settings = HostSettings(alone_after_s, alone_rounds)
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        proxy = GridProxy(
            grid,
            join_timeout_s=join_timeout_s,
            poll_s=poll_s,
            deadline_s=deadline_s,
            quorum=quorum,
            resend_after_s=resend_after_s,
        )
        folder = bridge_folder(context.run_config)
        serve_edge(
            edge, proxy, folder, settings=settings, terminals=terminals, join_timeout_s=join_timeout_s,
            around=around, flower_run=context.run_id,
        )  # fmt: skip

    return app


def serve_edge(
    edge: EdgeFactory,
    proxy: GridProxy,
    folder: Path,
    *,
    settings: HostSettings,
    terminals: int = 0,
    join_timeout_s: float = 60.0,
    around: Callable[[Grid], Grid] = lambda grid: grid,
    flower_run: int = 0,
) -> str:
    """What `edge_server` does, on a grid of your own; returns when another process serves this edge, and says so."""
    if terminals < 0:
        raise ConfigError(f"terminals = {terminals}: expected a number to wait for, or 0")

    def wait() -> None:
        latest_s = time.monotonic() + join_timeout_s
        while (there := len(list(proxy.inner.get_node_ids()))) < terminals:
            if time.monotonic() > latest_s:
                log.warning("edge: %d of %d terminals came within %g s; it begins", there, terminals, join_timeout_s)
                break
            time.sleep(0.2)
        list(proxy.get_node_ids())  # asks each who it is

    host = EdgeHost(
        BridgePlace(folder), edge, around(proxy), settings=settings, stable=stable_key(proxy), flower_run=flower_run
    )
    why = host.run(wait)
    log.info("edge: ends, %s", why)
    return why
