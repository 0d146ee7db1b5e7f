"""Laws of reading an app and a run config before anything is started."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.runtime.launching.app import (
    Federation,
    FlowerApp,
    check_run_config,
    parse_run_config,
    read_app,
    run_config_toml,
)

APPS = Path(__file__).parents[1] / "apps"

MINIMAL = """
[project]
name = "small-app"
version = "1.0.0"

[tool.flwr.app]
publisher = "somebody"

[tool.flwr.app.components]
serverapp = "small.server_app:app"
clientapp = "small.client_app:app"
"""


def an_app(folder: Path, more: str = "", text: str = MINIMAL) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "pyproject.toml").write_text(text + more, "utf-8")
    return folder


def test_an_app_tells_its_name_its_keys_and_the_federation_it_wants() -> None:
    app = read_app(APPS / "moody")
    assert app.name == "fe-moody"
    assert app.config == {"mood": "good", "words": "no reason"}
    assert app.federation == Federation(num_supernodes=3, client_cpus=1, total_cpus=1)


def test_an_app_that_says_nothing_gets_two_nodes_of_one_core() -> None:
    assert read_app(APPS / "pristine").federation == Federation(num_supernodes=2, client_cpus=1, total_cpus=None)


def test_what_the_caller_gives_goes_before_what_the_app_says() -> None:
    wanted = Federation(num_supernodes=3, client_cpus=1, total_cpus=1).override(num_supernodes=12)
    assert wanted == Federation(num_supernodes=12, client_cpus=1, total_cpus=1)
    assert wanted.to_flower() == "num-supernodes=12 client-resources-num-cpus=1 init-args-num-cpus=1"


def test_nested_tables_of_the_run_config_become_dotted_keys(tmp_path: Path) -> None:
    app = read_app(an_app(tmp_path, "[tool.flwr.app.config]\nrounds = 3\nradio.bandwidth-hz = 1e6\n"))
    assert app.config == {"rounds": 3, "radio.bandwidth-hz": 1e6}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name = ", "is not TOML"),
        ('[project]\nname = "x"\n', r"no \[tool.flwr.app\]"),
        (MINIMAL.replace('name = "small-app"', ""), r"\[project\] name is None"),
        (MINIMAL + "[tool.flwr.app.config]\nlrs = [0.1, 0.2]\n", r"lrs = \[0.1, 0.2\]: expected a number"),
        (MINIMAL + "[tool.flwr.federations]\ndefault = 'x'\n", r"delete the table and say the size with"),
        (MINIMAL + "[tool.flower-edge.federation]\nnum-supernode = 3\n", "did you mean 'num-supernodes'"),
        (MINIMAL + "[tool.flower-edge.federation]\nnum-supernodes = '3'\n", "num-supernodes = '3'"),
        (MINIMAL + "[tool.flower-edge.federation]\nnum-supernodes = 0\n", "num-supernodes = 0: must be 1 or more"),
        (
            MINIMAL + "[tool.flower-edge.federation]\nclient-cpus = 4\ntotal-cpus = 2\n",
            "client-cpus = 4 but total-cpus = 2",
        ),
    ],
)
def test_an_app_that_cannot_be_run_is_refused_by_what_is_wrong_with_it(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_app(an_app(tmp_path, text=text))


def test_a_wrong_path_is_answered_with_the_right_one(tmp_path: Path) -> None:
    an_app(tmp_path / "inside")
    with pytest.raises(ConfigError, match="does not exist"):
        read_app(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no pyproject.toml.*there is one in inside"):
        read_app(tmp_path)
    with pytest.raises(ConfigError, match=f"is a file.*give its folder: {tmp_path / 'inside'}"):
        read_app(tmp_path / "inside" / "pyproject.toml")


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z_-][A-Za-z0-9_-]{0,8}", fullmatch=True),
        st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False)
        | st.text(st.characters(exclude_categories=["Cs"])),
        max_size=5,
    )
)
def test_every_run_config_survives_the_way_through_toml(values: dict[str, bool | int | float | str]) -> None:
    back = tomllib.loads(run_config_toml(values))
    assert back == values
    assert [type(value) for value in back.values()] == [type(value) for value in values.values()]


def test_a_later_override_of_a_key_goes_before_an_earlier_one() -> None:
    assert parse_run_config(["lr=0.1 rounds=3", "lr=0.2"]) == {"lr": 0.2, "rounds": 3}


def test_texts_keep_their_blanks_and_the_other_quote() -> None:
    assert parse_run_config(["""a="it's so" b='say "so"'"""]) == {"a": "it's so", "b": 'say "so"'}


def test_a_toml_file_gives_overrides_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("lr = 0.3\n[radio]\nbandwidth-hz = 5\n", "utf-8")
    assert parse_run_config([str(file), "lr=0.4"]) == {"lr": 0.4, "radio.bandwidth-hz": 5}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lr 0.1", "cannot read 'lr 0.1'"),
        ("lr = 0.1", "none around ="),
        ("lr=0.1 fast", "cannot read 'fast'"),
        ("lr=0.1,rounds=3", "expected a number"),
        ("name=hello", "as in name='hello'"),
        ("fast=True", "true, false"),
        ("lrs=[1]", "expected a number"),
        ("day=2026-01-31", "expected a number"),
        ('a="x"b', "cannot read"),
        ("missing.toml", "No such file"),
    ],
)
def test_what_flower_would_pass_over_in_silence_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_run_config([text])


def test_every_unknown_key_is_named_at_once_with_the_nearest_known_one() -> None:
    app = read_app(APPS / "pristine")
    check_run_config(app, {"learning-rate": 0.2})
    with pytest.raises(ConfigError) as caught:
        check_run_config(app, {"learning-rte": 0.2, "num-server-rounds": 1, "zzz": 1})
    assert "learning-rte: unknown key; did you mean 'learning-rate'?" in str(caught.value)
    assert "zzz: unknown key; known keys are learning-rate, local-epochs, num-server-rounds" in str(caught.value)
    assert "num-server-rounds: unknown" not in str(caught.value)


def test_a_value_that_no_run_config_can_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected bool, int, float or str"):
        run_config_toml({"lrs": [0.1]})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match="two words"):
        run_config_toml({"two words": 1})


def test_a_value_of_another_kind_is_refused_and_a_float_for_an_integer_left_to_the_app() -> None:
    app = FlowerApp(Path("/app"), "app", {"rounds": 3, "fast": True, "name": "a"}, Federation())
    with pytest.raises(ConfigError) as told:
        check_run_config(app, {"rounds": "three", "fast": 1, "name": False})
    assert "rounds = 'three': expected a number, as the app's own 3" in str(told.value)
    assert "fast = 1: expected a truth value" in str(told.value)
    assert "name = False: expected a text" in str(told.value)
    check_run_config(app, {"rounds": 2.5, "fast": False, "name": "b"})
