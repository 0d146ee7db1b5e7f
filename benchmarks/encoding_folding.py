"""How a server adds up sparse messages: time and memory, beside making a whole vector of each. Nothing is learned."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from flower_edge.codecs.aggregate import Aggregator
from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.sparse import Sparse, dense
from flower_edge.codecs.top_k import TopK

from .encoding_speed import SIZE

__all__ = ["measure_folding"]

CLIENTS: Final = 100
ONE_IN: Final = 100
_TIMES: Final = 3


def measure_folding(say: Callable[[str], None], *, size: int = SIZE, clients: int = CLIENTS) -> dict[str, Any]:
    """The weighted mean of so many messages of 1 %, both ways.

    Returns:
        `sparse_aggregate_speedup`, and `sparse_aggregate_peak_models`: the most memory beyond the payloads, less one
        decoded message, in models.
    """
    updates = [_update(size, client) for client in range(clients)]
    sparse_s, mean = _median_s(lambda: _folded(updates, size))
    dense_s, total = _median_s(lambda: _summed(updates, size))
    np.testing.assert_allclose(mean, total, rtol=1e-4, atol=1e-6)
    peak = _peak_models(updates[:3], size, clients)
    say(f"    folding: {sparse_s:.3f} s sparse, {dense_s:.3f} s dense, peak {peak:.3f} models")
    return {
        "sparse_aggregate_speedup": dense_s / sparse_s,
        "sparse_aggregate_peak_models": peak,
        "folding": {"sparse_s": sparse_s, "dense_s": dense_s, "clients": clients, "size": size},
    }


def _folded(updates: Sequence[Sparse], size: int) -> Floats:
    folded = Aggregator(size)
    for client, update in enumerate(updates):
        folded.add(update, _weight(client))
    return folded.mean()


def _summed(updates: Sequence[Sparse], size: int) -> Floats:
    total = np.zeros(size, np.float32)
    for client, update in enumerate(updates):
        total += np.float32(_weight(client)) * dense(update)
    total /= np.float32(sum(map(_weight, range(len(updates)))))
    return total


def _weight(client: int) -> float:
    """How many examples a client has: federated means are weighted ones."""
    return 400.0 + client


def _median_s(call: Callable[[], Floats]) -> tuple[float, Floats]:
    """Of some passes after one that meets memory, and kernels, for the first time."""
    found, taken_s = call(), []
    for _ in range(_TIMES):
        del found  # so that the next pass finds memory that was there before
        begin_s = time.perf_counter()
        found = call()
        taken_s.append(time.perf_counter() - begin_s)
    return float(np.median(taken_s)), found


def _update(size: int, client: int) -> Sparse:
    """One in a hundred places, at random."""
    rng, k = np.random.default_rng([1, client]), size // ONE_IN
    places = np.arange(k, dtype=np.int64) * ONE_IN + rng.integers(ONE_IN, size=k)
    return Sparse(places, rng.standard_normal(k, dtype=np.float32), size)


def _peak_models(updates: list[Sparse], size: int, clients: int) -> float:
    """From payloads to the mean, which is all a server that folds has to hold."""
    codec, layout, at = TopK(1 / ONE_IN), Layout.flat(size), Moment()
    payloads = [codec.pack(dense(update), layout, {}, at)[0] for update in updates]
    message = updates[0].indices.nbytes + updates[0].values.nbytes + len(payloads[0])
    tracemalloc.start()
    try:
        folded = Aggregator(size)
        for client in range(clients):
            data = memoryview(payloads[client % len(payloads)])
            folded.add(codec.unpack(data, layout, {}, at)[0])
        folded.mean()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return (peak - message) / (4 * size)
