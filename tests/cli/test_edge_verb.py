"""`flower-edge edge`: what it refuses before it starts anything, and what its options become."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from flower_edge.cli.main import app
from flower_edge.errors import ConfigError
from flower_edge.runtime.bridge import keeper
from flower_edge.runtime.bridge.keeper import EdgePlan

APP = Path(__file__).parents[2] / "benchmarks" / "apps" / "tiers_edge"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[EdgePlan]:
    """What would have been kept going."""
    plans: list[EdgePlan] = []

    class Keeper(keeper.EdgeKeeper):
        def keep(self, ended: object) -> None:
            plans.append(self._plan)

    monkeypatch.setattr(keeper, "EdgeKeeper", Keeper)
    return plans


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A file for each option that takes one."""
    names = {"authority": "ca", "certificate": "edge", "key": "edge-key", "root-certificates": "centre-ca"}
    found = {}
    for option, name in {**names, "auth-supernode-private-key": "own"}.items():
        (tmp_path / f"{name}.pem").write_text(name)
        found[f"--{option}"] = str(tmp_path / f"{name}.pem")
    return found


def call(tmp_path: Path, *arguments: str) -> None:
    given = ["edge", str(APP), "--name", "edge-0", "--state", str(tmp_path / "state"), *arguments]
    result = CliRunner().invoke(app, given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output


def words(files: dict[str, str], *options: str) -> list[str]:
    return [word for option in options for word in (option, files[option])]


def test_certificates_and_keys_reach_the_superlink_and_the_node_at_the_centre(
    kept: list[EdgePlan], tmp_path: Path, files: dict[str, str]
) -> None:
    serve = ("--serve", "0.0.0.0:9092", *words(files, "--authority", "--certificate", "--key"), "--node-keys")
    centre = ("--centre", "centre:8000", *words(files, "--root-certificates", "--auth-supernode-private-key"))
    call(tmp_path, *serve, *centre, "--run-config", "terminals=2", "--node-config", "site='north'")
    (plan,) = kept
    assert plan.superlink_options == (
        *("--ssl-ca-certfile", files["--authority"], "--ssl-certfile", files["--certificate"]),
        *("--ssl-keyfile", files["--key"], "--enable-supernode-auth"),
    )
    assert plan.centre_options == (
        *("--superlink", "centre:8000", "--root-certificates", files["--root-certificates"]),
        *("--auth-supernode-private-key", files["--auth-supernode-private-key"]),
    )
    assert (plan.authority, plan.run_config["terminals"]) == (Path(files["--authority"]), 2)


SERVE = ("--serve", "0.0.0.0:9092")


@pytest.mark.parametrize(
    ("given", "of_files", "why"),
    [
        (SERVE, (), "--serve without --certificate would be without TLS.*add --insecure"),
        (SERVE, ("--certificate", "--key"), "belong together: give all of them"),
        (SERVE, ("--authority",), "belong together: give all of them"),
        ((*SERVE, "--node-keys", "--insecure"), (), "--node-keys needs TLS"),
        (("--superlink", "127.0.0.1:9092", "--node-keys"), (), "--node-keys without --serve"),
        (("--superlink", "127.0.0.1:9092"), ("--certificate", "--key"), "--certificate, --key without --serve"),
        ((*SERVE, "--insecure", "--centre", "c:8000"), ("--auth-supernode-private-key",), "needs TLS"),
        ((*SERVE, "--insecure"), ("--root-certificates",), "--root-certificates without --centre"),
        ((*SERVE, "--insecure"), ("--auth-supernode-private-key",), "--auth-supernode-private-key without --centre"),
        (("--serve", "9092", "--insecure"), (), "expected HOST:PORT"),
        ((), (), "give --serve HOST:PORT.*or --superlink"),
    ],
)
def test_options_that_contradict_each_other_are_refused_before_anything_starts(
    kept: list[EdgePlan],
    tmp_path: Path,
    files: dict[str, str],
    given: tuple[str, ...],
    of_files: tuple[str, ...],
    why: str,
) -> None:
    with pytest.raises(ConfigError, match=why):
        call(tmp_path, *given, *words(files, *of_files))
    assert kept == []


def test_without_tls_to_the_centre_it_has_to_be_said_also_where_terminals_have_it(
    kept: list[EdgePlan], tmp_path: Path, files: dict[str, str]
) -> None:
    serve = (*SERVE, *words(files, "--authority", "--certificate", "--key"))
    with pytest.raises(ConfigError, match="--centre without --root-certificates would be without TLS"):
        call(tmp_path, *serve, "--centre", "centre:8000")
    assert kept == []


def test_a_file_that_is_not_there_is_named(kept: list[EdgePlan], tmp_path: Path, files: dict[str, str]) -> None:
    files["--key"] = str(tmp_path / "nowhere.pem")
    with pytest.raises(ConfigError, match=r"nowhere\.pem: there is no such file"):
        call(tmp_path, *SERVE, *words(files, "--authority", "--certificate", "--key"))
    assert kept == []
