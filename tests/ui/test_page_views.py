"""What a session tells stands on the page: escaped, with a table for all that is drawn, a dash for what is unknown."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

import pytest

from flower_edge.runtime.compression.told import ConnectionTold, MachineTold, Point, TotalTold
from flower_edge.ui.compression import charts, machine_views, views
from flower_edge.ui.markup import table

NASTY = "<img src=x onerror=alert(1)>"


def connection(**changed: object) -> ConnectionTold:
    points: list[Point] = [
        {"iteration": number, "size_bytes": size, "latency_s": 0.01 * size / 1000, "tried_bytes": tried, "here": here}
        | {"accepted": accepted, "why": why}
        for number, size, tried, here, accepted, why in (
            (0, 1000, 1000, False, True, "uncompressed"),
            (1, 500, 500, True, True, "accuracy of 1"),
            (2, 500, 250, True, False, "below the floor"),
            (3, 500, 500, False, True, "elsewhere"),
        )
    ]  # type: ignore[misc]
    return {
        "name": "camera -> server", "before_bytes": 1000, "now_bytes": 500, "saved_bytes": 500, "saved_share": 0.5,
        "before_s": 0.01, "now_s": 0.005, "saved_s": 0.005, "saved_time_share": 0.5, "sent_bytes": None,
        "measured_s": None, "goodput_bps": 1e6, "delay_s": 0.002, "measured": False, "overridden": False,
        "closed": {}, "points": points,
    } | changed  # type: ignore[return-value]  # fmt: skip


def machine(**changed: object) -> MachineTold:
    return {
        "name": "camera", "address": None, "reachable": None, "error": None, "depth": 1, "layers": ["a", "b"],
        "optimised": ["b"], "parameters_before": 10, "parameters": 8, "compute_s": None, "version": None,
        "served": None,
    } | changed  # type: ignore[return-value]  # fmt: skip


def total(**changed: object) -> TotalTold:
    return {
        "metric": "accuracy", "larger_is_better": True, "score_before": 0.95, "score": 0.94, "floor": 0.93,
        "test_before": None, "test_score": None, "before_bytes": 1000, "now_bytes": 500, "saved_share": 0.5,
        "before_s": 0.01, "now_s": 0.005, "saved_time_share": 0.5, "answer_before_s": None, "answer_s": None,
        "most_bytes": 100.0, "most_s": None, "attainable_bytes_share": 0.99, "attainable_s": 0.002,
        "attainable_time_share": 0.8, "goals_met": False,
    } | changed  # type: ignore[return-value]  # fmt: skip


class Names(HTMLParser):
    """Elements that a text opens and closes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.opened.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def text_of(html: str) -> str:
    return re.sub(r"<[^>]*>", " ", html).replace("\u00a0", " ")


@pytest.mark.parametrize(
    "html",
    [
        views.connections([connection(name=NASTY)]),
        views.links([connection(name=NASTY, closed={"pruning": NASTY})]),
        views.points(connection(name=NASTY)),
        views.events([{"time_s": 0.0, "text": NASTY}]),
        machine_views.cards([machine(name=NASTY, address=NASTY, error=NASTY, reachable=False)], []),
        machine_views.layers([machine(name=NASTY, layers=[NASTY], optimised=[NASTY])]),
        machine_views.bandwidth([machine(name=NASTY), machine()], [connection(name=NASTY)]),
        machine_views.bandwidth_table([machine(name=NASTY), machine()], [connection(name=NASTY)]),
        views.total(total(metric=NASTY)),
        views.total_table(total(metric=NASTY)),
    ],
)
def test_names_and_reasons_are_text_and_never_html(html: str) -> None:
    names = Names(html)
    assert "img" not in names.opened
    assert names.open == []
    assert "&lt;img" in html


def test_a_table_has_a_caption_and_scopes() -> None:
    html = table("Sizes", ["what", "bytes"], [["a", "1"], ["b", "2"]])
    assert "<caption>Sizes</caption>" in html
    assert html.count('scope="col"') == 2
    assert html.count('scope="row"') == 2


def test_a_row_that_does_not_fit_its_heads_is_our_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        table("Sizes", ["what", "bytes"], [["a", "1", "2"]])


def test_the_charts_of_a_connection_have_a_table_with_every_point() -> None:
    shown = text_of(views.points(connection()))
    for words in ("uncompressed", "accepted", "rolled back", "250 B", "below the floor"):
        assert words in shown


def test_circles_are_what_was_accepted_here_and_crosses_what_was_rolled_back() -> None:
    series = {one["name"]: one["data"] for one in charts.bytes_chart(connection())["series"]}
    assert series["original"] == [[0, 1000.0], [1, 1000.0], [2, 1000.0], [3, 1000.0]]
    assert series["optimised"] == [[0, 1000.0], [1, 500.0], [2, 500.0], [3, 500.0]]
    assert series["accepted"] == [[1, 500.0]]
    assert series["rolled back"] == [[2, 250.0]]


def test_latency_is_drawn_in_milliseconds() -> None:
    series = {one["name"]: one["data"] for one in charts.latency_chart(connection())["series"]}
    assert series["original"][0] == [0, pytest.approx(10.0)]
    assert series["rolled back"] == [[2, pytest.approx(5.0)]]


def test_a_chart_says_in_words_what_it_shows() -> None:
    assert charts.described(connection()).startswith("camera -> server: from 1000 to 500 bytes in 3 iterations, 1 of")


def test_measured_numbers_stand_beside_modelled_ones_and_a_dash_where_there_are_none() -> None:
    assert "–" in text_of(views.connections([connection()]))
    shown = text_of(views.connections([connection(sent_bytes=512.0, measured_s=0.0061)]))
    assert "512 B" in shown
    assert "6.1 ms" in shown


def test_where_goals_are_out_of_reach_it_says_what_can_be_done() -> None:
    def said(phase: str, met: bool) -> str:
        told = {"iterations": [], "phase": phase, "total": total(goals_met=met), "error": None}
        return text_of(views.status(told))  # type: ignore[arg-type]  # all that it reads

    assert "allow the metric more" in said("floor reached", False)
    assert "allow the metric more" not in said("floor reached", True)
    assert "allow the metric more" not in said("stopped", False)


def test_floor_goals_and_what_is_reachable_stand_beside_the_score() -> None:
    shown = text_of(views.total(total()))
    for words in ("94.00 %", "floor 93.00 %", "floor kept", "goal: at most 100 B", "not yet", "−99.0 %", "no goal"):
        assert words in shown
    assert "below the floor" in text_of(views.total(total(score=0.9)))
    assert "below the floor" in text_of(views.total(total(metric="loss", larger_is_better=False, score=2.0, floor=1.0)))


def test_lost_requests_are_not_to_be_overlooked() -> None:
    seen = {"served": 10, "lost": 2, "refused": 0, "under_way": 0, "swaps": 1, "by_version": {"0": 10}}
    assert "2 lost" in text_of(views.requests(seen))  # type: ignore[arg-type]
    assert "none lost" in text_of(views.requests({**seen, "lost": 0}))  # type: ignore[typeddict-item]


def test_frozen_layers_that_changed_are_not_to_be_overlooked() -> None:
    proof = {"digest": "ca98832b5b5d4994" * 4, "equal": True, "checked": 7, "arrays": 3}
    shown = text_of(views.frozen(proof))  # type: ignore[arg-type]
    assert "equal" in shown
    assert "ca98832b5b5d" in shown
    assert "7 times" in shown
    assert "CHANGED" in text_of(views.frozen({**proof, "equal": False}))  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("changed", "word"),
    [({"overridden": True}, "set by hand"), ({"measured": True}, "measured"), ({}, "as it was given")],
)
def test_a_link_says_where_its_numbers_are_from(changed: dict[str, object], word: str) -> None:
    assert word in text_of(views.links([connection(**changed)]))
    assert "unlimited" in text_of(views.links([connection(goodput_bps=math.inf)]))


def test_a_machine_in_the_middle_has_the_traffic_of_both_sides() -> None:
    middle = [machine(name="a"), machine(name="b"), machine(name="c")]
    shown = text_of(machine_views.bandwidth(middle, [connection(), connection()]))
    assert shown.count("b receives") == 1
    assert shown.count("b sends") == 1
    assert "c sends" not in shown
