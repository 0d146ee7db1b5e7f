"""What tells one model from another, bit for bit, and one session from another. Nothing here keeps a model."""

from __future__ import annotations

import hashlib

from flwr.app import ArrayRecord

__all__ = ["model_digest", "session_name"]


def model_digest(arrays: ArrayRecord) -> str:
    """32 hexadecimal digits of its arrays: their names, dtypes, shapes and bytes, in their order.

    Not the object's identity: a checkpoint, or a message from the centre, brings equal models as other objects.

    >>> import numpy as np
    >>> from flower_edge.wire import record_of
    >>> one, same, other = (model_digest(record_of({"w": np.full(2, w)})) for w in (0.0, 0.0, 1.0))
    >>> one == same, one == other
    (True, False)
    """
    found = hashlib.blake2b(digest_size=16)
    for name, array in arrays.items():
        found.update(f"{name}\x1f{array.dtype}\x1f{tuple(array.shape)}\x1f".encode())
        found.update(array.data)
    return found.hexdigest()


def session_name(seed: int, arrays: ArrayRecord) -> str:
    """Of a session that begins from this model with this seed: 32 hexadecimal digits, the same each time."""
    return hashlib.sha256(f"{seed} {model_digest(arrays)}".encode()).hexdigest()[:32]
