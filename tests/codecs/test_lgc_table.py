"""The table of LGC beside scalar coders: what it counts, on data that it can and cannot code."""

from __future__ import annotations

import numpy as np
import pytest

from flower_edge.codecs.layout import Floats, Layout
from flower_edge.codecs.lgc.gate import SCALARS
from flower_edge.codecs.lgc.table import lgc_table
from flower_edge.errors import CodecError

SIZE, NODES = 1600, 3
LAYOUT = Layout(("w", "b"), ((1500,), (100,)))
NAMES = ["server, as published", "server, federated", "ring, as published", "ring, federated"]
SMALL = (8, 16, 32, 8, 4)


def recorded(rounds: int, noise: float) -> list[dict[int, Floats]]:
    """A level that all nodes share at every tenth place, and noise."""
    rng = np.random.default_rng(0)
    shared = np.where(np.arange(SIZE) % 10 == 0, 2.0, 0.0) if noise < 1 else np.zeros(SIZE)
    return [
        {node: (shared + noise * rng.normal(size=SIZE)).astype(np.float32) for node in range(NODES)}
        for _ in range(rounds)
    ]


def test_both_variants_are_tabled_as_published_and_federated_at_their_own_bytes() -> None:
    pytest.importorskip("torch")
    rows = lgc_table(recorded(6, 1.0), LAYOUT, fraction=0.1, channels=SMALL, steps=2, published_steps=1)
    assert [row.name for row in rows] == NAMES
    spent = {row.name: row.bytes_per_node for row in rows}
    assert spent["ring, as published"] == 4 * 4 * 10  # float32, four numbers for 16 of 160 values
    assert spent["ring, federated"] == 4 + 2 * 2 + 4 + 4 * 10  # epoch, scales of two arrays, scale and int8
    assert all(set(row.scalar_nmse) == set(SCALARS) for row in rows)
    assert not any(row.gate_open for row in rows)  # noise: nothing is shared


def test_more_steps_help_the_federated_rows_and_leave_the_published_ones() -> None:
    pytest.importorskip("torch")
    rows = {
        row.name: row
        for row in lgc_table(recorded(6, 0.002), LAYOUT, fraction=0.1, channels=SMALL, steps=2, published_steps=1)
    }
    trained = lgc_table(recorded(6, 0.002), LAYOUT, fraction=0.1, channels=SMALL, steps=30, published_steps=1)
    assert trained[3].lgc_nmse < rows["ring, federated"].lgc_nmse < 2
    assert trained[0].lgc_nmse == rows["server, as published"].lgc_nmse  # not by Adam's steps


def test_rounds_of_different_nodes_are_refused() -> None:
    rounds = recorded(4, 1.0)
    del rounds[2][1]
    with pytest.raises(CodecError, match="same nodes"):
        lgc_table(rounds, LAYOUT)
