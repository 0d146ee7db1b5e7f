"""`Replica`: the model that the server and every node hold, equal bit for bit, and what else they hold in common.

They begin from one model and apply the same aggregates with the same arithmetic, so nobody has to send a model again.
The update is that of torch.optim.SGD:

    d = g + weight_decay x        v <- momentum v + d        x <- x - rate (d + momentum v if nesterov else v)

Every operation is one of NumPy's on whole arrays: no product is fused with a sum, so that machines agree. Nothing here
sends or encodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..codecs.envelope import digest_of
from ..codecs.layout import Floats
from ..codecs.moment import Moment, Public
from ..errors import ModelMismatch
from .gradient_setup import Arrays, Coder, Setup, Trained, Vector

__all__ = ["Replica"]

Tree = dict[str, Any]


@dataclass
class Replica:
    """Begin one with `of`; it owns its arrays and changes them in place.

    Attributes:
        setup: how the run is set up.
        trained: which arrays are.
        x: those, as one vector.
        rest: the others, as they were in the beginning.
        order: names of all arrays.
        version: how many updates it has seen.
        velocity: v of the update; None before the first, or without momentum.
        aggregates: the last ones, newest first.
        extra: what else all hold in common, by name: states of codecs and teachers.
    """

    setup: Setup
    trained: Trained
    x: Vector
    rest: dict[str, npt.NDArray[Any]]
    order: tuple[str, ...]
    version: int = 0
    velocity: Vector | None = None
    aggregates: tuple[Floats, ...] = ()
    extra: Tree = field(default_factory=dict)

    @classmethod
    def of(cls, model: Arrays, setup: Setup, beside: Mapping[str, Any] | None = None) -> Replica:
        """From a model, and what `beside` gave of another replica.

        Raises:
            ConfigError: a model that cannot be trained so.
            ModelMismatch: what lies beside is that of another model.
        """
        trained = Trained.of(model, setup.frozen)
        x = trained.gather(model, sender="the model")
        rest = {name: np.array(array) for name, array in model.items() if name not in trained.layout.names}
        made = cls(setup, trained, x, rest, tuple(model))
        if beside is not None:
            made.version = int(beside["version"])
            made.velocity = None if beside["velocity"] is None else np.array(beside["velocity"], trained.dtype)
            made.aggregates = tuple(beside["aggregates"])
            made.extra = dict(beside["extra"])
            for vector in (made.velocity, *made.aggregates):
                if vector is not None and vector.shape != x.shape:
                    raise ModelMismatch(f"a replica of {vector.size} numbers beside a model of {x.size}")
        return made

    def beside(self) -> Tree:
        """All but the model and the set-up, for `of` elsewhere."""
        return {
            "version": self.version,
            "velocity": self.velocity,
            "aggregates": list(self.aggregates),
            "extra": self.extra,
        }

    def model(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays, in the model's order; those that are trained are views."""
        found = {**self.rest, **self.trained.views(self.x)}
        return {name: found[name] for name in self.order}

    def digest(self) -> int:
        """32 bits that tell this model from another."""
        return digest_of({"x": self.x})

    def coder(self) -> Coder:
        """For gradients."""
        return Coder(self.setup.codec_made, self.trained)

    def down_coder(self) -> Coder:
        """For aggregates."""
        return Coder(self.setup.down_made, self.trained)

    def moment(
        self, step: int, node: int, leader: npt.NDArray[np.int64] | None = None, codebook: bytes | None = None
    ) -> Moment:
        """When and by whom something is encoded, and what all know."""
        return Moment(step, node, Public(self.aggregates, leader, codebook))

    def apply(self, aggregate: Vector, rate: float) -> None:
        """One update with the weighted mean of the gradients."""
        setup = self.setup
        if setup.history:
            seen = aggregate.astype(np.float32, copy=False)
            self.aggregates = (seen, *self.aggregates)[: setup.history]
        # Never in place on the aggregate: it has just become public.
        d = aggregate.astype(self.trained.dtype)
        if setup.weight_decay:
            d += setup.weight_decay * self.x
        if setup.momentum:
            self.velocity = np.zeros_like(self.x) if self.velocity is None else self.velocity
            self.velocity *= setup.momentum
            self.velocity += d
            if setup.nesterov:
                d += setup.momentum * self.velocity
            else:
                d = self.velocity.copy()
        d *= rate
        self.x -= d
        self.version += 1

    def tree(self) -> Tree:
        """For a checkpoint, or a node's memory."""
        return {
            "setup": self.setup.text(),
            "x": self.x,
            "rest": self.rest,
            "order": list(self.order),
            "shapes": [list(shape) for shape in self.trained.layout.shapes],
            "names": list(self.trained.layout.names),
            **self.beside(),
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], *, setup: Setup | None = None) -> Replica:
        """Inverse of `tree`."""
        from ..codecs.layout import Layout

        layout = Layout(tuple(tree["names"]), tuple(tuple(shape) for shape in tree["shapes"]))
        x = np.array(tree["x"])
        velocity = tree["velocity"]
        return cls(
            setup=Setup.of(tree["setup"]) if setup is None else setup,
            trained=Trained(layout, x.dtype.name),
            x=x,
            rest=dict(tree["rest"]),
            order=tuple(tree["order"]),
            version=int(tree["version"]),
            velocity=None if velocity is None else np.array(velocity),
            aggregates=tuple(tree["aggregates"]),
            extra=dict(tree["extra"]),
        )
