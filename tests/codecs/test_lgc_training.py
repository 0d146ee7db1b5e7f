"""The losses of LGC's autoencoder: one step of training moves the weights down the gradient of the equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flower_edge.codecs.lgc.model import Shape, first_weights
from flower_edge.codecs.lgc.values import Batch

torch = pytest.importorskip("torch")

NODES, K, KNOWN = 3, 40, 4


def drawn_batch() -> Batch:
    rng = np.random.default_rng(0)
    common, own = rng.normal(size=(1, K)), rng.normal(size=(NODES, K))
    return Batch(tuple(range(NODES)), (common + own).astype(np.float32), common[0].astype(np.float32))


def stepped(ring: bool, federated: bool) -> tuple[Any, Any]:
    """The weights before, and the gradient that one step of training found there."""
    from flower_edge.codecs.lgc.training_torch import Training, train

    shape = Shape((8, 16, 32, 8, 4), innovation=not ring)
    # Wide codes: else how far apart they are hardly counts beside how well they decode.
    weights = 2 * first_weights(shape, 0, 1 if ring or federated else NODES)
    how = Training(shape, ring, federated, KNOWN / K, learning_rate=1.0, steps=1)
    after, memory = train(how, weights, {}, [drawn_batch()], round=0)
    found = memory["exp_avg"] / (1 - 0.9) if federated else weights - after
    assert np.linalg.norm(found) < 10 or not federated  # else it was clipped
    return weights, found


def gradient(weights: Any, loss: Any) -> Any:
    flat = torch.from_numpy(weights.astype(np.float64)).requires_grad_()
    loss(flat).backward()
    return flat.grad.numpy()


def close(found: Any, expected: Any) -> bool:
    return bool(np.linalg.norm(found - expected) < 1e-3 * np.linalg.norm(expected))


def parts(ring: bool) -> tuple[Any, Any, Any, Any]:
    """Encoder and decoder of the model (which test_lgc_model holds against NumPy's), the values, the innovations."""
    from flower_edge.codecs.lgc.training_torch import decode_torch, encode_torch

    shape, batch = Shape((8, 16, 32, 8, 4), innovation=not ring), drawn_batch()
    v = torch.from_numpy(batch.values.astype(np.float64))
    known = torch.zeros_like(v)
    for row, values in enumerate(v):
        for place in sorted(range(K), key=lambda at: -abs(float(values[at])))[:KNOWN]:
            known[row, place] = values[place]

    def encode(flat: Any, values: Any) -> Any:
        return encode_torch(shape, flat, values[None])[0]

    def decode(flat: Any, code: Any, innovation: Any = None, decoder: int = 0) -> Any:
        channel = None if innovation is None else innovation[None]
        return decode_torch(shape, flat, code[None], K, channel, decoder)[0]

    return encode, decode, v, known


def mse(one: Any, other: Any) -> Any:
    return ((one - other) ** 2).mean()


def test_as_published_the_servers_decoders_learn_from_one_drawn_code_and_codes_are_drawn_together() -> None:
    encode, decode, v, known = parts(ring=False)
    weights, found = stepped(ring=False, federated=False)

    def loss(flat: Any, drawn: int) -> Any:
        codes = [encode(flat, values) for values in v]
        decoding = sum(mse(decode(flat, codes[drawn], known[k], k), v[k]) for k in range(NODES))
        apart = sum(mse(codes[i], codes[j]) for i in range(NODES) for j in range(NODES) if i != j)
        return 0.5 * decoding + 0.5 * apart

    expected = [gradient(weights, lambda flat, drawn=drawn: loss(flat, drawn)) for drawn in range(NODES)]
    assert sum(close(found, one) for one in expected) == 1


def test_as_published_the_ring_learns_the_mean_from_the_mean_of_codes() -> None:
    encode, decode, v, _ = parts(ring=True)
    weights, found = stepped(ring=True, federated=False)

    def loss(flat: Any) -> Any:
        mean = sum(encode(flat, values) for values in v) / NODES
        return mse(decode(flat, mean), v.mean(0))

    assert close(found, gradient(weights, loss))


def test_federated_the_servers_decoder_learns_from_the_code_of_what_all_know() -> None:
    encode, decode, v, known = parts(ring=False)
    weights, found = stepped(ring=False, federated=True)
    common = torch.from_numpy(np.asarray(drawn_batch().common, np.float64))

    def loss(flat: Any) -> Any:
        codes, shared = [encode(flat, values) for values in v], encode(flat, common)
        decoding = sum(mse(decode(flat, shared, known[k]), v[k]) for k in range(NODES)) / NODES
        apart = sum(mse(one, other) for one in codes for other in codes) / NODES**2
        return 0.5 * decoding + 0.5 * apart

    assert close(found, gradient(weights, loss))


def test_federated_the_ring_learns_each_nodes_values_as_well() -> None:
    encode, decode, v, _ = parts(ring=True)
    weights, found = stepped(ring=True, federated=True)

    def loss(flat: Any) -> Any:
        codes = [encode(flat, values) for values in v]
        own = sum(mse(decode(flat, codes[k]), v[k]) for k in range(NODES)) / NODES
        return mse(decode(flat, sum(codes) / NODES), v.mean(0)) + own

    assert close(found, gradient(weights, loss))
