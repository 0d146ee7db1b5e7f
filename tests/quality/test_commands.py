"""Every command that a document shows is one: verbs, options, scenarios and their keys, benchmarks, targets of make."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache

import click
import pytest
import typer
from document_program import DOCUMENTS
from source_tree import ROOT

from flower_edge.cli.main import app

PAGES = [*DOCUMENTS, *sorted(ROOT.glob("scenarios/*/README.md")), ROOT / "CONTRIBUTING.md"]
_SHELL = re.compile(r"^```(?:sh|bash|console|)\n(.*?)^```", re.S | re.M)
_INLINE = re.compile(r"(?<!`)`(flower-edge [^`]+)`(?!`)")


@cache
def root() -> click.Group:
    made = typer.main.get_command(app)
    assert isinstance(made, click.Group)
    return made


def commands(text: str) -> list[str]:
    """What follows `flower-edge` on each command of a document's shell blocks and of its code spans."""
    found = _INLINE.findall(text)
    for block in _SHELL.findall(text):
        joined = re.sub(r"\\\n\s*", " ", block)
        for line in joined.splitlines():
            prompted = re.match(r"(?:[\w-]+)?\$ (.*)", line)
            typed = (prompted[1] if prompted else line).strip()
            started = re.match(r"(?:sudo )?(?:[\w./~-]*/)?(flower-edge [a-z].*)", typed)
            if started and not re.match(r"flower-edge \w+: ", started[1]):  # what a verb says of itself
                found.append(started[1])
    return [" ".join(command.partition(" #")[0].split()).removeprefix("flower-edge ") for command in found]


def wrong(command: str) -> str:
    """What is not there of a command; "" where all of it is."""
    words = re.sub(r"\"[^\"]*\"|'[^']*'", "TEXT", command).partition(" -- ")[0].replace(",", " ").split()
    at: click.Command = root()
    while words and isinstance(at, click.Group):
        name = words[0]
        if name not in at.commands:
            return "" if name.startswith("-") or at is not root() else f"no verb {name!r}"
        at = at.commands[words.pop(0)]
    options = {name for parameter in at.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    asked = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    unknown = sorted(asked - options)
    return f"{at.name}: no option {', '.join(unknown)}" if unknown else ""


def lost_keys(command: str) -> str:
    """What of `run scenarios/NAME -c "key=value"` the scenario has not; "" where it has all of it."""
    words = shlex.split(command)
    if words[:1] != ["run"] or not (place := next((word for word in words if word.startswith("scenarios/")), "")):
        return ""
    file = ROOT / place / "pyproject.toml"
    if not file.is_file():
        return f"no {place}"
    known = tomllib.loads(file.read_text())["tool"]["flwr"]["app"]["config"]
    flat = set(_flat(known))
    given = [words[at + 1] for at, word in enumerate(words[:-1]) if word in ("-c", "--run-config")]
    asked = {key for text in given for key in re.findall(r"([\w.-]+)=", re.sub(r"'[^']*'", "TEXT", text))}
    return f"{place} has no key {', '.join(sorted(asked - flat))}" if asked - flat else ""


def _flat(table: dict[str, object], before: str = "") -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}"


def test_mistakes_are_found() -> None:
    assert wrong("fly APP") == "no verb 'fly'"
    assert wrong("run APP --resme latest") == "run: no option --resme"
    assert wrong('run APP -c "--not-ours=1" --resume latest') == ""
    assert (
        lost_keys("run scenarios/gossip -c \"task='x' prune=0.1 stalenes=1\"") == "scenarios/gossip has no key stalenes"
    )
    assert lost_keys("run scenarios/gosip") == "no scenarios/gosip"
    assert commands("```console\npi$ sudo ~/a/flower-edge join URL \\\n     --token x  # say\n```\n") == [
        "join URL --token x"
    ]


def tried() -> list[str]:
    """Every command in the second column of README's table of what it can do."""
    table = (ROOT / "README.md").read_text().partition("\n## What it can do\n")[2].partition("\n## ")[0]
    cells = [line.split(" | ")[1] for line in table.splitlines() if line.startswith("| ") and line.count(" | ") > 1]
    return [command for cell in cells for command in commands(cell)]


def test_what_the_readme_says_to_try_lacks_no_argument() -> None:
    assert len(tried()) > 15
    for command in tried():
        verb, *words = shlex.split(command)
        root().commands[verb].make_context(verb, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_of_a_document_is_one(page: object) -> None:
    text = page.read_text()  # type: ignore[attr-defined]
    assert [(command, said) for command in commands(text) if (said := wrong(command) or lost_keys(command))] == []
    benchmarks = set(re.findall(r"python -m benchmarks\.(\w+)", text))
    assert {name for name in benchmarks if not (ROOT / f"benchmarks/{name}.py").is_file()} == set()
    targets = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)(?=`|\s*(?:#|$))", text, flags=re.M))
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert targets <= known
