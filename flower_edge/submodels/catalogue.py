"""`Catalogue`: the model list. Several sizes of one global model, the most wanted first, with what each of them costs.

Values. What they cost is counted in `catalogue_torch`, or by formula for a `NumpyMLP` (`mlp_catalogue`). Nothing here
builds a model, times one or gives it to anybody: `step_times` predicts seconds, strategies choose.

Letters, as `Variant.train_bytes` has them:
    w    bytes of all arrays: parameters and buffers
    p    bytes of the trained parameters; their gradients take as much, and so does momentum
    a    bytes that the forward pass of one sample keeps for the backward pass
    b    samples in a batch

Source: [4] ¶34-37, ¶48 (models with different numbers of hidden layers and nodes, by performance and load).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

from ..errors import ConfigError
from .choices import prefix
from .groups import index_of
from .mlp import mlp_groups
from .sizes import Size

__all__ = ["Catalogue", "Variant", "check_sizes", "mlp_catalogue", "name_of"]

#: The most that one question to a terminal lists.
MOST_VARIANTS: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")


@dataclass(frozen=True)
class Variant:
    """One size of a model, and its price.

    Attributes:
        name: by which it is listed, chosen and told.
        size: share of the channels, and how many of the exits.
        parameters: how many numbers are trained.
        state_bytes: of parameters and buffers: what travels each way.
        forward_flops: per sample, of matrix products and convolutions.
        train_flops: per sample, forward and backward together.
        parameter_bytes: of what is trained.
        activation_bytes: per sample, what training keeps between its forward and its backward pass.
        shapes: of every array, by name: all that a terminal needs to make it out of the whole model.
    """

    name: str
    size: Size
    parameters: int
    state_bytes: int
    forward_flops: float
    train_flops: float
    parameter_bytes: int = 0
    activation_bytes: float = 0.0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False, repr=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"variant {self.name!r}: expected up to 40 letters, digits, '.', '-' or '_', such as 'a'")
        for name in ("parameters", "state_bytes", "forward_flops", "train_flops", "parameter_bytes"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ConfigError(f"variant {self.name!r}: {name} = {value}: expected a finite number from 0")
        object.__setattr__(self, "shapes", MappingProxyType(dict(self.shapes)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only view cannot be pickled or copied, and a pool of processes needs to.
        return _variant, (self.to_tree(),)

    @property
    def rate(self) -> float:
        """Share of the channels."""
        return self.size.rate

    @property
    def depth(self) -> int:
        """How many of the exits; 0 is all of them."""
        return self.size.depth

    def train_bytes(self, batch: int) -> int:
        """Memory that training takes at most, as an estimate: w + 2 p + b a. Python and libraries come on top."""
        return self.state_bytes + 2 * self.parameter_bytes + math.ceil(batch * self.activation_bytes)

    def to_tree(self) -> dict[str, Any]:
        """As plain nested values."""
        return {
            "name": self.name,
            "rate": self.rate,
            "depth": self.depth,
            **self._numbers(),
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
        }

    def _numbers(self) -> dict[str, int | float]:
        names = ("parameters", "state_bytes", "forward_flops", "train_flops", "parameter_bytes", "activation_bytes")
        return {name: getattr(self, name) for name in names}

    def row(self) -> dict[str, int | float | str]:
        """For a table or a CSV file: everything but the shapes."""
        return {"name": self.name, "rate": self.rate, "depth": self.depth, **self._numbers()}


def _variant(tree: Mapping[str, Any]) -> Variant:
    numbers = {name: value for name, value in tree.items() if name not in ("rate", "depth", "shapes")}
    shapes = {name: tuple(shape) for name, shape in tree["shapes"].items()}
    return Variant(size=Size(tree["rate"], tree["depth"]), shapes=shapes, **numbers)


@dataclass(frozen=True)
class Catalogue:
    """Sizes of one model, the most wanted first: whoever assigns gives a terminal the first that suits it.

    Attributes:
        variants: in that order, usually from the largest to the smallest.

    Raises:
        ConfigError: none, more than 32, or a name or a size twice.

    >>> models = mlp_catalogue([64, 32, 10], {"a": 1.0, "b": 0.25})
    >>> models.names, models["b"].parameters, models.of_size(Size(0.25)).name
    (('a', 'b'), 610, 'b')
    >>> print(models)
    name  rate  depth  parameters  state kB  train kFLOP  batch 32 kB
    a        1    all        2410       9.6         10.1         42.5
    b     0.25    all         610       2.4          2.5         17.8
    """

    variants: tuple[Variant, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "variants", tuple(self.variants))
        if not 1 <= len(self.variants) <= MOST_VARIANTS:
            raise ConfigError(f"a catalogue of {len(self.variants)} variants: expected 1 to {MOST_VARIANTS}")
        for what in ("name", "size"):
            told = [getattr(variant, what) for variant in self.variants]
            if twice := [one for place, one in enumerate(told) if one in told[:place]]:
                raise ConfigError(f"two variants have the {what} {twice[0]!r}; each is listed once")

    @property
    def names(self) -> tuple[str, ...]:
        """In the order of the list."""
        return tuple(variant.name for variant in self.variants)

    def __len__(self) -> int:
        return len(self.variants)

    def __iter__(self) -> Iterator[Variant]:
        return iter(self.variants)

    def __contains__(self, name: object) -> bool:
        return any(variant.name == name for variant in self.variants)

    def __getitem__(self, name: str) -> Variant:
        """The variant of this name.

        Raises:
            ConfigError: there is none.
        """
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise ConfigError(f"no variant {name!r} in the model list; it has {', '.join(self.names)}")

    def of_size(self, size: Size | float) -> Variant | None:
        """The variant of this size; `None` where it is not listed."""
        wanted = size if isinstance(size, Size) else Size(size)
        return next((variant for variant in self.variants if variant.size == wanted), None)

    @property
    def lightest(self) -> Variant:
        """The one that is trained with the fewest FLOPs."""
        return min(self.variants, key=lambda variant: variant.train_flops)

    def place(self, name: str) -> int:
        """Its place in the list, from 0."""
        return self.variants.index(self[name])

    def rows(self) -> list[dict[str, int | float | str]]:
        """One row per variant."""
        return [variant.row() for variant in self.variants]

    def to_csv(self) -> str:
        """As the text of a CSV file: `(run.path / "models.csv").write_text(catalogue.to_csv())`."""
        out = io.StringIO()
        writer = csv.DictWriter(out, list(self.rows()[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        return out.getvalue()

    def to_tree(self) -> list[dict[str, Any]]:
        """As plain nested values, for a file or a message."""
        return [variant.to_tree() for variant in self.variants]

    @classmethod
    def from_tree(cls, tree: Sequence[Mapping[str, Any]]) -> Catalogue:
        """Inverse of `to_tree`."""
        return cls(tuple(_variant(entry) for entry in tree))

    def __str__(self) -> str:
        head = ["name", "rate", "depth", "parameters", "state kB", "train kFLOP", "batch 32 kB"]
        rows = [head]
        for one in self.variants:
            numbers = [one.state_bytes / 1e3, one.train_flops / 1e3, one.train_bytes(32) / 1e3]
            told = [f"{one.rate:g}", str(one.depth or "all"), str(one.parameters), *(f"{n:.1f}" for n in numbers)]
            rows.append([one.name, *told])
        wide = [max(len(row[column]) for row in rows) for column in range(len(head))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, wide, strict=True))
            )
            for row in rows
        )


def name_of(size: Size) -> str:
    """What a size is called where nobody names it.

    >>> name_of(Size(0.25)), name_of(Size(0.5, 2))
    ('r0.25', 'r0.5-d2')
    """
    return f"r{size.rate:g}" + (f"-d{size.depth}" if size.depth else "")


def check_sizes(sizes: Mapping[str, Size | float] | Sequence[Size | float]) -> dict[str, Size]:
    """Sizes by name, in their order; those without names get one.

    Raises:
        ConfigError: none, or one that is not a size.
    """
    if not isinstance(sizes, Mapping):
        listed = [size if isinstance(size, Size) else Size(size) for size in sizes]
        sizes = {name_of(size): size for size in listed}
    if not sizes:
        raise ConfigError("no sizes: expected rates such as (1.0, 0.5, 0.25), or {'a': 1.0, 'b': Size(0.5, 2)}")
    return {name: size if isinstance(size, Size) else Size(size) for name, size in sizes.items()}


def mlp_catalogue(layers: Sequence[int], sizes: Mapping[str, Size | float] | Sequence[Size | float]) -> Catalogue:
    """The model list of a `NumpyMLP`, by formula.

    Args:
        layers: the `sizes` of the whole one: inputs, hidden layers, classes.
        sizes: of the list, by name or without: rates, or `Size`s of full depth.

    FLOPs are those of the matrix products: forward 2 per weight; backward as many for the weights of each layer and,
    but for the first, for its inputs. Activations are the inputs and every layer's outputs, in 4 bytes.

    Raises:
        ConfigError: a depth, which this model does not have, or as `mlp_groups` and `Catalogue`.
    """
    groups = mlp_groups(layers)
    out = []
    for name, size in check_sizes(sizes).items():
        if size.depth:
            raise ConfigError(f"variant {name!r} has depth {size.depth}, and a NumpyMLP has no exits; give rates")
        index = index_of(groups, prefix(groups, size.rate))
        shapes = {}
        for array, (shape, _) in groups.spec.items():
            axes = index[array] or (None,) * len(shape)
            shapes[array] = tuple(n if at is None else len(at) for n, at in zip(shape, axes, strict=True))
        widths = [layers[0], *(shapes[f"linear{layer}.weight"][0] for layer in range(len(layers) - 1))]
        products = [before * after for before, after in pairwise(widths)]
        parameters = sum(products) + sum(widths[1:])
        forward = 2.0 * sum(products)
        train = 2 * forward + 2.0 * sum(products[1:])
        state, kept = 4 * parameters, 4.0 * sum(widths)
        out.append(Variant(name, size, parameters, state, forward, train, state, kept, shapes))
    return Catalogue(tuple(out))
