"""How well LGC codes recorded updates, beside scalar coders that may spend the same bytes. A table, and nothing else.

The first part of the rounds is trained on, the rest is coded. Rows:

    server, as published   one fixed leader's code of the same round for all nodes, no scales, a decoder per node, SGD
    ring, as published     the mean of all codes, float32, no scales, SGD; the error is that of the mean
    server, federated      code of the previous aggregate, own detail, scales, one decoder, rounded weights
    ring, federated        own code in int8, scales, one decoder, rounded weights

The bytes are those of values: a support costs the same whoever codes at it. Codebooks are not counted; the gate does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import CodecError
from ..layout import Floats, Layout
from ..leader import Places, share_of, used_places
from ..moment import Moment
from ..once import packed, unpacked
from ..sparse import dense
from .code import Code, Learned
from .codebook import codebook_bytes, read_codebook
from .gate import SCALARS, at_equal_bytes, nmse
from .model import CHANNELS, Autoencoder, Shape, cells, first_weights
from .values import Batch

__all__ = ["Row", "lgc_table"]

Rounds = Sequence[Mapping[int, Floats]]


@dataclass(frozen=True)
class Row:
    """One way to code, on average over the rounds it was not trained on.

    Attributes:
        name: of the way.
        lgc_nmse: its error, ||v - decoded||^2 / ||v||^2.
        bytes_per_node: of values, on average over nodes.
        scalar_nmse: error of each scalar coder that may spend as many.
    """

    name: str
    lgc_nmse: float
    bytes_per_node: float
    scalar_nmse: Mapping[str, float]

    @property
    def gate_open(self) -> bool:
        """Whether it would pass the default gate, its codebook's bytes apart."""
        return self.lgc_nmse < 0.9 * min(self.scalar_nmse.values())


def lgc_table(
    rounds: Rounds,
    layout: Layout,
    *,
    fraction: float = 0.01,
    channels: tuple[int, ...] = CHANNELS,
    steps: int = 300,
    published_steps: int = 25,
    seed: int = 0,
) -> tuple[Row, ...]:
    """Both variants of LGC, as published and federated, on whole updates of the same nodes in each round.

    Args:
        rounds: float32 [params] by node, oldest first.
        fraction: of the vector, how many places a leader has.
        steps: of Adam, all told, federated.
        published_steps: of SGD per round of training. Published is one, in 300 rounds: make up for fewer rounds.

    Raises:
        CodecError: fewer than three rounds, or other nodes in some of them.
    """
    if len(rounds) < 3 or any(set(updates) != set(rounds[0]) for updates in rounds):
        raise CodecError(f"{len(rounds)} rounds: expected three or more, with the same nodes in each")
    cut = max(1, 2 * len(rounds) // 3)
    rows = []
    for ring in (False, True):
        rows.append(_as_published(rounds, cut, layout, fraction, Shape(channels, not ring), published_steps, seed))
        rows.append(_federated(rounds, cut, layout, fraction, Shape(channels, not ring), steps, seed))
    return tuple(rows)


def _as_published(
    rounds: Rounds, cut: int, layout: Layout, fraction: float, shape: Shape, steps: int, seed: int
) -> Row:
    from .training_torch import Training, decoded, train

    ring, nodes = not shape.innovation, sorted(rounds[0])
    how = Training(shape, ring, False, 0.01, 1e-3, steps, seed)
    weights = first_weights(shape, seed, 1 if ring else len(nodes))
    errors, scalars, spent = [], [], 0.0
    for number, updates in enumerate(rounds):
        places = used_places(updates[nodes[0]], share_of(fraction, layout.size))
        batch = Batch(tuple(nodes), np.stack([updates[node][places] for node in nodes]).astype(np.float32))
        if number < cut:
            weights, _ = train(how, weights, {}, [batch], number)
            continue
        code, k = 4.0 * shape.code * cells(places.size), places.size
        # An innovation is a value and where it is among the k: 32 bits each, as published.
        spent = code if ring else code / len(nodes) + 8.0 * share_of(0.01, k)
        out = decoded(how, weights, batch, None if ring else 0)
        wanted = batch.values.mean(0, keepdims=True) if ring else batch.values
        errors.append(np.mean([nmse(v, d) for v, d in zip(wanted, out, strict=True)]))
        scalars.append(_scalars_of_the_mean(batch.values, spent) if ring else _scalars(batch.values, spent))
    return Row(f"{'ring' if ring else 'server'}, as published", float(np.mean(errors)), spent, _means(scalars))


def _federated(rounds: Rounds, cut: int, layout: Layout, fraction: float, shape: Shape, steps: int, seed: int) -> Row:
    from .training_torch import Training, train

    ring, nodes = not shape.innovation, sorted(rounds[0])
    code = Code(shape, ring, "int8", 0.01)
    seen = list(_lagged(rounds, share_of(fraction, layout.size)))
    batches = [Batch.of(rounds[t], places, layout, before) for t, places, before in seen if t < cut]
    how = Training(shape, ring, True, code.detail, 1e-3, steps, seed)
    weights, _ = train(how, first_weights(shape, seed), {}, batches, 0)
    coder = Learned(code, read_codebook(codebook_bytes(Autoencoder(shape, weights), 0), shape))
    errors, scalars, lengths = [], [], []
    for t, places, before in seen:
        if t < cut:
            continue
        values = [rounds[t][node][places] for node in nodes]
        for v in values:
            data = coder.pack(v, places, layout, before[places])
            errors.append(nmse(v, coder.unpack([memoryview(data)], places, layout, before[places])))
            lengths.append(len(data))
        scalars.append(_scalars(np.stack(values), float(lengths[-1])))
    name = f"{'ring' if ring else 'server'}, federated"
    return Row(name, float(np.mean(errors)), float(np.mean(lengths)), _means(scalars))


def _lagged(rounds: Rounds, k: int) -> list[tuple[int, Places, Floats]]:
    """Each round but the first: the places of a node of the round before, another one each time, and its mean."""
    nodes = sorted(rounds[0])
    return [
        (
            t,
            used_places(rounds[t - 1][nodes[t % len(nodes)]], k),
            np.asarray(np.mean([rounds[t - 1][n] for n in nodes], axis=0, dtype=np.float64), np.float32),
        )
        for t in range(1, len(rounds))
    ]


def _scalars(values: Floats, budget_bytes: float) -> dict[str, float]:
    return {
        name: float(np.mean([at_equal_bytes(codec, v, budget_bytes) for v in values]))
        for name, codec in SCALARS.items()
    }


def _scalars_of_the_mean(values: Floats, budget_bytes: float) -> dict[str, float]:
    """Error of the mean of decoded vectors; what a coder cannot afford of a vector is left out of it."""
    errors = {}
    for name, codec in SCALARS.items():
        total, share, flat = np.zeros(values.shape[1], np.float64), 1.0, Layout.flat(values.shape[1])
        for node, v in enumerate(values):
            data = packed(codec, v, flat, Moment(0, node))
            share = min(1.0, budget_bytes / len(data)) if data else 1.0
            total += dense(unpacked(codec, memoryview(data), flat, Moment(0, node)))
        error = nmse(values.mean(0), (total / len(values)).astype(np.float32))
        errors[name] = 1.0 - share + share * error
    return errors


def _means(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}
