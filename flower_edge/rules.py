"""`Rule`: one condition on what nodes tell about themselves, written as text: `battery >= 0.3 and load < 0.8`.

The project's one language for eligibility, filters, groups and limits; it holds or does not, for one node or for
100,000 at once. Text is read, never run: nothing here calls `eval`, looks anything up outside of what it is given, or
raises because of what a node told.

What a node did not tell is *unknown*, and so is every comparison with it (Kleene's three values): `unknown and false`
is false, `unknown or true` is true, else unknown stays unknown. A rule holds only where it is true.

Source: [4] ¶36, ¶51 (a model only for terminals which satisfy a preset standard); S. C. Kleene, "Introduction to
Metamathematics", 1952, §64, for the three values.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import ConfigError
from .rule_language import OPERATORS, read_rule

__all__ = ["Rule"]

Bools: TypeAlias = npt.NDArray[np.bool_]
Numbers: TypeAlias = npt.NDArray[np.float64]
Objects: TypeAlias = npt.NDArray[np.object_]
Columns: TypeAlias = Mapping[str, npt.NDArray[Any]]

_COMPARE: Final[dict[type[ast.cmpop], Callable[[Any, Any], Any]]] = {
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
_ARITHMETIC: Final = dict(zip(OPERATORS, (np.add, np.subtract, np.multiply, np.divide, np.remainder), strict=True))


@dataclass(frozen=True)
class Rule:
    """A condition on properties and conditions of nodes.

    Names are properties by the names they are told under; `partition_id` also finds `partition-id`, and `prop('…')`
    takes any name. Booleans count as 1 and 0, and a number alone as a condition is true if it is not 0. A comparison
    of a number with a text is unknown, as is a division by zero. `x in (a, b)` is `x == a or x == b`.

    Args:
        text: the rule; kept in its normal form (`str(rule)`), so that rules which differ in spaces or brackets only
            are equal.

    Attributes:
        names: the properties it looks at, as written.

    Raises:
        ConfigError: the text is not of the language; says where, what is allowed and what was probably meant.

    >>> rule = Rule("battery >= 0.3 and load < 0.8")
    >>> rule.holds({"battery": 0.5, "load": 0.1}), rule.holds({"battery": 0.5})
    (True, False)
    >>> sorted(rule.names)
    ['battery', 'load']
    >>> rule.mask({"battery": np.array([0.5, 0.2, np.nan]), "load": np.array([0.1, 0.1, 0.1])}, nodes=3)
    array([ True, False, False])
    >>> print(rule | Rule("charging") & ~Rule("site == 'cellar'"))
    battery >= 0.3 and load < 0.8 or (charging and (not site == 'cellar'))
    """

    text: str
    names: frozenset[str] = field(init=False, repr=False, compare=False)
    _tree: ast.expr = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tree, names = read_rule(self.text)
        object.__setattr__(self, "text", ast.unparse(tree))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "_tree", tree)

    @classmethod
    def of(cls, rule: Rule | str) -> Rule:
        """A rule from its text; a rule is handed back as it is."""
        return rule if isinstance(rule, Rule) else cls(rule)

    def __str__(self) -> str:
        return self.text

    def __and__(self, other: Rule) -> Rule:
        """Both hold."""
        return Rule(f"{self._operand()} and {other._operand()}")

    def __or__(self, other: Rule) -> Rule:
        """At least one holds."""
        return Rule(f"{self.text} or {other.text}")

    def __invert__(self) -> Rule:
        """It is false; where it is unknown, this is unknown too."""
        return Rule(f"not ({self.text})")

    def _operand(self) -> str:
        return (
            f"({self.text})" if isinstance(self._tree, ast.BoolOp) and isinstance(self._tree.op, ast.Or) else self.text
        )

    def holds(self, told: Mapping[str, Any]) -> bool:
        """Whether it is true of one node, from its properties by name.

        `None`, NaN, an absent name and anything that is no bool, int, float or str are unknown. For many nodes `mask`
        is a thousand times faster.
        """
        return bool(self.mask({name: _single(value) for name in self.names for value in _found(told, name)}, 1)[0])

    def mask(self, columns: Columns, nodes: int) -> Bools:
        """Where it is true, for all nodes at once: bool [nodes].

        Args:
            columns: one array [nodes] per property: numbers with NaN for unknown, or texts with None. Columns that
                the rule does not look at may be anything.
            nodes: how many there are; the rule may look at no column at all.

        Raises:
            ConfigError: a column it looks at is not of shape [nodes].
        """
        return np.broadcast_to(_Evaluation(columns, nodes).truth(self._tree).yes, (nodes,)).copy()

    def unclear(self, columns: Columns, nodes: int) -> Bools:
        """Where it is unknown, for want of something that was not told: bool [nodes].

        >>> Rule("load < 0.8").unclear({"load": np.array([0.1, 0.9, np.nan])}, nodes=3)
        array([False, False,  True])
        """
        truth = _Evaluation(columns, nodes).truth(self._tree)
        return np.broadcast_to(~(truth.yes | truth.no), (nodes,)).copy()

    def facts(self, told: Mapping[str, Any]) -> str:
        """What it looks at, and what one node told of it: the reason to write down where it did not hold.

        >>> Rule("battery >= 0.3 and load < 0.8").facts({"battery": 0.2})
        'battery = 0.2, load unknown'
        """
        seen = {name: next(iter(_found(told, name)), None) for name in sorted(self.names)}
        return ", ".join(
            f"{name} = {value!r}" if _Evaluation({name: _single(value)}, 1).known(name) else f"{name} unknown"
            for name, value in seen.items()
        )


def _found(columns: Mapping[str, Any], name: str) -> list[Any]:
    """What a name stands for, in a list; empty if it was not told. Hyphens and underscores find each other."""
    for spelled in (name, name.replace("_", "-"), name.replace("-", "_")):
        if spelled in columns:
            return [columns[spelled]]
    return []


def _single(value: Any) -> Objects:
    column = np.empty(1, dtype=object)
    column[0] = value
    return column


# -- the values ------------------------------------------------------------------------------------------------------


class _Truth(NamedTuple):
    """Where something is true and where it is false, each bool [nodes] or []; elsewhere it is unknown."""

    yes: Bools
    no: Bools


class _Values(NamedTuple):
    """A number or a text per node, each [nodes] or []: NaN and None where it is the other, or unknown.

    In place of a whole array, `None` says that there is no such value at all.
    """

    numbers: Numbers | None = None
    texts: Objects | None = None


_NOWHERE: Final = np.zeros((), dtype=np.bool_)
_NOTHING: Final = np.array(None, dtype=object)


class _Evaluation:
    """One walk over a rule's tree, for some columns."""

    def __init__(self, columns: Columns, nodes: int) -> None:
        self._columns, self._nodes = columns, nodes
        self._read: dict[str, _Values] = {}

    def truth(self, node: ast.expr) -> _Truth:
        """A part of the rule as a condition."""
        match node:
            case ast.BoolOp(op=op, values=parts):
                fold = _both if isinstance(op, ast.And) else _either
                return reduce(fold, (self.truth(part) for part in parts))
            case ast.UnaryOp(op=ast.Not(), operand=part):
                yes, no = self.truth(part)
                return _Truth(no, yes)
            case ast.Compare(left=left, ops=ops, comparators=others):
                return self._chain(left, ops, others)
            case ast.Call(func=ast.Name(id=name), args=[part]) if name != "prop":
                known = self._known(part)
                return _Truth(known, ~known) if name == "known" else _Truth(~known, known)
            case _:
                numbers = self.values(node).numbers
                if numbers is None:
                    return _Truth(_NOWHERE, _NOWHERE)
                return _Truth(~np.isnan(numbers) & (numbers != 0.0), np.asarray(numbers == 0.0))

    def values(self, node: ast.expr) -> _Values:
        """A part of the rule as numbers or texts."""
        match node:
            case ast.Constant(value=str(text)):
                return _Values(texts=np.array(text, dtype=object))
            case ast.Constant(value=value):
                assert isinstance(value, int | float)
                return _Values(np.array(float(value)))
            case ast.Name(id=name) | ast.Call(func=ast.Name(id="prop"), args=[ast.Constant(value=str(name))]):
                if name not in self._read:
                    self._read[name] = self._look_up(name)
                return self._read[name]
            case ast.BinOp(left=left, op=op, right=right):
                return _computed(type(op), self.values(left).numbers, self.values(right).numbers)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=part):
                numbers = self.values(part).numbers
                return _Values(numbers if numbers is None or isinstance(node.op, ast.UAdd) else np.negative(numbers))
            case _:
                yes, no = self.truth(node)
                return _Values(np.where(yes, 1.0, np.where(no, 0.0, np.nan)))

    def known(self, name: str) -> bool:
        """Whether the one node there is told this property."""
        return bool(np.all(_told(self._look_up(name))))

    def _known(self, node: ast.expr) -> Bools:
        return _told(self.values(node))

    def _chain(self, left: ast.expr, ops: list[ast.cmpop], others: list[ast.expr]) -> _Truth:
        steps: list[_Truth] = []
        before = left
        for op, other in zip(ops, others, strict=True):
            if isinstance(op, ast.In | ast.NotIn):
                assert isinstance(other, ast.Tuple | ast.List | ast.Set)
                value = self.values(before)
                found = (_compared(np.equal, value, self.values(item)) for item in other.elts)
                nothing = _Truth(_NOWHERE, _told(value) if not other.elts else ~_NOWHERE)
                inside = reduce(_either, found, nothing)
                steps.append(inside if isinstance(op, ast.In) else _Truth(inside.no, inside.yes))
            else:
                steps.append(_compared(_COMPARE[type(op)], self.values(before), self.values(other)))
            before = other
        return reduce(_both, steps)

    def _look_up(self, name: str) -> _Values:
        for column in _found(self._columns, name):
            array = np.asarray(column)
            if array.shape != (self._nodes,):
                raise ConfigError(
                    f"column {name!r} has shape {array.shape}, expected ({self._nodes},): one value per node, NaN or "
                    "None where a node did not tell it"
                )
            return _read(array)
        return _Values()


def _both(a: _Truth, b: _Truth) -> _Truth:
    return _Truth(a.yes & b.yes, a.no | b.no)


def _either(a: _Truth, b: _Truth) -> _Truth:
    return _Truth(a.yes | b.yes, a.no & b.no)


def _told(values: _Values) -> Bools:
    known = _NOWHERE
    if values.numbers is not None:
        known = known | ~np.isnan(values.numbers)
    if values.texts is not None:
        known = known | _are_texts(values.texts)
    return known


def _are_texts(texts: Objects) -> Bools:
    return np.asarray(np.not_equal(texts, _NOTHING), dtype=np.bool_)


def _compared(op: Callable[[Any, Any], Any], a: _Values, b: _Values) -> _Truth:
    yes, no = _NOWHERE, _NOWHERE
    if a.numbers is not None and b.numbers is not None:
        known = ~(np.isnan(a.numbers) | np.isnan(b.numbers))
        found = np.asarray(op(a.numbers, b.numbers))
        yes, no = yes | (known & found), no | (known & ~found)
    if a.texts is not None and b.texts is not None:
        known = np.asarray(_are_texts(a.texts) & _are_texts(b.texts))
        left, right = np.broadcast_arrays(a.texts, b.texts)
        found = np.zeros(left.shape, dtype=bool)
        found[known] = op(left[known], right[known])
        yes, no = yes | found, no | (known & ~found)
    return _Truth(np.asarray(yes), np.asarray(no))


def _computed(op: type[ast.operator], a: Numbers | None, b: Numbers | None) -> _Values:
    if a is None or b is None:
        return _Values()
    with np.errstate(all="ignore"):
        numbers = np.asarray(_ARITHMETIC[op](a, b))
    return _Values(np.where(b == 0.0, np.nan, numbers) if op in (ast.Div, ast.Mod) else numbers)


def _read(column: npt.NDArray[Any]) -> _Values:
    """A column as it came: numbers, texts, or objects that may be either."""
    if column.dtype.kind in "fiub":
        return _Values(column.astype(np.float64, copy=False))
    if column.dtype.kind == "U":
        return _Values(texts=column.astype(object))
    if column.dtype.kind != "O":
        return _Values()
    kinds = set(map(type, column))
    if kinds <= {str, type(None)}:
        return _Values(texts=column)
    if kinds <= {float, bool, type(None)}:
        return _Values(column.astype(np.float64))  # None becomes NaN
    numbers = np.array([_number(value) for value in column], dtype=np.float64)
    texts = np.array([str(value) if isinstance(value, str) else None for value in column], dtype=object)
    return _Values(numbers, texts)


def _number(value: Any) -> float:
    if isinstance(value, bool | int | float | np.number | np.bool_) and not isinstance(value, np.complexfloating):
        try:
            return float(value)
        except OverflowError:
            return math.nan
    return math.nan
