"""fe_pristine: a Flower / NumPy app."""

from functools import lru_cache

import numpy as np
from sklearn.datasets import load_digits


def get_model() -> list[np.ndarray]:
    """Softmax regression on handwritten digits: weights and biases, all zero."""
    return [np.zeros((64, 10), np.float32), np.zeros(10, np.float32)]


@lru_cache(maxsize=1)
def load_all() -> tuple[np.ndarray, np.ndarray]:
    """The digits, in an order that repeats."""
    digits = load_digits()
    order = np.random.default_rng(1).permutation(len(digits.target))
    return (digits.data[order] / 16).astype(np.float32), digits.target[order]


def load_data(partition_id: int, num_partitions: int) -> tuple[np.ndarray, np.ndarray]:
    """Load this partition's digits."""
    x, y = load_all()
    return x[:1500][partition_id::num_partitions], y[:1500][partition_id::num_partitions]


def load_test_data() -> tuple[np.ndarray, np.ndarray]:
    """Load the digits that are in no partition."""
    x, y = load_all()
    return x[1500:], y[1500:]


def probabilities(model: list[np.ndarray], x: np.ndarray) -> np.ndarray:
    """How likely each class is, [samples, classes]."""
    weights, bias = model
    scores = np.exp(x @ weights + bias)
    return scores / scores.sum(axis=1, keepdims=True)


def train(
    model: list[np.ndarray], x: np.ndarray, y: np.ndarray, learning_rate: float, epochs: int
) -> tuple[list[np.ndarray], float]:
    """Train the model on batches of 32; returns it and its loss afterwards."""
    weights, bias = model
    for _ in range(epochs):
        for start in range(0, len(y), 32):
            batch, classes = x[start : start + 32], y[start : start + 32]
            error = probabilities([weights, bias], batch) - np.eye(10, dtype=np.float32)[classes]
            weights = weights - np.float32(learning_rate) * batch.T @ error / len(batch)
            bias = bias - np.float32(learning_rate) * error.mean(axis=0)
    return [weights, bias], test([weights, bias], x, y)[0]


def test(model: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Loss and accuracy of the model."""
    found = probabilities(model, x)
    loss = -np.log(found[np.arange(len(y)), y]).mean()
    return float(loss), float((found.argmax(axis=1) == y).mean())
