"""Whole models of all devices, handed to any Flower strategy as if each device had trained one. Nothing here averages.

So a merge is what that strategy makes of such replies: with FedAvg and equal cuts in every round it is SplitFed's, and
whatever the cuts were it equals FedAvg whose clients train the whole model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvgM, Strategy

from flower_edge.errors import NotEnoughNodes
from flower_edge.runtime.narrowed_grid import minimum_nodes
from flower_edge.runtime.strategy_state import go_on_from, innermost
from flower_edge.runtime.wrapped_grid import WrappedGrid

__all__ = ["prepare_merge", "whole_reply"]


class Roster(WrappedGrid):
    """Shows these nodes, whoever is there: whose models are merged need not be reachable now. Sends nothing."""

    def __init__(self, inner: Grid, nodes: Iterable[int]) -> None:
        super().__init__(inner)
        self._nodes = list(nodes)

    def get_node_ids(self) -> Iterable[int]:
        """Those it was given."""
        return list(self._nodes)


def prepare_merge(
    strategy: Strategy,
    server_round: int,
    arrays: ArrayRecord,
    config: ConfigRecord,
    grid: Grid,
    nodes: Iterable[int],
    *,
    wait: str = "give Split strategy={strategy}, or wait for more with EnrolRules(min_devices=...)",
) -> None:
    """Let a strategy take note of the model that a merge starts from, as it does before a round of its own.

    Flower's FedAdam, FedAvgM, QFedAvg and its privacy wrappers do that when they configure a round; the messages they
    make for it are not sent.

    Args:
        strategy: that merges.
        server_round, arrays, config, grid: as of its `configure_train`.
        nodes: whose models are merged.
        wait: what to do where they are too few, for the error; {strategy} is filled in.

    Raises:
        NotEnoughNodes: the strategy wants more devices than there are.
    """
    roster = Roster(grid, nodes)
    need, have = minimum_nodes(strategy), len(list(roster.get_node_ids()))
    if have < need:
        raise NotEnoughNodes(
            f"{type(innermost(strategy)).__name__} merges {need} devices or more and {have} are in the session; "
            + wait.format(strategy=f"FedAvg(min_train_nodes={max(1, have)}, min_available_nodes={max(1, have)})")
        )
    if isinstance(core := innermost(strategy), FedAvgM):
        go_on_from(core, arrays)
    for _ in strategy.configure_train(server_round, arrays, ConfigRecord(dict(config.items())), roster):
        pass


def whole_reply(node: int, model: ArrayRecord, metrics: Mapping[str, float], arrays_key: str) -> Message:
    """As if a node had trained the whole model and replied."""
    question = Message(RecordDict(), node, "train")
    content = RecordDict({arrays_key: model, "metrics": MetricRecord(dict(metrics))})
    return Message(content, reply_to=question)
