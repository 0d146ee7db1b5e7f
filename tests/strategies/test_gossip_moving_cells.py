"""A cell that gossips, whose terminals come and go between rounds of the centre: who is there mixes, in each round."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from flower_edge.clients.gossip import gossip_mod
from flower_edge.control.baselines import Equal
from flower_edge.rounds import Round
from flower_edge.runtime.gossip_messages import letters_in
from flower_edge.runtime.local_grid import LocalGrid
from flower_edge.runtime.wrapped_grid import WrappedGrid
from flower_edge.strategies import Gossip, Hierarchical
from flower_edge.wire import arrays_of, record_of

EDGE_ROUNDS = 3


class Letters(WrappedGrid):
    """Counts neighbours' packets that go down with the orders of the cell that moves, exchange by exchange."""

    def __init__(self, inner: Grid) -> None:
        super().__init__(inner)
        self.down: list[int] = []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        batch = list(messages)
        if batch and batch[0].metadata.message_type == "train" and batch[0].metadata.dst_node_id < 1006:
            self.down.append(sum(len(letters_in(message.content, sender="the edge")) for message in batch))
        return super().send_and_receive(batch, timeout=timeout)


def make_app() -> ClientApp:
    app = ClientApp(mods=[gossip_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        w = arrays_of(message.content["arrays"])["w"] + float(context.node_config["partition-id"])
        metrics = MetricRecord({"num-examples": 1})
        return Message(RecordDict({"arrays": record_of({"w": w}), "metrics": metrics}), reply_to=message)

    return app


def leaving(grid: Grid, round: Round) -> dict[str, list[int]]:
    """Of six, the first two are there in the first round of the centre only, the last two from the second on.

    The other cell stays as it is: with one cell alone the centre's model would be that cell's own.
    """
    *moving, seventh, eighth = sorted(grid.get_node_ids())
    return {"moves": moving[:4] if round.cloud == 1 else moving[2:], "stays": [seventh, eighth]}


def run(rounds: int) -> tuple[list[int], Gossip]:
    gossips: dict[str, Gossip] = {}

    def edge(cell: str) -> Gossip:
        return gossips.setdefault(cell, Gossip(Equal(), fraction_evaluate=0.0))

    with LocalGrid(make_app(), nodes=8) as local:
        grid = Letters(local)
        tiers = Hierarchical(edge=edge, cells=leaving, edge_rounds=EDGE_ROUNDS)
        tiers.start(grid, record_of({"w": np.zeros(2)}), num_rounds=rounds)
    return grid.down, gossips["moves"]


def test_no_packet_is_lost_because_somebody_is_given_up_in_the_midst_of_a_cells_rounds() -> None:
    down, gossip = run(rounds=5)
    # Four terminals hear three each, but in the first of a cell's rounds, in which all begin from the centre's model.
    assert down == [0, 12, 12] * 5
    assert gossip.group is not None
    assert sorted(gossip.group.env.numbers) == [2, 3, 4, 5]


def test_who_was_there_in_the_last_round_is_not_given_up_at_once() -> None:
    _, gossip = run(rounds=2)
    assert gossip.group is not None
    assert sorted(gossip.group.env.numbers) == [0, 1, 2, 3, 4, 5]
