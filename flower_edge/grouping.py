"""Groups of terminals: by what they are, by how loaded they are, by likeness, by the models they train.

Functions from columns, one entry per terminal, to the name of each terminal's group. Nothing here asks a terminal,
trains or keeps anything: the same columns give the same groups.

Columns are those of `flower_edge.conditions.columns_of` and of rules: numbers with NaN for what is not known, or texts
with `None`.

Sources: [4] ¶41 (by properties, load conditions and regions), ¶49 (sameness or similarity in hardware, similarity in
model, place, application, owner); Sattler, Müller, Samek, "Clustered federated learning: model-agnostic distributed
multitask optimization under privacy constraints", 2021 (cosine similarity of updates); Arthur, Vassilvitskii,
"k-means++: the advantages of careful seeding", SODA 2007.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from logging import getLogger
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .errors import ConfigError

__all__ = ["UNKNOWN", "Columns", "Grouping", "by_levels", "by_models", "by_similarity", "by_value", "standardised"]

log = getLogger(__name__)

Columns = Mapping[str, npt.NDArray[Any]]
#: From columns and the number of terminals to the name of each one's group.
Grouping = Callable[[Columns, int], list[str]]

#: The group of those of whom it is not known where they belong.
UNKNOWN: Final = "unknown"
#: k-means runs so often from other beginnings; the best is taken.
RESTARTS: Final = 8


def _column(columns: Columns, name: str, nodes: int) -> npt.NDArray[Any]:
    for spelled in (name, name.replace("-", "_"), name.replace("_", "-")):
        if spelled in columns:
            return columns[spelled]
    return np.full(nodes, np.nan)


def _is_known(value: object) -> bool:
    return value is not None and not (isinstance(value, float | np.floating) and math.isnan(value))


def by_value(name: str, unknown: str = UNKNOWN) -> Grouping:
    """One group per value of a property: the same hardware, region, application, owner.

    >>> by_value("hardware")({"hardware": np.array(["pi", "jetson", None, "pi"], dtype=object)}, 4)
    ['pi', 'jetson', 'unknown', 'pi']
    >>> by_value("cores")({"cores": np.array([4.0, 8.0])}, 2)
    ['4', '8']
    """

    def grouping(columns: Columns, nodes: int) -> list[str]:
        column = _column(columns, name, nodes)
        return [_text(value) if _is_known(value) else unknown for value in column.tolist()]

    return grouping


def _text(value: object) -> str:
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value) if whole else value)  # type: ignore[call-overload]


def by_levels(name: str, edges: Sequence[float], labels: Sequence[str], unknown: str = UNKNOWN) -> Grouping:
    """Groups by how much of something there is: low, middle and high load.

    Args:
        name: of the column.
        edges: where one level ends and the next begins, growing; a value on an edge belongs to the higher level.
        labels: of the levels, one more than there are edges.
        unknown: the group of those who do not tell.

    Raises:
        ConfigError: edges that do not grow, another number of labels, a label twice.

    >>> levels = by_levels("load", edges=[0.3, 0.7], labels=["low", "mid", "high"])
    >>> levels({"load": np.array([0.1, 0.3, 0.9, np.nan])}, 4)
    ['low', 'mid', 'high', 'unknown']
    """
    if list(edges) != sorted(set(edges)) or not all(math.isfinite(edge) for edge in edges):
        raise ConfigError(f"by_levels(edges={list(edges)}): expected finite numbers, each above the one before")
    if len(labels) != len(edges) + 1 or len(set(labels)) != len(labels):
        raise ConfigError(
            f"by_levels: {len(edges)} edges make {len(edges) + 1} levels; got the labels {list(labels)}, each once"
        )

    def grouping(columns: Columns, nodes: int) -> list[str]:
        values = _numbers(_column(columns, name, nodes))
        levels = np.digitize(values, list(edges))
        return [unknown if missing else labels[level] for level, missing in zip(levels, np.isnan(values), strict=True)]

    return grouping


def _numbers(column: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if column.dtype.kind in "fiub":
        return column.astype(np.float64)
    numeric = [float(value) if isinstance(value, int | float | np.number) else math.nan for value in column.tolist()]
    return np.array(numeric, dtype=np.float64)


def standardised(columns: Columns, names: Sequence[str], nodes: int) -> tuple[npt.NDArray[np.float64], int]:
    """Columns as features of mean 0 and deviation 1, and how many values were not known and are taken as the mean.

    A text counts as not known; a feature that is the same for everybody is 0 for everybody.

    Returns:
        float64 [nodes, names], and the number of values that were filled in.

    >>> standardised({"load": np.array([0.0, np.nan, 1.0])}, ["load"], 3)
    (array([[-1.],
           [ 0.],
           [ 1.]]), 1)
    """
    values = np.column_stack([_numbers(_column(columns, name, nodes)) for name in names])
    values[~np.isfinite(values)] = np.nan
    missing = np.isnan(values)
    known = ~missing
    counts = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0.0).sum(axis=0) / counts
    apart = np.where(known, values - mean, 0.0)
    # Divided by the largest first: bytes of memory, squared and summed, must not overflow. What only rounding makes
    # different is the same.
    largest = np.abs(apart).max(axis=0, initial=0.0)
    largest = np.where(largest > np.maximum(1e-9 * np.abs(mean), np.finfo(np.float64).tiny), largest, np.inf)
    scaled = apart / largest
    deviation = np.sqrt((scaled**2).sum(axis=0) / counts)
    return scaled / np.where(deviation > 0, deviation, 1.0), int(missing.sum())


def by_similarity(features: Sequence[str], groups: int, *, seed: int = 0, prefix: str = "group") -> Grouping:
    """Groups of terminals that are alike in several numbers at once: k-means on standardised features.

    Values that are not known are taken as the mean of the others, and it is logged how many. Groups are numbered by
    their centres, the first feature first, so that `group-0` keeps meaning the same while terminals change a little.
    With fewer different terminals than groups there are fewer groups.

    Args:
        features: names of columns.
        groups: how many, at least 1.
        seed: of the beginnings of k-means.
        prefix: groups are called `<prefix>-0`, `<prefix>-1`, …

    Raises:
        ConfigError: no features, or fewer than one group.

    >>> alike = by_similarity(["cores", "load"], groups=2)
    >>> alike({"cores": np.array([4.0, 16.0, 4.0, 16.0]), "load": np.array([0.2, 0.3, 0.2, 0.3])}, 4)
    ['group-0', 'group-1', 'group-0', 'group-1']
    """
    if isinstance(features, str) or not features:
        raise ConfigError(f"by_similarity(features={features!r}): expected names of columns, ['load', 'cpu_count']")
    _check_groups("by_similarity", groups)

    def grouping(columns: Columns, nodes: int) -> list[str]:
        if not nodes:
            return []
        points, filled = standardised(columns, features, nodes)
        points = np.round(points, 9)
        if filled:
            log.info("%d of %d values of %s are not known; the mean is taken", filled, points.size, list(features))
        return _named(_clusters(points, groups, seed), points, prefix)

    return grouping


def _check_groups(who: str, groups: int) -> None:
    if type(groups) is not int or groups < 1:
        raise ConfigError(f"{who}(groups={groups!r}): a whole number, at least 1")


def _clusters(points: npt.NDArray[np.float64], groups: int, seed: int) -> npt.NDArray[np.int64]:
    """The cluster of each point; every cluster has at least one."""
    from scipy.cluster.vq import ClusterError, kmeans2

    different = np.unique(points, axis=0)
    if len(different) <= groups:
        return np.unique(points, axis=0, return_inverse=True)[1].reshape(len(points)).astype(np.int64)
    best: tuple[float, npt.NDArray[np.int64]] | None = None
    for start in range(RESTARTS):
        try:
            beginnings = _far_apart(points, groups, np.random.default_rng([seed, start]))
            centres, found = kmeans2(points, beginnings, iter=50, minit="matrix", missing="raise")
        except ClusterError:
            continue  # a cluster became empty; another beginning may do better
        spread = float(((points - centres[found]) ** 2).sum())
        if best is None or spread < best[0] - 1e-9:
            best = spread, found.astype(np.int64)
    if best is None:
        return _clusters(points, groups - 1, seed)
    return best[1]


def _far_apart(points: npt.NDArray[np.float64], count: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """k-means++: points drawn one after the other, each by its squared distance to the nearest drawn before.

    By hand, because the argument of SciPy's own that takes a generator has another name in every other version.
    """
    chosen = [points[rng.integers(len(points))]]
    nearest = ((points - chosen[0]) ** 2).sum(axis=1)
    while len(chosen) < count:
        chosen.append(points[rng.choice(len(points), p=nearest / nearest.sum())])
        nearest = np.minimum(nearest, ((points - chosen[-1]) ** 2).sum(axis=1))
    return np.stack(chosen)


def _named(found: npt.NDArray[np.int64], points: npt.NDArray[np.float64], prefix: str) -> list[str]:
    centres = {int(k): tuple(np.round(points[found == k].mean(axis=0), 9)) for k in np.unique(found)}
    numbers = {k: number for number, k in enumerate(sorted(centres, key=lambda k: centres[k]))}
    return [f"{prefix}-{numbers[int(k)]}" for k in found]


def by_models(updates: Sequence[npt.NDArray[Any]], groups: int, *, prefix: str = "group") -> list[str]:
    """Groups of terminals whose updates point the same way: average linkage on the cosine of the angle between them.

    Args:
        updates: one per terminal, the change its training made to the model, flattened; all of one length.
        groups: how many, at least 1; there are fewer where there are fewer terminals.
        prefix: groups are called `<prefix>-0`, … in the order of their first terminal.

    An update of length zero is as far from every other as one at a right angle, and no distance from its like.

    Raises:
        ConfigError: fewer than one group, updates of different lengths, a value that is not finite.

    >>> by_models([np.array([1.0, 0.1]), np.array([-1.0, 0.0]), np.array([2.0, 0.0])], groups=2)
    ['group-0', 'group-1', 'group-0']
    """
    _check_groups("by_models", groups)
    if len(updates) < 2:
        return [f"{prefix}-0"] * len(updates)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len({update.shape for update in updates}) != 1:
        raise ConfigError(
            f"by_models: updates of the shapes {sorted({update.shape for update in updates})}; expected one"
        )
    matrix = np.stack([update.reshape(-1) for update in updates]).astype(np.float64)
    if not np.isfinite(matrix).all():
        raise ConfigError("by_models: an update has a value that is not finite; leave that terminal out")
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    directions = matrix / np.where(length > 0, length, 1.0)
    apart = np.clip(1.0 - directions @ directions.T, 0.0, 2.0)
    still = (length == 0).reshape(-1)
    apart[np.ix_(still, still)] = 0.0
    np.fill_diagonal(apart, 0.0)
    found = fcluster(linkage(squareform(apart, checks=False), "average"), groups, "maxclust")
    order = {k: number for number, k in enumerate(dict.fromkeys(found.tolist()))}
    return [f"{prefix}-{order[k]}" for k in found.tolist()]
