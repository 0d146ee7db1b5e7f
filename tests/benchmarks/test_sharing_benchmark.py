"""Terminals that know one class each learn all of them from a common set: the benchmark on easy samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.provision_sharing import run_sharing, train_sharing
from flower_edge.errors import DataError


def _pair(seed: int, classes: list[int], samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise around one direction per class."""
    y = np.repeat(np.array(classes, np.int64), samples)
    centres = np.random.default_rng(0).normal(size=(4, 784))
    noise = np.random.default_rng(seed).normal(size=(len(y), 784))
    return (0.15 * centres[y] + 0.7 * noise).astype(np.float32), y


def test_a_common_tenth_helps_terminals_of_one_class_and_is_counted() -> None:
    dealt = [_pair(1 + one, [one], 60) for one in range(4)]
    test = _pair(99, [0, 1, 2, 3], 60)
    alone, common = (train_sharing(dealt, test, share, seed=0, rounds=2) for share in (0.0, 0.1))
    assert common.accuracy > alone.accuracy + 0.07
    assert alone.share_bits == 0
    # Six samples of each of four terminals: once to the edge and from there to the three others.
    samples_bits = 8 * 4 * 6 * (784 * 4 + 8) * (1 + 3)
    assert samples_bits < common.share_bits < 1.2 * samples_bits


def test_a_folder_without_the_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="t10k-images"):
        run_sharing(tmp_path, 0.0, seed=0)
