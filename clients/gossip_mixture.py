"""`Mixture`: what a worker makes of its own model and its neighbours', x_i <- W_ii x_i + sum_j W_ij x_j.

A packet may be older than the own model, where rounds do not wait for everybody. Mixed as it is, it would pull the
worker back to where everybody was then: what all have learned since would be lost again and again. So the same row is
applied to differences of equal age,

    x_i <- x_i + sum_j W_ij sin(pi / (2 (2 a_j + 1))) (x_j - x_i),   both x_j and x_i of a_j rounds ago,

which at age 0 is the line above. The factor is what a delay costs: x(t + 1) = x(t) - w x(t - a) only comes to rest for
w < 2 sin(pi / (2 (2 a + 1))), and a row's differences can add up to twice its weights.

The same difference is taken where neighbours believe something else of a worker than it is, because a codec leaves
something out: x_j - x_i of what all believe of both. It keeps the mean of the models, and takes back nothing of what a
worker could not tell yet.

Nothing here decodes, trains or sends.

Source: Lian et al., "Can decentralized algorithms outperform centralized algorithms?", NeurIPS 2017; for the bound
Levin, May, "A note on difference-delay equations", Theoretical Population Biology, 1976. The correction is ours. For
what others believe: Koloskova, Stich, Jaggi, ICML 2019, Algorithm 2, line 8.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from flower_edge.wire import arrays_of, cast_like, model_spec, record_of

__all__ = ["Mixture", "damped"]

Arrays = dict[str, npt.NDArray[Any]]


def damped(age: int) -> float:
    """The part of a weight that a packet of this age, in rounds, is given.

    >>> [round(damped(age), 3) for age in (0, 1, 2, 3)]
    [1.0, 0.5, 0.309, 0.223]
    """
    return math.sin(math.pi / (2 * (2 * age + 1)))


class Mixture:
    """One worker's mixture, a neighbour at a time, and how far their models are from the own one.

    Summed in float64 in the order in which they are added, and cast back. A neighbour that is not added leaves its
    weight with the own model: the row still sums to 1.

    Attributes:
        start: x_i.
        distance: largest mean squared difference to a neighbour, per parameter; NaN without one.

    >>> mixture = Mixture({"w": np.array([0.0, 2.0], np.float32)})
    >>> mixture.add(0.25, {"w": np.array([4.0, 2.0], np.float32)})
    >>> mixture.model(), mixture.distance
    ({'w': array([1., 2.], dtype=float32)}, 8.0)
    """

    def __init__(self, start: Arrays) -> None:
        self.start = start
        self._sum: Arrays = {}
        self._given = 0.0
        self.distance = float("nan")

    def add(self, weight: float, model: Arrays, *, age: int = 0, own: Arrays | None = None) -> None:
        """A neighbour's model and its weight.

        Args:
            age: by how many rounds it is older than x_i.
            own: x_i as it was then, or as neighbours believe it is; None where it is x_i, or not known any more: an old
                model is then mixed as it is, damped.
        """
        moved = own is not None
        weight *= damped(age)
        squared, size = 0.0, 0
        for name, x in self.start.items():
            other = model[name].astype(np.result_type(x, np.float64))
            with np.errstate(over="ignore", invalid="ignore"):  # a model that grew beyond all bounds is told as such
                difference = other - (x if own is None else own[name])
                squared += float(np.vdot(difference, difference).real)
                if moved:
                    other = difference
                    other += x
            size += x.size
            other *= weight
            if name in self._sum:
                self._sum[name] += other
            else:
                self._sum[name] = other
        self._given += weight
        # A model that is no number any more is near nobody.
        distance = float("inf") if np.isnan(squared) else squared / max(size, 1)
        self.distance = distance if np.isnan(self.distance) else max(self.distance, distance)

    def model(self) -> Arrays:
        """The mixture, in the dtypes of x_i; x_i itself where nobody was added. Call it once."""
        if not self._sum:
            return self.start
        for name, x in self.start.items():
            self._sum[name] += (1.0 - self._given) * x.astype(self._sum[name].dtype)
        return arrays_of(cast_like(record_of(self._sum), model_spec(record_of(self.start))))
