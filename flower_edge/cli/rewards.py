"""`flower-edge rewards`: what a reward book holds, what it is worth, whether it is whole. Only `reverse` writes."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from ..errors import ConfigError
from ..rewards.tariff import Rounding, Tariff
from .reward_places import open_book
from .reward_tables import by_number, told, visible
from .runs import RootOption

if TYPE_CHECKING:
    from ..store.reward_rows import Entry

__all__ = ["register"]

BookOption = Annotated[
    str | None,
    typer.Option(
        "--book",
        metavar="BOOK",
        help="Path or URL of a book, or a run's folder or name: else $FLOWER_EDGE_REWARDS, else the newest run's.",
    ),
]
RunOption = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="Rows of this run only, as it was booked.")
]
TariffOption = Annotated[
    str | None, typer.Option("--tariff", metavar="'EUR 0.05'", help="Currency and price of a credit: shows amounts.")
]
RoundingOption = Annotated[Rounding, typer.Option(help="Of an amount, which is that of a node's total.")]
PlacesOption = Annotated[int, typer.Option(metavar="N", help="Digits after the point of an amount.")]
CsvOption = Annotated[
    bool, typer.Option("--csv", help="Print CSV and nothing else; a text that a spreadsheet would compute gets a '.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

#: What an exported row has, in this order.
COLUMNS = (
    "seq", "run", "round", "edge_round", "cell", "payer", "node", "kind", "micro", "refers", "details", "booked_at",
    "previous", "hash",
)  # fmt: skip

#: Nodes that an error names, where the one that was asked for is not there.
_NAMED = 8
#: What a formula begins with, in one spreadsheet or another.
_FORMULA = tuple("=+-@\t\r\n")


def register(app: typer.Typer) -> None:
    """Add the verb, which has verbs of its own, to the command line."""
    verbs = typer.Typer(
        help="Rewards: balances, statements, whether the book is whole, and a copy of it.", no_args_is_help=True
    )
    for verb in (balances, statement, verify, export, reverse):
        verbs.command(verb.__name__)(verb)
    app.add_typer(verbs, name="rewards")


def balances(
    book: BookOption = None,
    run: RunOption = None,
    tariff: TariffOption = None,
    rounding: RoundingOption = "down",
    places: PlacesOption = 2,
    root: RootOption = None,
    as_csv: CsvOption = False,
    as_json: JsonOption = False,
) -> None:
    """List what each node was credited with in all, reversals and corrections counted.

    Exit code: 0 done, 2 there is no such book.

    Example: flower-edge rewards balances --tariff 'EUR 0.05'
    """
    from ..rewards.statement import owed

    by = _tariff(tariff, rounding, places)
    with open_book(book, root) as found:
        sums = found.balances(run)
    sums = {node: sums[node] for node in sorted(sums, key=by_number)}
    nodes = [{"node": node, "micro": micro, **_worth(by, micro)} for node, micro in sums.items()]
    if as_csv:
        _write_csv(sys.stdout, ("node", "micro", *_worth(by, 0)), map(_inert, nodes))
        return
    if as_json:
        document = {"book": found.name, "run": run, "micro": sum(sums.values()), "nodes": nodes}
        print(json.dumps(document, indent=2))
        return
    if not sums:
        print(f"no credits in {found.name}" + (f" for run {run!r}" if run else ""))
        return
    lines = [[node, _credits(micro), *_amount(by, micro)] for node, micro in sums.items()]
    told(("node", "credits", *_heading(by)), lines, left=1)
    total = sum(sums.values())
    amount = f", {owed(map(by.amount, sums.values()))} {by.currency}" if by else ""
    print(f"{_many(len(sums), 'node')}, {_credits(total)} credits{amount} in {found.name}")


def statement(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node's key, as balances lists it.")],
    book: BookOption = None,
    run: RunOption = None,
    tariff: TariffOption = None,
    rounding: RoundingOption = "down",
    places: PlacesOption = 2,
    root: RootOption = None,
    as_csv: CsvOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the rows of one node, and what they come to. The amount is that of the total; rows tell credits only.

    Exit code: 0 done, 2 there is no such book, or nothing in it for this node.

    Example: flower-edge rewards statement 7 --tariff 'EUR 0.05' --rounding half-even
    """
    from ..rewards.statement import statement as state

    by = _tariff(tariff, rounding, places)
    with open_book(book, root) as found:
        rows = list(found.entries(node=node, run=run)) if node else []
        if not rows:
            nodes = sorted(found.balances(run), key=by_number)
            more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
            there = ", ".join(nodes[:_NAMED]) or "nobody"
            raise ConfigError(f"{found.name} has no row of node {node!r}; it has rows of {there}{more}")
    whole = state(node, rows, by or Tariff())
    since, until = whole.period
    if as_csv:
        if by is not None:
            raise ConfigError("--csv lists rows, which have no amounts: leave --tariff out, or take --json")
        _write_csv(sys.stdout, tuple(whole.rows()[0]), map(_inert, whole.rows()))
        return
    if as_json:
        document = {
            "book": found.name,
            "node": node,
            "run": run,
            "since": since,
            "until": until,
            "micro": whole.micro,
            **_worth(by, whole.micro),
            "rows": [_plain(row) for row in rows],
        }
        print(json.dumps(document, indent=2))
        return
    head = ("row", "booked (UTC)", "run", "round", "payer", "what", "credits")
    lines = [
        [
            str(row.seq),
            row.booked_at[:19].replace("T", " "),
            row.run,
            f"{row.round}.{row.edge_round}" if row.edge_round else str(row.round),
            row.payer,
            _what(row),
            _credits(row.micro),
        ]
        for row in rows
    ]
    told(head, lines, left=6)
    amount = f", {whole.amount} {by.currency}" if by else ""
    print(f"{visible(node)}: {_many(len(rows), 'row')}, {_credits(whole.micro)} credits{amount}")


def verify(
    book: BookOption = None,
    anchor: Annotated[
        str | None,
        typer.Option(metavar="ROWS:HASH", help="The head that an earlier verify printed, kept elsewhere."),
    ] = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read the whole book and see that no row was changed, taken out or put in; print its head.

    Keep the head where the owner of the book cannot change it: without it, rows cut off the end are not missed.

    Exit code: 0 the chain verifies, 1 it does not, 2 there is no such book.

    Example: flower-edge rewards verify --book rewards.sqlite
    """
    from ..store.reward_rows import Head

    head = None if anchor is None else Head.parse(anchor)
    with open_book(book, root) as found:
        result = found.verify(head)
    if as_json:
        document = {
            "book": found.name,
            "ok": result.ok,
            "rows": result.rows,
            "head": str(result.head),
            "first_bad": result.first_bad,
            "why": result.why,
        }
        print(json.dumps(document, indent=2))
    elif result.ok:
        print(f"ok: {_many(result.rows, 'row')} in {found.name}\nhead {result.head}")
    else:
        print(f"NOT ok: {result.why}\n{_many(result.rows, 'row')} before it are right, in {found.name}")
    raise typer.Exit(0 if result.ok else 1)


def export(
    form: Annotated[Literal["csv", "json"], typer.Option("--format", help="CSV, or one JSON document.")] = "csv",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to; else to the terminal.")] = None,
    book: BookOption = None,
    node: Annotated[str | None, typer.Option(metavar="NODE", help="Rows of this node only.")] = None,
    run: RunOption = None,
    root: RootOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Write the rows as they stand, hashes included, so that others can check the chain without this program.

    Amounts are micro-credits, 1,000,000 to a credit. In JSON the details are the text that was hashed. Texts are as
    they stand, also those that a spreadsheet would take for a formula: for one use balances or statement with --csv.

    Exit code: 0 done, 2 there is no such book, or the file cannot be written.

    Example: flower-edge rewards export --format csv --out rewards.csv
    """
    with open_book(book, root) as found, _sink(out) as sink:
        rows = (_raw(row) for row in found.entries(node=node, run=run))
        if as_json or form == "json":
            _write_json(sink, found.name, rows)
        else:
            _write_csv(sink, COLUMNS, rows)


def reverse(
    seq: Annotated[int, typer.Argument(metavar="ROW", help="The row's number, as statement lists it.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it stands in the book.")],
    book: BookOption = None,
    root: RootOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take back what one row credited, by a row of the opposite amount. Nothing is ever changed or taken out.

    Exit code: 0 done, 2 there is no such row, or it was reversed before.

    Example: flower-edge rewards reverse 17 --reason 'not its own data'
    """
    with open_book(book, root, readonly=False) as found:
        row = found.reverse(seq, reason)
        left = found.balances()[row.node]
    if as_json:
        print(json.dumps({"book": found.name, **_plain(row), "balance_micro": left}, indent=2))
        return
    print(f"row {row.seq} takes back {_credits(-row.micro)} credits of {visible(row.node)}; {_credits(left)} are left")


def _tariff(text: str | None, rounding: Rounding, places: int) -> Tariff | None:
    return None if text is None else Tariff.parse(text, rounding=rounding, places=places)


def _credits(micro: int) -> str:
    """Micro-credits as credits with all six digits: nothing is rounded away.

    >>> _credits(1_500_000), _credits(-1)
    ('1.500000', '-0.000001')
    """
    whole, parts = divmod(abs(micro), 1_000_000)
    return f"{'-' if micro < 0 else ''}{whole}.{parts:06}"


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _heading(by: Tariff | None) -> tuple[str, ...]:
    return () if by is None else (by.currency,)


def _amount(by: Tariff | None, micro: int) -> tuple[str, ...]:
    return () if by is None else (str(by.amount(micro)),)


def _worth(by: Tariff | None, micro: int) -> dict[str, str]:
    return {} if by is None else {"amount": str(by.amount(micro)), "currency": by.currency}


def _what(row: Entry) -> str:
    reason = row.told().get("reason")
    return f"{row.kind}: {reason}" if reason else row.kind


def _inert(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with a ' before texts that a spreadsheet would take for a formula; a node can be called as it likes.

    >>> _inert({"node": "=1+1", "micro": -5})
    {'node': "'=1+1", 'micro': -5}
    """
    return {
        name: f"'{value}" if isinstance(value, str) and name != "amount" and value[:1] in _FORMULA else value
        for name, value in row.items()
    }


def _raw(row: Entry) -> dict[str, Any]:
    return {name: getattr(row, name) for name in COLUMNS}


def _plain(row: Entry) -> dict[str, Any]:
    return {**_raw(row), "details": row.told()}


@contextlib.contextmanager
def _sink(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    try:
        with out.open("w", encoding="utf-8", newline="") as file:
            yield file
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror or error}; give a file that can be written") from error


def _write_csv(sink: TextIO, head: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    table = csv.DictWriter(sink, head, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)


def _write_json(sink: TextIO, name: str, rows: Iterator[dict[str, Any]]) -> None:
    """One document, row by row: a book need not fit in memory."""
    sink.write(f'{{\n  "book": {json.dumps(name)},\n  "rows": [')
    for at, row in enumerate(rows):
        sink.write(("," if at else "") + "\n    " + json.dumps(row))
    sink.write("\n  ]\n}\n")
