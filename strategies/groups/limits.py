"""Limits of a group, or of a cell: how many of its terminals train in a round, for how long, and with which config.

`GroupLimits` for `Grouped`; the layers `AtMost` and `WithConfig`, which it is made of, around any strategy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from flower_edge.errors import ConfigError
from flower_edge.rounds import Round
from flower_edge.runtime.generators import derive_seed

from ..layered import Layered
from ..layers import Layer, Stage

__all__ = ["AtMost", "GroupLimits", "WithConfig"]

#: Records of ours that travel beside the user's config.
_OURS = "flower-edge."


class AtMost(Layer[None]):
    """Only so many nodes can be sampled for training in a round, drawn anew for each; evaluation is left alone.

    Args:
        nodes: the most, at least 1. A strategy whose minimums are above it waits for nodes that do not come.
        seed: who they are depends on it, on the cell and on the round.

    Raises:
        ConfigError: less than one.
    """

    def __init__(self, nodes: int, seed: int = 0) -> None:
        if type(nodes) is not int or nodes < 1:
            raise ConfigError(f"AtMost({nodes!r}): a whole number of nodes, at least 1")
        self.nodes = nodes
        self.seed = seed

    def narrow(self, state: None, round: Round, grid: Grid, nodes: list[int]) -> tuple[list[int], None]:
        """Some of the nodes, in their order."""
        if round.kind != "train" or len(nodes) <= self.nodes:
            return nodes, None
        rng = np.random.default_rng(derive_seed(self.seed, "at most", round.cell, round.cloud, round.edge))
        chosen = np.sort(rng.choice(len(nodes), self.nodes, replace=False))
        return [nodes[k] for k in chosen], None

    def __repr__(self) -> str:
        return f"AtMost({self.nodes}, seed={self.seed})"


class WithConfig(Layer[None]):
    """Puts values into the config of every training message, over those of the run: `{"local-steps": 5}`.

    Raises:
        TypeError: a value that Flower's `ConfigRecord` does not take.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(ConfigRecord(dict(values)).items())

    def outbound(self, state: None, round: Round, messages: list[Message]) -> tuple[list[Message], None]:
        """The same messages, with those values in their config."""
        if round.kind != "train":
            return messages, None
        contents: dict[int, RecordDict] = {}
        for message in messages:
            before = message.content
            if id(before) not in contents:
                contents[id(before)] = self._changed(before)
            message.content = contents[id(before)]
        return messages, None

    def _changed(self, content: RecordDict) -> RecordDict:
        out = RecordDict(dict(content.items()))
        for name in [name for name in content.config_records if not name.startswith(_OURS)] or ["config"]:
            said = content.config_records.get(name, ConfigRecord())
            out[name] = ConfigRecord({**said, **self.values})
        return out

    def __repr__(self) -> str:
        return f"WithConfig({self.values})"


@dataclass(frozen=True)
class GroupLimits:
    """What a group may do.

    Attributes:
        nodes: the most of its terminals that train in a round; `None` for all.
        rounds: after so many rounds its model is finished; `None` for as many as the others.
        config: values of its own in the train config: `{"local-steps": 5, "lr": 0.01}`.

    Raises:
        ConfigError: a limit below 1.
    """

    nodes: int | None = None
    rounds: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("nodes", "rounds"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"GroupLimits({name}={value!r}): a whole number, at least 1, or None for no limit")

    def around(self, strategy: Strategy, seed: int = 0) -> Strategy:
        """The strategy with the layers of these limits, behind its own of the same stage.

        >>> from flwr.serverapp.strategy import FedAvg
        >>> GroupLimits(nodes=2).around(Layered(FedAvg())).layers
        (AtMost(2, seed=0),)
        """
        own: tuple[Layer[Any], ...] = strategy.layers if isinstance(strategy, Layered) else ()
        inner = strategy.strategy if isinstance(strategy, Layered) else strategy
        added: list[Layer[Any]] = [] if self.nodes is None else [AtMost(self.nodes, seed)]
        added += [WithConfig(self.config)] if self.config else []
        if not added:
            return strategy
        plain = [layer for layer in own if layer.stage is Stage.MODEL]
        return Layered(inner, *plain, *added, *own[len(plain) :])
