"""The dashboard for Grafana asks for nothing that is not told, and everything that is told can be read."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from flower_edge.cli.main import app
from flower_edge.enrolment.book import EnrolmentBook
from flower_edge.enrolment.desk import EnrolmentDesk, Sightings
from flower_edge.enrolment.fleet_exporter import FleetExporter
from flower_edge.enrolment.server_folder import ServerFolder
from flower_edge.enrolment.superlink import SuperLink
from flower_edge.events import Event
from flower_edge.monitoring import AgentExporter, Link, RunExporter, links_row
from flower_edge.store import Row, RunFolder
from flower_edge.telemetry import Metrics

DASHBOARD: dict[str, Any] = json.loads(
    (resources.files("flower_edge.monitoring") / "grafana_dashboard.json").read_text()
)
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
#: Of an agent that does not answer only that is told.
OF_AGENTS = ("flower_edge_peer", "flower_edge_agent", "flower_edge_spool")
NAME = re.compile(r"flower_edge_[a-z_]+")


@pytest.fixture
def told(tmp_path: Path) -> Metrics:
    """All that can be told: of a run that has everything, and of an agent."""
    with RunFolder.create("demo", config={}, seed=1, path=tmp_path / "demo") as run:
        run.record("nodes", 1, {"nodes_sampled": 4, "nodes_replied": 3, "nodes_failed": 1})
        run.record("train", 1, {"num-examples": 30, "nodes_sampled": 2, "nodes_replied": 1, "loss": 0.5}, cell="edge-0")
        run.record("traffic", 1, {"up_bits": 80, "down_bits": 160}, cell="edge-0", virtual_s=2.0)
        run.record("evaluate", 1, {"accuracy": 0.5, "loss": 1.0}, cell="edge-0")
        refused = Event("refused", "refused (norm): far", "7", "edge-0", 1, values={"code": "norm"})
        entered = Event("entered", "7 entered", "7", "edge-0")
        paid = Event("rewarded", "paid", "3", values={"micro": 5})
        run.record_rows(
            Row("event", 1, one.row(), one.cell, one.node, one.edge_round) for one in (refused, entered, paid)
        )
        run.record_rows([links_row(1, [Link("0", "1", 1e6, 0.5)])])
    metrics = Metrics()
    RunExporter(tmp_path / "demo", metrics)
    AgentExporter(tmp_path / "no.sock", metrics)
    folder = ServerFolder.at(tmp_path / "server")
    authority, peers = folder.authority(), folder.peers()
    book, superlink = EnrolmentBook(folder.book), SuperLink(folder, 9)
    desk = EnrolmentDesk(
        book, superlink, authority_pem=authority.certificate_pem, peers=peers, sightings=Sightings()
    )  # fmt: skip
    desk.refusals["bad-token"] += 1
    FleetExporter(book, desk, superlink, lambda: {"taken": 1}, metrics)
    return metrics


def test_every_metric_it_asks_for_is_one_that_is_told(told: Metrics) -> None:
    declared = set()
    for line in told.text().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            declared |= {name} if kind != "histogram" else {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    declared.add("flower_edge_folded_observations_total")
    asked = {name for panel in PANELS for target in panel["targets"] for name in NAME.findall(target["expr"])}
    asked |= set(NAME.findall(DASHBOARD["templating"]["list"][1]["query"]["query"]))
    assert asked
    assert asked <= declared, asked - declared


def test_labels_it_sums_by_are_labels_of_these_metrics(told: Metrics) -> None:
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(told.text()):
        for sample in family.samples:
            labels.setdefault(sample.name, {"instance"}).update(sample.labels)
    known = {"flower_edge_folded_observations_total": {"metric"}}
    for panel in PANELS:
        for target in panel["targets"]:
            (name,) = set(NAME.findall(target["expr"]))
            if not name.startswith((*OF_AGENTS, "flower_edge_folded")):
                assert name in labels, name  # the run that has everything has it
            wanted = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            wanted |= {
                one.strip() for found in re.findall(r"by \(([^)]*)\)", target["expr"]) for one in found.split(",")
            }
            if name in labels and not name.startswith(OF_AGENTS):
                assert wanted <= labels[name] | known.get(name, set()), (panel["title"], wanted)


def test_it_is_one_that_grafana_imports() -> None:
    assert {"title", "uid", "panels", "templating", "schemaVersion", "time"} <= DASHBOARD.keys()
    assert DASHBOARD["id"] is None
    assert DASHBOARD["templating"]["list"][0]["type"] == "datasource"
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    places = set()
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        at = panel["gridPos"]
        assert 0 <= at["x"] < at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not places & cells, panel["title"]
        places |= cells
    titles = " ".join(panel["title"].lower() for panel in DASHBOARD["panels"])
    for topic in ("round", "accuracy", "bytes", "refus", "credits", "links", "peer", "devices"):
        assert topic in titles


def test_names_and_help_are_as_promtool_would_have_them(told: Metrics) -> None:
    for family in text_string_to_metric_families(told.text()):
        assert family.documentation.endswith("."), family.name
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        else:
            assert not family.name.endswith(("_total", "_count", "_sum", "_bucket")), family.name
        assert not re.search(r"_(milli|micro|kilo|mega|minutes|hours|bits)(_|$)", family.name), family.name


def test_an_agent_that_does_not_answer_is_told_and_no_count_of_it(tmp_path: Path) -> None:
    text = AgentExporter(tmp_path / "no.sock").metrics.text()
    assert [line for line in text.splitlines() if not line.startswith("#")] == ["flower_edge_agent_up 0.0"]


@pytest.mark.slow
def test_the_verb_serves_until_ctrl_c_and_ends_cleanly(tmp_path: Path, told: Metrics) -> None:
    code = (  # who runs these tests in the background has it ignored, and children inherit that
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"sys.argv = ['flower-edge', 'metrics', {str(tmp_path / 'demo')!r}, '--port', '0']\n"
        "from flower_edge.cli.main import main\nmain()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("metrics: ").strip()
        assert 'flower_edge_accuracy{run="demo"} 0.5' in urlopen(url, timeout=60).read().decode()
        process.send_signal(signal.SIGINT)
        out, wrong = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, out, wrong) == (0, "metrics: ended\n", "")


def test_the_verb_prints_the_dashboard_and_numbers_once(tmp_path: Path, told: Metrics) -> None:
    runner = CliRunner()
    assert json.loads(runner.invoke(app, ["metrics", "--grafana"]).stdout) == DASHBOARD
    printed = runner.invoke(app, ["metrics", str(tmp_path / "demo"), "--once"]).stdout
    assert 'flower_edge_accuracy{run="demo"} 0.5' in printed
    document = json.loads(runner.invoke(app, ["metrics", "--root", str(tmp_path), "--json"]).stdout)
    assert {"name": "flower_edge_accuracy", "labels": {"run": "demo"}, "value": 0.5} in document["metrics"]
    missing = runner.invoke(app, ["metrics", "--root", str(tmp_path / "nowhere"), "--once"])
    assert "no folder" in str(missing.exception)
