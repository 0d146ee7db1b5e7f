"""The text of a rule: read into a tree of the few nodes the language has, or refused with what was probably meant.

Python's own parser does the reading. Nothing here is run, and nothing here knows a value; `rules` does.
"""

from __future__ import annotations

import ast
import difflib
import re
import warnings
from typing import Final, NoReturn

from .errors import ConfigError

__all__ = ["FUNCTIONS", "LANGUAGE", "OPERATORS", "read_rule"]

#: What a rule is made of, for error messages.
LANGUAGE: Final = (
    "and, or, not, == != < <= > >=, in ('a', 'b'), + - * / %, numbers, 'texts', True, False, names of properties, "
    "known(name), unknown(name), prop('any-name')"
)
#: Functions, and an argument for each.
FUNCTIONS: Final = {"known": "battery", "unknown": "battery", "prop": "'partition-id'"}
#: Operators between two numbers.
OPERATORS: Final = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Mod)
#: Bounds on the text of a rule: characters, and brackets or operators inside each other.
LONGEST, DEEPEST = 10_000, 100

#: Words of other languages, and ours for them.
_FOREIGN: Final = {
    "true": "True",
    "false": "False",
    "null": "unknown(name)",
    "none": "unknown(name)",
    "nan": "unknown(name)",
}
#: Operators of Python that are none of the language, and what to write.
_MEANT: Final[dict[type[ast.operator], str]] = {
    ast.BitAnd: "'and'",
    ast.BitOr: "'or'",
    ast.Pow: "a * a",
    ast.FloorDiv: "'/'",
    ast.LShift: "'<='",
    ast.RShift: "'>='",
}
#: Slips that are no Python at all, and what was meant.
_SLIPS: Final = (
    (r"&&", "write 'and' for '&&'"),
    (r"\|\|", "write 'or' for '||'"),
    (r"=>", "write '>=' for '=>'"),
    (r"=<", "write '<=' for '=<'"),
    (r"<>", "write '!=' for '<>'"),
    (r"!(?!=)", "write 'not' for '!'"),
    (r"(?<![<>=!])=(?!=)", "write '==' for '='"),
    (r"\d\s*%\s*(?=$|\)|and\b|or\b)", "write a share as a number from 0 to 1: 0.3 for 30 %"),
    (r"(?<![\w.])[\d.]+\s*(?!and\b|or\b|in\b|not\b|e[-+]?\d)[A-Za-z]", "write numbers without a unit: SI and bits"),
)


def read_rule(text: str) -> tuple[ast.expr, frozenset[str]]:
    """The tree of a rule and the property names in it.

    Raises:
        ConfigError: the text is not of the language.
    """
    return _Reader(text).read()


class _Reader:
    """Turns text into a tree of the few nodes the language has, or says what is wrong with it."""

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ConfigError(f"rule {text!r}: expected a text such as 'battery >= 0.3 and load < 0.8'")
        self.text = " ".join(text.split("\n")).strip()
        self._names: set[str] = set()

    def read(self) -> tuple[ast.expr, frozenset[str]]:
        if not self.text:
            raise ConfigError("rule '': it is empty; write 'True' for a rule that always holds")
        if len(self.text) > LONGEST:
            raise ConfigError(f"rule {self.text[:40]!r}…: {len(self.text)} characters, at most {LONGEST} are read")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of Python's own taste, such as in '\\d'
                tree = ast.parse(self.text, mode="eval").body
        except SyntaxError as error:
            self._no_python(error.offset or 1)
        except (ValueError, RecursionError, MemoryError, OverflowError):
            raise ConfigError(f"rule {self._short()}: this cannot be read; a rule is made of {LANGUAGE}") from None
        self._check(tree, 0)
        return tree, frozenset(self._names)

    def _check(self, node: ast.expr, depth: int) -> None:
        if depth > DEEPEST:
            raise ConfigError(f"rule {self._short()}: more than {DEEPEST} brackets inside each other; split the rule")
        match node:
            case ast.BoolOp(values=parts):
                pass
            case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.UAdd(), operand=part):
                parts = [part]
            case ast.Compare(left=left, ops=ops, comparators=others):
                parts = [left]
                for op, other in zip(ops, others, strict=True):
                    parts += self._right_side(node, op, other)
            case ast.BinOp(left=left, op=op, right=right):
                self._check_operator(node, op)
                parts = [left, right]
            case ast.Call():
                parts = self._argument(node)
            case ast.Name(id=name):
                if name in _FOREIGN:
                    self._refuse(node, f"{name!r} is no property name", f"write {_FOREIGN[name]}")
                self._names.add(name)
                parts = []
            case ast.Constant():
                self._check_literal(node)
                parts = []
            case _:
                self._strange(node)
        for part in parts:
            self._check(part, depth + 1)

    def _right_side(self, node: ast.expr, op: ast.cmpop, other: ast.expr) -> list[ast.expr]:
        if isinstance(op, ast.Is | ast.IsNot):
            word = "unknown" if isinstance(op, ast.Is) else "known"
            self._refuse(node, "'is' is not in the language", f"write '==', or {word}(name) for what was not told")
        if not isinstance(op, ast.In | ast.NotIn):
            return [other]
        if not isinstance(other, ast.Tuple | ast.List | ast.Set):
            self._refuse(other, "after 'in' comes a list of literals", "write in ('edge-0', 'edge-1')")
        for item in other.elts:
            literal = item.operand if isinstance(item, ast.UnaryOp) and isinstance(item.op, ast.USub) else item
            if not isinstance(literal, ast.Constant):
                self._refuse(item, "after 'in' come literals only", "write numbers or 'texts' in quotes")
        return list(other.elts)

    def _check_operator(self, node: ast.BinOp, op: ast.operator) -> None:
        if not isinstance(op, OPERATORS):
            self._refuse(node, "this operator is not in the language", f"write {_MEANT.get(type(op), 'another')}")
        if not (isinstance(op, ast.Sub) and isinstance(node.right, ast.Name)):
            return
        hyphened = re.compile(r"[^\W\d]\w*(?:-[^\W\d]\w*)+").match(self.text, self._place(node))
        if hyphened and self._place(node.right) < hyphened.end():
            name = hyphened.group()
            fix = f"write {name.replace('-', '_')} or prop({name!r})"
            spaced = name.replace("-", " - ")
            self._refuse(node, f"{name!r} reads as a difference", f"{fix}, or with spaces {spaced!r} if it is one")

    def _argument(self, node: ast.Call) -> list[ast.expr]:
        name = node.func.id if isinstance(node.func, ast.Name) else self._segment(node.func)
        if name not in FUNCTIONS:
            near = difflib.get_close_matches(name, list(FUNCTIONS), 1)
            fix = f"did you mean {near[0]}(…)?" if near else "compare the property with a number or a text instead"
            self._refuse(node, f"{name!r} is not a function of the language", fix)
        if len(node.args) != 1 or node.keywords:
            self._refuse(node, f"{name}(…) takes one argument", f"write {name}({FUNCTIONS[name]})")
        if name != "prop":
            return node.args
        if not (isinstance(told := node.args[0], ast.Constant) and isinstance(told.value, str)):
            self._refuse(node, "prop(…) takes a name in quotes", "write prop('partition-id')")
        self._names.add(told.value)
        return []

    def _check_literal(self, node: ast.Constant) -> None:
        if node.value is None:
            self._refuse(node, "None is not a value of the language", "write unknown(name) or known(name)")
        if not isinstance(node.value, bool | int | float | str):
            self._refuse(
                node, f"a {type(node.value).__name__} is not a value of the language", "write a number or a 'text'"
            )
        if isinstance(node.value, int):
            try:
                float(node.value)
            except OverflowError:
                self._refuse(node, "this number is too large", "write one below 1e308")

    def _strange(self, node: ast.expr) -> NoReturn:
        match node:
            case ast.Attribute():
                name = self._segment(node)
                self._refuse(node, f"{name!r} is no property name", f"write prop({name!r}) or {node.attr}")
            case ast.Subscript(slice=ast.Constant(value=str(name))):
                self._refuse(node, "properties are not looked up with []", f"write prop({name!r})")
            case ast.Tuple() | ast.List() | ast.Set():
                self._refuse(node, "a list stands after 'in' only", "write name in ('a', 'b')")
            case ast.UnaryOp():
                self._refuse(node, "'~' is not in the language", "write 'not'")
            case _:
                self._refuse(node, f"{type(node).__name__} is not in the language", "split it into several rules")

    def _no_python(self, offset: int) -> NoReturn:
        outside = re.sub(r"'[^']*'|\"[^\"]*\"", lambda quoted: " " * len(quoted.group()), self.text)
        for slip, fix in _SLIPS:
            if found := re.search(slip, outside):
                self._error(found.start() + 1, self.text[found.start() : found.start() + 12], "this is no rule", fix)
        place = min(max(offset, 1), len(self.text))
        self._error(place, self.text[place - 1 : place + 11], "this is no rule", "check brackets, quotes and operators")

    def _refuse(self, node: ast.expr, what: str, fix: str) -> NoReturn:
        self._error(self._place(node) + 1, self._segment(node), what, fix)

    def _error(self, place: int, piece: str, what: str, fix: str) -> NoReturn:
        raise ConfigError(
            f"rule {self._short()}, character {place} ({piece[:60]!r}): {what}; {fix}. A rule is made of {LANGUAGE}"
        ) from None

    def _place(self, node: ast.expr) -> int:
        # Python counts bytes; people count characters.
        return len(self.text.encode()[: node.col_offset].decode())

    def _segment(self, node: ast.expr) -> str:
        return ast.get_source_segment(self.text, node) or ""

    def _short(self) -> str:
        return repr(self.text if len(self.text) <= 120 else self.text[:117] + "…")
