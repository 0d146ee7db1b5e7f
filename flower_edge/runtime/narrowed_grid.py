"""Fewer nodes than the Grid has, and what happens when they are too few.

Flower's sampling waits for ever when a Grid shows fewer nodes than a strategy's minimums. `minimum_nodes` reads those
minimums beforehand; `Patience` ends the wait after the round's deadline where they could not be known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedXgbCyclic, Strategy

from ..errors import NotEnoughNodes
from ..rounds import Kind
from .strategy_state import innermost
from .wrapped_grid import WrappedGrid

__all__ = ["NarrowedGrid", "Patience", "minimum_nodes"]


def minimum_nodes(strategy: Strategy, kind: Kind = "train") -> int:
    """How many nodes a strategy waits for before it samples; 0 if it would send nothing.

    Wrappers are looked through. A strategy that shows no minimums is taken to need one node.

    >>> from flwr.serverapp.strategy import FedAvg
    >>> minimum_nodes(FedAvg(min_train_nodes=4, min_available_nodes=3))
    4
    >>> minimum_nodes(FedAvg(fraction_evaluate=0.0), "evaluate")
    0
    """
    core = innermost(strategy)
    # FedXgbCyclic samples with its training minimums whatever it samples for, also where the fraction is 0.
    cyclic = isinstance(core, FedXgbCyclic)
    of = "train" if cyclic else kind
    if not cyclic and getattr(core, f"fraction_{of}", 1.0) == 0.0:
        return 0
    return max(1, getattr(core, f"min_{of}_nodes", 1), getattr(core, "min_available_nodes", 1))


class Patience:
    """Raises when somebody keeps asking for nodes that do not come.

    Args:
        deadline_s: how long, from the first question after `reset`; `None` waits for ever, as Flower does.
        minimum: how many nodes would be enough.
        label: what the nodes belong to, for the error.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        deadline_s: float | None,
        minimum: int = 1,
        label: str = "the federation",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.deadline_s = deadline_s
        self.minimum = minimum
        self.label = label
        self._clock = clock
        self._since_s: float | None = None

    def reset(self) -> None:
        """Something was sent: the next question starts a new wait."""
        self._since_s = None

    def asked(self, count: int) -> None:
        """Somebody asked, and was shown `count` nodes.

        Raises:
            NotEnoughNodes: still fewer than the minimum after the deadline.
        """
        if count >= self.minimum:
            self._since_s = None
            return
        now_s = self._clock()
        if self._since_s is None:
            self._since_s = now_s
        elif self.deadline_s is not None and now_s - self._since_s >= self.deadline_s:
            raise NotEnoughNodes(
                f"{self.label} has {count} node{'' if count == 1 else 's'} and its strategy needs {self.minimum}; "
                f"none joined in {self.deadline_s:g} s. Lower min_available_nodes and min_train_nodes, or wait longer "
                "with timeout="
            )


class NarrowedGrid(WrappedGrid):
    """Only some nodes of a Grid can be sampled.

    Args:
        inner: the Grid that has them all.
        nodes: ids of the nodes to show; an id that is not on the Grid is not shown. Assign to `nodes` to change it.
        patience: ends endless waiting, see `Patience`.
    """

    def __init__(self, inner: Grid, nodes: Iterable[int], patience: Patience | None = None) -> None:
        super().__init__(inner)
        self.nodes = list(nodes)
        self.patience = patience or Patience(None)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are in the selection and on the Grid, in the selection's order."""
        there = set(self.inner.get_node_ids())
        shown = [node for node in self.nodes if node in there]
        self.patience.asked(len(shown))
        return shown

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages without waiting."""
        self.patience.reset()
        return super().push_messages(messages)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for their replies."""
        self.patience.reset()
        return super().send_and_receive(messages, timeout=timeout)
