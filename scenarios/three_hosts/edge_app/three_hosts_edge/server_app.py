"""An edge: orders the rounds of its cell, in which terminals gossip, and tells the centre their mean."""

from __future__ import annotations

from typing import Literal

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from pydantic import Field

from flower_edge.config import RunConfig, read_config
from flower_edge.runtime import RoundClock
from flower_edge.strategies import Direct, Gossip, edge_server
from flower_edge.units import mbps_to_bps

app = ServerApp()


class Edge(RunConfig):
    """What an edge can be told."""

    bridge: str = ""
    seed: int = Field(5, ge=0)
    terminals: int = Field(3, ge=1)
    mailbox: Literal["relay", "direct"] = "direct"
    #: What a terminal's radio receives, shared among its neighbours; 0: links are not paced.
    capacity_mbps: float = Field(20.0, ge=0)
    deadline_s: float = Field(120.0, gt=0)
    alone_after_s: float = Field(120.0, gt=0)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Be an edge until another process is it."""
    config = read_config(Edge, context.run_config)
    capacity_bps = mbps_to_bps(config.capacity_mbps) if config.capacity_mbps else None

    def cell(name: str) -> Gossip:
        mailbox = Direct(capacity_bps=capacity_bps) if config.mailbox == "direct" else "relay"
        return Gossip(mailbox=mailbox, fraction_evaluate=0.0, seed=config.seed)

    serve = edge_server(
        cell,
        terminals=config.terminals,
        join_timeout_s=120.0,
        deadline_s=config.deadline_s,
        alone_after_s=config.alone_after_s,
        around=RoundClock,
    )
    serve(grid, context)
