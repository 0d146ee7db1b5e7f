"""A run config is checked whole: every bad key, with the nearest known one, in one message."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from flower_edge.config import RunConfig, known_keys, read_config
from flower_edge.errors import ConfigError


class Radio(RunConfig):
    bandwidth_hz: float = Field(default=1e6, gt=0)
    snr_db: float = 10.0


class Config(RunConfig):
    rounds: int
    edge_rounds: int = Field(default=2, gt=0)
    cloud_every_rounds: int = Field(default=1, gt=0)
    learning_rate: float = Field(default=0.1, gt=0, lt=10)
    model: str = "mlp"
    resume: bool = False
    radio: Radio = Radio()
    backup: Radio | None = None


KEYS = [
    "rounds",
    "edge-rounds",
    "cloud-every-rounds",
    "learning-rate",
    "model",
    "resume",
    "radio.bandwidth-hz",
    "radio.snr-db",
    "backup.bandwidth-hz",
    "backup.snr-db",
]


def complaints(flat: dict[str, Any]) -> list[str]:
    """The lines of the error, without the first."""
    with pytest.raises(ConfigError) as caught:
        read_config(Config, flat)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def test_known_keys_are_flat_dotted_and_in_the_order_of_their_declaration() -> None:
    assert list(known_keys(Config)) == KEYS


def test_every_known_key_is_read_into_its_field() -> None:
    config = read_config(
        Config,
        {
            "rounds": 5,
            "edge-rounds": 3,
            "learning-rate": 0.5,
            "model": "lenet",
            "resume": True,
            "radio.bandwidth-hz": 2e6,
            "backup.snr-db": 3.0,
        },
    )
    assert (config.rounds, config.edge_rounds, config.learning_rate, config.model) == (5, 3, 0.5, "lenet")
    assert config.resume is True
    assert (config.radio.bandwidth_hz, config.radio.snr_db) == (2e6, 10.0)
    assert config.backup == read_config(Radio, {"snr-db": 3.0})


def test_what_is_not_given_keeps_its_default() -> None:
    config = read_config(Config, {"rounds": 1})
    assert (config.cloud_every_rounds, config.radio, config.backup) == (1, Radio(), None)


def test_a_config_cannot_be_changed_afterwards() -> None:
    config = read_config(Config, {"rounds": 1})
    with pytest.raises(ValidationError, match="frozen"):
        config.rounds = 2


def test_the_error_is_reported_whole_in_the_documented_form() -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(Config, {"rounds": 1, "radio.bandwith-hz": 1.0, "cloud-every-rounds": 0})
    assert str(caught.value) == (
        "run config:\n"
        "  radio.bandwith-hz: unknown key; did you mean 'radio.bandwidth-hz'?\n"
        "  cloud-every-rounds = 0: input should be greater than 0"
    )


def test_the_source_is_named_in_the_error() -> None:
    with pytest.raises(ConfigError, match=r"^settings\.toml:\n"):
        read_config(Config, {}, source="settings.toml")


def test_unknown_missing_wrong_type_and_out_of_range_are_all_in_one_message() -> None:
    lines = complaints(
        {"edge-round": 3, "radio.snr-db": "loud", "learning-rate": 11.0, "edge-rounds": "3", "zzzzzz": 1}
    )
    assert [line.partition(":")[0].partition(" ")[0] for line in lines] == [
        "edge-round",
        "zzzzzz",
        "rounds",
        "edge-rounds",
        "learning-rate",
        "radio.snr-db",
    ]
    assert lines[0] == "edge-round: unknown key; did you mean 'edge-rounds'?"
    assert lines[1] == f"zzzzzz: unknown key; known keys are {', '.join(sorted(KEYS))}"
    assert lines[2] == "rounds: missing; set it in [tool.flwr.app.config] or with --run-config"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("edge-rounds", "3", "valid integer"),
        ("edge-rounds", 1.5, "valid integer"),
        ("edge-rounds", 3.0, "valid integer"),
        ("edge-rounds", True, "valid integer"),
        ("learning-rate", "0.1", "valid number"),
        ("learning-rate", True, "valid number"),
        ("model", 3, "valid string"),
        ("model", False, "valid string"),
        ("resume", 1, "valid boolean"),
        ("resume", "true", "valid boolean"),
    ],
)
def test_a_value_of_another_type_is_refused_because_flower_does_not(key: str, value: Any, expected: str) -> None:
    (line,) = complaints({"rounds": 1, key: value})
    assert line.startswith(f"{key} = {value!r}: input should be a {expected}")


def test_a_whole_number_is_fine_for_a_float_as_toml_writes_it() -> None:
    config = read_config(Config, {"rounds": 1, "learning-rate": 1, "radio.bandwidth-hz": 5})
    assert (config.learning_rate, config.radio.bandwidth_hz) == (1.0, 5.0)
    assert isinstance(config.learning_rate, float)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("edge-rounds", 0, "greater than 0"),
        ("learning-rate", 10, "less than 10"),
        ("radio.bandwidth-hz", -1.0, "greater than 0"),
        ("backup.bandwidth-hz", 0.0, "greater than 0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_range(key: str, value: float, words: str) -> None:
    (line,) = complaints({"rounds": 1, key: value})
    assert line == f"{key} = {value!r}: input should be {words}"


@pytest.mark.parametrize("key", ["edge_rounds", "radio", "radio.bandwidth_hz", "radio.", ".rounds", "", "rounds.x"])
def test_a_key_is_spelt_as_in_the_run_config_and_in_no_other_way(key: str) -> None:
    (line,) = complaints({"rounds": 1, key: 1})
    assert line.startswith(f"{key}: unknown key; ")


VALID: dict[str, st.SearchStrategy[Any]] = {
    "rounds": st.integers(),
    "edge-rounds": st.integers(min_value=1),
    "learning-rate": st.floats(0, 10, exclude_min=True, exclude_max=True),
    "model": st.text(),
    "resume": st.booleans(),
    "radio.bandwidth-hz": st.floats(min_value=0, exclude_min=True),
    "backup.snr-db": st.floats(allow_nan=False) | st.integers(-5, 5),
}
#: Wrong in type for every field, or out of range.
INVALID: dict[str, st.SearchStrategy[Any]] = {
    "rounds": st.text() | st.floats() | st.booleans(),
    "edge-rounds": st.integers(max_value=0) | st.text(),
    "learning-rate": st.floats(max_value=0) | st.booleans() | st.text(),
    "model": st.integers() | st.booleans(),
    "resume": st.integers() | st.text(),
    "radio.bandwidth-hz": st.floats(max_value=0) | st.text(),
    "backup.snr-db": st.text() | st.booleans(),
}


@given(
    good=st.fixed_dictionaries(
        {"rounds": VALID["rounds"]}, optional={key: values for key, values in VALID.items() if key != "rounds"}
    ),
    unknown=st.dictionaries(st.text().filter(lambda key: key not in KEYS), st.integers(), max_size=3),
    data=st.data(),
)
def test_any_flat_config_parses_or_names_every_offending_key(
    good: dict[str, Any], unknown: dict[str, Any], data: st.DataObject
) -> None:
    bad = data.draw(st.fixed_dictionaries({}, optional=INVALID))
    flat = {**good, **unknown, **bad}
    if not unknown and not bad:
        config = read_config(Config, flat)
        assert config.rounds == good["rounds"]
        return
    with pytest.raises(ConfigError) as caught:
        read_config(Config, flat)
    message = str(caught.value)
    for key in unknown:
        assert f"  {key}: unknown key; " in message
    for key in bad:
        assert f"  {key} = {bad[key]!r}: " in message
    for key in set(good) - set(bad):
        assert f"  {key} = " not in message or any(key in other for other in unknown)
