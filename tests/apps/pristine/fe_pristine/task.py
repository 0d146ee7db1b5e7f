"""The model and the data: a line fitted by least squares, a different cloud of points on every node."""

import numpy as np

TRUE_WEIGHTS = np.array([2.0, -1.0, 0.5])


def get_model() -> list[np.ndarray]:
    """Weights and bias, all zero."""
    return [np.zeros(3), np.zeros(1)]


def load_data(partition_id: int, num_partitions: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of this partition; the same points in every run."""
    rng = np.random.default_rng([partition_id, num_partitions])
    x = rng.normal(size=(40, 3))
    y = x @ TRUE_WEIGHTS + 3.0 + 0.1 * rng.normal(size=40)
    return x, y


def train(
    model: list[np.ndarray], x: np.ndarray, y: np.ndarray, learning_rate: float, epochs: int
) -> tuple[list[np.ndarray], float]:
    """Gradient descent on all points; returns the model and its loss before the last step."""
    weights, bias = model
    loss = 0.0
    for _ in range(epochs):
        error = x @ weights + bias - y
        loss = float(np.mean(error**2))
        weights = weights - learning_rate * 2.0 * x.T @ error / len(y)
        bias = bias - learning_rate * 2.0 * error.mean(keepdims=True)
    return [weights, bias], loss


def test(model: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    """Mean squared error."""
    weights, bias = model
    return float(np.mean((x @ weights + bias - y) ** 2))
