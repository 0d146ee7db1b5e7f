"""Every `flower-edge` command that a document shows is one: its verb is there, and so is each option."""

from __future__ import annotations

import re
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


def test_mistakes_are_found() -> None:
    assert wrong("fly APP") == "no verb 'fly'"
    assert wrong("run APP --resme latest") == "run: no option --resme"
    assert wrong('run APP -c "--not-ours=1" --resume latest') == ""
    assert commands("```console\npi$ sudo ~/a/flower-edge join URL \\\n     --token x  # say\n```\n") == [
        "join URL --token x"
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_of_a_document_is_one(page: object) -> None:
    text = page.read_text()  # type: ignore[attr-defined]
    assert [(command, said) for command in commands(text) if (said := wrong(command))] == []
