"""Log lines as JSON: one a line whatever is logged, with run, round and node on each, Flower's own among them."""

from __future__ import annotations

import io
import json
import logging
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flower_edge.errors import ConfigError
from flower_edge.telemetry import JsonLines, log_about, log_context, log_to_json
from flower_edge.telemetry.json_lines import _process, wanted_by_environment


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What our loggers write, and the loggers as they were afterwards."""
    loggers = [logging.getLogger(name) for name in ("flwr", "flower_edge")]
    before = [(one, list(one.handlers), one.propagate, one.level) for one in loggers]
    stream = io.StringIO()
    for one in loggers:
        one.setLevel(logging.INFO)
    log_to_json(stream)
    yield stream
    for one, handlers, propagate, level in before:
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)
    _process.clear()


def read(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_has_run_round_and_node_also_where_none_is_known(lines: io.StringIO) -> None:
    log = logging.getLogger("flower_edge.test")
    log.info("before")
    with log_context(run="demo", node=3):
        log_about(round=1)
        log.info("in %s", "round 1")
        with log_context(round=2, cell="edge-0"):
            log.info("inside")
        log.info("outside")
    log.info("after")
    about = [(line["run"], line["round"], line["node"], line["message"]) for line in read(lines)]
    assert about == [
        (None, None, None, "before"),
        ("demo", 1, 3, "in round 1"),
        ("demo", 2, 3, "inside"),
        ("demo", 1, 3, "outside"),
        (None, None, None, "after"),
    ]
    assert read(lines)[2]["cell"] == "edge-0"


def test_flowers_own_lines_are_among_them_once_and_nobody_else_writes_them(
    lines: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    from flwr.supercore.logger import log

    late = logging.StreamHandler()  # as Flower adds its own, where it is imported later
    logging.getLogger("flwr").addHandler(late)
    log(logging.INFO, "[ROUND %s/%s]", 1, 3)
    log(logging.DEBUG, "too much")
    assert [line["message"] for line in read(lines)] == ["[ROUND 1/3]"]
    assert late not in logging.getLogger("flwr").handlers
    assert capsys.readouterr() == ("", "")


def test_what_a_thread_does_is_of_the_process_at_least(lines: io.StringIO) -> None:
    log_to_json(node="agent-3")
    with log_context(run="demo"):
        thread = threading.Thread(target=logging.getLogger("flower_edge").info, args=("from a thread",))
        thread.start()
        thread.join()
    (line,) = read(lines)
    assert (line["node"], line["run"]) == ("agent-3", None)


def test_an_exception_is_a_field_and_the_line_stays_one(lines: io.StringIO) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("flower_edge").exception("it broke")
    (line,) = read(lines)
    assert line["message"] == "it broke"
    assert line["exception"].endswith("ValueError: two\nlines")


def test_times_are_utc_and_elapsed_seconds_never_go_back(lines: io.StringIO) -> None:
    for at in range(5):
        logging.getLogger("flower_edge").info("%s", at)
    found = read(lines)
    assert all(line["time"].endswith("Z") and "T" in line["time"] for line in found)
    elapsed = [line["elapsed_s"] for line in found]
    assert elapsed == sorted(elapsed)


@pytest.mark.parametrize(
    ("message", "values"),
    [("%d of %s", ("x", 1)), ("%s", (1, 2)), ("%s", (Broken(),)), (Broken(), ()), (None, ()), ({"a": 1}, ())],
)
def test_a_line_that_cannot_be_put_together_is_a_line_all_the_same(message: Any, values: tuple[Any, ...]) -> None:
    record = logging.makeLogRecord({"msg": message, "args": values, "levelname": "INFO", "name": "flower_edge"})
    line = JsonLines().format(record)
    assert "\n" not in line
    assert json.loads(line)["message"]


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.builds(Broken),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.tuples(inner),
    max_leaves=20,
)


@given(ODD, st.text(), ODD)
def test_no_object_makes_a_line_fail(value: Any, text: str, about: Any) -> None:
    record = logging.makeLogRecord({"msg": text, "odd": value, "name": text, "levelname": "INFO"})
    with log_context(run=about, message="not this one"):
        line = JsonLines().format(record)
    told = json.loads(line, parse_constant=lambda name: pytest.fail(name))
    assert "\n" not in line
    assert told["message"] == text


def test_a_tree_that_contains_itself_has_an_end() -> None:
    endless: list[Any] = [math.inf]
    endless.append(endless)
    assert json.loads(JsonLines().format(logging.makeLogRecord({"msg": "x", "odd": endless})))["odd"][0] == "inf"


def test_the_environment_asks_for_it_and_a_slip_is_said() -> None:
    assert wanted_by_environment({"FLOWER_EDGE_LOG": "json"})
    assert not wanted_by_environment({"FLOWER_EDGE_LOG": "text"})
    with pytest.raises(ConfigError, match="'jsno'; expected json, text or nothing"):
        wanted_by_environment({"FLOWER_EDGE_LOG": "jsno"})


def test_without_being_asked_lines_stay_as_they_are() -> None:
    script = (
        "import logging, flower_edge.telemetry\n"
        "print([logging.getLogger(name).handlers for name in ('flwr', 'flower_edge')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[[], []]\n"
