"""Which channels a sub-model keeps, and who is given how many. Pure functions; nothing here knows an array.

Letters:
    r         rate of a sub-model, 0 < r <= 1
    c         channels of a group, in blocks of its unit
    k         blocks kept: the least whole number that is r c or more

Sources: Diao, Ding, Tarokh, "HeteroFL", ICLR 2021 (`prefix`); Horvath et al., "FjORD", NeurIPS 2021 (`drawn_rate`);
Alam et al., "FedRolex", NeurIPS 2022 (`rolling`).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError
from .groups import Channels, WidthGroups

__all__ = ["check_rate", "drawn_rate", "prefix", "rolling"]


def check_rate(rate: float, what: str = "rate") -> float:
    """The rate, if it is one.

    Raises:
        ConfigError: not a number above 0 and up to 1.

    >>> check_rate(0.25)
    0.25
    """
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.0 < rate <= 1.0:
        raise ConfigError(f"{what} = {rate!r}: expected a number above 0 and up to 1, such as 0.5")
    return float(rate)


def prefix(groups: WidthGroups, rate: float) -> Channels:
    """The first k blocks of every group (HeteroFL, FjORD): of two rates, the smaller one's channels are the larger's.

    A group that is kept whole is not named.

    >>> from flower_edge.submodels.mlp import mlp_groups
    >>> prefix(mlp_groups([64, 10, 4]), 0.25)
    {'linear0': array([0, 1, 2])}
    """
    return _window(groups, rate, 0)


def rolling(groups: WidthGroups, rate: float, round: int) -> Channels:
    """k neighbouring blocks that begin one further in every round, and go on at the first after the last (FedRolex).

    Args:
        groups: of the whole model.
        rate: of the sub-model.
        round: from 1, which begins at the first block.

    Within a sub-model channels keep the order of the whole one.

    >>> from flower_edge.submodels.mlp import mlp_groups
    >>> rolling(mlp_groups([64, 4, 2]), 0.5, round=4)
    {'linear0': array([0, 3])}
    """
    return _window(groups, rate, round - 1)


def drawn_rate(most: float, rates: Sequence[float], seed: int, round: int, node: str) -> float:
    """One of the rates up to `most`, each as likely, or `most` where all are larger (FjORD's ordered dropout).

    It follows from (seed, round, node) and nothing else.

    >>> drawn_rate(1.0, [1.0], seed=0, round=1, node="3")
    1.0
    """
    allowed = sorted({rate for rate in rates if rate <= most}) or [most]
    rng = np.random.default_rng([seed, round, zlib.crc32(node.encode())])
    return float(allowed[int(rng.integers(len(allowed)))])


def _window(groups: WidthGroups, rate: float, begin: int) -> Channels:
    check_rate(rate)
    out = {}
    for group, size in groups.sizes.items():
        unit = groups.units[group]
        blocks = size // unit
        # 0.7 of 10 is 7 channels; in floats it is a little more.
        kept = min(blocks, max(1, math.ceil(rate * blocks - 1e-9)))
        if kept < blocks:
            chosen = np.sort((begin + np.arange(kept)) % blocks)
            out[group] = (chosen[:, None] * unit + np.arange(unit)).reshape(-1).astype(np.intp)
    return out
