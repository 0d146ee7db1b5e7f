"""Fewer nodes than the Grid has, and what happens when they are too few.

Flower's sampling waits for ever when a Grid shows fewer nodes than a strategy's minimums. `minimum_nodes` reads those
minimums beforehand; `Patience` ends the wait after the round's deadline where they could not be known.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Set

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedXgbCyclic, Strategy

from ..errors import NotEnoughNodes
from ..rounds import Kind, Round
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
    """Ends endless waiting: raises when somebody asks for nodes again and again and sends nothing.

    How many nodes would be enough is known to nobody but the one who asks, so it is not the count that decides.

    Args:
        deadline_s: how long, from the first question after `reset`; `None` waits for ever, as Flower does.
        minimum: how many nodes the strategy says it needs, for the error.
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
        self._questions = 0

    def reset(self) -> None:
        """A round began, or something was sent: the next question starts a new wait."""
        self._since_s, self._questions = None, 0

    def asked(self, count: int) -> None:
        """Somebody asked, and was shown `count` nodes.

        Raises:
            NotEnoughNodes: asked at least three times, and nothing was sent since the first, for `deadline_s`.
        """
        now_s = self._clock()
        self._questions += 1
        if self._since_s is None:
            self._since_s = now_s
        waited_s = now_s - self._since_s
        if self.deadline_s is None or waited_s < self.deadline_s or self._questions < 3:
            return
        raise NotEnoughNodes(
            f"{self.label} has {count} node{'' if count == 1 else 's'}, its strategy needs {self.minimum} or more and "
            f"has waited {self.deadline_s:g} s for them. Lower min_available_nodes and its likes, let the layers "
            "narrow less, or wait longer with timeout="
        )


class NarrowedGrid(WrappedGrid):
    """Only some nodes of a Grid can be sampled.

    Args:
        inner: the Grid that has them all.
        nodes: ids of the nodes to show, all if `None`; an id that is not on the Grid is not shown. Assign to `nodes`
            to change it.
        patience: ends endless waiting, see `Patience`.
    """

    def __init__(self, inner: Grid, nodes: Iterable[int] | None, patience: Patience | None = None) -> None:
        super().__init__(inner)
        self.nodes = None if nodes is None else list(nodes)
        self.patience = patience or Patience(None)

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are in the selection and on the Grid, in the selection's order."""
        if self.nodes is None:
            shown = list(self.inner.get_node_ids())
        else:
            there = self.there()
            shown = [node for node in self.nodes if node in there]
        self.patience.asked(len(shown))
        return shown

    def there(self) -> Set[int]:
        """The nodes of the Grid inside."""
        return set(self.inner.get_node_ids())

    def announced(self, round: Round) -> None:
        """A round begins, and with it a new wait."""
        self.patience.reset()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages without waiting."""
        self.patience.reset()
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies that have arrived. Whoever pulls waits for replies and not for nodes."""
        self.patience.reset()
        return super().pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send messages and wait for their replies."""
        self.patience.reset()
        return super().send_and_receive(messages, timeout=timeout)
