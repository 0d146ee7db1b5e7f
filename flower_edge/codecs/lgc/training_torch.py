"""Training of LGC's autoencoder. Torch lives here and nowhere else of it: what codes is NumPy (model.py).

    server  L = lambda_1 sum_k mean((out(D(c), innovation_k) - v_k)^2) + lambda_2 sum_{i != j} mean((E(v_i) - E(v_j))^2)
             c = E(v_j) of a node drawn in each step; federated: of what all nodes knew before, where there is such
    ring     L = mean((D(mean_k E(v_k)) - mean_k v_k)^2)
            federated: and mean_k mean((D(E(v_k)) - v_k)^2): a node's error feedback needs its own decoded

lambda_1 = lambda_2 = 1/2. As published: plain SGD, rate 1e-3, one pass per round, a decoder per node. Federated:
Adam, one decoder for whoever takes part. Nothing here draws from torch's own generators, so the seed is the only one.

Source: Abrahamyan et al., IEEE TNNLS 2021; the losses as recalled, not read (docs/codecs_shared.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..layout import Floats
from .model import Shape, cells, unpool
from .values import Batch, innovation_channel

__all__ = ["Training", "decode_torch", "decoded", "encode_torch", "train"]

State = dict[str, Any]
_SLOPE = 0.01
#: Longer vectors are trained on a piece of this length, drawn in each step: the autoencoder sees 61 places at once.
_PIECE = 4096


@dataclass(frozen=True)
class Training:
    """How to train.

    Attributes:
        shape: of the autoencoder.
        ring: which loss, see the head of this file.
        federated: shared decoder and the federated terms; or as published.
        innovation: how many values per vector the decoder sees beside the code, as a fraction; server only.
        learning_rate: of Adam (federated) or SGD.
        steps: per call, each over all batches.
        seed: of what is drawn.
    """

    shape: Shape
    ring: bool = False
    federated: bool = True
    innovation: float = 0.01
    learning_rate: float = 1e-3
    steps: int = 20
    seed: int = 0


def train(how: Training, weights: Floats, memory: State, batches: Sequence[Batch], round: int) -> tuple[Floats, State]:
    """Weights after some more steps, and what the optimiser remembers: nested plain values and arrays.

    Args:
        weights: float32 [encoder + n * decoder]: one decoder, or as published one per node of the batches, in order.
        memory: of the call before; empty at first.
        round: seed material for what is drawn.
    """
    batches = [batch for batch in batches if len(batch.nodes)]
    if not batches:
        return weights, memory
    rng = np.random.default_rng([how.seed, round, 0x16C])
    with _one_thread():
        flat = torch.from_numpy(weights.copy()).requires_grad_()
        optimiser = _optimiser(how, flat, memory)
        for _ in range(how.steps):
            optimiser.zero_grad()
            loss = torch.stack([_loss(how, flat, _piece(batch, rng), rng) for batch in batches]).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_([flat], 10.0) if how.federated else None
            optimiser.step()
        after = flat.detach().numpy().copy()
        kept = optimiser.state[flat]
        remembered = {
            name: value.detach().numpy().copy() if isinstance(value, torch.Tensor) else value
            for name, value in kept.items()
            if value is not None
        }
    return after, remembered


def decoded(how: Training, weights: Floats, batch: Batch, code_of: int | None = None) -> Floats:
    """What the server would have decoded, float32 [nodes, k], with a node's own decoder where there are several.

    Args:
        code_of: row of the node whose code stands for all (server); `None`: of what all knew before (server), or of
            the mean of all codes (ring): then one row.
    """
    with _one_thread(), torch.no_grad():
        flat, k = torch.from_numpy(weights), batch.values.shape[1]
        v = torch.from_numpy(batch.values)
        if how.ring:
            code = encode_torch(how.shape, flat, v).mean(0, keepdim=True)
            return decode_torch(how.shape, flat, code, k, None, 0).numpy()
        source = batch.common if code_of is None else batch.values[code_of]
        if source is None:
            raise ValueError("no common part and no node whose code stands for all")
        code = encode_torch(how.shape, flat, torch.from_numpy(source)[None])
        return _all_rows(how, flat, code, batch).numpy()


def _loss(how: Training, flat: torch.Tensor, batch: Batch, rng: np.random.Generator) -> torch.Tensor:
    v, k = torch.from_numpy(batch.values), batch.values.shape[1]
    codes = encode_torch(how.shape, flat, v)
    if how.ring:
        loss = F.mse_loss(decode_torch(how.shape, flat, codes.mean(0, keepdim=True), k, None, 0)[0], v.mean(0))
        return loss + F.mse_loss(decode_torch(how.shape, flat, codes, k, None, 0), v) if how.federated else loss
    drawn = int(rng.integers(len(v)))
    code = codes[drawn : drawn + 1]
    if how.federated and batch.common is not None:
        code = encode_torch(how.shape, flat, torch.from_numpy(batch.common)[None])
    decoding = ((_all_rows(how, flat, code, batch) - v) ** 2).mean(1)
    apart = ((codes[:, None] - codes[None]) ** 2).flatten(2).mean(2)
    # Summed over nodes and pairs as published; averaged where their number changes from round to round.
    if how.federated:
        return 0.5 * decoding.mean() + 0.5 * apart.mean()
    return 0.5 * decoding.sum() + 0.5 * apart.sum()


def _share(how: Training, k: int) -> int:
    return min(k, max(1, round(how.innovation * k))) if how.innovation else 0


def _piece(batch: Batch, rng: np.random.Generator) -> Batch:
    k = batch.values.shape[1]
    if k <= _PIECE:
        return batch
    begin = int(rng.integers(k - _PIECE + 1))
    part = slice(begin, begin + _PIECE)
    common = None if batch.common is None else batch.common[part]
    return Batch(batch.nodes, np.ascontiguousarray(batch.values[:, part]), common)


def encode_torch(shape: Shape, flat: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """`Autoencoder.encode` of rows: [n, k] to [n, code, ceil(k / 16)]."""
    h = F.pad(v, (0, 16 * cells(v.shape[1]) - v.shape[1]))[:, None]
    offset = 0
    for i, dims in enumerate(shape.encoder):
        weight, bias, offset = _layer(flat, offset, dims, dims[0])
        h = F.leaky_relu(F.conv1d(h, weight, bias, stride=2, padding=1) if i < 4 else F.conv1d(h, weight, bias), _SLOPE)
    return h


def decode_torch(
    shape: Shape,
    flat: torch.Tensor,
    code: torch.Tensor,
    k: int,
    innovation: torch.Tensor | None = None,
    decoder: int = 0,
) -> torch.Tensor:
    """`Autoencoder.decode` of rows: [n, code, ceil(k / 16)] to [n, k].

    Args:
        innovation: float32 [n, k]; a single code stands for all of its rows.
        decoder: which, where `flat` has several.
    """
    several = len(flat) > shape.params
    offset = shape.encoder_params + (decoder * shape.decoder_params if several else 0)
    h = code
    for dims in shape.decoder[:4]:
        weight, bias, offset = _layer(flat, offset, dims, dims[1])
        h = F.leaky_relu(F.conv_transpose1d(h, weight, bias, stride=2, padding=1, output_padding=1), _SLOPE)
    h = h[:, :, torch.from_numpy(unpool(k))]
    weight, bias, _ = _layer(flat, offset, shape.decoder[4], 1)
    out = F.conv1d(h, weight[:, : h.shape[1]], bias)[:, 0]
    return out if innovation is None else out + weight[0, -1, 0] * innovation


def _all_rows(how: Training, flat: torch.Tensor, code: torch.Tensor, batch: Batch) -> torch.Tensor:
    """What the server decodes for each node from one common code: with its own decoder, where there are several."""
    k = batch.values.shape[1]
    channel = torch.from_numpy(innovation_channel(batch.values, _share(how, k)))
    if len(flat) == how.shape.params:
        return decode_torch(how.shape, flat, code, k, channel)
    return torch.cat([decode_torch(how.shape, flat, code, k, channel[i : i + 1], i) for i in range(len(channel))])


def _layer(
    flat: torch.Tensor, offset: int, dims: tuple[int, int, int], biases: int
) -> tuple[torch.Tensor, torch.Tensor, int]:
    middle = offset + dims[0] * dims[1] * dims[2]
    return flat[offset:middle].view(dims), flat[middle : middle + biases], middle + biases


def _optimiser(how: Training, flat: torch.Tensor, memory: State) -> torch.optim.Optimizer:
    if not how.federated:
        return torch.optim.SGD([flat], lr=how.learning_rate)
    made = torch.optim.Adam([flat], lr=how.learning_rate)
    if memory:
        made.state[flat] = {name: torch.from_numpy(np.array(value)) for name, value in memory.items()}
    return made


@contextmanager
def _one_thread() -> Iterator[None]:
    """The same sums in the same order, whatever the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
