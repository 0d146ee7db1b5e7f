"""What the centre does with what its edges send: (w_e, n_e), brought up to date where it is late, into one model.

Functions from results to a model or a number. Nothing here asks an edge or keeps a version.

Letters, as in the papers:
    w_e   model of edge e
    n_e   number of examples behind it
    w     the centre's model now, w_v the version v an edge began from
    τ     staleness: how many versions the centre has published since v
    s(τ)  how much of a late edge's work is taken, 1 at τ = 0

Sources: Liu, Zhang, Song, Letaief, "Client-edge-cloud hierarchical federated learning", ICC 2020 (HierFAVG); Xie,
Koyejo, Gupta, "Asynchronous federated optimization", 2019 (FedAsync); Nguyen et al., "Federated learning with buffered
asynchronous aggregation", AISTATS 2022 (FedBuff).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message

from flower_edge.errors import ConfigError
from flower_edge.events import Event
from flower_edge.wire import ModelSpec, array_of, cast_like, record_of

__all__ = ["EdgeResult", "divergence", "merge_edges", "mixed", "moved", "refuse_bytes", "settle"]


@dataclass(frozen=True)
class EdgeResult:
    """(w_e, n_e) and how it came about.

    Attributes:
        cell: the edge's name.
        arrays: w_e, `None` if the edge has nothing to merge; w_e − w_v where `difference`.
        weight: n_e, 0 where `arrays` is `None`.
        metrics: aggregated metrics of its terminals.
        report: numbers of the edge's rounds.
        trouble: what went wrong; where there is nothing to merge, why.
        version: v, the version of the centre's model it began from.
        difference: whether `arrays` is the difference to that version.
        counted: by terminal (node id, or a key that means the same at every edge), its weight and when it was accepted
            (a number that grows), where the tier tells it.
        events: what happened at the edge.
        reply: the message it was read from.
    """

    cell: str
    arrays: ArrayRecord | None
    weight: float
    metrics: Mapping[str, Any]
    report: Mapping[str, Any]
    trouble: str = ""
    version: int = 0
    difference: bool = False
    counted: Mapping[int | str, tuple[float, int]] | None = None
    events: tuple[Event, ...] = field(default=(), compare=False)
    reply: Message | None = field(default=None, compare=False, repr=False)


def merge_edges(results: Iterable[EdgeResult], spec: ModelSpec) -> ArrayRecord:
    """The centre's model: Σ n_e·w_e / Σ n_e in float64, cast once to the model's dtypes.

    Edges are added in the order of their names: float addition is not associative, and replies arrive in any order.
    One edge alone is taken as it is.

    Args:
        results: those with something to merge; every weight above 0.
        spec: names, shapes and dtypes of the model.

    Raises:
        ConfigError: several edges sent byte strings (boosters), which have no mean.
    """
    edges = sorted((result for result in results if result.arrays is not None), key=lambda result: result.cell)
    if len(edges) == 1 and edges[0].arrays is not None:
        return cast_like(edges[0].arrays, spec)
    refuse_bytes(edges, spec)
    total = sum(edge.weight for edge in edges)
    merged: dict[str, np.ndarray[Any, Any]] = {}
    for name in spec:
        acc: Any = 0.0
        for edge in edges:
            assert edge.arrays is not None
            acc = acc + edge.weight * _wide(array_of(edge.arrays[name]))
        merged[name] = np.asarray(acc / total)
    return cast_like(record_of(merged), spec)


def refuse_bytes(edges: Sequence[EdgeResult], spec: ModelSpec) -> None:
    """Refuse byte strings of several edges.

    Raises:
        ConfigError: several edges sent byte strings (boosters), which have no mean and no difference.
    """
    for name, (shape, dtype) in spec.items():
        lengths = {tuple(edge.arrays[name].shape) for edge in edges if edge.arrays is not None}
        if len(edges) > 1 and dtype == "uint8" and len(shape) == 1 and (len(lengths) > 1 or len(spec) == 1):
            raise ConfigError(
                f"{len(edges)} edges sent the byte string {name!r}, and byte strings have no mean; "
                "train Flower's XGBoost strategies in one cell"
            )


def _wide(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)


def moved(arrays: ArrayRecord, towards: ArrayRecord, since: ArrayRecord | None, scale: float) -> ArrayRecord:
    """w + scale · (w_e − w_v) in float64; with `since` = `None`, `towards` is that difference already."""
    out: dict[str, np.ndarray[Any, Any]] = {}
    for name, array in arrays.items():
        step = _wide(array_of(towards[name]))
        if since is not None:
            step = step - _wide(array_of(since[name]))
        out[name] = np.asarray(_wide(array_of(array)) + scale * step)
    return record_of(out)


def mixed(arrays: ArrayRecord, other: ArrayRecord, share: float, spec: ModelSpec) -> ArrayRecord:
    """(1 − share) · w + share · w', in float64, cast once; share = 1 is w' as it is."""
    if share == 1.0:
        return cast_like(other, spec)
    return cast_like(moved(arrays, other, arrays, share), spec)


def divergence(results: Iterable[EdgeResult], merged: ArrayRecord) -> dict[str, float]:
    """‖w_e − w̄‖₂ over all floating-point entries, by edge: how far the edges have drifted apart."""
    found: dict[str, float] = {}
    for result in results:
        if result.arrays is None:
            continue
        squares = 0.0
        for name, array in result.arrays.items():
            own = array_of(array)
            if np.issubdtype(own.dtype, np.floating):
                apart = own.astype(np.float64) - array_of(merged[name]).astype(np.float64)
                squares += float(np.vdot(apart, apart))
        found[result.cell] = squares**0.5
    return found


def settle(results: Sequence[EdgeResult]) -> list[EdgeResult]:
    """Count every terminal once: in the n_e of the edge whose update of it was accepted last.

    A terminal that moved was in the rounds of two edges of one merge, and its examples in two n_e. Results that do
    not tell their terminals are left alone. An edge whose terminals are all counted elsewhere has nothing to merge.
    """
    last: dict[int | str, int] = {}
    where: dict[int | str, str] = {}
    for result in results:
        if result.arrays is not None:
            for node, (_, order) in (result.counted or {}).items():
                if order >= last.get(node, order):
                    last[node], where[node] = order, result.cell
    settled = []
    for result in results:
        if result.arrays is None or result.counted is None:
            settled.append(result)
            continue
        own = {node: entry for node, entry in result.counted.items() if entry[1] == last[node]}
        if len(own) == len(result.counted):
            settled.append(result)
        elif weight := sum(weight for weight, _ in own.values()):
            settled.append(replace(result, counted=own, weight=weight))
        else:
            trouble = _elsewhere(result.counted, where)
            settled.append(replace(result, counted=own, weight=0.0, arrays=None, trouble=trouble))
    return settled


def _elsewhere(counted: Mapping[int | str, object], where: Mapping[int | str, str]) -> str:
    """Why an edge has nothing to merge whose terminals are all counted at other edges."""
    edges = " and ".join(sorted({where[node] for node in counted}))
    moved = f"its terminals moved on, and all of them are counted at {edges}"
    names = [str(name) for name in counted if isinstance(name, str)]
    if not names:
        return moved  # nodes of one Grid: no two have one id
    some = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
    # Nothing tells a terminal that moved from two devices of one name, so both are said, with what to do.
    return (
        f"{moved}. If they did not move, devices there have the same names ({some}): give each terminal a node-key "
        "of its own in its node config, or a partition-id that no terminal of another edge has"
    )
