"""A run is followed from outside: while it is written, with damaged lines, when it is gone; and told as metrics."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from flower_edge.errors import ConfigError
from flower_edge.events import Event
from flower_edge.monitoring import Link, RunExporter, RunFollower, RunState, links_row, serve_metrics
from flower_edge.monitoring.rounds import round_lines
from flower_edge.store import Row, RunFolder


def event(round: int, what: str, node: str = "", cell: str = "", edge_round: int = 0, **values: object) -> Row:
    told = Event(what, f"{node} {what}", node, cell, edge_round, values=values)  # type: ignore[arg-type]
    return Row("event", round, told.row(), cell, node, edge_round)


def a_run(folder: Path, rounds: int = 3) -> RunFolder:
    """A run that goes on, with a bit of everything."""
    run = RunFolder.create("demo", config={"rounds": rounds}, seed=1, path=folder)
    for at in range(1, rounds + 1):
        run.record("nodes", at, {"nodes_sampled": 4, "nodes_replied": 3, "nodes_failed": 1}, wall_s=2.0 * at)
        run.record("train", at, {"num-examples": 30, "nodes_sampled": 2, "nodes_replied": 1}, cell="edge-0")
        run.record("traffic", at, {"up_bits": 80, "down_bits": 160}, cell="edge-0", wall_s=2.0 * at)
        run.record("traffic", at, {"up_bits": 800, "down_bits": 1600}, wall_s=2.0 * at)
        run.record("central", at, {"accuracy": at / 10, "loss": 1 / at}, wall_s=2.0 * at)
        told = Event("refused", "a reply of 7: refused (norm): too far", "7", "edge-0", 1, values={"code": "norm"})
        run.record_rows(
            [
                Row("event", at, told.row(), "edge-0", "7", 1),
                event(at, "rewarded", "3", micro=1_500_000),
                event(at, "entered", "7", "edge-0"),
                links_row(at, [Link("0", "1", 1e6 * at, 0.5), Link("1", "0", None, None, 0.25)]),
            ]
        )
    return run


def told(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name.removeprefix("flower_edge_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_rows_are_seen_as_they_come_and_amount_to_what_the_report_says(tmp_path: Path) -> None:
    follower = RunFollower(tmp_path / "run")
    assert follower.look().lines == []
    assert follower.status == "missing"
    run = a_run(tmp_path / "run", rounds=2)
    state = follower.look()
    assert (follower.status, follower.name, follower.config) == ("running", "demo", {"rounds": 2})
    assert [line.accuracy for line in state.lines] == [0.1, 0.2]
    assert state.lines == round_lines(run.rows())
    version = state.version
    assert follower.look().version == version
    run.record("central", 3, {"accuracy": 0.9})
    assert [line.accuracy for line in follower.look().lines] == [0.1, 0.2, 0.9]
    cell = state.cells["edge-0"]
    assert (cell.up_bits, cell.down_bits, cell.rounds, cell.sampled) == (160, 320, {1, 2}, 2)
    assert (state.refused["7", "edge-0", "norm"].times, state.refused["7", "edge-0", "norm"].why) == (2, "too far")
    assert (state.paid["3", ""].micro, state.attached) == (3_000_000, {"7": "edge-0"})
    assert [(link.sender, link.bandwidth_bps, link.weight) for link in state.links_now()] == [
        ("0", 2e6, None),
        ("1", None, 0.25),
    ]
    run.finish({})
    run.close()
    follower.look()
    assert follower.status == "finished"


def test_half_a_line_waits_for_its_end_and_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", rounds=1)
    run.close()
    lines = run.path / "metrics.jsonl"
    whole = lines.read_bytes()
    more = whole.replace(b'"round": 1', b'"round": 2')
    follower = RunFollower(run.path)
    follower.look()
    lines.write_bytes(whole + more[:-40])
    assert follower.look().round == 2
    lines.write_bytes(whole + more + b'{"kind": "central"\nnot json at all\n\xff\xfe\n' + more.replace(b"2", b"3"))
    state = follower.look()
    assert (state.round, follower.damaged_lines) == (3, 3)
    assert sum(one.times for one in state.refused.values()) == 3


def test_a_run_that_is_written_anew_is_read_anew_and_one_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", rounds=3)
    run.close()
    follower = RunFollower(run.path)
    assert follower.look().round == 3
    shutil.rmtree(run.path)
    assert follower.look().round == 3  # what was seen stays
    assert follower.status == "missing"
    a_run(tmp_path / "run", rounds=1).close()
    assert follower.look().round == 1
    assert follower.status == "running"


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["central", "traffic", "nodes", "evaluate", "train"]),
                          st.sampled_from(["", "a", "b"]), st.floats(-10, 10)), max_size=30))  # fmt: skip
def test_bit_by_bit_or_at_once_the_lines_are_those_of_the_report(told: list[tuple[int, str, str, float]]) -> None:
    rows = [
        Row(kind, at, {"accuracy": value, "up_bits": value, "nodes_sampled": value}, cell)
        for at, kind, cell, value in told
    ]
    state = RunState()
    for row in rows:
        state.add([row])
        assert state.lines is state.lines
    assert state.lines == round_lines(rows)
    for cell in state.cells.values():
        newest = {(row.round, row.edge_round): row for row in rows if row.kind == "traffic" and row.cell == cell.cell}
        assert cell.up_bits == pytest.approx(sum(row.number("up_bits") or 0 for row in newest.values()))


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=8), st.text(max_size=30))
def test_a_table_of_links_that_is_none_tells_of_none(value: object, text: str) -> None:
    state = RunState()
    state.add([Row("links", 1, {"table": text}), Row("links", 2, {"table": json.dumps([value])}, cell="x")])
    assert all(isinstance(link, Link) for link in state.links_now())
    state.add([Row("link", 1, {"sender": text, "receiver": 3, "delay_s": "slow"})])
    assert state.links_now()[-1].delay_s is None


def test_links_that_are_given_up_are_gone_and_those_of_other_cells_stay() -> None:
    state = RunState()
    state.add([links_row(1, [Link("0", "1"), Link("1", "2")]), links_row(1, [Link("7", "8")], "edge-1")])
    assert len(state.links_now()) == 3
    state.add([links_row(2, [Link("0", "1", 5.0)])])
    assert [(one.sender, one.round) for one in state.links_now()] == [("7", 1), ("0", 2)]


def test_many_nodes_reasons_and_words_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    # NiceGUI's own tests import modules anew: by its name this one might be another than the one that is tested.
    monkeypatch.setitem(RunState.add.__globals__, "MOST_NODES", 5)
    monkeypatch.setitem(RunState.add.__globals__, "MOST_KINDS", 3)
    state = RunState()
    for at in range(20):
        state.add(
            [event(1, "refused", str(at), code=f"c{at}"), event(1, f"word-{at}"), event(1, "entered", str(at), "e")]
        )
        state.add([Row("link", 1, {"sender": str(at), "receiver": "0"}), Row("train", 1, {"loss": 1.0}, f"cell-{at}")])
    assert (len(state.refused), len(state.attached), len(state.cells), len(state.links_now())) == (5, 5, 5, 5)
    assert sum(state.refused_by_code.values()) == 20
    assert sum(state.event_counts.values()) == 60
    assert len(state.event_counts) == len(state.refused_by_code) == 4


# --- metrics ---


def test_a_run_is_told_to_prometheus_as_its_folder_has_it(tmp_path: Path) -> None:
    run = a_run(tmp_path / "demo")
    exporter = RunExporter(run.path)
    found = told(exporter.metrics.text())

    def of(name: str, **labels: str) -> float:
        return found[name, tuple(sorted({"run": "demo", **labels}.items()))]

    assert of("rounds_total") == of("round") == 3
    assert of("payload_bytes_total", direction="up") == 300
    assert of("cell_payload_bytes_total", cell="edge-0", direction="down") == 60
    assert of("participants_total", outcome="failed") == 3
    assert of("round_participants", outcome="replied") == 3
    assert of("refusals_total", code="norm") == 3
    assert of("reward_credits_total") == 4.5
    assert of("accuracy") == 0.3
    assert (of("run_status", status="running"), of("run_status", status="finished")) == (1, 0)
    assert (of("round_duration_seconds_count"), of("round_duration_seconds_sum")) == (3, 6)
    assert of("link_bandwidth_bps", cell="", sender="0", receiver="1") == 3e6
    assert ("link_bandwidth_bps", (("cell", ""), ("receiver", "0"), ("run", "demo"), ("sender", "1"))) not in found
    assert of("cell_terminals", cell="edge-0") == 1

    run.record("central", 4, {"accuracy": 0.8})
    run.finish({})
    run.close()
    found = told(exporter.metrics.text())
    assert (of("accuracy"), of("rounds_total"), of("run_status", status="finished")) == (0.8, 4, 1)
    assert told(exporter.metrics.text()) == found
    shutil.rmtree(run.path)
    found = told(exporter.metrics.text())
    assert (of("run_status", status="missing"), of("rounds_total")) == (1, 4)


def test_of_a_folder_of_runs_the_newest_are_told_and_one_without_rows_is_no_trouble(tmp_path: Path) -> None:
    for number in range(4):
        a_run(tmp_path / f"2026010{number}-000000-demo", rounds=1).close()
    (tmp_path / "20260109-000000-broken").mkdir()
    (tmp_path / "20260109-000000-broken" / "run.json").write_text('{"half')
    exporter = RunExporter(tmp_path, most_runs=3)
    runs = {dict(labels)["run"][:8] for name, labels in told(exporter.metrics.text()) if name == "round"}
    assert runs == {"20260102", "20260103", "20260109"}
    shutil.rmtree(tmp_path / "20260103-000000-demo")
    runs = {dict(labels)["run"][:8] for name, labels in told(exporter.metrics.text()) if name == "round"}
    assert runs == {"20260101", "20260102", "20260109"}


def test_links_that_are_told_are_the_slowest_and_no_more_than_asked_for(tmp_path: Path) -> None:
    with RunFolder.create("demo", config={}, seed=1, path=tmp_path / "demo") as run:
        run.record_rows([links_row(1, [Link(str(n), "0", 1e3 * n, 0.1) for n in range(1, 40)])])
        found = told(RunExporter(run.path, most_links=5).metrics.text())
    senders = {dict(labels)["sender"] for name, labels in found if name == "link_bandwidth_bps"}
    assert senders == {"1", "2", "3", "4", "5"}
    assert found["links", (("run", "demo"),)] == 39


def test_one_line_in_an_app_serves_its_run(tmp_path: Path) -> None:
    from urllib.request import urlopen

    with (
        RunFolder.create("demo", config={}, seed=1, path=tmp_path / "demo") as run,
        serve_metrics(run.path, port=0) as server,
    ):
        run.record("central", 1, {"accuracy": 0.75})
        assert 'flower_edge_accuracy{run="demo"} 0.75' in urlopen(server.url, timeout=60).read().decode()


# --- a request to stop ---


def test_a_run_can_be_asked_to_stop_once_it_runs_and_a_reason_is_kept(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    assert run.stop_asked() is None
    RunFolder.open(run.path).ask_to_stop("the fair is over")
    assert run.stop_asked() == "the fair is over"
    (run.path / "stop.json").write_text("please")
    assert run.stop_asked() == "stop.json"
    run.finish({})
    run.close()
    with pytest.raises(ConfigError, match="is finished; only a run that goes on"):
        RunFolder.open(run.path).ask_to_stop("again")
