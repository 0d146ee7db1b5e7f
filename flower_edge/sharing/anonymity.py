"""`k_anonymity`: how many rows of a table, at the least, look alike in the columns that could point at a person.

A check, not a cure: nothing is generalised, suppressed or perturbed here. What k-anonymity does not give is in
docs/sharing.md: a group of k rows that all have the same sensitive value tells that value of all of them.

Source: L. Sweeney, "k-Anonymity: a Model for Protecting Privacy", IJUFKS 10(5), 2002.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError

__all__ = ["k_anonymity"]


def k_anonymity(table: Mapping[str, npt.NDArray[Any]], quasi_identifiers: Iterable[str]) -> int:
    """Size of the smallest group of rows that agree in all quasi-identifiers; 0 for a table without rows.

    Args:
        table: its columns by name, numbers or texts, each of [rows].
        quasi_identifiers: names of columns which together could point at a person: age, postcode, …

    Without a quasi-identifier all rows are one group: k is the number of rows, and says nothing.

    Raises:
        DataError: a column that is not there, columns of different lengths, or one that is not of [rows].

    >>> people = {"age": np.array([30, 30, 40]), "town": np.array(["A", "A", "B"])}
    >>> k_anonymity(people, ["age", "town"]), k_anonymity({n: c[:2] for n, c in people.items()}, ["age", "town"])
    (1, 2)
    """
    wanted = list(quasi_identifiers)
    if missing := [name for name in wanted if name not in table]:
        raise DataError(
            f"quasi-identifiers {', '.join(missing)} are not columns of the table; it has {', '.join(table) or 'none'}"
        )
    columns = {name: np.asarray(column) for name, column in table.items()}
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise DataError(f"columns of shapes {shapes}; give one value per row, as many in each column")
    rows = next(iter(shapes.values()))[0] if shapes else 0
    group = np.zeros(rows, np.int64)
    for name in wanted:
        _, value = np.unique(columns[name], return_inverse=True)
        # Numbered anew after each column, so that the product cannot overflow.
        _, group = np.unique(group * (int(value.max(initial=0)) + 1) + value, return_inverse=True)
    return int(np.bincount(group).min()) if rows else 0
