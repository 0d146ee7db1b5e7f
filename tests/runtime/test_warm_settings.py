"""What can be chosen of a warm node, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.runtime.warm import WarmSettings

polls = st.floats(0.01, 3.0)


@given(polls, polls, st.integers(0, 10**6), st.integers(1, 9), st.floats(0, 1e5))
def test_settings_reach_the_process_they_are_for(poll: float, quiet: float, after: int, keep: int, mb: float) -> None:
    settings = WarmSettings(poll_s=poll, quiet_poll_s=quiet, recycle_after=after, keep=keep, memory_mb=mb)
    assert WarmSettings.from_json(settings.to_json()) == settings


@given(polls, polls, st.floats(0, 1e6))
def test_a_quiet_node_never_looks_more_often_than_a_busy_one(poll: float, quiet: float, since: float) -> None:
    settings = WarmSettings(poll_s=poll, quiet_poll_s=quiet)
    assert settings.poll(0.0) == poll <= settings.poll(since)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"poll_s": 0.0}, r"poll_s = 0: expected 0.01 to 3 s"),
        ({"poll_s": 5.0}, r"poll_s = 5: expected 0.01 to 3 s"),
        ({"quiet_poll_s": float("nan")}, "quiet_poll_s = nan: expected a number"),
        ({"memory_mb": -1.0}, "memory_mb = -1.0: expected a number, 0 or more"),
        ({"memory_mb": "much"}, "memory_mb = 'much': expected a number"),
        ({"recycle_after": 1.5}, "recycle_after = 1.5: expected a whole number, 0 or more"),
        ({"keep": 0}, "keep = 0: expected a whole number, 1 or more"),
        ({"keep": True}, "keep = True: expected a whole number"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_what_can(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        WarmSettings(**values)


@pytest.mark.parametrize("text", ["", "[]", "3", '{"pol_s": 1}', '{"poll_s": 9}'])
def test_what_is_not_settings_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        WarmSettings.from_json(text)


def test_without_limits_nothing_wears() -> None:
    assert WarmSettings().worn(messages=10**9, rss_bytes=10**12) == ""


def test_memory_above_the_limit_wears_and_at_the_limit_does_not() -> None:
    settings = WarmSettings(memory_mb=100.0)
    assert settings.worn(1, 100_000_000) == ""
    assert settings.worn(1, 101_000_000) == "it holds 101 MB, more than 100 MB"
