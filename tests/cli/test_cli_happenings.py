"""What happened in a run, on its page: a timeline, counts, a bounded list; and the pictures the run left."""

from __future__ import annotations

import base64
import re
import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from flower_edge.cli.charts import save_png, timeline_chart, to_svg
from flower_edge.cli.pictures import pictures_in
from flower_edge.cli.report import write_report
from flower_edge.events import Event
from flower_edge.monitoring.happenings import Happening, by_round, happenings, shown, timeline
from flower_edge.store import RunFolder

PNG = b"\x89PNG\r\n\x1a\n"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9"/></svg>'
WHATS = ("entered", "left", "handed-over", "replaced")


def tell(run: RunFolder, at: int, event: Event) -> None:
    """As the round loop records an event."""
    run.record(
        "event",
        at,
        event.row(),
        cell=event.cell,
        node=event.node,
        edge_round=event.edge_round,
        virtual_s=event.time_s,
    )


def moving(tmp_path: Path, each_round: int) -> RunFolder:
    with RunFolder.create("moving", config={}, seed=1, root=tmp_path) as run:
        for at in range(1, 6):
            for k in range(each_round):
                what = WHATS[k % len(WHATS)]
                text = f"terminal {k} <b>{what}</b>"
                tell(run, at, Event(what, text, node=str(k), cell="edge-1", edge_round=2, time_s=60.0 * at + k / 1000))
            run.record("central", at, {"accuracy": at / 10}, virtual_s=60.0 * at)
        run.event(3, "cell edge-3 skipped: nobody is in range")
        tell(run, 5, Event("stopped", "stopped: reached 0.5", time_s=300.0))
    return RunFolder.open(run.path)


def table(page: str, caption: str) -> list[list[str]]:
    found = re.search(rf"<caption>{re.escape(caption)}</caption>(.*?)</table>", page, re.DOTALL)
    assert found, caption
    rows = re.findall(r"<tr>(.*?)</tr>", found[1], re.DOTALL)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]


def test_an_event_on_the_page_has_its_time_terminal_cell_and_words(tmp_path: Path) -> None:
    page = write_report(moving(tmp_path, each_round=2))[0].read_text("utf-8")
    head, first, *_ = table(page, "What was worth a sentence")
    assert head == ["round", "virtual time", "after", "what", "terminal", "cell", "edge round", "in words"]
    assert first[:2] == ["1", "1 min 00 s"]
    assert first[3:] == ["entered", "0", "edge-1", "2", "terminal 0 &lt;b&gt;entered&lt;/b&gt;"]
    assert table(page, "Events by time, in numbers")[0] == ["what", "times", "first", "last"]
    assert ["left", "5", "1 min 00 s", "5 min 00 s"] in table(page, "Events by time, in numbers")
    assert "<details>" not in page


def test_a_long_run_is_counted_whole_and_listed_in_part(tmp_path: Path) -> None:
    run = moving(tmp_path, each_round=800)
    page = write_report(run)[0].read_text("utf-8")
    assert len(page) < 400_000
    assert "4,002 events; listed are the first of each kind" in page
    assert "metrics.jsonl" in page
    assert page.count("<details>") == 1
    counts = table(page, "Events by round, counted")
    assert counts[0] == ["round", *WHATS, "stopped"]
    assert counts[1] == ["1", "200", "200", "200", "200", "-"]
    assert counts[-1] == ["5", "200", "200", "200", "200", "1"]
    listed = table(page, "What was worth a sentence")[1:]
    assert 100 < len(listed) <= 300
    assert {line[3] for line in listed} == {*WHATS, "", "stopped"}
    assert sum("nobody is in range" in line[-1] for line in listed) == 1


def test_a_run_without_kinds_of_events_has_no_timeline(tmp_path: Path) -> None:
    with RunFolder.create("plain", config={}, seed=1, root=tmp_path) as run:
        run.record("central", 1, {"accuracy": 0.5})
        run.event(1, "cell edge-0 skipped: no reply")
        run.record("event", 1, {"message": "in words of their own", "steps": 3})
    events = happenings(RunFolder.open(run.path))
    assert [event.text for event in events] == ["cell edge-0 skipped: no reply", "in words of their own; 3"]
    assert timeline(events) is None
    written = write_report(RunFolder.open(run.path))
    assert [path.name for path in written] == ["report.html", "accuracy-by-round.png"]
    assert table(written[0].read_text("utf-8"), "What was worth a sentence")[0] == ["round", "after", "in words"]


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 1e6)), min_size=1, max_size=60),
    st.integers(1, 6),
    st.integers(1, 9),
)
def test_a_timeline_counts_every_event_of_its_lanes_once(told: list[tuple[str, float]], most: int, places: int) -> None:
    found = timeline([Happening(1, what, "", wall_s=at_s) for what, at_s in told], most=most, places=places)
    assert found is not None
    assert sum(lane.total for lane in found.lanes) + sum(count for _, count in found.left_out) == len(told)
    assert len(found.lanes) == min(most, len({what for what, _ in told}))
    for lane in found.lanes:
        assert sum(count for _, count in lane.places) == lane.total == sum(what == lane.what for what, _ in told)
        assert len(lane.places) <= places
        assert all(lane.first_s <= at_s * (1 + 1e-9) and at_s <= lane.last_s * (1 + 1e-9) for at_s, _ in lane.places)


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc")), max_size=80), st.integers(1, 7))
def test_no_event_is_lost_between_the_lines_of_the_counts(told: list[tuple[int, str]], most: int) -> None:
    head, lines = by_round([Happening(at, what, "") for at, what in told], most=most)
    assert len(lines) <= most
    assert sum(int(cell) for line in lines for cell in line[1:] if cell != "-") == len(told)
    assert all(len(line) == len(head) for line in lines)


def test_virtual_time_is_believed_before_the_time_of_recording() -> None:
    found = timeline([Happening(1, "left", "", virtual_s=8.0, wall_s=1.0), Happening(1, "left", "", wall_s=2.0)])
    assert found is not None
    assert found.virtual
    assert found.lanes[0].places == ((8.0, 1),)
    assert timeline([Happening(1, "left", "")]) is None


def test_what_edges_told_one_after_the_other_is_listed_by_virtual_time(tmp_path: Path) -> None:
    with RunFolder.create("edges", config={}, seed=1, root=tmp_path) as run:
        for at, cell, time_s in ((1, "a", 3.0), (1, "a", 9.0), (1, "b", 0.0), (1, "b", 4.0), (2, "a", 8.0)):
            tell(run, at, Event("entered", f"{cell} {time_s}", cell=cell, time_s=time_s))
        run.event(1, "in words")
    told = [event.text for event in happenings(RunFolder.open(run.path))]
    assert told == ["b 0.0", "a 3.0", "b 4.0", "a 9.0", "in words", "a 8.0"]


def test_few_events_are_all_listed_and_of_many_every_kind() -> None:
    few = [Happening(1, "entered", str(k)) for k in range(5)]
    assert shown(few, most=5) == few
    many = [*few * 10, Happening(9, "stopped", "the end")]
    assert [event.text for event in shown(many, most=6)] == ["0", "1", "2", "the end"]


def test_the_picture_of_a_timeline_stays_small_and_grows_with_its_lanes(tmp_path: Path) -> None:
    whats = [f"kind-{k}" for k in range(20)]
    few = timeline([Happening(1, "left", "", wall_s=1.0)])
    many = timeline([Happening(1, whats[k % 20], "", wall_s=k / 7) for k in range(20_000)])
    assert few is not None
    assert many is not None
    chart = timeline_chart(many)
    assert chart.says.startswith("14,000 events of 14 kinds; most often")
    assert "Rarer, without a lane: kind-14 (1,000)" in chart.says
    svg = to_svg(chart)
    assert len(svg) < 200_000
    assert not re.search(r"#[0-9a-f]{6}", svg)
    heights = []
    for name, one in (("few", few), ("many", many)):
        save_png(timeline_chart(one), tmp_path / name)
        width, height = struct.unpack(">II", (tmp_path / name).read_bytes()[16:24])
        assert width == 1280
        heights.append(height)
    assert heights[0] < heights[1]


def test_pictures_of_the_run_are_inside_the_page_and_a_second_report_does_not_take_its_own(tmp_path: Path) -> None:
    run = moving(tmp_path, each_round=2)
    (run.artifacts / "map-of-cells.svg").write_bytes(SVG)
    (run.artifacts / "rounds").mkdir()
    (run.artifacts / "rounds" / "map.png").write_bytes(PNG + b"...")
    written = {path.name for path in write_report(run)}
    assert {"accuracy-by-round.png", "events-by-time.png"} < written <= {path.name for path in run.artifacts.iterdir()}
    page = write_report(run)[0].read_text("utf-8")
    found = re.findall(r'<img src="data:([^;]*);base64,([^"]*)" alt="([^"]*)">', page)
    assert [(kind, alt) for kind, _, alt in found] == [("image/svg+xml", "map of cells"), ("image/png", "map")]
    assert base64.b64decode(found[0][1].replace("&#43;", "+")) == SVG
    assert page.count("<img") == 2
    assert "<figcaption>map: <code>rounds/map.png</code></figcaption>" in page


def test_a_picture_that_is_too_large_or_none_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG + bytes(60))
    (tmp_path / "b.png").write_bytes(PNG + bytes(60))
    (tmp_path / "large.png").write_bytes(PNG + bytes(200))
    (tmp_path / "page.svg").write_bytes(b"<html></html>")
    (tmp_path / "notes.txt").write_bytes(b"no picture")
    found, notes = pictures_in(tmp_path, most_bytes=100, most_bytes_together=120)
    assert [picture.name for picture in found] == ["a.png"]
    assert [note.split()[0] for note in notes] == ["b.png", "large.png", "page.svg"]
    assert "together" in notes[0]
    assert "is not what its name says, image/svg+xml" in notes[2]
    assert pictures_in(tmp_path / "nowhere") == ([], [])
