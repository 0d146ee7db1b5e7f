"""The report page stands alone, shows the numbers, and can be read without seeing it."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flower_edge.cli.charts import charts_of, to_svg
from flower_edge.cli.report import write_report
from flower_edge.errors import ConfigError
from flower_edge.monitoring.rounds import RoundLine
from flower_edge.store import RunFolder

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """The elements of a page: its tables as rows of texts, and every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.text = ""
        self._caption = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "caption":
            self._caption = ""
        if tag == "tr":
            self.tables.setdefault(self._caption, []).append([])
        if tag in ("td", "th"):
            self.tables[self._caption][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "caption":
            self._caption += data
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[self._caption][-1][-1] += data


def make(tmp_path: Path, rounds: int = 3) -> RunFolder:
    config = {"lr": 0.05, "data": {"name": "digits"}, "odd": "<script>alert(1)</script>"}
    with RunFolder.create("demo & <co>", config=config, seed=7, root=tmp_path) as run:
        for at in range(1, rounds + 1):
            run.record("evaluate", at, {"accuracy": at / 8, "num-examples": 5}, cell="edge-0")
            run.record("central", at, {"accuracy": at / 10, "loss": 1 / at}, wall_s=2.0 * at, virtual_s=60.0 * at)
            run.record("traffic", at, {"up_bits": 8_000_000 * at, "down_bits": 8_000})
            run.record("nodes", at, {"nodes_sampled": 12, "nodes_replied": 12 - at % 2, "nodes_failed": at % 2})
        run.event(2, "cell <edge-0> skipped: no reply")
        run.finish({"accuracy": 0.3})
    return RunFolder.open(run.path)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page, list[Path]]:
    written = write_report(make(tmp_path_factory.mktemp("runs")))
    text = written[0].read_text("utf-8")
    return text, Page(text), written


def test_the_page_asks_no_server_and_no_other_file_for_anything(page: tuple[str, Page, list[Path]]) -> None:
    text, parsed, _ = page
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "script" not in {tag for tag, _ in parsed.tags}
    for tag, attributes in parsed.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            link = attributes.get(name)
            assert link is None or link.startswith("#") or (tag, link) == ("link", "data:,"), (tag, name, link)
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_every_reference_inside_the_page_finds_its_one_target(page: tuple[str, Page, list[Path]]) -> None:
    text, parsed, _ = page
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = set(re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', text))
    assert {first or second for first, second in wanted} <= set(ids)
    assert wanted
    assert {attributes.get("aria-labelledby", "accuracy-by-round") for _, attributes in parsed.tags} <= set(ids)


def test_tables_beside_the_pictures_hold_the_numbers(page: tuple[str, Page, list[Path]]) -> None:
    tables = page[1].tables
    assert tables["Accuracy by round, in numbers"] == [
        ["round", "accuracy", "loss"],
        ["1", "0.1000", "1.0000"],
        ["2", "0.2000", "0.5000"],
        ["3", "0.3000", "0.3333"],
    ]
    assert tables["Accuracy by time, in numbers"][-1] == ["3", "6.0 s", "0.3000"]
    assert tables["Accuracy by virtual time, in numbers"][-1] == ["3", "3 min 00 s", "0.3000"]
    assert tables["Bytes by direction, in numbers"][2] == ["2", "2.0 MB", "1.0 kB"]
    assert tables["Nodes by round, in numbers"][1] == ["1", "12", "11", "1"]
    assert tables["Each cell over the whole run"][1][:3] == ["edge-0", "3", "0.3750"]
    assert tables["What was worth a sentence"][1][2] == "cell <edge-0> skipped: no reply"
    assert ["data.name", "digits"] in tables["Config of this run"]
    assert ["accuracy", "0.3"] in tables["Summary of this run"]
    assert "flwr" in [line[0] for line in tables["Versions it ran with"]]
    assert ["seed", "7"] in tables["When and where it ran"]


def test_what_a_run_says_is_shown_as_text_never_as_markup(page: tuple[str, Page, list[Path]]) -> None:
    text, parsed, _ = page
    assert "<script>alert" not in text
    assert ["odd", "<script>alert(1)</script>"] in parsed.tables["Config of this run"]
    assert "demo & <co>" in parsed.text


def test_every_picture_has_a_text_alternative_and_the_page_a_language(page: tuple[str, Page, list[Path]]) -> None:
    tags = page[1].tags
    assert ("html", {"lang": "en"}) in tags
    pictures = [attributes for tag, attributes in tags if tag in ("svg", "img")]
    assert len(pictures) == 5
    for attributes in pictures:
        assert attributes.get("role") == "img"
        assert re.match(r"(Accuracy|Bytes|Nodes) .*\. .*\d", attributes.get("aria-label") or "")
    assert [tag for tag, _ in tags].count("h1") == 1
    regions = [attributes for _, attributes in tags if attributes.get("role") == "region"]
    assert all(attributes.get("aria-label") and attributes.get("tabindex") == "0" for attributes in regions)


def test_pictures_take_their_colours_from_the_page(page: tuple[str, Page, list[Path]]) -> None:
    text = page[0]
    svgs = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert not any(re.search(r"#[0-9a-f]{6}", svg) for svg in svgs)
    for name in ("ink", "faint", "first", "second"):
        assert any(f"var(--{name})" in svg for svg in svgs)
        assert text.count(f"--{name}:") == 3  # light, dark, print
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_every_picture_is_a_png_too(page: tuple[str, Page, list[Path]]) -> None:
    _, *pictures = page[2]
    assert [path.name for path in pictures] == [
        "accuracy-by-round.png",
        "accuracy-by-wall-time.png",
        "accuracy-by-virtual-time.png",
        "bytes-by-round.png",
        "nodes-by-round.png",
    ]
    for path in pictures:
        head = path.read_bytes()[:24]
        assert head[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", head[16:24]) == (1280, 640)


def test_the_same_numbers_give_the_same_picture() -> None:
    lines = [RoundLine(at, accuracy=at / 10, up_bits=8.0 * at) for at in range(1, 4)]
    assert [to_svg(chart) for chart in charts_of(lines)] == [to_svg(chart) for chart in charts_of(lines)]


def test_what_was_not_recorded_is_not_drawn() -> None:
    names = [chart.name for chart in charts_of([RoundLine(1, accuracy=0.5, wall_s=3.0)])]
    assert names == ["accuracy-by-round"]  # one moment is no curve over time
    assert charts_of([RoundLine(1, loss=3.0, accuracy=float("nan"))]) == []


def test_long_runs_are_drawn_as_lines_and_say_the_best_round() -> None:
    lines = [
        RoundLine(at, accuracy=0.9 if at == 70 else 0.5, up_bits=8.0, nodes_sampled=9.0, nodes_failed=1.0)
        for at in range(100)
    ]
    charts = charts_of(lines)
    assert [chart.says for chart in charts] == [
        "From 0.5 to 0.5 over 100 evaluations; best 0.9 at round 70.",
        "In all 100 B up and 0 B down in 100 rounds.",
        "8 replies a round, 800 in all; 100 failed.",
    ]
    assert all(to_svg(chart).count("<path") < 100 for chart in charts)


def test_the_drift_of_the_edges_is_drawn_where_there_is_more_than_one(tmp_path: Path) -> None:
    with RunFolder.create("drift", config={}, seed=7, root=tmp_path) as run:
        for at, (mean, most, kappa2) in enumerate([(0.5, 0.75, 8.0), (0.8, 1.25, 8.0), (0.3, 0.5, 4.0)], start=1):
            run.record("nodes", at, {"divergence": mean, "divergence_max": most, "edge_rounds": kappa2})
            run.record("nodes", at, {"divergence": 9.0, "edge_rounds_done": 1.0}, cell="edge-0")
    text = write_report(RunFolder.open(run.path))[0].read_text("utf-8")
    tables = Page(text).tables
    assert tables["Divergence of the edges by round, in numbers"] == [
        ["round", "mean", "farthest edge", "edge rounds"],
        ["1", "0.5000", "0.7500", "8"],
        ["2", "0.8000", "1.2500", "8"],
        ["3", "0.3000", "0.5000", "4"],
    ]
    assert (run.path / "artifacts" / "divergence-by-round.png").exists()
    svg = re.findall(r"<svg.*?</svg>", text, re.DOTALL)[-1]
    assert "κ2 = 4" in svg
    assert "κ2 = 8" not in svg  # nothing changed there
    assert "On average 0.5 in round 1 and 0.3 in the last; the farthest edge 1.25 in round 2." in svg
    assert "4 edge rounds from round 3 on." in svg
    assert write_report(RunFolder.open(run.path))[0].read_text("utf-8").count("<img") == 0


def test_one_edge_alone_has_no_drift_and_a_long_run_no_marks() -> None:
    assert charts_of([RoundLine(at, divergence=0.0, divergence_max=0.0, edge_rounds=2.0) for at in range(4)]) == []
    assert charts_of([RoundLine(1, divergence=float("nan"))]) == []
    (chart,) = charts_of([RoundLine(at, divergence=0.5, edge_rounds=2.0) for at in range(100)])
    assert chart.says == "On average 0.5 in round 0 and 0.5 in the last."
    assert to_svg(chart).count("<use") < 60


def test_a_run_without_rounds_and_one_that_failed_have_a_page_too(tmp_path: Path) -> None:
    with RunFolder.create("empty", config={}, seed=1, root=tmp_path) as run:
        pass
    (written,) = write_report(RunFolder.open(run.path), tmp_path / "out" / "deep")
    assert written == tmp_path / "out" / "deep" / "report.html"
    assert "No round was recorded" in written.read_text()

    def fail() -> None:
        with RunFolder.create("failed", config={}, seed=1, root=tmp_path):
            raise RuntimeError("no edge <contributed>")

    with pytest.raises(RuntimeError):
        fail()
    (written,) = write_report(RunFolder.open("failed", tmp_path))
    alerts = [tag for tag, attributes in Page(written.read_text()).tags if attributes.get("role") == "alert"]
    assert alerts == ["p"]
    assert "no edge &lt;contributed&gt;" in written.read_text()


def test_a_folder_that_cannot_be_written_is_a_user_s_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="give another folder with --out"):
        write_report(make(tmp_path, rounds=1), tmp_path / "file" / "out")


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_without_its_extra_the_report_says_what_to_install(tmp_path: Path, missing: str) -> None:
    run = make(tmp_path, rounds=1)
    script = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = ['report', {str(run.path)!r}];"
        "from flower_edge.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'flower-edge[report]'" in done.stderr
    assert "Traceback" not in done.stderr
