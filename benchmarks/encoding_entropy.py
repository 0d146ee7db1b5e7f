"""How near a support by context comes to what adaptive counting could do, and how far under Rice codes it is.

The top 1 % of FedAvg updates, each message by itself, no memory. Held against an adaptive Krichevsky-Trofimov code of
the same places and signs, whose contexts are sixteen classes of rank of the previous aggregate: of that code only the
length is computed, to the bit. Real bytes are whole payloads, with header and magnitude. Nothing is trained here.

    KT length of a class with n places of which k are named:  -log2 [ G(k + 1/2) G(n - k + 1/2) / (pi G(n + 1)) ]

Source: Krichevsky and Trofimov, "The performance of universal encoding", IEEE Trans. Inf. Theory 27(2), 1981.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from flower_edge.codecs.layout import Layout
from flower_edge.codecs.moment import Moment, Public
from flower_edge.codecs.sparse import Sparse
from flower_edge.codecs.top_k import TopK

from .encoding_task import SPLITS, collect_updates, first_model

__all__ = ["EntropyJob", "entropy_figures", "entropy_jobs", "entropy_of", "kt_bits", "rank_classes"]

CLASSES: Final = 16
FRACTION: Final = 0.01
ROUNDS: Final = {True: 12, False: 40}

Updates = npt.NDArray[np.float32]
EntropyJob = tuple[str, int, int]


def kt_bits(members: npt.ArrayLike, named: npt.ArrayLike) -> float:
    """Bits of an adaptive code of classes with so many members each, of which so many are named.

    >>> kt_bits([1], [1]), kt_bits([2], [1])
    (1.0, 3.0)
    """
    n, k = np.asarray(members, float), np.asarray(named, float)
    logs = gammaln(k + 0.5) + gammaln(n - k + 0.5) - math.log(math.pi) - gammaln(n + 1)
    return round(float(-logs.sum() / math.log(2)), 6)


def rank_classes(aggregate: Updates, *, equal: bool) -> npt.NDArray[np.int64]:
    """The class of each place, by the rank of the aggregate's magnitude there, 0 the largest.

    Args:
        equal: classes of one size; otherwise each is twice as large as the one before, which tells the hottest apart.
    """
    ranks = np.empty(aggregate.size, np.int64)
    ranks[np.argsort(-np.abs(aggregate), kind="stable")] = np.arange(aggregate.size)
    if equal:
        return ranks * CLASSES // aggregate.size
    edges = aggregate.size / 2.0 ** np.arange(CLASSES - 1, 0, -1)
    return np.searchsorted(edges, ranks, side="right")


def ideal_bytes(update: Sparse, aggregate: Updates) -> float:
    """Length of the adaptive code of places and signs, in the better of the two kinds of classes."""
    return min(_ideal_bits(update, aggregate, equal) for equal in (True, False)) / 8


def _ideal_bits(update: Sparse, aggregate: Updates, equal: bool) -> float:
    of = rank_classes(aggregate, equal=equal)
    members, named = np.bincount(of, minlength=CLASSES), np.bincount(of[update.indices], minlength=CLASSES)
    as_before = (update.values < 0) == (aggregate[update.indices] < 0)
    agreed = np.bincount(of[update.indices], as_before, minlength=CLASSES)
    return kt_bits(members, named) + kt_bits(named, agreed)


def entropy_of(job: EntropyJob) -> dict[str, float]:
    """Mean bytes per message of a run's updates: by context, by Rice codes, ideal, and by `constriction` where it is.

    Args:
        job: split, seed, rounds.
    """
    split, seed, count = job
    rounds = collect_updates(split, count, seed)
    layout = _layout(seed)
    context, rice = TopK(FRACTION, support="context"), TopK(FRACTION, support="rice")
    found: dict[str, list[float]] = {"context": [], "rice": [], "ideal": [], "constriction": []}
    aggregates: tuple[Updates, ...] = ()
    for number, updates in enumerate(rounds):
        for node, update in enumerate(updates):
            if not aggregates:
                continue
            at = Moment(number, node, Public(aggregates))
            coded, plain = context.pack(update, layout, {}, at)[0], rice.pack(update, layout, {}, at)[0]
            kept = rice.unpack(memoryview(plain), layout, {}, at)[0]
            found["context"].append(len(coded))
            found["rice"].append(len(plain))
            found["ideal"].append(ideal_bytes(kept, aggregates[0]))
            if importlib.util.find_spec("constriction"):
                found["constriction"].append(_constriction_bytes(kept, aggregates[0]))
        aggregates = (np.asarray(updates.mean(axis=0), np.float32), *aggregates)[:4]
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def _layout(seed: int) -> Layout:
    arrays = first_model(seed)
    return Layout(tuple(arrays), tuple(array.shape for array in arrays.values()))


def _constriction_bytes(update: Sparse, aggregate: Updates) -> float:
    """A range coder of the Rust library that is told each class's true share for nothing; signs plainly."""
    import constriction  # type: ignore[import-not-found]

    of = rank_classes(aggregate, equal=False)
    flags = np.zeros(aggregate.size, np.int32)
    flags[update.indices] = 1
    coder = constriction.stream.queue.RangeEncoder()
    for one in range(CLASSES):
        inside = flags[of == one]
        share = float(np.clip(inside.mean(), 1e-6, 1 - 1e-6))
        coder.encode(inside, constriction.stream.model.Bernoulli(share))
    return float(4 * len(coder.get_compressed()) + update.indices.size / 8)


def entropy_jobs(seeds: Sequence[int], *, quick: bool) -> list[EntropyJob]:
    """A run of each split and seed."""
    return [(split, seed, ROUNDS[quick]) for split in SPLITS for seed in seeds]


def entropy_figures(found: dict[EntropyJob, dict[str, float]]) -> dict[str, Any]:
    """`entropy_gap` and `entropy_saving_over_rice` of the worse split, and `entropy` with the bytes of each."""
    splits = {
        split: {
            name: float(np.mean([of[name] for job, of in found.items() if job[0] == split]))
            for name in next(iter(found.values()))
        }
        for split in SPLITS
    }
    return {
        "entropy_gap": max(of["context"] / of["ideal"] for of in splits.values()),
        "entropy_saving_over_rice": min(1 - of["context"] / of["rice"] for of in splits.values()),
        "entropy": splits,
    }
