"""Ratio at half a point: how few bytes a federated training needs before it learns less. Digits, eight nodes.

Everything runs through `encoding_rounds`; which codecs are tried and how one is chosen is in `encoding_candidates`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from .encoding_candidates import (
    CHOSEN_ROUNDTRIP,
    CHOSEN_STATEFUL,
    CHOSEN_STATELESS,
    DENSE,
    OWN,
    ROUNDTRIP,
    SHARED,
    STATEFUL,
    STATELESS,
    Choice,
    Ways,
    chosen,
)
from .encoding_rounds import Outcome, Setting
from .encoding_task import SPLITS
from .harness.figures import mean_and_error

__all__ = ["FULL_SEEDS", "LONG", "QUICK_SEEDS", "SHORT", "training_figures", "training_settings"]

QUICK_SEEDS: Final = (0,)
FULL_SEEDS: Final = (0, 1, 2)
#: Rounds of codecs that remember, and of those that do not.
LONG: Final = 80
SHORT: Final = 30

_ROUNDS: Final = {"stateless": SHORT, "stateful": LONG, "roundtrip": LONG}


def _ways(kind: str, split: str, quick: bool) -> Mapping[str, Ways]:
    """The candidates: all, or in the short form the one that was chosen before."""
    every = {"stateless": STATELESS, "stateful": STATEFUL, "roundtrip": ROUNDTRIP}[kind]
    before = {
        "stateless": CHOSEN_STATELESS,
        "stateful": CHOSEN_STATEFUL[split],
        "roundtrip": CHOSEN_ROUNDTRIP,
    }[kind]
    return {before: every[before]} if quick else every


def _setting(ways: Ways, split: str, seed: int, rounds: int) -> Setting:
    return Setting(split, seed, rounds, ways.up, ways.down, ways.first)


def _leaderless(split: str, seed: int) -> tuple[Setting, Setting]:
    own = Setting(split, seed, SHORT, OWN, lost=True)
    return own, Setting(split, seed, SHORT, SHARED, lost=True)


def training_settings(seeds: Sequence[int], *, quick: bool) -> list[Setting]:
    """All runs, each once, the long ones first."""
    found: dict[Setting, None] = {}
    for kind, rounds in sorted(_ROUNDS.items(), key=lambda item: -item[1]):
        for split in SPLITS:
            for seed in seeds:
                found[Setting(split, seed, rounds)] = None
                ways = _ways(kind, split, quick).values()
                found |= {_setting(way, split, seed, rounds): None for way in ways}
    for split in SPLITS:
        for seed in seeds:
            found |= dict.fromkeys(_leaderless(split, seed))
    return list(found)


def training_figures(found: Mapping[Setting, Outcome], seeds: Sequence[int], *, quick: bool) -> dict[str, Any]:
    """What the runs of `training_settings` say.

    Returns:
        The figures of this part and, under `training`, every candidate's and the choice, by kind and split.
    """
    told: dict[str, dict[str, list[Choice]]] = {}
    picks: dict[str, dict[str, Choice]] = {}
    for kind, rounds in _ROUNDS.items():
        for split in SPLITS:
            choices = []
            dense = [found[Setting(split, seed, rounds)].accuracy for seed in seeds]
            for name, way in _ways(kind, split, quick).items():
                outcomes = [found[_setting(way, split, seed, rounds)] for seed in seeds]
                ratios = [outcome.roundtrip_ratio if way.down else outcome.up_ratio for outcome in outcomes]
                choices.append(Choice.of(name, ratios, dense, [outcome.accuracy for outcome in outcomes]))
            told.setdefault(kind, {})[split] = choices
            picks.setdefault(kind, {})[split] = chosen(choices)
    figures: dict[str, Any] = {
        "stateless_ratio_at_half_point": min(pick.ratio for pick in picks["stateless"].values()),
        "roundtrip_ratio": min(pick.ratio for pick in picks["roundtrip"].values()),
    }
    framing = []
    for split in SPLITS:
        pick = picks["stateful"][split]
        outcomes = [found[_setting(STATEFUL.get(pick.name, DENSE), split, seed, LONG)] for seed in seeds]
        figures[f"stateful_ratio_at_half_point.{split}"] = pick.ratio
        figures[f"stateful_wire_ratio.{split}"] = float(np.mean([outcome.wire_ratio for outcome in outcomes]))
        framing += [outcome.framing_bytes for outcome in outcomes]
    figures["flower_framing_bytes"] = max(framing)
    pairs = [_leaderless(split, seed) for split in SPLITS for seed in seeds]
    lost = [found[own].accuracy - found[shared].accuracy for own, shared in pairs]
    figures["leader_lost_points"], figures["leader_lost_points_se"] = mean_and_error(lost)
    figures["training"] = {
        "dense_accuracy": {
            f"{split}, {rounds} rounds": [found[Setting(split, seed, rounds)].accuracy for seed in seeds]
            for split in SPLITS
            for rounds in (SHORT, LONG)
        },
        "chosen": {kind: {split: vars(pick) for split, pick in of.items()} for kind, of in picks.items()},
        "candidates": {
            kind: {split: [vars(choice) for choice in choices] for split, choices in of.items()}
            for kind, of in told.items()
        },
        "leader_lost_points": lost,
    }
    return figures
