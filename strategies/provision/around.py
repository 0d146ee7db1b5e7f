"""`Around`: a strategy around another, asked what others ask any of Flower's. Nothing here sends or merges."""

from __future__ import annotations

from flwr.serverapp.strategy import Strategy

__all__ = ["Around"]


class Around(Strategy):
    """Answers for the strategy inside: by what it weighs, and how many nodes it waits for.

    Attributes:
        inner: the strategy inside.
    """

    inner: Strategy

    @property
    def weighted_by_key(self) -> str:
        """The metric that weighs a reply."""
        return str(getattr(self.inner, "weighted_by_key", "num-examples"))

    @property
    def fraction_train(self) -> float:
        """Of the strategy inside."""
        return float(getattr(self.inner, "fraction_train", 1.0))

    @property
    def fraction_evaluate(self) -> float:
        """Of the strategy inside."""
        return float(getattr(self.inner, "fraction_evaluate", 1.0))

    @property
    def min_train_nodes(self) -> int:
        """Of the strategy inside."""
        return int(getattr(self.inner, "min_train_nodes", 1))

    @property
    def min_evaluate_nodes(self) -> int:
        """Of the strategy inside."""
        return int(getattr(self.inner, "min_evaluate_nodes", 1))

    @property
    def min_available_nodes(self) -> int:
        """Of the strategy inside."""
        return int(getattr(self.inner, "min_available_nodes", 1))
