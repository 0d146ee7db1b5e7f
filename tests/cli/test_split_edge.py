"""`flower-edge split-edge`: it listens until it is told to end, and a user's mistake is one clear line."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from flower_edge.cli import split_edge
from flower_edge.errors import ConfigError
from flower_edge.runtime.launching.environment import hold_port


def app() -> typer.Typer:
    made = typer.Typer()
    made.callback()(lambda: None)
    split_edge.register(made)
    return made


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cloud", "nowhere"], "expected host:port"),
        (["--cloud", "h:1", "--listen", "here"], "expected host:port"),
        (["--cloud", "h:1", "--key", "k.pem"], "belong together"),
        (["--cloud", "h:1", "--cloud-authority", "missing.pem"], "missing.pem cannot be read"),
        (["--cloud", "h:1", "--models", "no_such_module:MODELS"], "expected module:name"),
        (["--cloud", "h:1", "--models", "os:sep"], "expected a mapping"),
        (["--cloud", "h:1", "--listen", "0.0.0.0:9101"], "--listen 0.0.0.0:9101: .* give --certificate and --key"),
        (["--cloud", "h:1"], "--cloud h:1: without TLS .* give --cloud-authority"),
    ],
)
def test_a_mistake_says_what_to_type(arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app(), ["split-edge", *arguments])
    assert isinstance(result.exception, ConfigError)
    assert re.search(words, str(result.exception)), result.exception


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "json"])
def test_it_listens_until_it_is_ended(tmp_path: Path, form: str) -> None:
    with hold_port() as port:
        free = f"127.0.0.1:{port}"
    program = (
        "import typer\nfrom flower_edge.cli import split_edge\napp = typer.Typer()\n"
        "app.callback()(lambda: None)\nsplit_edge.register(app)\n"
        f"app(['split-edge', '--listen', '{free}', '--cloud', '127.0.0.1:9'] + {['--json'] * (form == 'json')})\n"
    )
    expected = {
        "text": f"listening on {free} for devices; the cloud is at 127.0.0.1:9\n",
        "json": f'{{"listening": "{free}", "cloud": "127.0.0.1:9"}}\n',
    }
    with subprocess.Popen([sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, cwd=tmp_path) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            assert told.decode() == expected[form]
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20.0) == 0
        finally:
            process.kill()
