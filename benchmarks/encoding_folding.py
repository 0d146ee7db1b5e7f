"""How a server adds up sparse messages: time and memory, beside making a whole vector of each. Nothing is learned."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from flower_edge.codecs.aggregate import Aggregator
from flower_edge.codecs.layout import Layout
from flower_edge.codecs.moment import Moment
from flower_edge.codecs.sparse import Sparse, dense
from flower_edge.codecs.top_k import TopK

from .encoding_speed import SIZE

__all__ = ["measure_folding"]

CLIENTS: Final = 100
ONE_IN: Final = 100


def measure_folding(say: Callable[[str], None], *, size: int = SIZE, clients: int = CLIENTS) -> dict[str, Any]:
    """The mean of so many messages of 1 %, both ways.

    Returns:
        `sparse_aggregate_speedup`, and `sparse_aggregate_peak_models`: the most memory beyond the payloads, less one
        decoded message, in models.
    """
    updates = [_update(size, client) for client in range(clients)]
    warm = Aggregator(size)
    warm.add(updates[0])
    begin_s = time.perf_counter()
    folded = Aggregator(size)
    for update in updates:
        folded.add(update)
    mean = folded.mean()
    sparse_s = time.perf_counter() - begin_s

    begin_s = time.perf_counter()
    total = np.zeros(size, np.float32)
    for update in updates:
        total += dense(update)
    total /= np.float32(clients)
    dense_s = time.perf_counter() - begin_s
    np.testing.assert_allclose(mean, total, rtol=1e-4, atol=1e-6)
    peak = _peak_models(updates[:3], size, clients)
    say(f"    folding: {sparse_s:.3f} s sparse, {dense_s:.3f} s dense, peak {peak:.3f} models")
    return {
        "sparse_aggregate_speedup": dense_s / sparse_s,
        "sparse_aggregate_peak_models": peak,
        "folding": {"sparse_s": sparse_s, "dense_s": dense_s, "clients": clients, "size": size},
    }


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
