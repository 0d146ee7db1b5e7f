"""Who holds which samples: the field's ways of dividing a data set over nodes.

Functions from labels to index arrays. Nothing here reads data or knows Flower. Every scheme but one gives every
sample to exactly one node; `classes_per_node` (and `one_class`, and `power_law` with k, which are made of it) leaves
out the samples of classes nobody was given, which happens only when num_nodes * k is less than the number of classes.

Labels may be anything a partition can go by: the classes, or the speakers of a text (`Dataset.labels`).
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ConfigError, DataError

Indices = NDArray[np.int64]
#: How often `dirichlet` draws again before it gives up on `min_size`.
_DRAWS = 1_000


@dataclass(frozen=True, eq=False)
class Partition:
    """The samples of each node.

    Attributes:
        indices: one int64 array per node: sorted, and without a sample of any other node.

    Raises:
        DataError: a sample comes twice, or an array is not sorted.

    >>> Partition((np.array([0, 3]), np.array([1]))).sizes()
    array([2, 1])
    """

    indices: tuple[Indices, ...]

    def __post_init__(self) -> None:
        for node, mine in enumerate(self.indices):
            if mine.dtype != np.int64 or (np.diff(mine) <= 0).any():
                raise DataError(f"the indices of node {node} are not sorted int64 without repeats; use np.unique")
        everyone = np.concatenate([np.empty(0, np.int64), *self.indices])
        values, counts = np.unique(everyone, return_counts=True)
        if (counts > 1).any():
            raise DataError(f"sample {values[counts > 1][0]} belongs to more than one node; give it to one")

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, node: int) -> Indices:
        return self.indices[node]

    def __iter__(self) -> Iterator[Indices]:
        return iter(self.indices)

    def sizes(self) -> Indices:
        """Samples per node, int64 [nodes]."""
        return np.array([len(mine) for mine in self.indices], dtype=np.int64)

    def label_counts(self, labels: ArrayLike) -> Indices:
        """Samples per node and label, int64 [nodes, 1 + largest label].

        >>> Partition((np.array([0, 3]), np.array([1]))).label_counts([0, 1, 1, 0])
        array([[2, 0],
               [0, 1]])
        """
        values = np.asarray(labels, dtype=np.int64)
        width = int(values.max(initial=-1)) + 1
        counts = [np.bincount(values[mine], minlength=width) for mine in self.indices]
        return np.array(counts, dtype=np.int64).reshape(len(self), width)


def _checked(labels: ArrayLike, num_nodes: int, seed: int) -> tuple[Indices, np.random.Generator]:
    """Labels as int64 [samples] and the generator, after the checks all schemes share."""
    values = np.asarray(labels)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer) or (values < 0).any():
        raise ConfigError(
            f"labels of shape {values.shape} and {values.dtype}; give one non-negative integer per sample, "
            "for example dataset.labels"
        )
    if num_nodes < 1:
        raise ConfigError(f"num_nodes = {num_nodes}; a partition needs at least 1 node")
    if num_nodes > len(values):
        raise ConfigError(f"num_nodes = {num_nodes} but there are {len(values)} samples; use fewer nodes or more data")
    if seed < 0:
        raise ConfigError(f"seed = {seed}; use 0 or more")
    return values.astype(np.int64), np.random.default_rng(seed)


def _partition(pieces: list[list[Indices]]) -> Partition:
    """From the pieces every node was given."""
    return Partition(tuple(np.sort(np.concatenate([np.empty(0, np.int64), *mine])) for mine in pieces))


def _rounded(total: int, shares: NDArray[np.float64]) -> Indices:
    """Whole numbers in proportion to `shares` that add up to `total`: cut where the running sum falls."""
    ends = np.round(np.cumsum(shares) / shares.sum() * total).astype(np.int64)
    return np.asarray(np.diff(ends, prepend=0), dtype=np.int64)


def iid(labels: ArrayLike, num_nodes: int, *, seed: int) -> Partition:
    """Shuffle and deal: sizes differ by at most one.

    Raises:
        ConfigError: labels that are not one integer per sample, more nodes than samples, or a negative seed.

    >>> iid([0, 0, 1, 1], 2, seed=0).sizes()
    array([2, 2])
    """
    values, rng = _checked(labels, num_nodes, seed)
    return Partition(tuple(np.sort(part) for part in np.array_split(rng.permutation(len(values)), num_nodes)))


def _holders(num_nodes: int, num_classes: int, k: int, rng: np.random.Generator) -> list[list[int]]:
    """Who holds each class when everyone holds k: every class is held by as many nodes as any other, give or take 1."""
    if not 1 <= k <= num_classes:
        raise ConfigError(f"k = {k} classes per node, but the labels have {num_classes} classes; use 1..{num_classes}")
    holders: list[list[int]] = [[] for _ in range(num_classes)]
    for node in range(num_nodes):
        # The k classes with the fewest holders so far; ties are broken by lot.
        taken = np.array([len(nodes) for nodes in holders])
        for chosen in np.lexsort((rng.permutation(num_classes), taken))[:k]:
            holders[chosen].append(node)
    return holders


def _by_holders(values: Indices, k: int, weights: NDArray[np.float64], rng: np.random.Generator) -> Partition:
    """Give k classes to each node, and each class's samples to its holders in proportion to the holders' weights."""
    classes = np.unique(values)
    pieces: list[list[Indices]] = [[] for _ in weights]
    for label, nodes in zip(classes, _holders(len(weights), len(classes), k, rng), strict=True):
        mine = rng.permutation(np.flatnonzero(values == label))
        if not nodes:
            continue
        if len(mine) < len(nodes):
            raise ConfigError(
                f"class {label} has {len(mine)} samples for {len(nodes)} nodes; use fewer nodes or a smaller k ({k})"
            )
        # Each holder gets one sample at least, or it would not hold the class it was promised.
        counts = 1 + _rounded(len(mine) - len(nodes), weights[nodes])
        for node, part in zip(nodes, np.split(mine, np.cumsum(counts)[:-1]), strict=True):
            pieces[node].append(part)
    return _partition(pieces)


def classes_per_node(labels: ArrayLike, num_nodes: int, *, k: int, seed: int) -> Partition:
    """Every node holds exactly k classes; every class is divided evenly among its holders.

    Classes are handed out so that the numbers of their holders differ by at most one: every class is held by someone
    whenever num_nodes * k is at least the number of classes. Below that, the samples of the rest go to nobody.

    Args:
        labels: integers [samples].
        num_nodes: how many nodes.
        k: classes per node, 1..number of classes.
        seed: who holds what.

    Raises:
        ConfigError: k out of range, or a class with fewer samples than holders.

    >>> classes_per_node([0, 0, 1, 1, 2, 2], 3, k=1, seed=0).sizes()
    array([2, 2, 2])
    """
    values, rng = _checked(labels, num_nodes, seed)
    return _by_holders(values, k, np.ones(num_nodes), rng)


def one_class(labels: ArrayLike, num_nodes: int, *, seed: int) -> Partition:
    """Every node holds a single class: `classes_per_node` with k = 1, the hardest of the usual schemes."""
    return classes_per_node(labels, num_nodes, k=1, seed=seed)


def dirichlet(labels: ArrayLike, num_nodes: int, *, alpha: float, min_size: int = 1, seed: int) -> Partition:
    """Divide every class over the nodes in proportions drawn from Dirichlet(alpha, ..., alpha).

    Small alpha: a class sits at few nodes, and sizes differ widely; large alpha: nearly IID. Drawn again, up to
    1,000 times, until every node has `min_size` samples.

    Source: Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution for federated visual
    classification", arXiv:1909.06335, 2019. Departure: they draw class proportions per node, for nodes of equal size;
    this is the form of Yurochkin et al., ICML 2019, in which the scheme is mostly run: per class.

    Raises:
        ConfigError: alpha is not above 0, or no draw gives every node min_size samples.

    >>> dirichlet([0] * 50 + [1] * 50, 2, alpha=1e6, seed=0).label_counts([0] * 50 + [1] * 50)
    array([[25, 25],
           [25, 25]])
    """
    values, rng = _checked(labels, num_nodes, seed)
    if not (np.isfinite(alpha) and alpha > 0):
        raise ConfigError(f"alpha = {alpha}; use a number above 0, for example 0.5")
    if min_size < 0 or min_size * num_nodes > len(values):
        most = len(values) // num_nodes
        raise ConfigError(f"min_size = {min_size} for {num_nodes} nodes and {len(values)} samples; use 0..{most}")
    classes, totals = np.unique(values, return_counts=True)
    for _ in range(_DRAWS):
        shares = rng.dirichlet(np.full(num_nodes, alpha), size=len(classes))
        # For alpha near 0 a draw can underflow to all zeros; that one is drawn again like a too uneven one.
        if not np.isclose(shares.sum(axis=1), 1.0).all():
            continue
        counts = np.array([_rounded(total, share) for total, share in zip(totals, shares, strict=True)])
        if counts.sum(axis=0).min() >= min_size:
            break
    else:
        raise ConfigError(
            f"{_DRAWS} draws with alpha = {alpha} left one of {num_nodes} nodes below min_size = {min_size} each time; "
            "use a larger alpha, a smaller min_size or fewer nodes"
        )
    pieces: list[list[Indices]] = [[] for _ in range(num_nodes)]
    for label, mine_of in zip(classes, counts, strict=True):
        mine = rng.permutation(np.flatnonzero(values == label))
        for node, part in enumerate(np.split(mine, np.cumsum(mine_of)[:-1])):
            pieces[node].append(part)
    return _partition(pieces)


def shards(labels: ArrayLike, num_nodes: int, *, shards_per_node: int = 2, seed: int) -> Partition:
    """Sort by label, cut into num_nodes * shards_per_node equal shards, deal them at random.

    A node holds about shards_per_node classes. Shards differ by at most one sample.

    Source: McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017,
    section 3 (there: 200 shards of 300 for 100 nodes).

    Raises:
        ConfigError: shards_per_node below 1, or more shards than samples.

    >>> shards([1, 0, 1, 0], 2, shards_per_node=1, seed=0).sizes()
    array([2, 2])
    """
    values, rng = _checked(labels, num_nodes, seed)
    if not 1 <= shards_per_node <= len(values) // num_nodes:
        most = len(values) // num_nodes
        raise ConfigError(
            f"shards_per_node = {shards_per_node} for {num_nodes} nodes and {len(values)} samples; use 1..{most}"
        )
    cut = np.array_split(np.argsort(values, kind="stable"), num_nodes * shards_per_node)
    dealt = rng.permutation(len(cut)).reshape(num_nodes, shards_per_node)
    return _partition([[cut[shard] for shard in mine] for mine in dealt])


def power_law(
    labels: ArrayLike, num_nodes: int, *, exponent: float = 1.0, k: int | None = None, seed: int
) -> Partition:
    """Sizes that follow a power law: the node of rank r gets a share in proportion to r ** -exponent.

    Ranks are dealt at random. Every node gets one sample at least (one per class with k).

    Args:
        labels: integers [samples].
        num_nodes: how many nodes.
        exponent: 0 makes all alike; at 1 the largest of ten nodes has about ten times what the smallest has.
        k: None: samples are dealt regardless of class. Else every node holds exactly k classes as in
            `classes_per_node`, and each class is divided among its holders by the same law; k = 2 is the paper's.
        seed: ranks, and who holds what.

    Source: Li et al., "Federated optimization in heterogeneous networks" (FedProx), MLSys 2020: samples per device
    follow a power law. Departure: the law is Zipf's, with its exponent given; the authors' code draws sizes from a
    log-normal distribution.

    Raises:
        ConfigError: a negative exponent, k out of range, or a class with fewer samples than holders.

    >>> sorted(power_law([0] * 36, 3, exponent=1.0, seed=0).sizes().tolist())
    [7, 10, 19]
    """
    values, rng = _checked(labels, num_nodes, seed)
    if not (np.isfinite(exponent) and exponent >= 0):
        raise ConfigError(f"exponent = {exponent}; use 0 or more, for example 1.0")
    weights = np.asarray((1.0 + rng.permutation(num_nodes)) ** -exponent, dtype=np.float64)
    if k is not None:
        return _by_holders(values, k, weights, rng)
    counts = 1 + _rounded(len(values) - num_nodes, weights)
    parts = np.split(rng.permutation(len(values)), np.cumsum(counts)[:-1])
    return Partition(tuple(np.sort(part) for part in parts))


#: The schemes by the names run configs use.
SCHEMES: dict[str, Callable[..., Partition]] = {
    "iid": iid,
    "classes-per-node": classes_per_node,
    "dirichlet": dirichlet,
    "shards": shards,
    "power-law": power_law,
    "one-class": one_class,
}


def make_partition(scheme: str, labels: ArrayLike, num_nodes: int, *, seed: int, **options: Any) -> Partition:
    """A partition by the name of its scheme, as run configs name it.

    Args:
        scheme: a key of `SCHEMES`.
        labels: integers [samples].
        num_nodes: how many nodes.
        seed: of the scheme.
        options: the scheme's own: k, alpha, min_size, shards_per_node, exponent.

    Raises:
        ConfigError: an unknown scheme or option (with the nearest known one), one that is missing, or a value the
            scheme refuses.

    >>> make_partition("dirichlet", [0, 1, 0, 1], 2, seed=0)
    Traceback (most recent call last):
    ...
    flower_edge.errors.ConfigError: partition scheme 'dirichlet' needs alpha
    """
    if scheme not in SCHEMES:
        raise ConfigError(f"unknown partition scheme {scheme!r}; {_nearest(scheme, list(SCHEMES))}")
    parameters = inspect.signature(SCHEMES[scheme]).parameters
    own = {name: p for name, p in parameters.items() if name not in ("labels", "num_nodes", "seed")}
    for option in options:
        if option not in own:
            raise ConfigError(f"partition scheme {scheme!r} has no option {option!r}; {_nearest(option, list(own))}")
    for name, parameter in own.items():
        if parameter.default is inspect.Parameter.empty and name not in options:
            raise ConfigError(f"partition scheme {scheme!r} needs {name}")
    return SCHEMES[scheme](labels, num_nodes, seed=seed, **options)


def _nearest(given: str, known: list[str]) -> str:
    near = difflib.get_close_matches(given, known, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"use one of {', '.join(known)}" if known else "it has none"
