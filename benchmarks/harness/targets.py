"""Figures with targets, and plain words on whether each was reached. Nothing here measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Figure", "targets_of", "verdicts"]


@dataclass(frozen=True)
class Figure:
    """One figure and what it should be.

    Args:
        key: its name in the JSON object.
        part: the part that measures it.
        meaning: what it is, in words.
        least, most: what it should be at least and at most; a figure without either is there to compare with.
        reference: what was found elsewhere, in words.
        decimals: how it is shown.
    """

    key: str
    part: str
    meaning: str
    least: float | None = None
    most: float | None = None
    reference: str = ""
    decimals: int = 2

    @property
    def target(self) -> str:
        """In words; empty without one.

        >>> Figure("links", "costs", "links left", least=94, most=124).target
        '94 to 124'
        """
        if self.least is not None and self.most is not None:
            return f"{self.least:g} to {self.most:g}"
        if self.least is not None:
            return f"at least {self.least:g}"
        return "" if self.most is None else f"at most {self.most:g}"

    def reached(self, value: float) -> bool:
        """Whether a value is as it should be."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def shown(self, value: float, error: float | None = None) -> str:
        """The value as people read it, with its standard error where there is one.

        >>> Figure("bias", "costs", "").shown(3e-16)
        '3e-16'
        """
        if value and abs(value) < 10.0**-self.decimals:
            return f"{value:.0e}"
        said = f"{value:.{self.decimals}f}"
        return said if error is None else f"{said} ± {error:.{self.decimals}f}"


def verdicts(figures: Iterable[Figure], found: Mapping[str, Any]) -> list[list[str]]:
    """A row per figure: key, value, target, reference, and plainly whether it was reached or missed."""
    rows = []
    for figure in figures:
        value = found.get(figure.key)
        said = "not measured" if value is None else figure.shown(value, found.get(f"{figure.key}_se"))
        verdict = "" if value is None or not figure.target else "reached" if figure.reached(value) else "MISSED"
        rows.append([figure.key, said, figure.target, figure.reference, verdict])
    return rows


def targets_of(figures: Iterable[Figure]) -> dict[str, float | list[float | None]]:
    """Targets by key, for the JSON object: a number, or the two ends of a range."""
    told: dict[str, float | list[float | None]] = {}
    for figure in figures:
        if figure.least is not None and figure.most is not None:
            told[figure.key] = [figure.least, figure.most]
        elif figure.target:
            told[figure.key] = float(figure.least if figure.least is not None else figure.most or 0.0)
    return told
