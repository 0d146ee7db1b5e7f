"""What a pair is held against: the input itself as a JPEG that is no smaller than what the pair sends.

There are two of them. "Usual" is what files mostly are: light of 0 .. 1 to 0 .. 255, common Huffman tables, quality 50.
Here it cuts off noise that goes beyond that range, and that is most of what it costs. "Best" keeps the range, makes
tables for each file, and takes the lowest quality whose files have as many bytes as the pair's first connection. Only
the first one's bytes are compared: a picture that is decoded at the second machine needs no second connection, and one
that is decoded at the third crosses both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from torch import nn

from flower_edge.data.dataset import Dataset
from flower_edge.models.registry import evaluate

from .fringe_naive import JPEG_WAYS, jpeg

__all__ = ["BEST_QUALITIES", "USUAL_QUALITY", "jpeg_rows"]

#: Of the usual one; at 612 bytes, more than any pair here sends.
USUAL_QUALITY: Final = 50
#: Among which the best one is chosen, rising.
BEST_QUALITIES: Final = tuple(range(5, 100, 5))


def jpeg_rows(
    model: nn.Module, data: Dataset, sent_bytes: float, qualities: Sequence[int] = BEST_QUALITIES
) -> dict[str, dict[str, Any]]:
    """Both opponents: quality, mean bytes of a file, and per cent of the pictures that the whole model tells right.

    Args:
        model: uncompressed.
        data: x [pictures, 1, 32, 32], scaled as the clutter pictures are.
        sent_bytes: what the pair sends over the first connection.
        qualities: that the best one may have, rising; where none has so many bytes, the last.

    Returns:
        "usual" and "best".
    """
    ways = {way.name: way for way in JPEG_WAYS}
    usual, sizes = jpeg(data.x, USUAL_QUALITY, ways["usual"])
    found = {"usual": _row(model, data, usual, USUAL_QUALITY, float(sizes.mean()))}
    for quality in qualities:
        best, sizes = jpeg(data.x, quality, ways["best"])
        if sizes.mean() >= sent_bytes or quality == qualities[-1]:
            return found | {"best": _row(model, data, best, quality, float(sizes.mean()))}
    raise ValueError("no qualities; give one or more")


def _row(model: nn.Module, data: Dataset, x: Any, quality: int, size_bytes: float) -> dict[str, Any]:
    percent = 100.0 * evaluate(model, x, data.y, batch_size=250).accuracy
    return {"quality": quality, "bytes": size_bytes, "test_percent": percent}
