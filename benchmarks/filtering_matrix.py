"""The matrix of attacks, aggregators and shares of attackers, and what is read off it. Nothing here runs a cell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from .filtering_attacks import ATTACKS, HARDER
from .filtering_cells import AGGREGATORS, HONEST, Cell, Outcome
from .harness.figures import mean_and_error

__all__ = ["cell_figures", "chosen", "matrix", "quick_matrix"]

FRACTIONS: Final = (0.2, 0.4)
_WITHIN: Final = 5.0
_QUICK_ATTACKS: Final = ("inflated", "replacement", "ipm", "alie")
_QUICK_AGGREGATORS: Final = ("FedAvg", "FedMedian")
#: Bulyan needs 4 f + 3 of the twenty.
_NO_BULYAN_ABOVE: Final = 0.2


def quick_matrix(seeds: Sequence[int]) -> list[Cell]:
    """Four attacks on two aggregators at 20 %, with the gate and without, and the same without an attack."""
    return _matrix(_QUICK_ATTACKS, _QUICK_AGGREGATORS, FRACTIONS[:1], seeds)


def matrix(seeds: Sequence[int]) -> list[Cell]:
    """Every attack on every aggregator; the harder ones beside them on the plain mean."""
    harder = [
        Cell(attack, "FedAvg", fraction, gated, seed)
        for attack in HARDER
        for fraction in FRACTIONS
        for gated in (False, True)
        for seed in seeds
    ]
    return [*_matrix(tuple(ATTACKS), tuple(AGGREGATORS), FRACTIONS, seeds), *harder]


def chosen(
    attacks: Sequence[str], aggregators: Sequence[str], fractions: Sequence[float], seeds: Sequence[int]
) -> list[Cell]:
    """Some cells, to look at: of what is left empty all, `HARDER` attacks only by name."""
    return _matrix(attacks or tuple(ATTACKS), aggregators or tuple(AGGREGATORS), fractions or FRACTIONS, seeds)


def _matrix(
    attacks: Sequence[str], aggregators: Sequence[str], fractions: Sequence[float], seeds: Sequence[int]
) -> list[Cell]:
    return [
        Cell(attack, aggregator, fraction, gated, seed)
        for attack in (HONEST, *attacks)
        for aggregator in aggregators
        for fraction in fractions
        if aggregator != "Bulyan" or fraction <= _NO_BULYAN_ABOVE
        for gated in (False, True)
        for seed in seeds
    ]


def cell_figures(outcomes: Mapping[Cell, Outcome]) -> dict[str, Any]:
    """What attacks cost in points of accuracy: with our gate and filter, and the aggregators alone.

    A cell's loss is counted against the better of two runs without an attack, with the gate and without, and averaged
    over the seeds. Cells of `HARDER` are told, and not counted.

    Args:
        outcomes: of a matrix. What asks for all attacks at 40 %, or for any at 20 %, is there if they are.
    """
    settings = _by_setting(outcomes)
    mean = {key: [outcomes[cell].accuracy for cell in cells] for key, cells in settings.items()}
    rows: list[dict[str, Any]] = []
    for (attack, aggregator, fraction, gated), accuracies in mean.items():
        if attack == HONEST or not gated:
            continue
        free = [mean[(HONEST, aggregator, fraction, either)] for either in (False, True)]
        best = max(free, key=lambda found: float(np.mean(found)))
        loss, error = mean_and_error([one - other for one, other in zip(best, accuracies, strict=True)])
        without = mean[(attack, aggregator, fraction, False)]
        cells = settings[(attack, aggregator, fraction, True)]
        rows.append(
            {
                "attack": attack,
                "aggregator": aggregator,
                "percent": round(100 * fraction),
                "attack_free": float(np.mean(best)),
                "loss": loss,
                "loss_se": error,
                "loss_without_gate": float(np.mean(best) - np.mean(without)),
                "attackers_refused": _share([outcomes[cell].attackers for cell in cells]),
                "honest_refused": _share([outcomes[cell].honest for cell in cells]),
                "counted": attack in ATTACKS,
            }
        )
    counted = [row for row in rows if row["counted"]]
    at_20, at_40 = ([row for row in counted if row["percent"] == percent] for percent in (20, 40))
    found: dict[str, Any] = {
        "cells": rows,
        "ended_in_an_error": {str(cell): of.error for cell, of in outcomes.items() if of.error},
    }
    if at_20:
        worst = max(at_20, key=lambda row: float(row["loss"]))
        found |= {
            "worst_loss_20_points": worst["loss"],
            "worst_loss_20_points_se": worst["loss_se"],
            "worst_at_20": {"attack": worst["attack"], "aggregator": worst["aggregator"]},
            "without_gate_20_points": _worst_alone(at_20),
        }
    if {row["attack"] for row in at_40} == set(ATTACKS):
        losses = {attack: max(row["loss"] for row in at_40 if row["attack"] == attack) for attack in ATTACKS}
        found |= {
            "attacks_within_5_at_40": sum(loss <= _WITHIN for loss in losses.values()),
            "worst_loss_40_points": losses,
            "without_gate_40_points": _worst_alone(at_40),
        }
    return found


def _by_setting(outcomes: Mapping[Cell, Outcome]) -> dict[tuple[str, str, float, bool], list[Cell]]:
    """Cells that differ in nothing but the seed, in the order of the seeds."""
    found: dict[tuple[str, str, float, bool], list[Cell]] = {}
    for cell in sorted(outcomes, key=lambda cell: cell.seed):
        found.setdefault((cell.attack, cell.aggregator, cell.fraction, cell.gated), []).append(cell)
    return found


def _worst_alone(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What each aggregator loses in its own worst cell, without our gate and filter."""
    worst: dict[str, float] = {}
    for row in rows:
        name = str(row["aggregator"])
        worst[name] = max(float(row["loss_without_gate"]), worst.get(name, -math.inf))
    return worst


def _share(told: Sequence[Mapping[str, int]]) -> float:
    """The share of replies that were refused."""
    counts = [sum(of.values()) for of in told]
    refused = [sum(count for code, count in of.items() if code) for of in told]
    return sum(refused) / max(sum(counts), 1)
