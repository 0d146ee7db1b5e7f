"""What the dashboard shows of a run, as text: maps, curves, tables; all of it escaped and bounded."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from dashboard_cases import EVIL, a_run
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("nicegui", reason="flower-edge[ui] is not installed")

from flower_edge.monitoring import Link, RunFollower, RunState, links_row
from flower_edge.monitoring.rounds import RoundLine
from flower_edge.store import Row
from flower_edge.ui.dashboard import run_views, tier_map
from flower_edge.ui.dashboard.curves import MOST_POINTS, curves_of, options, rounds_table, thin
from flower_edge.ui.dashboard.list_page import listed
from flower_edge.ui.dashboard.watched import Entry


class Text(HTMLParser):
    """Words of a page, and the elements it has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("line", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data.replace("\u00a0", " "))


def text(html: str) -> str:
    return " ".join(" ".join(Text(html).words).split())


@pytest.fixture
def follower(tmp_path: Path) -> RunFollower:
    a_run(tmp_path / "20260101-000000-demo").close()
    made = RunFollower(tmp_path / "20260101-000000-demo")
    made.look()
    return made


def everything(follower: RunFollower) -> dict[str, str]:
    state = follower.state
    made = {name: getattr(run_views, name)(state) for name in ("selection", "links", "refusals", "rewards", "events")}
    made |= {name: getattr(run_views, name)(follower, state) for name in ("figures", "status_sentence")}
    return made | {
        "facts": run_views.facts(follower),
        "map": tier_map.tier_map(state),
        "map_table": tier_map.tier_table(state),
        "rounds": rounds_table(state.lines),
    }


def test_every_part_says_what_the_run_recorded(follower: RunFollower) -> None:
    said = {name: text(html) for name, html in everything(follower).items()}
    assert said["status_sentence"] == "Running: round 3 of 9, accuracy 87.5 %."
    assert "87.5 %" in said["figures"]
    assert "3 of 4" in said["figures"]
    assert "4.50" in said["figures"]
    assert said["map"].index("edge-2") < said["map"].index("edge-10")
    assert "1 of 2 replied" in said["map"]
    assert "2 nodes with 2 links" in said["map"]
    assert "edge-10 1 1 of 2 3" in said["map_table"]
    assert "8 → 7 2 Mbit/s 125 ms 0.500 3" in said["links"]
    assert f"{EVIL} edge-2 norm 3 1 to 3 moved too far" in said["refusals"]
    assert "3 edge-2 3 4.500" in said["rewards"]
    assert "edge-10 5 2 1" in said["selection"]
    assert "1 of 2 terminals chosen, 2 wanted" in said["selection"]
    assert "entered edge-10 7 terminal 7 entered edge-10" in said["events"]
    assert "3 87.5 % 0.125 200 kB 400 kB 3 of 4 2 s" in said["rounds"]
    assert "lr 0.1" in said["facts"]


def test_what_came_from_outside_is_text_everywhere(follower: RunFollower) -> None:
    for html in everything(follower).values():
        assert "script" not in Text(html).tags
    (evil,) = [Entry(EVIL, EVIL, "running", EVIL)]
    assert "script" not in Text(listed([evil], EVIL)).tags


@settings(max_examples=40)
@given(st.text(max_size=30), st.text(max_size=30), st.floats() | st.text(max_size=5) | st.integers(-(2**60), 2**60))
def test_no_row_breaks_a_page(node: str, cell: str, value: Any) -> None:
    state = RunState()
    for kind in ("train", "traffic", "nodes", "central", "event", "link", "links", "else"):
        values = {"what": node, "code": cell, "text": node, "micro": value, "accuracy": value, "loss": value}
        values |= {"nodes_sampled": value, "nodes_replied": value, "up_bits": value, "sender": node, "receiver": cell}
        state.add([Row(kind, 1, values, cell, ""), Row(kind, 1, {**values, "what": "refused"}, cell, node, 1)])
        state.add([Row(kind, 2, {**values, "what": "rewarded"}, "", node), Row(kind, 2, {"table": node})])
    follower = RunFollower("nowhere")
    follower.state = state
    for html in everything(follower).values():
        Text(html)
    for curve in curves_of(state.lines):
        json.dumps(options(curve), allow_nan=False)


def test_a_run_without_a_row_says_so_in_every_part() -> None:
    follower = RunFollower("nowhere")
    follower.look()
    said = {name: text(html) for name, html in everything(follower).items()}
    assert said["status_sentence"].startswith("Missing: round 0. There is no such folder yet")
    assert said["map"] == "Nothing was recorded yet."
    assert said["refusals"] == "No reply was refused."
    assert curves_of(follower.state.lines) == []


def test_a_federation_without_edges_is_a_server_and_its_terminals() -> None:
    state = RunState()
    state.add([Row("nodes", 1, {"nodes_sampled": 3, "nodes_replied": 2})])
    html = tier_map.tier_map(state)
    assert text(html).startswith("server round 1")
    # Beside those of the key.
    assert html.count("fe-was-in") == 2 + 1
    assert html.count("fe-was-out") == 1 + 1


def test_large_federations_are_bounded() -> None:
    state = RunState()
    state.add(Row("train", 1, {"nodes_sampled": 900, "nodes_replied": 900}, f"edge-{n}") for n in range(300))
    state.add([links_row(1, [Link(str(n), str(n + 1), float(n)) for n in range(1500)])])
    html = tier_map.tier_map(state)
    assert "and 240 more edges" in html
    assert "+860" in html
    assert "1501 nodes and 1500 links: too many to draw" in html
    assert text(run_views.links(state)).startswith("1500 links, the 200 slowest of 1500")


def test_links_of_each_cell_are_a_ring_and_lines_of_their_own_also_where_nodes_have_the_same_numbers() -> None:
    state = RunState()
    for cell in ("edge-10", "edge-2", EVIL):
        state.add([links_row(1, [Link("0", "1", 1e6, 0.5), Link("1", "0", 2e6, 0.25)], cell)])
    html = tier_map.tier_map(state)
    assert html.count("<svg") == 3
    assert html.index("edge-2: 2 nodes with 2 links") < html.index("edge-10: 2 nodes with 2 links")
    assert EVIL not in html
    words = text(run_views.links(state))
    assert words.startswith("6 links edge link bandwidth")
    assert "edge-2 0 → 1 1 Mbit/s 500 ms" in words
    state.add([links_row(1, [Link("0", "1")], f"cell-{n}") for n in range(20)])
    assert tier_map.tier_map(state).count("<svg") == tier_map.MOST_RINGS
    assert "11 more edges are not drawn" in tier_map.tier_map(state)


def test_how_many_links_there_are_is_told_also_of_those_that_are_not_told_word_by_word() -> None:
    state = RunState()
    state.add([Row("links", 1, {"links": 700, "table": '[["0","1",1e6,0.5,0.25]]'}, "edge-0")])
    assert text(run_views.links(state)).startswith("700 links, the 1 slowest of 700 edge link")
    state.add([Row("links", 2, {"links": 600, "slowest_s": 0.5}, "edge-0")])  # a round that tells numbers only
    assert state.links_total() == 600
    assert [link.round for link in state.links_now()] == [1]
    state.add([Row("links", 3, {"links": value}, f"cell-{value}") for value in (float("nan"), float("inf"), -1.0)])
    assert state.links_total() == 600


def test_an_edge_that_never_counted_stands_beside_whom_rounds_asked() -> None:
    state = RunState()
    for at in (1, 2):
        state.add([Row("train", at, {"num-examples": 0.0}, EVIL)])
        told = {"what": "cell-skipped", "text": f"cell {EVIL} skipped: all are counted elsewhere"}
        state.add([Row("event", at, told, EVIL)])
    html = run_views.selection(state)
    assert f"{EVIL} counted in 0 of 2 rounds: all are counted elsewhere" in text(html)
    assert EVIL not in html


# --- curves ---


@given(st.lists(st.floats(-1e6, 1e6), max_size=3000), st.integers(4, 500))
def test_a_thinned_curve_keeps_its_ends_its_extremes_and_its_order(values: list[float], most: int) -> None:
    points = [(float(at), value) for at, value in enumerate(values)]
    kept = thin(points, most)
    assert len(kept) <= max(most, 2)
    assert set(kept) <= set(points)
    assert kept == sorted(kept)
    if points:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        assert {min(value for _, value in kept), max(value for _, value in kept)} == {min(values), max(values)}


def test_curves_of_thousands_of_rounds_are_as_long_as_a_screen_is_wide() -> None:
    lines = [RoundLine(at, accuracy=0.5, loss=float("nan"), up_bits=8.0, wall_s=float(at)) for at in range(1, 5001)]
    curves = {curve.name: curve for curve in curves_of(lines)}
    assert list(curves) == ["accuracy", "bytes", "seconds"]
    for curve in curves.values():
        made = options(curve)
        assert all(len(one["data"]) <= MOST_POINTS for one in made["series"])
    assert options(curves["bytes"])["series"][0]["data"][0] == [1.0, 1.0]
    assert curves["accuracy"].says().startswith("accuracy: accuracy from 0.5 in round 1 to 0.5 in 5000; ")
    assert "The latest 200 of 5000 rounds" in rounds_table(lines)


def test_the_list_of_runs_leads_to_each_by_its_folder() -> None:
    html = listed([Entry("2026-a b", "demo", "running", "2026-01-31T23:59:00", 3, 0.5, 1e6, 61.0)], "/runs")
    assert 'href="/run/2026-a%20b"' in html
    assert text(html).endswith("demo running 2026-01-31 23:59 3 50.0 % 1 MB – 1 min 01 s")
    assert "No runs in /runs yet" in listed([], "/runs")
