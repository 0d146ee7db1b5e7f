"""`flower-edge rewards`: what it shows of a book, what it exports, and that looking makes and changes nothing."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flower_edge.cli.main import app
from flower_edge.errors import ConfigError, RewardError
from flower_edge.store import RunFolder
from flower_edge.store.reward_book import RewardBook
from flower_edge.store.reward_rows import Entry, Settlement, row_hash

ROUND = Settlement(
    "demo", 1, 2, "edge-0", 100_000_000, 1, {"7": 60_000_000, "ü": 39_999_999}, {"7": {"contribution": 0.5}}
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FLOWER_EDGE_REWARDS", raising=False)
    monkeypatch.delenv("FLOWER_EDGE_RUN_DIR", raising=False)
    monkeypatch.setenv("FLOWER_EDGE_RUNS", str(tmp_path / "runs"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rewards.sqlite"
    with RewardBook(path) as book:
        book.settle(ROUND)
        book.settle(replace(ROUND, run="other"))
        book.reverse(5, "not its data")
    return path


def call(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["rewards", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def test_balances_are_those_of_the_book(path: Path) -> None:
    assert call("balances", "--book", path).splitlines() == [
        "node    credits",
        "7     60.000000",
        "ü     79.999998",
        f"2 nodes, 139.999998 credits in {path}",
    ]
    assert call("balances", "--book", path, "--run", "other").splitlines()[1:3] == [
        "7      0.000000",
        "ü     39.999999",
    ]
    assert call("balances", "--book", path, "--run", "none") == f"no credits in {path} for run 'none'\n"


def test_a_tariff_tells_amounts_rounded_as_asked(path: Path) -> None:
    down = call("balances", "--book", path, "--tariff", "EUR 0.05").splitlines()
    assert [line.split() for line in down[:3]] == [
        ["node", "credits", "EUR"], ["7", "60.000000", "3.00"], ["ü", "79.999998", "3.99"],
    ]  # fmt: skip
    document = json.loads(
        call("balances", "--book", path, "--tariff", "EUR 0.05", "--rounding", "half-up", "--places", 1, "--json")
    )
    assert document == {
        "book": str(path),
        "run": None,
        "micro": 139_999_998,
        "nodes": [
            {"node": "7", "micro": 60_000_000, "amount": "3.0", "currency": "EUR"},
            {"node": "ü", "micro": 79_999_998, "amount": "4.0", "currency": "EUR"},
        ],
    }
    rows = list(csv.DictReader(io.StringIO(call("balances", "--book", path, "--tariff", "EUR 0.05", "--csv"))))
    assert rows[1] == {"node": "ü", "micro": "79999998", "amount": "3.99", "currency": "EUR"}
    with pytest.raises(ConfigError, match="expected a currency and a price"):
        call("balances", "--book", path, "--tariff", "0.05")


def test_a_statement_lists_a_node_s_rows_and_what_they_come_to(path: Path) -> None:
    head, *lines, total = call("statement", 7, "--book", path, "--tariff", "EUR 0.05").splitlines()
    assert head.split() == ["row", "booked", "(UTC)", "run", "round", "payer", "what", "credits"]
    assert [line.split()[0] for line in lines] == ["2", "5", "7"]
    assert " ".join(lines[2].split()[3:]) == "other 1.2 edge-0 reversal of 5: not its data -60.000000"
    assert total == "7: 3 rows, 60.000000 credits, 3.00 EUR"
    document = json.loads(call("statement", 7, "--book", path, "--run", "demo", "--json"))
    assert (document["micro"], [row["details"] for row in document["rows"]]) == (60_000_000, [{"contribution": 0.5}])
    assert "amount" not in document
    rows = list(csv.DictReader(io.StringIO(call("statement", 7, "--book", path, "--csv"))))
    assert [row["micro"] for row in rows] == ["60000000", "60000000", "-60000000"]


def test_what_a_node_is_called_is_neither_a_second_row_nor_a_formula(tmp_path: Path) -> None:
    path, odd = tmp_path / "odd.sqlite", ["=1+1", "a\n9  1.000000", "+7", "\x1b[31mred"]
    with RewardBook(path) as book:
        book.settle(Settlement("-run", 1, 0, "server", 4, 0, dict.fromkeys(odd, 1)))
    assert [line.split("  ")[0] for line in call("balances", "--book", path).splitlines()[1:5]] == [
        "\\x1b[31mred", "+7", "=1+1", "a\\n9",
    ]  # fmt: skip
    assert call("statement", "a\n9  1.000000", "--book", path).splitlines()[-1].startswith("a\\n9")

    def read(text: str, column: str) -> set[str]:
        return {row[column] for row in csv.DictReader(io.StringIO(text))}

    assert read(call("balances", "--book", path, "--csv"), "node") == {"'=1+1", "'+7", odd[1], odd[3]}
    assert read(call("statement", "=1+1", "--book", path, "--csv"), "run") == {"'-run"}
    # What is hashed stays as it is.
    assert read(call("export", "--book", path), "node") == {"", *odd}


def test_rows_have_no_amounts_and_the_table_has_what_they_come_to(path: Path) -> None:
    with pytest.raises(ConfigError, match="--csv lists rows, which have no amounts"):
        call("statement", 7, "--book", path, "--tariff", "EUR 0.05", "--csv")
    last = call("balances", "--book", path, "--tariff", "EUR 0.05").splitlines()[-1]
    assert last == f"2 nodes, 139.999998 credits, 6.99 EUR in {path}"


@pytest.mark.parametrize("node", ["9", ""])
def test_a_node_without_rows_is_a_mistake_that_names_others(path: Path, node: str) -> None:
    with pytest.raises(ConfigError, match=f"no row of node '{node}'; it has rows of 7, ü"):
        call("statement", node, "--book", path)


def test_of_many_nodes_the_first_are_named_by_number(tmp_path: Path) -> None:
    with RewardBook(tmp_path / "many.sqlite") as book:
        book.settle(replace(ROUND, pot=12, carried=0, credits={str(node): 1 for node in range(12)}, details={}))
    with pytest.raises(ConfigError, match="it has rows of 0, 1, 2, 3, 4, 5, 6, 7 and 4 more"):
        call("statement", 99, "--book", tmp_path / "many.sqlite")


def test_verify_tells_the_head_and_its_exit_code(path: Path) -> None:
    first, second = call("verify", "--book", path).splitlines()
    assert first == f"ok: 7 rows in {path}"
    anchor = second.removeprefix("head ")
    with RewardBook(path) as book:
        book.settle(replace(ROUND, round=2))
    assert json.loads(call("verify", "--book", path, "--anchor", anchor, "--json"))["rows"] == 10
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER rewards_no_DELETE")
    connection.execute("DELETE FROM rewards WHERE seq > 6")
    connection.commit()
    connection.close()
    call("verify", "--book", path)
    shown = call("verify", "--book", path, "--anchor", anchor, code=1)
    assert shown.startswith("NOT ok: the anchor knows 7 rows, and the book ends after 6\n6 rows before it are right")
    document = json.loads(call("verify", "--book", path, "--anchor", anchor, "--json", code=1))
    assert (document["ok"], document["first_bad"]) == (False, 7)
    with pytest.raises(RewardError, match="expected ROWS:HASH"):
        call("verify", "--book", path, "--anchor", "7")


def test_an_export_is_the_book_and_its_chain_can_be_checked_from_it(path: Path, tmp_path: Path) -> None:
    def entry(row: dict[str, Any]) -> Entry:
        numbers = {name: int(row[name]) for name in ("seq", "round", "edge_round", "micro")}
        return Entry(**{**row, **numbers, "refers": int(row["refers"]) if row["refers"] else None})

    with RewardBook(path) as book:
        rows = list(book.entries())
    assert [entry(row) for row in json.loads(call("export", "--json", "--book", path))["rows"]] == rows
    assert call("export", "--out", tmp_path / "out.csv", "--book", path) == ""
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        read = [entry(row) for row in csv.DictReader(file)]
    assert read == rows
    assert [row_hash(row) for row in read] == [row.hash for row in rows]
    only = json.loads(call("export", "--format", "json", "--node", "7", "--run", "other", "--book", path))
    assert [row["seq"] for row in only["rows"]] == [5, 7]
    assert json.loads(call("export", "--json", "--node", "none", "--book", path))["rows"] == []
    with pytest.raises(ConfigError, match=r"--out .*give a file that can be written"):
        call("export", "--out", tmp_path, "--book", path)


def test_reverse_takes_back_one_row_once(path: Path) -> None:
    said = call("reverse", 3, "--reason", "twice the same device", "--book", path)
    assert said == "row 8 takes back 39.999999 credits of ü; 39.999999 are left\n"
    with pytest.raises(RewardError, match="row 3 was reversed by row 8"):
        call("reverse", 3, "--reason", "again", "--book", path)
    document = json.loads(call("reverse", 2, "--reason", "x", "--book", path, "--json"))
    assert (document["seq"], document["micro"], document["balance_micro"]) == (9, -60_000_000, 0)
    call("verify", "--book", path)


def test_without_a_name_it_is_the_newest_run_s_book_or_the_variable_s(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"has a rewards\.sqlite; name a book with --book PATH"):
        call("balances")
    for name, micro in (("first", 1), ("second", 2)):
        with RunFolder.create(name, config={}, seed=1) as run, RewardBook(run.path / "rewards.sqlite") as book:
            book.settle(Settlement(name, 1, 0, "", micro, 0, {"a": micro}))
    with RunFolder.create("without", config={}, seed=1):
        pass
    assert json.loads(call("balances", "--json"))["micro"] == 2
    assert json.loads(call("balances", "--json", "--book", "first"))["micro"] == 1
    assert json.loads(call("balances", "--json", "--book", run.path.with_name(run.path.name)))["micro"] == 2
    monkeypatch.setenv("FLOWER_EDGE_REWARDS", f"sqlite:///{path}")
    assert json.loads(call("balances", "--json"))["micro"] == 139_999_998


@pytest.mark.parametrize(
    "verb", [("balances",), ("statement", "7"), ("verify",), ("export",), ("reverse", "1", "--reason", "x")]
)
def test_looking_for_a_book_makes_none(tmp_path: Path, verb: tuple[str, ...]) -> None:
    with pytest.raises(RewardError, match=r"no reward book at .*none\.sqlite; give the path or URL of one"):
        call(*verb, "--book", tmp_path / "none.sqlite")
    with pytest.raises(ConfigError, match="no run 'none'"):
        call(*verb, "--book", "none")
    assert os.listdir(tmp_path) == []


def test_looking_leaves_the_file_as_it_was(path: Path) -> None:
    before = path.read_bytes()
    for verb in (("balances",), ("statement", "7"), ("verify",), ("export",)):
        call(*verb, "--book", path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_mistake_is_one_line_and_exit_code_two(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "flower_edge.cli.main",
        "rewards",
        "verify",
        "--book",
        str(tmp_path / "none.sqlite"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("RewardError: no reward book at ")
    assert "Traceback" not in done.stderr


def test_on_a_terminal_what_a_node_is_called_is_not_read_as_colours(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")
    with RewardBook(tmp_path / "rewards.sqlite") as book:
        book.settle(Settlement("demo", 1, 0, "", 5, 0, {"[bold]x[/]": 5}))
        book.correct("[bold]x[/]", -6, "[red]", reference="1", run="demo", payer="")
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "flower_edge.cli.main", "rewards", "balances", "--book", book.name]
    process = subprocess.Popen(command, stdout=child, env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"})
    process.wait()
    os.close(child)
    shown = os.read(parent, 65536).decode()
    os.close(parent)
    assert process.returncode == 0
    assert "[bold]x[/]" in shown
    assert "\x1b[31m-0.000001" in shown
